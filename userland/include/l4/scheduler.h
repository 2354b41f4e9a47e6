/* The scheduler (ABI 11.4): which processor a thread runs on, and how urgently. */
#ifndef L4_SCHEDULER_H
#define L4_SCHEDULER_H

#include <l4/ipc.h>

/** The first 32 processors as a bit map, and how many the kernel could have. */
static inline int l4_scheduler_info(l4_cap_t scheduler, l4_word_t *present, l4_word_t *maximum)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SCHEDULER_INFO;
	utcb->mr[1] = 0;
	int result = l4_request(scheduler, l4_tag(L4_PROTO_SCHEDULER, 2, 0));
	*present = utcb->mr[0];
	*maximum = utcb->mr[1];
	return result;
}

/** How many processors there are; they are numbered from 0. */
static inline unsigned l4_scheduler_count(l4_cap_t scheduler)
{
	enum { AT_ONCE = 8 * sizeof(l4_word_t) };
	l4_utcb_t *utcb = l4_utcb();
	unsigned count = 0;

	for (l4_word_t first = 0;; first += AT_ONCE) {
		utcb->mr[0] = L4_SCHEDULER_INFO;
		utcb->mr[1] = first;
		if (l4_request(scheduler, l4_tag(L4_PROTO_SCHEDULER, 2, 0)) < 0 || utcb->mr[0] == 0)
			return count;
		for (l4_word_t present = utcb->mr[0]; present != 0; present >>= 1)
			count += present & 1;
	}
}

/** Runs `thread` on one of the processors `first_cpu` + i for the bits i of `cpus`, with a time slice of
 * `quantum_us` (0: the default). */
static inline int l4_scheduler_run_thread(l4_cap_t scheduler, l4_cap_t thread, unsigned first_cpu, l4_word_t cpus,
					  int priority, l4_word_t quantum_us)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SCHEDULER_RUN_THREAD;
	utcb->mr[1] = first_cpu;
	utcb->mr[2] = cpus;
	utcb->mr[3] = (l4_word_t)priority;
	utcb->mr[4] = quantum_us;
	l4_put_item(5, l4_argument(thread));
	return l4_request(scheduler, l4_tag(L4_PROTO_SCHEDULER, 5, 1));
}

/** Runs `thread` on processor `cpu`. */
static inline int l4_scheduler_run_on(l4_cap_t scheduler, l4_cap_t thread, unsigned cpu, int priority)
{
	return l4_scheduler_run_thread(scheduler, thread, cpu, 1, priority, 0);
}

/** Changes only the priority: granularity 2^24 makes one bit stand for every processor. */
static inline int l4_scheduler_set_priority(l4_cap_t scheduler, l4_cap_t thread, int priority)
{
	l4_word_t any = L4_CPU_SET_GRANULARITY_MAX << L4_CPU_SET_GRANULARITY_SHIFT;

	return l4_scheduler_run_thread(scheduler, thread, any, 1, priority, 0);
}

/** How long processor `cpu` has had nothing to do, in microseconds. */
static inline int l4_scheduler_idle_time_us(l4_cap_t scheduler, unsigned cpu, uint64_t *time_us)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SCHEDULER_IDLE_TIME;
	utcb->mr[1] = cpu;
	utcb->mr[2] = 1;
	int result = l4_request(scheduler, l4_tag(L4_PROTO_SCHEDULER, 3, 0));
	*time_us = (uint64_t)utcb->mr[1] << 32 | utcb->mr[0];
	return result;
}

#endif
