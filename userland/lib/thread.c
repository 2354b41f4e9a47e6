/* Threads of the own task. */
#include <l4/factory.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/task.h>
#include <l4/thread.h>

l4_utcb_t *l4_utcb_alloc(void)
{
	l4_utcb_t *first = (l4_utcb_t *)((uintptr_t)l4_utcb() & ~(uintptr_t)(L4_PAGE_BYTES - 1));

	/* The main thread has the first one and never sets a mark. */
	for (l4_utcb_t *utcb = first + 1; utcb < first + L4_PAGE_BYTES / sizeof *utcb; utcb++)
		if (__atomic_exchange_n(&utcb->free_marker, 1, __ATOMIC_ACQUIRE) == 0)
			return utcb;
	return NULL;
}

/** A stack on which `entry` finds itself called with `argument`. Returning from it is an access to address 0. */
static l4_word_t prepare_stack(const l4_thread_options_t *options)
{
	l4_word_t top = ((l4_word_t)(uintptr_t)options->stack + options->stack_bytes) & ~15u;
	l4_word_t *stack = (l4_word_t *)(uintptr_t)(top - 16);

	stack[-1] = 0;
	stack[0] = (l4_word_t)(uintptr_t)options->argument;
	return (l4_word_t)(uintptr_t)&stack[-1];
}

static int set_up(l4_cap_t thread, const l4_thread_options_t *options)
{
	l4_cap_t pager = options->pager.raw != 0 ? options->pager : l4_parent();
	l4_thread_control_t control = {
		.change = L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER | L4_CONTROL_BIND_TASK,
		.pager = pager,
		.handler = options->handler.raw != 0 ? options->handler : pager,
		.task = l4_own_task(),
		.utcb = options->utcb,
	};
	int priority = options->priority != 0 ? (int)options->priority : L4_PRIORITY_DEFAULT;

	int error = l4_thread_control(thread, &control);
	if (error == 0 && options->cpu == L4_CPU_SAME) /* any processor: the scheduler takes the caller's */
		error = l4_scheduler_set_priority(l4_own_scheduler(), thread, priority);
	else if (error == 0)
		error = l4_scheduler_run_on(l4_own_scheduler(), thread, (unsigned)options->cpu, priority);
	if (error == 0)
		error = l4_thread_ex_regs(thread, (l4_word_t)(uintptr_t)options->entry, prepare_stack(options), 0, NULL);
	return error;
}

int l4_thread_start(const l4_thread_options_t *options, l4_cap_t *thread)
{
	l4_thread_options_t full = *options;

	if (full.slot.raw == 0)
		full.slot = l4_new_cap();
	if (full.utcb == NULL)
		full.utcb = l4_utcb_alloc();
	if (full.utcb == NULL)
		return -L4_ENOMEM;
	int error = l4_factory_create_thread(l4_own_factory(), full.slot);
	if (error == 0)
		error = set_up(full.slot, &full);
	if (error != 0) {
		l4_task_delete(l4_own_task(), full.slot);
		if (options->utcb == NULL)
			full.utcb->free_marker = 0;
		return error;
	}
	if (thread != NULL)
		*thread = full.slot;
	return 0;
}
