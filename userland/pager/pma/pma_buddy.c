/* Buddies: free blocks of 2^n pages, aligned to their size, in a list for each n.
 *
 * An allocation takes the smallest block that is large enough and halves it until it fits. A block that is freed
 * joins its buddy, the other half of the block they were cut from, if that is free and whole, and so on up. Both are
 * O(log of the window); a run of other lengths than 2^n is rounded up. */
#include "pma.h"

enum { ORDERS = 21 }; /* 2^20 pages are all there are */

/** How a page stands to blocks: none begins there (or it was never given), or one that is free, or in use. */
enum { NO_BLOCK, FREE_BLOCK, USED_BLOCK };

/** The record of a page; it matters if a block begins there. */
typedef struct block {
	struct block *next, **link; /* in the list of free blocks; `link` is the pointer that points here */
	uint8_t order, state;
} block_t;

typedef struct {
	block_t *free[ORDERS];
	block_t blocks[]; /* by page */
} buddy_t;

static void put_free(buddy_t *buddy, block_t *block, unsigned order)
{
	block_t **list = &buddy->free[order];

	*block = (block_t){ .next = *list, .link = list, .order = (uint8_t)order, .state = FREE_BLOCK };
	if (*list != NULL)
		(*list)->link = &block->next;
	*list = block;
}

static void take_free(block_t *block)
{
	*block->link = block->next;
	if (block->next != NULL)
		block->next->link = block->link;
	block->state = NO_BLOCK;
}

/** The buddy of the block of that order, if the window has it and it is free as a whole; else null. */
static block_t *free_buddy(const pma_t *pma, pma_page_t page, unsigned order)
{
	buddy_t *buddy = pma->records;
	pma_page_t other = page ^ (pma_page_t)1 << order;

	if (other < pma->first || other >= pma->end)
		return NULL;
	block_t *block = &buddy->blocks[other - pma->first];
	return block->state == FREE_BLOCK && block->order == order ? block : NULL;
}

static void join_and_put_free(pma_t *pma, pma_page_t page, unsigned order)
{
	buddy_t *buddy = pma->records;
	block_t *other;

	while (order < ORDERS - 1 && (other = free_buddy(pma, page, order)) != NULL) {
		take_free(other);
		page &= ~((pma_page_t)1 << order);
		order++;
	}
	put_free(buddy, &buddy->blocks[page - pma->first], order);
}

static size_t buddy_record_bytes(pma_page_t first, pma_page_t end)
{
	return sizeof(buddy_t) + (end - first) * sizeof(block_t);
}

static void buddy_init(pma_t *pma)
{
	buddy_t *buddy = pma->records;

	for (unsigned order = 0; order < ORDERS; order++)
		buddy->free[order] = NULL;
	for (pma_page_t page = pma->first; page < pma->end; page++)
		buddy->blocks[page - pma->first].state = NO_BLOCK;
}

/** In the largest aligned blocks that fit. */
static uint32_t buddy_add(pma_t *pma, pma_page_t first, uint32_t pages)
{
	for (pma_page_t page = first, end = first + pages; page < end;) {
		unsigned order = 0;
		while (order < ORDERS - 1 && (page & ((pma_page_t)2 << order) - 1) == 0 && (uint32_t)2 << order <= end - page)
			order++;
		join_and_put_free(pma, page, order);
		page += (pma_page_t)1 << order;
	}
	return pages;
}

static pma_page_t buddy_allocate(pma_t *pma, uint32_t *pages)
{
	buddy_t *buddy = pma->records;
	unsigned wanted = 0, order;

	while (wanted < ORDERS - 1 && (uint32_t)1 << wanted < *pages)
		wanted++;
	for (order = wanted; order < ORDERS && buddy->free[order] == NULL; order++)
		;
	if (order == ORDERS)
		return PMA_NONE;
	block_t *block = buddy->free[order];
	take_free(block);
	while (order > wanted) {
		order--;
		put_free(buddy, block + ((size_t)1 << order), order);
	}
	block->order = (uint8_t)wanted;
	block->state = USED_BLOCK;
	*pages = (uint32_t)1 << wanted;
	return pma->first + (pma_page_t)(block - buddy->blocks);
}

static uint32_t buddy_release(pma_t *pma, pma_page_t first)
{
	buddy_t *buddy = pma->records;
	block_t *block = &buddy->blocks[first - pma->first];

	if (block->state != USED_BLOCK)
		return 0;
	unsigned order = block->order;
	block->state = NO_BLOCK;
	join_and_put_free(pma, first, order);
	return (uint32_t)1 << order;
}

static uint32_t buddy_largest_free(const pma_t *pma)
{
	const buddy_t *buddy = pma->records;

	for (unsigned order = ORDERS; order-- > 0;)
		if (buddy->free[order] != NULL)
			return (uint32_t)1 << order;
	return 0;
}

static const char *buddy_problem(const pma_t *pma, uint32_t *free_pages)
{
	const buddy_t *buddy = pma->records;
	uint32_t listed = 0;

	for (unsigned order = 0; order < ORDERS; order++) {
		block_t *const *link = &buddy->free[order];
		for (const block_t *block = *link; block != NULL; link = &block->next, block = *link) {
			pma_page_t page = pma->first + (pma_page_t)(block - buddy->blocks);
			if (block->state != FREE_BLOCK || block->order != order || block->link != link)
				return "a listed block that is not free or in the wrong list";
			if ((page & (((pma_page_t)1 << order) - 1)) != 0)
				return "a block that is not aligned";
			if (order < ORDERS - 1 && free_buddy(pma, page, order) != NULL)
				return "two free buddies";
			listed += (uint32_t)1 << order;
		}
	}
	*free_pages = 0;
	for (pma_page_t page = pma->first, next = page; page < pma->end; page++) {
		const block_t *block = &buddy->blocks[page - pma->first];
		if (block->state == NO_BLOCK)
			continue;
		if (page < next)
			return "blocks that overlap";
		next = page + ((pma_page_t)1 << block->order);
		*free_pages += block->state == FREE_BLOCK ? (uint32_t)1 << block->order : 0;
	}
	return listed == *free_pages ? NULL : "a free block that is in no list";
}

const pma_kind_t pma_buddy = {
	.name = "buddy",
	.record_bytes = buddy_record_bytes,
	.init = buddy_init,
	.add = buddy_add,
	.allocate = buddy_allocate,
	.release = buddy_release,
	.largest_free = buddy_largest_free,
	.problem = buddy_problem,
};
