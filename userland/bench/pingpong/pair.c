/* Every pair gets fresh tasks, in which the program's own memory is at the same addresses. They have all they need
 * before they start, so no page fault disturbs a measurement. */
#include "pair.h"

#include <l4/debugger.h>
#include <l4/factory.h>
#include <l4/panic.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/sigma0.h>
#include <l4/task.h>
#include <l4/thread.h>

extern char l4_image_start[], l4_image_end[];

enum { CLIENT, SERVER, SIDES };

static l4_word_t stacks; /* a page for each side of each pair */

static void must(int result, const char *what)
{
	if (result < 0)
		l4_panic("%s: error %d", what, result);
}

void pair_prepare(unsigned pairs)
{
	unsigned order = L4_PAGE_SHIFT + 1;

	while (1u << (order - L4_PAGE_SHIFT) < pairs * SIDES)
		order++;
	must(l4_sigma0_any(l4_parent(), order, &stacks), "memory from sigma0");
	/* What is not mapped in the own task cannot be mapped on to others. */
	for (char *page = l4_image_start; page < l4_image_end; page += L4_PAGE_BYTES)
		(void)*(volatile char *)page;
}

static l4_word_t stack_of(unsigned index, unsigned side)
{
	return stacks + (index * SIDES + side) * L4_PAGE_BYTES;
}

static void share_page(l4_cap_t task, l4_word_t page)
{
	l4_fpage_t fpage = l4_memory_fpage(page, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS);

	must(l4_task_map(task, l4_own_task(), l4_map_item(fpage, page)), "mapping memory");
}

static void give(l4_cap_t task, l4_cap_t cap, l4_cap_t slot)
{
	l4_word_t rights = L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D; /* with D the task's end would be the object's */

	must(l4_task_map_cap(task, l4_own_task(), cap, slot, rights), "mapping a capability");
}

static l4_cap_t make_task(const pair_t *pair, unsigned index)
{
	l4_cap_t task = l4_new_cap();
	l4_fpage_t utcbs = l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);

	must(l4_factory_create_task(l4_own_factory(), task, utcbs), "making a task");
	for (l4_word_t page = (l4_word_t)l4_image_start; page < (l4_word_t)l4_image_end; page += L4_PAGE_BYTES)
		share_page(task, page);
	for (unsigned side = CLIENT; side <= SERVER; side++)
		share_page(task, stack_of(index, side));
	give(task, task, l4_own_task());
	give(task, pair->gate, l4_parent());
	give(task, pair->threads[CLIENT], l4_cap(RALLY_CLIENT_SLOT));
	give(task, pair->threads[SERVER], l4_cap(RALLY_SERVER_SLOT));
	return task;
}

static void start_side(const pair_t *pair, unsigned index, unsigned side)
{
	static l4_thread_entry_t *const entries[SIDES] = { rally_client, rally_server };
	l4_thread_control_t control = {
		.change = L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER | L4_CONTROL_BIND_TASK,
		.pager = l4_parent(),
		.handler = l4_parent(),
		.task = pair->tasks[pair->apart ? side : CLIENT],
		.utcb = (l4_utcb_t *)L4_UTCB_AREA + side,
	};
	l4_word_t *stack = (l4_word_t *)(stack_of(index, side) + L4_PAGE_BYTES) - 4;
	l4_cap_t thread = pair->threads[side];

	stack[1] = (l4_word_t)pair->rally; /* the argument, above a return address */
	must(l4_thread_control(thread, &control), "binding a thread");
	must(l4_thread_ex_regs(thread, (l4_word_t)entries[side], (l4_word_t)stack, 0, NULL), "starting a thread");
	must(l4_scheduler_run_on(l4_own_scheduler(), thread, pair->cpus[side], L4_PRIORITY_DEFAULT),
	     "placing a thread");
}

void pair_start(pair_t *pair, unsigned index)
{
	static const char *const names[SIDES] = { "ping", "pong" };

	pair->gate = l4_new_cap();
	must(l4_factory_create_gate(l4_own_factory(), pair->gate, l4_main_thread(), index << PAIR_LABEL_SHIFT),
	     "making a gate");
	for (unsigned side = CLIENT; side <= SERVER; side++) {
		pair->threads[side] = l4_new_cap();
		must(l4_factory_create_thread(l4_own_factory(), pair->threads[side]), "making a thread");
	}
	for (unsigned side = CLIENT; side <= (pair->apart ? SERVER : CLIENT); side++) {
		pair->tasks[side] = make_task(pair, index);
		l4_debugger_set_name(l4_cap(L4_BOOT_CAP_DEBUGGER), pair->tasks[side], names[side]);
	}
	start_side(pair, index, SERVER);
	start_side(pair, index, CLIENT);
}

void pair_end(pair_t *pair)
{
	l4_task_delete(l4_own_task(), pair->threads[CLIENT]);
	l4_task_delete(l4_own_task(), pair->threads[SERVER]);
	l4_task_delete(l4_own_task(), pair->tasks[CLIENT]);
	if (pair->apart)
		l4_task_delete(l4_own_task(), pair->tasks[SERVER]);
	l4_task_delete(l4_own_task(), pair->gate);
}
