/* Who has which page: for each client of the pager, the frame behind each page of its heap. */
#ifndef PAGER_CLIENT_H
#define PAGER_CLIENT_H

#include "pma.h"

#include <l4/pager.h>

enum {
	CLIENT_TABLE_PAGES = L4_PAGE_BYTES / sizeof(pma_page_t), /* covered by one table: 4 MiB */
	CLIENT_TABLES = (L4_PAGER_HEAP_END - L4_PAGER_HEAP_START) / L4_PAGE_BYTES / CLIENT_TABLE_PAGES,
};

/** In the place of a frame: the kernel could not map the one that was there, and the client does not know yet. */
enum { CLIENT_REFUSED = PMA_NONE + 1 };

/** Tables are pages of the allocator's own, there from the first fault in their 4 MiB until the client ends. */
typedef struct {
	pma_page_t *tables[CLIENT_TABLES]; /* of frames, PMA_NONE or CLIENT_REFUSED without; null where there is no table */
	unsigned pages, table_count;       /* that it has */
} client_t;

static inline bool client_has(pma_page_t entry)
{
	return entry > CLIENT_REFUSED;
}

/** Where the frame behind `address`, which lies in the heap, is noted; null if that needs a table and there is no
 * memory for it. */
pma_page_t *client_entry(client_t *client, pma_t *pma, l4_word_t address);

/** The same if there is a table, else null. */
pma_page_t *client_find(const client_t *client, l4_word_t address);

/** Frees the tables; all pages must be free. */
void client_end(client_t *client, pma_t *pma);

#endif
