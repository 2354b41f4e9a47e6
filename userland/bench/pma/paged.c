#include "memory.h"
#include "range.h"

#include <l4/pager.h>

const unsigned memory_usual_chunk = 1;
const unsigned memory_most_chunks = (L4_PAGER_HEAP_END - L4_PAGER_HEAP_START) / L4_PAGE_BYTES;

void memory_init(void)
{
}

l4_word_t memory_allocate(unsigned pages)
{
	return range_allocate(pages);
}

int memory_free(l4_word_t address, unsigned pages)
{
	int result = 0;

	for (unsigned i = 0; i < pages && result >= 0; i++)
		result = l4_pager_free(l4_cap(L4_PAGER_SLOT), address + i * L4_PAGE_BYTES);
	range_free(address, pages);
	return result;
}
