/* Threads (ABI 9, 11.3). The functions up to l4_thread_set_gdt are one kernel operation each; below them are
 * helpers of the library (lib/thread.c). */
#ifndef L4_THREAD_H
#define L4_THREAD_H

#include <l4/ipc.h>

/** Changes what a thread control call can change. Only the members named by `change` are looked at. */
typedef struct {
	l4_word_t change;   /* L4_CONTROL_* bits */
	l4_cap_t pager;     /* L4_CONTROL_SET_PAGER: slot in the table of the thread's own task */
	l4_cap_t handler;   /* L4_CONTROL_SET_EXCEPTION_HANDLER: likewise */
	bool alien;         /* L4_CONTROL_ALIEN */
	l4_cap_t task;      /* L4_CONTROL_BIND_TASK: the task it shall live in */
	l4_utcb_t *utcb;    /* and its UTCB there, in kernel-user memory */
} l4_thread_control_t;

static inline int l4_thread_control(l4_cap_t thread, const l4_thread_control_t *control)
{
	l4_utcb_t *utcb = l4_utcb();
	bool binds = control->change & L4_CONTROL_BIND_TASK;

	utcb->mr[0] = L4_THREAD_CONTROL | control->change;
	utcb->mr[1] = control->pager.raw;
	utcb->mr[2] = control->handler.raw;
	utcb->mr[3] = 0;
	utcb->mr[4] = control->alien ? L4_CONTROL_ALIEN : 0;
	utcb->mr[5] = (l4_word_t)(uintptr_t)control->utcb;
	if (binds)
		l4_put_item(6, l4_argument(control->task));
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, 6, binds));
}

/** The user-level state of a thread as l4_thread_ex_regs found it. */
typedef struct {
	l4_word_t eflags, eip, esp;
} l4_thread_state_t;

/** Sets EIP and ESP (L4_EX_REGS_KEEP keeps one); the first time this makes the thread ready to run. `flags`:
 * L4_EX_REGS_CANCEL, L4_EX_REGS_TRIGGER_EXCEPTION. `old` may be null. */
static inline int l4_thread_ex_regs(l4_cap_t thread, l4_word_t eip, l4_word_t esp, l4_word_t flags,
				    l4_thread_state_t *old)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_EX_REGS | flags;
	utcb->mr[1] = eip;
	utcb->mr[2] = esp;
	int result = l4_request(thread, l4_tag(L4_PROTO_THREAD, 3, 0));
	if (old != NULL && result >= 0)
		*old = (l4_thread_state_t){ utcb->mr[0], utcb->mr[1], utcb->mr[2] };
	return result;
}

/** Gives the rest of the time slice to `thread`. */
static inline int l4_thread_switch(l4_cap_t thread)
{
	l4_utcb()->mr[0] = L4_THREAD_SWITCH;
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, 1, 0));
}

/** Processor time the thread has used, in microseconds. */
static inline int l4_thread_time_us(l4_cap_t thread, uint64_t *time_us)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_STATS;
	int result = l4_request(thread, l4_tag(L4_PROTO_THREAD, 1, 0));
	*time_us = (uint64_t)utcb->mr[1] << 32 | utcb->mr[0];
	return result;
}

/** Triggers `irq` whenever a gate bound to the thread is destroyed. */
static inline int l4_thread_register_delete_irq(l4_cap_t thread, l4_cap_t irq)
{
	l4_utcb()->mr[0] = L4_THREAD_REGISTER_DELETE_IRQ;
	l4_put_item(1, l4_argument(irq));
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, 1, 1));
}

/** Changes the label of each queued sender with (label & mask) == match to (label & ~clear) | set. */
static inline int l4_thread_modify_senders(l4_cap_t thread, l4_word_t mask, l4_word_t match, l4_word_t clear,
					   l4_word_t set)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_MODIFY_SENDERS;
	utcb->mr[1] = mask;
	utcb->mr[2] = match;
	utcb->mr[3] = clear;
	utcb->mr[4] = set;
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, 5, 0));
}

/** Writes one of the thread's four own segment descriptors; returns its selector or a negative error. */
static inline int l4_thread_set_gdt(l4_cap_t thread, unsigned entry, uint64_t descriptor)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_GDT;
	utcb->mr[1] = entry;
	utcb->mr[2] = (l4_word_t)descriptor;
	utcb->mr[3] = (l4_word_t)(descriptor >> 32);
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, 4, 0));
}

/* --- library ----------------------------------------------------------------------------------------- */

typedef void l4_thread_entry_t(void *argument);

/** In l4_thread_options_t: the processor of whoever starts the thread. */
enum { L4_CPU_SAME = -1 };

/** How l4_thread_start shall start a thread in the own task. What is zero gets the value in parentheses. */
typedef struct {
	l4_thread_entry_t *entry; /* must not return: end with l4_thread_exit */
	void *argument;
	void *stack;              /* lowest byte */
	size_t stack_bytes;
	l4_utcb_t *utcb;          /* (the next free one of the task's first UTCB area) */
	l4_cap_t slot;            /* (a new slot) */
	l4_cap_t pager, handler;  /* (the pager of the program, which handles its exceptions too) */
	unsigned priority;        /* (L4_PRIORITY_DEFAULT) */
	int cpu;                  /* or L4_CPU_SAME */
} l4_thread_options_t;

/** Creates, binds, places and starts a thread; `thread` (may be null) gets its capability. Returns 0 or the first
 * error; then nothing is left behind. The new thread runs at the caller's next scheduling point (ABI 6). */
int l4_thread_start(const l4_thread_options_t *options, l4_cap_t *thread);

/** The calling thread never runs again. */
static inline _Noreturn void l4_thread_exit(void)
{
	l4_sleep_forever();
}

/** A UTCB of the task's first kernel-user page that no thread uses, or null. Marks it as used; the kernel clears
 * the mark when its thread is destroyed. */
l4_utcb_t *l4_utcb_alloc(void);

#endif
