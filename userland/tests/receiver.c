#include "receiver.h"

#include <l4/string.h>

receiver_t received;

static void receive(void *argument)
{
	l4_utcb_t *utcb = l4_utcb();

	(void)argument;
	for (unsigned i = 0; i < RECEIVER_BRS; i++)
		utcb->br[i] = received.br[i];
	utcb->bdr = received.bdr;
	conf_fill(0xeee00000, L4_UTCB_MR_WORDS);
	l4_message_t message = received.call ? l4_call(received.partner, l4_tag(0, 0, 0), l4_forever()) :
					       l4_wait(l4_forever());
	received.tag = message.tag.raw;
	received.label = message.label;
	received.error = utcb->error;
	for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
		received.mr[i] = utcb->mr[i];
	received.done = true;
	l4_sleep_forever();
}

void receiver_clear(void)
{
	memset(&received, 0, sizeof received);
}

l4_word_t receiver_small_buffer(l4_cap_t slot)
{
	return slot.raw | L4_BUFFER_ITEM | L4_BUFFER_SMALL;
}

void receiver_open_slot(l4_cap_t slot)
{
	receiver_clear();
	received.br[0] = receiver_small_buffer(slot);
}

void receiver_open_window(l4_fpage_t window)
{
	receiver_clear();
	received.br[0] = L4_BUFFER_ITEM;
	received.br[1] = window.raw;
}

l4_cap_t receiver_start_in(l4_cap_t task)
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = receive, .priority = CONF_HIGHER, .task = task });

	conf_settle();
	return thread;
}

l4_cap_t receiver_start(void)
{
	return receiver_start_in((l4_cap_t){ 0 });
}

l4_tag_t receiver_send(l4_cap_t to, unsigned words, const l4_item_t *items, unsigned count)
{
	conf_fill(0x100, words);
	for (unsigned i = 0; i < count; i++)
		l4_put_item(words + 2 * i, items[i]);
	l4_tag_t tag = l4_send(to, l4_tag(0x21, words, count), 0x999, l4_no_wait());
	conf_settle();
	return tag;
}

l4_tag_t receiver_send_one(l4_cap_t to, l4_item_t item)
{
	return receiver_send(to, 0, &item, 1);
}
