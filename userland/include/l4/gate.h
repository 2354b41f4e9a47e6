/* The server's side of IPC gates (ABI 11.8): all of this needs the server right. */
#ifndef L4_GATE_H
#define L4_GATE_H

#include <l4/ipc.h>

/** Binds, or binds anew; the low two bits of `label` must be 0. */
static inline int l4_gate_bind(l4_cap_t gate, l4_cap_t thread, l4_word_t label)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ENDPOINT_BIND;
	utcb->mr[1] = label;
	l4_put_item(2, l4_argument(thread));
	return l4_request(gate, l4_tag(L4_PROTO_KOBJECT, 2, 1));
}

static inline int l4_gate_label(l4_cap_t gate, l4_word_t *label)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_GATE_GET_INFO;
	int result = l4_request(gate, l4_tag(L4_PROTO_KOBJECT, 1, 0));
	*label = utcb->mr[0];
	return result;
}

/** Counts `difference` capabilities fewer, so that a server's own do not keep the gate alive. `remaining` gets
 * the new count. */
static inline int l4_gate_decrease_count(l4_cap_t gate, l4_word_t difference, l4_word_t *remaining)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_KOBJECT_DEC_REFCNT;
	utcb->mr[1] = difference;
	int result = l4_request(gate, l4_tag(L4_PROTO_KOBJECT, 2, 0));
	*remaining = utcb->mr[0];
	return result;
}

#endif
