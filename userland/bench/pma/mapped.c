/* Memory in dataspaces, as L4Re's run-time has it. A region map, a thread of the process's own, knows which dataspace lies
 * where. It is the pager of the main thread: it asks the server for the page of the dataspace that a fault is in. What
 * the main thread frees is detached by the region map and released at the server. */
#include "memory.h"
#include "range.h"

#include <l4/dataspace.h>
#include <l4/factory.h>
#include <l4/pager.h>
#include <l4/panic.h>
#include <l4/program.h>
#include <l4/string.h>
#include <l4/task.h>
#include <l4/thread.h>

enum {
	MAX_REGIONS = 4096,
	PROTO_REGION_MAP = 0x4202,
	ATTACH = 0, /* MR[1]: address, MR[2]: pages, MR[3]: capability of the dataspace */
	DETACH = 1, /* MR[1]: address; MR[0] of the answer: capability of the dataspace */
	REGION_MAP_PRIORITY = 4,
};

typedef struct {
	l4_word_t start, pages;
	l4_cap_t dataspace;
} region_t;

const unsigned memory_usual_chunk = 0;
const unsigned memory_most_chunks = MAX_REGIONS;

static region_t regions[MAX_REGIONS]; /* by address; the region map's own */
static unsigned region_count;
static l4_cap_t free_slots[MAX_REGIONS]; /* the main thread's own */
static unsigned free_slot_count;
static l4_cap_t region_map;

/* --- the region map ----------------------------------------------------------------------------------- */

/** Index of the last region that begins at or below `address`, or -1. */
static int last_below(l4_word_t address)
{
	int low = -1, high = (int)region_count;

	while (high - low > 1) {
		int middle = (low + high) / 2;
		if (regions[middle].start <= address)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static region_t *region_of(l4_word_t address)
{
	int index = last_below(address);

	if (index < 0 || address - regions[index].start >= regions[index].pages * L4_PAGE_BYTES)
		return NULL;
	return &regions[index];
}

static int attach(region_t region)
{
	if (region_count == MAX_REGIONS)
		return -L4_ENOMEM;
	int index = last_below(region.start) + 1;
	memmove(&regions[index + 1], &regions[index], (region_count - (unsigned)index) * sizeof region);
	regions[index] = region;
	region_count++;
	return 0;
}

/** Unmaps a range of the own task in the largest aligned pieces. */
static void unmap_range(l4_word_t start, l4_word_t bytes)
{
	while (bytes > 0) {
		unsigned order = L4_PAGE_SHIFT;
		while ((start & ((2u << order) - 1)) == 0 && 2u << order <= bytes)
			order++;
		l4_task_unmap(l4_own_task(), l4_memory_fpage(start, order, L4_MEMORY_RIGHTS), L4_UNMAP_SELF);
		start += 1u << order;
		bytes -= 1u << order;
	}
}

static int detach(l4_word_t start, l4_cap_t *dataspace)
{
	region_t *region = region_of(start);

	if (region == NULL || region->start != start)
		return -L4_ENOENT;
	unmap_range(region->start, region->pages * L4_PAGE_BYTES);
	*dataspace = region->dataspace;
	region_count--;
	memmove(region, region + 1, (size_t)((char *)&regions[region_count] - (char *)region));
	return 0;
}

static l4_tag_t page_fault(void)
{
	l4_word_t page = l4_utcb()->mr[0] & ~(l4_word_t)(L4_PAGE_BYTES - 1);
	const region_t *region = region_of(page);

	if (region == NULL)
		return l4_tag(-L4_EFAULT, 0, 0);
	/* The page arrives in the address space of both threads, so the answer to the fault needs no item. */
	return l4_tag(l4_dataspace_map(region->dataspace, (page - region->start) >> L4_PAGE_SHIFT, page), 0, 0);
}

static l4_tag_t answer(l4_message_t message)
{
	l4_word_t *mr = l4_utcb()->mr;
	l4_cap_t dataspace = { 0 };

	if (l4_tag_label(message.tag) == L4_PROTO_PAGE_FAULT)
		return page_fault();
	if (mr[0] == ATTACH)
		return l4_tag(attach((region_t){ mr[1], mr[2], { mr[3] } }), 0, 0);
	int error = detach(mr[1], &dataspace);
	mr[0] = dataspace.raw;
	return l4_tag(error, 1, 0);
}

static void serve_regions(void *argument)
{
	(void)argument;
	l4_accept_nothing();
	for (l4_message_t message = l4_wait(l4_forever());;)
		message = l4_serve(answer(message));
}

/* --- the main thread ---------------------------------------------------------------------------------- */

void memory_init(void)
{
	static char stack[L4_PAGE_BYTES];
	l4_thread_options_t options = {
		.entry = serve_regions,
		.stack = stack,
		.stack_bytes = sizeof stack,
		.pager = l4_parent(),
		.priority = REGION_MAP_PRIORITY,
		.cpu = L4_CPU_SAME,
	};
	l4_cap_t thread;

	assert(l4_thread_start(&options, &thread) == 0);
	region_map = l4_new_cap();
	assert(l4_factory_create_gate(l4_own_factory(), region_map, thread, 0) == 0);
	l4_thread_control_t control = { .change = L4_CONTROL_SET_PAGER, .pager = region_map };
	assert(l4_thread_control(l4_main_thread(), &control) >= 0);
}

static int request(l4_word_t operation, l4_word_t address, l4_word_t pages, l4_cap_t dataspace)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = address;
	utcb->mr[2] = pages;
	utcb->mr[3] = dataspace.raw;
	return l4_request(region_map, l4_tag(PROTO_REGION_MAP, 4, 0));
}

l4_word_t memory_allocate(unsigned pages)
{
	l4_word_t address = range_allocate(pages);

	if (address == 0)
		return 0;
	l4_cap_t dataspace = free_slot_count > 0 ? free_slots[--free_slot_count] : l4_new_cap();
	int error = l4_dataspace_create(l4_cap(L4_PAGER_SLOT), dataspace, pages);
	if (error < 0)
		l4_panic("the server makes no dataspace of %u page%s: error %d", pages, pages == 1 ? "" : "s", error);
	error = request(ATTACH, address, pages, dataspace);
	if (error < 0)
		l4_panic("the region map has no room for a region more than %u: error %d", MAX_REGIONS, error);
	return address;
}

int memory_free(l4_word_t address, unsigned pages)
{
	int error = request(DETACH, address, 0, l4_self());

	if (error < 0)
		return error;
	l4_cap_t dataspace = { l4_utcb()->mr[0] };
	error = l4_dataspace_release(dataspace);
	free_slots[free_slot_count++] = dataspace;
	range_free(address, pages);
	return error;
}
