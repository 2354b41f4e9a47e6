#include "memory.h"

#include <l4/pager.h>
#include <l4/program.h>
#include <l4/sigma0.h>

enum { MAX_SUPERPAGES = L4_PAGER_MEMORY_END >> L4_SUPERPAGE_SHIFT, LARGEST_ORDER = 30 };

static l4_word_t superpages[MAX_SUPERPAGES]; /* addresses, ascending */
static unsigned count;

static void insert(l4_word_t address)
{
	unsigned index = count;

	for (; index > 0 && superpages[index - 1] > address; index--)
		superpages[index] = superpages[index - 1];
	superpages[index] = address;
	count++;
}

unsigned memory_take_all(void)
{
	l4_word_t address;

	for (unsigned order = LARGEST_ORDER; order >= L4_SUPERPAGE_SHIFT; order--)
		while (l4_sigma0_any(l4_parent(), order, &address) == 0)
			for (l4_word_t at = address; at - address < 1u << order; at += 1u << L4_SUPERPAGE_SHIFT)
				if (at < L4_PAGER_MEMORY_END)
					insert(at);
	return count;
}

memory_share_t memory_share(unsigned parts, unsigned part)
{
	return (memory_share_t){ part * (count / parts), count / parts };
}

/** log2 of the largest aligned piece that begins at `address`, and has at most `bytes`. */
static unsigned piece_order(l4_word_t address, l4_word_t bytes)
{
	unsigned order = L4_PAGE_SHIFT;

	while (order < LARGEST_ORDER && (address & ((2u << order) - 1)) == 0 && 2u << order <= bytes)
		order++;
	return order;
}

static int give_range(l4_word_t start, l4_word_t bytes, int (*give)(void *context, l4_fpage_t piece), void *context)
{
	while (bytes > 0) {
		unsigned order = piece_order(start, bytes);
		int error = give(context, l4_memory_fpage(start, order, L4_MEMORY_RIGHTS));
		if (error != 0)
			return error;
		start += 1u << order;
		bytes -= 1u << order;
	}
	return 0;
}

int memory_give(memory_share_t share, l4_word_t pages, int (*give)(void *context, l4_fpage_t piece), void *context)
{
	unsigned end = share.first + share.count;

	for (unsigned i = share.first; i < end && pages > 0;) {
		unsigned run = 1;
		while (i + run < end && superpages[i + run] == superpages[i] + (run << L4_SUPERPAGE_SHIFT))
			run++;
		l4_word_t here = run * MEMORY_SUPERPAGE_PAGES < pages ? run * MEMORY_SUPERPAGE_PAGES : pages;
		int error = give_range(superpages[i], here << L4_PAGE_SHIFT, give, context);
		if (error != 0)
			return error;
		pages -= here;
		i += run;
	}
	return 0;
}
