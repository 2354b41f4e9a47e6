/* Slabs: pieces of 64 aligned pages, each cut into objects of one size, 1, 2, 4, ... or 64 pages.
 *
 * A slab has a mask with a bit for each of its objects that is free. Slabs that have some are in the list of their size,
 * slabs without any object in use in one list for all sizes. Everything is O(1), whatever is in use; runs longer than a
 * slab cannot be had. A run of other lengths than 2^n is rounded up. */
#include "pma.h"

enum { SLAB_ORDER = 6, SLAB_PAGES = 1 << SLAB_ORDER, SIZES = SLAB_ORDER + 1, NO_SIZE = 0xff };

typedef struct slab {
	struct slab *next, **link; /* in the list that it is in, if any; `link` is the pointer that points here */
	uint64_t free;             /* bit i: object i is free */
	uint8_t order;             /* of its objects; NO_SIZE: all of it is free. Meaningless if `present` is not set */
	bool present;              /* it was given */
} slab_t;

typedef struct {
	slab_t *empty;          /* all of them free */
	slab_t *partial[SIZES]; /* some object in use, some free */
	slab_t slabs[];         /* by number: page / 64, from that of the window's first page */
} slabs_t;

static unsigned objects(unsigned order)
{
	return SLAB_PAGES >> order;
}

static uint64_t all_free(unsigned order)
{
	return ~(uint64_t)0 >> (64 - objects(order));
}

static void put_in_list(slab_t **list, slab_t *slab)
{
	slab->next = *list;
	slab->link = list;
	if (*list != NULL)
		(*list)->link = &slab->next;
	*list = slab;
}

static void take_out_of_list(slab_t *slab)
{
	*slab->link = slab->next;
	if (slab->next != NULL)
		slab->next->link = slab->link;
}

static slab_t *slab_of(const pma_t *pma, pma_page_t page)
{
	slabs_t *slabs = pma->records;

	return &slabs->slabs[page / SLAB_PAGES - pma->first / SLAB_PAGES];
}

static pma_page_t first_page(const pma_t *pma, const slab_t *slab)
{
	const slabs_t *slabs = pma->records;

	return (pma_page_t)(pma->first / SLAB_PAGES + (pma_page_t)(slab - slabs->slabs)) * SLAB_PAGES;
}

static size_t slab_record_bytes(pma_page_t first, pma_page_t end)
{
	return sizeof(slabs_t) + ((end + SLAB_PAGES - 1) / SLAB_PAGES - first / SLAB_PAGES) * sizeof(slab_t);
}

static void slab_init(pma_t *pma)
{
	slabs_t *slabs = pma->records;
	size_t count = (slab_record_bytes(pma->first, pma->end) - sizeof *slabs) / sizeof(slab_t);

	slabs->empty = NULL;
	for (unsigned order = 0; order < SIZES; order++)
		slabs->partial[order] = NULL;
	for (size_t i = 0; i < count; i++)
		slabs->slabs[i].present = false;
}

/** Only whole slabs are of use. The lowest one will be the first to be taken. */
static uint32_t slab_add(pma_t *pma, pma_page_t first, uint32_t pages)
{
	slabs_t *slabs = pma->records;
	pma_page_t start = (first + SLAB_PAGES - 1) / SLAB_PAGES * SLAB_PAGES;
	pma_page_t end = (first + pages) / SLAB_PAGES * SLAB_PAGES;

	if (end <= start)
		return 0;
	for (pma_page_t page = end; page > start; page -= SLAB_PAGES) {
		slab_t *slab = slab_of(pma, page - SLAB_PAGES);
		slab->present = true;
		slab->order = NO_SIZE;
		put_in_list(&slabs->empty, slab);
	}
	return end - start;
}

static pma_page_t slab_allocate(pma_t *pma, uint32_t *pages)
{
	slabs_t *slabs = pma->records;
	unsigned order = 0;

	while (order < SIZES && (uint32_t)1 << order < *pages)
		order++;
	if (order == SIZES)
		return PMA_NONE;
	slab_t *slab = slabs->partial[order];
	if (slab == NULL) {
		slab = slabs->empty;
		if (slab == NULL)
			return PMA_NONE;
		take_out_of_list(slab);
		slab->order = (uint8_t)order;
		slab->free = all_free(order);
		put_in_list(&slabs->partial[order], slab);
	}
	uint32_t low = (uint32_t)slab->free; /* in halves: 64-bit bit operations are library calls on i386 */
	unsigned object =
		low != 0 ? (unsigned)__builtin_ctz(low) : 32 + (unsigned)__builtin_ctz((uint32_t)(slab->free >> 32));
	slab->free &= ~((uint64_t)1 << object);
	if (slab->free == 0)
		take_out_of_list(slab);
	*pages = (uint32_t)1 << order;
	return first_page(pma, slab) + (object << order);
}

static uint32_t slab_release(pma_t *pma, pma_page_t first)
{
	slabs_t *slabs = pma->records;
	slab_t *slab = slab_of(pma, first);

	if (!slab->present || slab->order == NO_SIZE)
		return 0;
	unsigned order = slab->order, offset = first % SLAB_PAGES;
	uint64_t object = (uint64_t)1 << (offset >> order);
	if ((offset & ((1u << order) - 1)) != 0 || slab->free & object)
		return 0;
	if (slab->free == 0)
		put_in_list(&slabs->partial[order], slab);
	slab->free |= object;
	if (slab->free == all_free(order)) {
		take_out_of_list(slab);
		slab->order = NO_SIZE;
		put_in_list(&slabs->empty, slab);
	}
	return (uint32_t)1 << order;
}

static uint32_t slab_largest_free(const pma_t *pma)
{
	const slabs_t *slabs = pma->records;

	if (slabs->empty != NULL)
		return SLAB_PAGES;
	for (unsigned order = SIZES; order-- > 0;)
		if (slabs->partial[order] != NULL)
			return (uint32_t)1 << order;
	return 0;
}

static const char *list_problem(slab_t *const *link, unsigned order, uint32_t *listed)
{
	for (const slab_t *slab = *link; slab != NULL; link = &slab->next, slab = *link) {
		if (!slab->present || slab->order != order || slab->link != link)
			return "a listed slab that is in the wrong list";
		if (order != NO_SIZE && (slab->free == 0 || slab->free == all_free(order)))
			return "a slab among the partial ones that is not";
		++*listed;
	}
	return NULL;
}

static const char *slab_problem(const pma_t *pma, uint32_t *free_pages)
{
	const slabs_t *slabs = pma->records;
	size_t count = (slab_record_bytes(pma->first, pma->end) - sizeof *slabs) / sizeof(slab_t);
	uint32_t listed = 0, with_free = 0;
	const char *problem = list_problem(&slabs->empty, NO_SIZE, &listed);

	for (unsigned order = 0; order < SIZES && problem == NULL; order++)
		problem = list_problem(&slabs->partial[order], order, &listed);
	if (problem != NULL)
		return problem;
	*free_pages = 0;
	for (const slab_t *slab = slabs->slabs; slab < slabs->slabs + count; slab++) {
		if (!slab->present)
			continue;
		uint32_t pages = SLAB_PAGES;
		if (slab->order != NO_SIZE)
			pages = ((uint32_t)__builtin_popcount((uint32_t)slab->free) +
				 (uint32_t)__builtin_popcount((uint32_t)(slab->free >> 32)))
				<< slab->order;
		*free_pages += pages;
		with_free += pages != 0;
	}
	return listed == with_free ? NULL : "a slab with free objects that is in no list";
}

const pma_kind_t pma_slab = {
	.name = "slab",
	.record_bytes = slab_record_bytes,
	.init = slab_init,
	.add = slab_add,
	.allocate = slab_allocate,
	.release = slab_release,
	.largest_free = slab_largest_free,
	.problem = slab_problem,
};
