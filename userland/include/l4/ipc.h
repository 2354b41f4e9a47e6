/* Messages between threads (ABI 5, 6). Words and items are put into l4_utcb()->mr before an operation and
 * found there after it; buffers for items to receive are named in l4_utcb()->br. */
#ifndef L4_IPC_H
#define L4_IPC_H

#include <l4/syscall.h>
#include <l4/utcb.h>

/* --- operations -------------------------------------------------------------------------------------- */

/** Sends, then waits for an answer of just this partner. Kernel objects answer at once. */
static inline l4_message_t l4_call(l4_cap_t partner, l4_tag_t tag, l4_timeouts_t timeouts)
{
	return l4_invoke(partner, L4_OP_CALL, tag, 0, timeouts);
}

static inline l4_tag_t l4_send(l4_cap_t partner, l4_tag_t tag, l4_word_t label, l4_timeouts_t timeouts)
{
	return l4_invoke(partner, L4_OP_SEND, tag, label, timeouts).tag;
}

/** Waits for a message of just this partner. */
static inline l4_message_t l4_receive(l4_cap_t partner, l4_timeouts_t timeouts)
{
	return l4_invoke(partner, L4_OP_RECV, l4_tag(0, 0, 0), 0, timeouts);
}

/** Waits for a message of anybody. */
static inline l4_message_t l4_wait(l4_timeouts_t timeouts)
{
	return l4_invoke(l4_self(), L4_OP_WAIT, l4_tag(0, 0, 0), 0, timeouts);
}

static inline l4_message_t l4_send_and_wait(l4_cap_t partner, l4_tag_t tag, l4_word_t label, l4_timeouts_t timeouts)
{
	return l4_invoke(partner, L4_OP_SEND_AND_WAIT, tag, label, timeouts);
}

/** Answers the caller in the reply slot. Fails with L4_IPC_NOT_EXISTENT if the slot is empty. */
static inline l4_tag_t l4_reply(l4_tag_t tag, l4_timeouts_t timeouts)
{
	return l4_invoke(l4_self(), L4_OP_SEND | L4_OP_REPLY, tag, 0, timeouts).tag;
}

/** A server's loop in one operation. If the reply cannot be delivered it does *not* wait: see l4_serve. */
static inline l4_message_t l4_reply_and_wait(l4_tag_t tag, l4_timeouts_t timeouts)
{
	return l4_invoke(l4_self(), L4_OP_REPLY_AND_WAIT, tag, 0, timeouts);
}

/** l4_reply_and_wait for servers that owe their clients nothing: a client that is not waiting for the
 * answer loses it, and the next message is waited for in any case. */
static inline l4_message_t l4_serve(l4_tag_t reply)
{
	l4_message_t next = l4_reply_and_wait(reply, l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER));

	while (l4_tag_failed(next.tag))
		next = l4_wait(l4_forever());
	return next;
}

/** Sleeps; other threads' messages stay queued. */
static inline void l4_sleep_us(l4_word_t microseconds)
{
	l4_receive(l4_self(), l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(microseconds)));
}

static inline _Noreturn void l4_sleep_forever(void)
{
	for (;;)
		l4_receive(l4_self(), l4_forever());
}

/** One number for the outcome: -(2000 + IPC error), or the label of the answer: 0 or a positive value for
 * success, -errno for what a kernel object refused. */
static inline int l4_result(l4_tag_t tag)
{
	return l4_tag_failed(tag) ? -(L4_IPC_ERROR_BASE + (int)l4_utcb()->error) : l4_tag_label(tag);
}

/** A request to a kernel object. Returns l4_result of its answer. */
static inline int l4_request(l4_cap_t object, l4_tag_t tag)
{
	return l4_result(l4_call(object, tag, l4_forever()).tag);
}

/* --- items to send ----------------------------------------------------------------------------------- */

/** A typed item: what is passed on, and where in the receiver's window it shall appear. */
typedef struct {
	l4_word_t control;
	l4_fpage_t fpage;
} l4_item_t;

/** Passes on a mapping. `send_base` says where in a larger window it goes; in the window of all memory, which
 * page faults open, it is the address. */
static inline l4_item_t l4_map_item(l4_fpage_t fpage, l4_word_t send_base)
{
	return (l4_item_t){ L4_ITEM_MAP | (send_base & L4_ITEM_SEND_BASE_MASK), fpage };
}

/** Hands a mapping over: the sender loses it. */
static inline l4_item_t l4_grant_item(l4_fpage_t fpage, l4_word_t send_base)
{
	return (l4_item_t){ L4_ITEM_MAP | L4_ITEM_GRANT | (send_base & L4_ITEM_SEND_BASE_MASK), fpage };
}

/** One capability; `rights` of L4_OBJECT_RIGHT_*, and L4_OBJECT_RIGHT_SERVER to keep a gate's server view. */
static inline l4_item_t l4_object_item(l4_cap_t cap, l4_word_t rights)
{
	return (l4_item_t){ L4_ITEM_MAP | (rights & L4_ITEM_OBJECT_RIGHTS_MASK),
			    l4_object_fpage(cap, 0, rights & L4_OBJECT_RIGHTS) };
}

/** The argument `cap` of a kernel object's operation: only looked up, never passed on. */
static inline l4_item_t l4_argument(l4_cap_t cap)
{
	return l4_object_item(cap, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S);
}

/** Puts an item at message register `position`; items stand directly behind the words. */
static inline void l4_put_item(unsigned position, l4_item_t item)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[position] = item.control;
	utcb->mr[position + 1] = item.fpage.raw;
}

/* --- items received ---------------------------------------------------------------------------------- */

/** What became of the item whose description stands at message register `position`: L4_ITEM_KIND_*. */
static inline unsigned l4_item_kind(unsigned position)
{
	return l4_utcb()->mr[position] & L4_ITEM_KIND_FLEXPAGE;
}

static inline void l4_accept_nothing(void)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->bdr = 0;
	utcb->br[0] = 0;
}

/** Accepts one capability into `slot`. */
static inline void l4_accept_object(l4_cap_t slot)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->bdr = 0;
	utcb->br[0] = slot.raw | L4_BUFFER_ITEM | L4_BUFFER_SMALL;
	utcb->br[1] = 0;
}

/** As l4_accept_object, but a capability of this task's own comes as its label or selector instead. */
static inline void l4_accept_object_or_id(l4_cap_t slot)
{
	l4_accept_object(slot);
	l4_utcb()->br[0] |= L4_BUFFER_LOCAL_ID;
}

/** Accepts memory, or with l4_all_fpage() anything, into `window`. */
static inline void l4_accept(l4_fpage_t window)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->bdr = 0;
	utcb->br[0] = L4_BUFFER_ITEM;
	utcb->br[1] = window.raw;
	utcb->br[2] = 0;
}

#endif
