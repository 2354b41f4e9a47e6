/* Counting semaphores, made with count 0 (ABI 11.6). */
#ifndef L4_SEMAPHORE_H
#define L4_SEMAPHORE_H

#include <l4/irq.h>

/** 0, or the IPC error: receive timeout, cancelled, not existent. */
static inline int l4_semaphore_down(l4_cap_t semaphore, l4_timeout_t timeout)
{
	l4_utcb()->mr[0] = L4_SEMAPHORE_DOWN;
	return l4_result(l4_call(semaphore, l4_tag(L4_PROTO_SEMAPHORE, 1, 0), l4_timeouts(L4_TIMEOUT_NEVER, timeout)).tag);
}

static inline l4_tag_t l4_semaphore_up(l4_cap_t semaphore)
{
	return l4_irq_trigger(semaphore);
}

#endif
