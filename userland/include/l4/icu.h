/* Interrupt controllers: pins to which IRQ objects are bound (ABI 11.7). The log and the scheduler are ones
 * with a single pin. */
#ifndef L4_ICU_H
#define L4_ICU_H

#include <l4/ipc.h>

typedef struct {
	l4_word_t features, pins, msis;
} l4_icu_info_t;

static inline int l4_icu_info(l4_cap_t icu, l4_icu_info_t *info)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ICU_INFO;
	int result = l4_request(icu, l4_tag(L4_PROTO_IRQ, 1, 0));
	*info = (l4_icu_info_t){ utcb->mr[0], utcb->mr[1], utcb->mr[2] };
	return result;
}

static inline int l4_icu_bind(l4_cap_t icu, l4_word_t pin, l4_cap_t irq)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ICU_BIND;
	utcb->mr[1] = pin;
	l4_put_item(2, l4_argument(irq));
	return l4_request(icu, l4_tag(L4_PROTO_IRQ, 2, 1));
}

static inline int l4_icu_unbind(l4_cap_t icu, l4_word_t pin, l4_cap_t irq)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ICU_UNBIND;
	utcb->mr[1] = pin;
	l4_put_item(2, l4_argument(irq));
	return l4_request(icu, l4_tag(L4_PROTO_IRQ, 2, 1));
}

static inline int l4_icu_set_mode(l4_cap_t icu, l4_word_t pin, l4_word_t mode)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_ICU_SET_MODE;
	utcb->mr[1] = pin;
	utcb->mr[2] = mode;
	return l4_request(icu, l4_tag(L4_PROTO_IRQ, 3, 0));
}

/** L4_ICU_MASK or L4_ICU_UNMASK of a pin. Send only: there is no answer. */
static inline l4_tag_t l4_icu_control(l4_cap_t icu, l4_word_t operation, l4_word_t pin)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = pin;
	return l4_send(icu, l4_tag(L4_PROTO_IRQ, 2, 0), 0, l4_forever());
}

#endif
