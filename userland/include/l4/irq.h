/* IRQ objects: messages without a sender to wait for (ABI 11.5). They come with tag 0 and the bound label. */
#ifndef L4_IRQ_H
#define L4_IRQ_H

#include <l4/ipc.h>

/** Binds to the thread that shall receive; any `label` goes. Binding again moves it. */
static inline int l4_irq_bind(l4_cap_t irq, l4_cap_t thread, l4_word_t label)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ENDPOINT_BIND;
	utcb->mr[1] = label;
	l4_put_item(2, l4_argument(thread));
	return l4_request(irq, l4_tag(L4_PROTO_KOBJECT, 2, 1));
}

/** 0 if nothing was pending, 1 if something was (it stays for the next bind), 2 if a delivery was abandoned. */
static inline int l4_irq_detach(l4_cap_t irq)
{
	l4_utcb()->mr[0] = L4_IRQ_SENDER_DETACH;
	return l4_request(irq, l4_tag(L4_PROTO_IRQ_SENDER, 1, 0));
}

/** Send only, never blocks. Also the up of a semaphore. */
static inline l4_tag_t l4_irq_trigger(l4_cap_t irq)
{
	l4_utcb()->mr[0] = L4_IRQ_TRIGGER;
	return l4_send(irq, l4_tag(L4_PROTO_IRQ, 1, 0), 0, l4_forever());
}

static inline l4_tag_t l4_irq_unmask(l4_cap_t irq)
{
	l4_utcb()->mr[0] = L4_IRQ_UNMASK;
	return l4_send(irq, l4_tag(L4_PROTO_IRQ, 1, 0), 0, l4_forever());
}

#endif
