/* Factories make kernel objects (ABI 11.1). Each function fills the empty slot `slot` and returns 0 or a
 * negative error. They overwrite the buffer registers. */
#ifndef L4_FACTORY_H
#define L4_FACTORY_H

#include <l4/ipc.h>

/** An object of the type with the protocol label `type`, made without arguments. */
static inline int l4_factory_create(l4_cap_t factory, l4_cap_t slot, int type)
{
	l4_utcb()->mr[0] = (l4_word_t)type;
	l4_accept_object(slot);
	return l4_request(factory, l4_tag(L4_PROTO_FACTORY, 1, 0));
}

/** One with a word as argument. */
static inline int l4_factory_create_with(l4_cap_t factory, l4_cap_t slot, int type, l4_word_t varg, l4_word_t argument)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = (l4_word_t)type;
	utcb->mr[1] = varg | sizeof(l4_word_t) << 16;
	utcb->mr[2] = argument;
	l4_accept_object(slot);
	return l4_request(factory, l4_tag(L4_PROTO_FACTORY, 3, 0));
}

static inline int l4_factory_create_thread(l4_cap_t factory, l4_cap_t slot)
{
	return l4_factory_create(factory, slot, L4_PROTO_THREAD);
}

static inline int l4_factory_create_irq(l4_cap_t factory, l4_cap_t slot)
{
	return l4_factory_create(factory, slot, L4_PROTO_IRQ_SENDER);
}

static inline int l4_factory_create_semaphore(l4_cap_t factory, l4_cap_t slot)
{
	return l4_factory_create(factory, slot, L4_PROTO_SEMAPHORE);
}

/** `utcb_area`: where the task's first kernel-user memory lies, for the UTCBs of its threads. */
static inline int l4_factory_create_task(l4_cap_t factory, l4_cap_t slot, l4_fpage_t utcb_area)
{
	return l4_factory_create_with(factory, slot, L4_PROTO_TASK, L4_VARG_FPAGE, utcb_area.raw);
}

/** A factory whose objects may together take `limit` bytes of kernel memory. */
static inline int l4_factory_create_factory(l4_cap_t factory, l4_cap_t slot, l4_word_t limit)
{
	return l4_factory_create_with(factory, slot, L4_PROTO_FACTORY, L4_VARG_UNSIGNED, limit);
}

/** A gate to `thread`, which receives its messages with `label` (low two bits 0: rights appear there). */
static inline int l4_factory_create_gate(l4_cap_t factory, l4_cap_t slot, l4_cap_t thread, l4_word_t label)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_PROTO_NONE;
	utcb->mr[1] = L4_VARG_UNSIGNED | sizeof(l4_word_t) << 16;
	utcb->mr[2] = label;
	l4_put_item(3, l4_argument(thread));
	l4_accept_object(slot);
	return l4_request(factory, l4_tag(L4_PROTO_FACTORY, 3, 1));
}

/** A gate without a thread: who invokes it waits until l4_gate_bind. */
static inline int l4_factory_create_unbound_gate(l4_cap_t factory, l4_cap_t slot)
{
	return l4_factory_create_with(factory, slot, L4_PROTO_NONE, L4_VARG_UNSIGNED, 0);
}

#endif
