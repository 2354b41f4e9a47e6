/* A bit for each page of the range, and a search that begins where the last one ended. */
#include "range.h"

#include <l4/pager.h>

enum {
	PAGES = (L4_PAGER_HEAP_END - L4_PAGER_HEAP_START) / L4_PAGE_BYTES,
	WORD_BITS = 8 * sizeof(l4_word_t),
};

static l4_word_t taken[PAGES / WORD_BITS];
static unsigned next;

static bool is_taken(unsigned page)
{
	return taken[page / WORD_BITS] >> page % WORD_BITS & 1;
}

static void flip(unsigned page)
{
	taken[page / WORD_BITS] ^= (l4_word_t)1 << page % WORD_BITS;
}

l4_word_t range_allocate(unsigned pages)
{
	unsigned run = 0;

	/* Twice around: a run may lie across the place where the search began. */
	for (unsigned looked_at = 0; looked_at < 2 * PAGES; looked_at++) {
		if (next == PAGES) {
			next = 0;
			run = 0;
		}
		run = is_taken(next++) ? 0 : run + 1;
		if (run == pages) {
			for (unsigned page = next - pages; page < next; page++)
				flip(page);
			return L4_PAGER_HEAP_START + (next - pages) * L4_PAGE_BYTES;
		}
	}
	return 0;
}

void range_free(l4_word_t address, unsigned pages)
{
	unsigned first = (address - L4_PAGER_HEAP_START) / L4_PAGE_BYTES;

	for (unsigned page = first; page < first + pages; page++)
		flip(page);
}
