/* What is common to all kinds of allocators: the choice of one, the window, the counts. */
#include "pma.h"

static const pma_kind_t *const kinds[] = { &pma_avl, &pma_buddy, &pma_slab };

static bool same(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b)
		a++, b++;
	return *a == *b;
}

const pma_kind_t *pma_kind(const char *name)
{
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (same(kinds[i]->name, name))
			return kinds[i];
	return NULL;
}

void pma_init(pma_t *pma, const pma_kind_t *kind, pma_page_t first, pma_page_t end, void *records)
{
	*pma = (pma_t){ .kind = kind, .records = records, .first = first, .end = end };
	kind->init(pma);
}

uint32_t pma_add(pma_t *pma, pma_page_t first, uint32_t pages)
{
	if (first < pma->first || first >= pma->end || pages > pma->end - first)
		return 0;
	uint32_t usable = pma->kind->add(pma, first, pages);
	pma->pages += usable;
	return usable;
}

pma_page_t pma_allocate(pma_t *pma, uint32_t pages)
{
	if (pages == 0 || pages > pma_free_pages(pma))
		return PMA_NONE;
	pma_page_t first = pma->kind->allocate(pma, &pages);
	if (first != PMA_NONE) {
		pma->used_pages += pages;
		pma->allocated_pages += pages;
	}
	return first;
}

uint32_t pma_free(pma_t *pma, pma_page_t first)
{
	if (first < pma->first || first >= pma->end)
		return 0;
	uint32_t pages = pma->kind->release(pma, first);
	pma->used_pages -= pages;
	pma->released_pages += pages;
	return pages;
}

uint32_t pma_largest_free(const pma_t *pma)
{
	return pma->kind->largest_free(pma);
}

const char *pma_problem(const pma_t *pma)
{
	uint32_t free_pages = 0;
	const char *problem = pma->kind->problem(pma, &free_pages);

	if (problem == NULL && free_pages != pma_free_pages(pma))
		return "the records and the counts disagree on how many pages are free";
	return problem;
}
