/* Addresses to be given out: the benchmark's own malloc, without anything behind it (section 5.1 of
 * 000_1be4d2f6ae8bebbc.txt: "simply manages a 2GB virtual memory range"). */
#ifndef PMA_RANGE_H
#define PMA_RANGE_H

#include <l4/types.h>

/** Addresses of `pages` pages in a row that are in nobody's hands, or 0. */
l4_word_t range_allocate(unsigned pages);

void range_free(l4_word_t address, unsigned pages);

#endif
