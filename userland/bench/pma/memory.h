/* Where the benchmark has its memory from; there are two of them.
 *
 *     paged.c    from a pager: a fault brings a page, a message takes it back
 *     mapped.c   in dataspaces, as L4Re does it: a region map in the process itself serves its faults */
#ifndef PMA_MEMORY_H
#define PMA_MEMORY_H

#include <l4/types.h>

/** How many pages one allocation has unless the command line says otherwise; 0: all of a task's. */
extern const unsigned memory_usual_chunk;

/** How many allocations there can be at a time. */
extern const unsigned memory_most_chunks;

void memory_init(void);

/** `pages` pages that come when they are touched; returns their address, or 0. */
l4_word_t memory_allocate(unsigned pages);

/** Gives what memory_allocate gave back, frames and all. Returns 0 or a negative error. */
int memory_free(l4_word_t address, unsigned pages);

#endif
