/* All memory of the machine in the hands of the loader, and how it is divided. */
#ifndef LOADER_MEMORY_H
#define LOADER_MEMORY_H

#include <l4/types.h>

enum { MEMORY_SUPERPAGE_PAGES = 1 << (L4_SUPERPAGE_SHIFT - L4_PAGE_SHIFT) };

/** Takes from sigma0 every superpage it still has. Returns how many the loader has then that servers can be given. */
unsigned memory_take_all(void);

/** A part of all superpages, which are ordered by address: the index of the first, and how many. */
typedef struct {
	unsigned first, count;
} memory_share_t;

/** Share number `part` of `parts`: all have the same size, and lie in this order. */
memory_share_t memory_share(unsigned parts, unsigned part);

/** Cuts `pages` pages from the start of a share into naturally aligned pieces, the largest possible; calls `give` with
 * each until it returns an error. Returns that error, or 0. */
int memory_give(memory_share_t share, l4_word_t pages, int (*give)(void *context, l4_fpage_t piece), void *context);

#endif
