/* What a helper does in a test of messages: one system call, whose outcome it leaves to be looked at. */
#ifndef TESTS_ACT_H
#define TESTS_ACT_H

#include "conf.h"

typedef struct {
	l4_cap_t to;
	l4_word_t operation; /* L4_OP_* */
	l4_tag_t tag;
	l4_word_t label;
	l4_timeouts_t timeouts;
	l4_word_t first_word; /* of those sent; the next ones count up */
	l4_item_t item;       /* behind the words, if the tag counts one */
	l4_cap_t slot;        /* opened as buffer, if not 0 */
	bool wait_first;      /* for a caller to answer */
	bool serve;           /* afterwards: answer with label 1 what comes, for ever */
	/* outcome */
	volatile bool done;
	volatile l4_word_t out_tag, out_label, error, mr[L4_UTCB_MR_WORDS];
	volatile unsigned served;
} act_t;

/** The entry of a thread; its argument is an act_t. */
void act_run(void *act);

/** Starts a helper of the own task with this act and lets it block. */
l4_cap_t act_start(act_t *act);
l4_cap_t act_start_at(act_t *act, unsigned priority);

/** The same in a task made by conf_task, which shares all variables. */
l4_cap_t act_start_in(act_t *act, l4_cap_t task);

/** Cancels what a helper waits for, and lets it note that. */
void act_cancel(l4_cap_t helper);

static inline act_t act_waiter(void)
{
	return (act_t){ .to = l4_self(), .operation = L4_OP_WAIT };
}

static inline act_t act_server(void)
{
	return (act_t){ .to = l4_self(), .operation = L4_OP_WAIT, .serve = true };
}

static inline act_t act_sender_to(l4_cap_t to, l4_tag_t tag, l4_word_t label)
{
	return (act_t){ .to = to, .operation = L4_OP_SEND, .tag = tag, .label = label };
}

static inline act_t act_caller_of(l4_cap_t to)
{
	return (act_t){ .to = to, .operation = L4_OP_CALL };
}

static inline act_t act_sleeper(void)
{
	return (act_t){ .to = l4_self(), .operation = L4_OP_RECV };
}

#endif
