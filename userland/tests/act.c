#include "act.h"

/** Opens what the act says and fills the message registers. */
static void prepare(const act_t *a)
{
	l4_utcb_t *utcb = l4_utcb();

	l4_accept_nothing();
	if (a->slot.raw != 0)
		l4_accept_object(a->slot);
	if (a->wait_first)
		l4_wait(l4_forever());
	utcb->error = 0;
	conf_fill(a->first_word, L4_UTCB_MR_WORDS);
	if (l4_tag_items(a->tag) > 0)
		l4_put_item(l4_tag_words(a->tag), a->item);
}

static void note(act_t *a, l4_message_t message)
{
	l4_utcb_t *utcb = l4_utcb();

	a->out_tag = message.tag.raw;
	a->out_label = message.label;
	a->error = utcb->error;
	for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
		a->mr[i] = utcb->mr[i];
	a->done = true;
}

void act_run(void *argument)
{
	act_t *a = argument;

	prepare(a);
	l4_message_t message = l4_invoke(a->to, a->operation, a->tag, a->label, a->timeouts);
	for (;;) {
		note(a, message);
		if (!a->serve)
			l4_sleep_forever();
		a->served++;
		message = l4_serve(l4_tag(1, 0, 0));
	}
}

l4_cap_t act_start_at(act_t *a, unsigned priority)
{
	l4_cap_t thread = conf_thread(act_run, a, priority);

	conf_settle();
	return thread;
}

l4_cap_t act_start(act_t *a)
{
	return act_start_at(a, CONF_HIGHER);
}

l4_cap_t act_start_in(act_t *a, l4_cap_t task)
{
	l4_cap_t thread =
		conf_helper(&(conf_helper_t){ .entry = act_run, .argument = a, .priority = CONF_HIGHER, .task = task });

	conf_settle();
	return thread;
}

void act_cancel(l4_cap_t helper)
{
	CHECK_EQ(l4_thread_ex_regs(helper, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
}
