/* A physical memory allocator (PMA): gives out runs of page frames, takes them back, and counts both.
 *
 * Three kinds behind one interface:
 *
 *     avl    all chunks, free ones and those in use, in one AVL tree by address (pma_avl.c)
 *     buddy  free blocks of 2^n pages in a list for each n; two free halves become one (pma_buddy.c)
 *     slab   pieces of 64 pages, each cut into objects of one size (pma_slab.c)
 *
 * It works on page numbers and never touches the pages. What it knows is in records, in memory of the caller's. All
 * of it compiles for a host too, where tests hold it against a model (tests/userland/test_pma.py). */
#ifndef PAGER_PMA_H
#define PAGER_PMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The number of a page frame: its address / 4096. */
typedef uint32_t pma_page_t;

/** No page. Page 0 belongs to no allocator. */
enum { PMA_NONE = 0 };

typedef struct pma pma_t;

/** What a kind of allocator does. Callers use the functions below, which do what is common to all kinds. */
typedef struct {
	const char *name;
	/** Memory for the records of a window, in bytes; aligned like a uint64_t. */
	size_t (*record_bytes)(pma_page_t first, pma_page_t end);
	void (*init)(pma_t *pma);
	/** Takes pages in; returns how many of them it can use. */
	uint32_t (*add)(pma_t *pma, pma_page_t first, uint32_t pages);
	/** Returns the first page of a run, or PMA_NONE; *pages becomes what was really taken. */
	pma_page_t (*allocate)(pma_t *pma, uint32_t *pages);
	/** Returns the length of the run in use that begins with page `first`, now free; 0 if there is none. */
	uint32_t (*release)(pma_t *pma, pma_page_t first);
	/** The longest run that could be had now: for tests, as is the next one. */
	uint32_t (*largest_free)(const pma_t *pma);
	/** What is wrong with the records, null if nothing is. `free_pages` gets how many are free by them. Takes time. */
	const char *(*problem)(const pma_t *pma, uint32_t *free_pages);
} pma_kind_t;

struct pma {
	const pma_kind_t *kind;
	void *records;
	pma_page_t first, end; /* the window: pages that it can be given */
	uint32_t pages;        /* that it has been given and can use */
	uint32_t used_pages;
	uint64_t allocated_pages, released_pages; /* since the start */
};

extern const pma_kind_t pma_avl, pma_buddy, pma_slab;

/** The kind of that name, or null. */
const pma_kind_t *pma_kind(const char *name);

/** Starts without any pages; they will be given with pma_add, within the window `first` .. `end` - 1. `records` are
 * kind->record_bytes(first, end) bytes. */
void pma_init(pma_t *pma, const pma_kind_t *kind, pma_page_t first, pma_page_t end, void *records);

/** Gives it pages of its window that it did not have. Returns how many of them it can use; the rest is lost. */
uint32_t pma_add(pma_t *pma, pma_page_t first, uint32_t pages);

/** The first of a run of at least `pages` pages, or PMA_NONE if there is no such run. */
pma_page_t pma_allocate(pma_t *pma, uint32_t pages);

/** Takes back a run; returns how many pages it had. Returns 0, and does nothing, if no run in use begins there. */
uint32_t pma_free(pma_t *pma, pma_page_t first);

static inline uint32_t pma_free_pages(const pma_t *pma)
{
	return pma->pages - pma->used_pages;
}

/** The longest run that could be had now: for tests. */
uint32_t pma_largest_free(const pma_t *pma);

/** What is wrong inside, or null: for tests. */
const char *pma_problem(const pma_t *pma);

#endif
