/* Every way in which an IPC can fail, for every operation (ABI 4): the worker is the partner of a helper whose act has the
 * operation under test. */
#include "act.h"

enum { PASSED = 0x11, ITEM_SLOT = 0x3f000, OPERATIONS = 8 };

typedef struct {
	const char *name;
	l4_word_t code;
} operation_t;

static const operation_t operations[OPERATIONS] = {
	{ "send", L4_OP_SEND },
	{ "receive", L4_OP_RECV },
	{ "wait", L4_OP_WAIT },
	{ "call", L4_OP_CALL },
	{ "send_and_wait", L4_OP_SEND_AND_WAIT },
	{ "reply", L4_OP_SEND | L4_OP_REPLY },
	{ "reply_and_receive", L4_OP_REPLY_AND_RECV },
	{ "reply_and_wait", L4_OP_REPLY_AND_WAIT },
};

static bool sends(const operation_t *operation)
{
	return operation->code & L4_OP_SEND;
}

static bool receives(const operation_t *operation)
{
	return operation->code & L4_OP_RECV;
}

static bool replies(const operation_t *operation)
{
	return operation->code & L4_OP_REPLY;
}

static act_t act_of(const operation_t *operation)
{
	return (act_t){ .to = conf_worker(),
			.operation = operation->code,
			.tag = l4_tag(PASSED, 0, 0),
			.wait_first = replies(operation) };
}

/** Starts the act in `task` (or here) and brings it to its receive phase. */
static l4_cap_t engage(const operation_t *operation, act_t *a, l4_cap_t task)
{
	l4_cap_t thread = task.raw != 0 ? act_start_in(a, task) : act_start(a);

	l4_accept_nothing();
	if (replies(operation))
		CHECK_EQ(l4_result(l4_call(thread, l4_tag(0, 0, 0), receive_within(20000)).tag), PASSED);
	else if (sends(operation))
		CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), PASSED);
	conf_settle();
	return thread;
}

static void check_failed(const operation_t *operation, const act_t *a, l4_word_t tag, l4_word_t code)
{
	conf_check(a->done, operation->name, __FILE__, __LINE__);
	conf_check_equal(a->out_tag, tag, operation->name, __FILE__, __LINE__);
	conf_check_equal(a->error, code, operation->name, __FILE__, __LINE__);
}

/** A task in which no further capability has room, but with the act of a helper running. */
static l4_cap_t full_task(void)
{
	l4_cap_t limited = conf_slot(), irq = conf_irq();

	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x20000), 0);
	l4_cap_t task = conf_task_of(limited);
	/* What helpers need stands in pieces of its table that are there now; each slot below needs another piece. */
	conf_give(task, l4_parent());
	conf_give(task, conf_worker());
	conf_give(task, irq);
	for (l4_word_t i = 1; i < 63; i++)
		if (l4_task_map_cap(task, l4_own_task(), irq, l4_cap(0x1000 * i), L4_OBJECT_RIGHT_R) != 0)
			break;
	return task;
}

TEST(ERR0001, "a send phase ends with its timeout", "ipc.send:IPC2 ipc.call:IPC2 ipc.send_and_wait:IPC2")
{
	static act_t a;

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!sends(o) || replies(o))
			continue;
		a = act_of(o);
		a.timeouts = send_within(1000);
		act_start(&a);
		l4_sleep_us(3000);
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_SEND_TIMEOUT);
	}
}

TEST(ERR0002, "a send phase is cancelled", "ipc.send:IPC6 ipc.call:IPC6 ipc.send_and_wait:IPC6")
{
	static act_t a;

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!sends(o) || replies(o))
			continue;
		a = act_of(o);
		act_cancel(act_start(&a));
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_SEND_CANCELLED);
	}
}

TEST(ERR0003, "an item without a buffer fails the send phase",
     "ipc.send:IPC8 ipc.call:IPC8 ipc.send_and_wait:IPC8 ipc.reply:IPC8 ipc.reply_and_receive:IPC8 ipc.reply_and_wait:IPC8")
{
	static act_t a;
	l4_cap_t irq = conf_irq();

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!sends(o))
			continue;
		a = act_of(o);
		a.tag = l4_tag(PASSED, 0, 1);
		a.item = l4_argument(irq);
		l4_cap_t thread = act_start(&a);
		l4_accept_nothing();
		l4_tag_t tag = replies(o) ? l4_call(thread, l4_tag(0, 0, 0), receive_within(20000)).tag :
					    l4_wait(l4_no_wait()).tag;
		CHECK_EQ(tag.raw, a.tag.raw | L4_TAG_ERROR);
		CHECK_EQ(l4_utcb()->error, L4_IPC_RECEIVE_OVERFLOW);
		conf_settle();
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_SEND_OVERFLOW);
		l4_task_delete(l4_own_task(), thread);
	}
}

TEST(ERR0004, "an item that the receiver has no memory for fails the send phase",
     "ipc.send:IPC10 ipc.call:IPC10 ipc.send_and_wait:IPC10")
{
	static act_t a, receiver;
	l4_cap_t task = full_task();

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!sends(o) || replies(o))
			continue;
		receiver = act_waiter();
		receiver.slot = l4_cap(ITEM_SLOT);
		a = act_of(o);
		a.tag = l4_tag(PASSED, 0, 1);
		a.item = l4_argument(conf_irq());
		a.to = act_start_in(&receiver, task);
		act_start(&a);
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_SEND_MAP_FAILED);
		check_failed(o, &receiver, a.tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_MAP_FAILED);
	}
}

TEST(ERR0005, "an item that the caller has no memory for fails the reply and the call",
     "ipc.reply:IPC10 ipc.reply_and_receive:IPC10 ipc.reply_and_wait:IPC10 ipc.call:IPC11")
{
	static act_t a, caller;
	l4_cap_t task = full_task();

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!replies(o))
			continue;
		a = act_of(o);
		a.tag = l4_tag(PASSED, 0, 1);
		a.item = l4_argument(conf_irq());
		l4_cap_t thread = act_start(&a);
		conf_give(task, thread);
		caller = act_caller_of(thread);
		caller.slot = l4_cap(ITEM_SLOT);
		act_start_in(&caller, task);
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_SEND_MAP_FAILED);
		check_failed(o, &caller, a.tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_MAP_FAILED);
	}
}

TEST(ERR0006, "a receive phase ends with its timeout",
     "ipc.receive:IPC3 ipc.wait:IPC3 ipc.call:IPC3 ipc.send_and_wait:IPC3 ipc.reply_and_receive:IPC3 ipc.reply_and_wait:IPC3")
{
	static act_t a;

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!receives(o))
			continue;
		a = act_of(o);
		a.timeouts = receive_within(4000);
		engage(o, &a, (l4_cap_t){ 0 });
		l4_sleep_us(8000);
		check_failed(o, &a, a.tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_TIMEOUT);
	}
}

TEST(ERR0007, "a receive phase is cancelled",
     "ipc.receive:IPC7 ipc.wait:IPC7 ipc.call:IPC7 ipc.send_and_wait:IPC7 ipc.reply_and_receive:IPC7 ipc.reply_and_wait:IPC7")
{
	static act_t a;

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!receives(o))
			continue;
		a = act_of(o);
		act_cancel(engage(o, &a, (l4_cap_t){ 0 }));
		check_failed(o, &a, a.tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_CANCELLED);
	}
}

TEST(ERR0008, "an item without a buffer fails the receive phase",
     "ipc.receive:IPC9 ipc.wait:IPC9 ipc.call:IPC9 ipc.send_and_wait:IPC9 ipc.reply_and_receive:IPC9 ipc.reply_and_wait:IPC9")
{
	static act_t a;
	l4_cap_t irq = conf_irq();
	l4_tag_t tag = l4_tag(0x22, 0, 1);

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!receives(o))
			continue;
		a = act_of(o);
		l4_cap_t thread = engage(o, &a, (l4_cap_t){ 0 });
		l4_put_item(0, l4_argument(irq));
		CHECK_EQ(l4_result(l4_send(thread, tag, 0, l4_no_wait())), ipc_error(L4_IPC_SEND_OVERFLOW));
		conf_settle();
		check_failed(o, &a, tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_OVERFLOW);
	}
}

TEST(ERR0009, "an item that there is no memory for fails the receive phase",
     "ipc.receive:IPC11 ipc.wait:IPC11 ipc.call:IPC11 ipc.send_and_wait:IPC11 ipc.reply_and_receive:IPC11 "
     "ipc.reply_and_wait:IPC11")
{
	static act_t a;
	l4_cap_t task = full_task(), irq = conf_irq();
	l4_tag_t tag = l4_tag(0x22, 0, 1);

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		if (!receives(o))
			continue;
		a = act_of(o);
		a.slot = l4_cap(ITEM_SLOT);
		l4_cap_t thread = engage(o, &a, task);
		l4_put_item(0, l4_argument(irq));
		CHECK_EQ(l4_result(l4_send(thread, tag, 0, l4_no_wait())), ipc_error(L4_IPC_SEND_MAP_FAILED));
		conf_settle();
		check_failed(o, &a, tag.raw | L4_TAG_ERROR, L4_IPC_RECEIVE_MAP_FAILED);
	}
}

TEST(ERR0010, "nobody is there",
     "ipc.send:IPC4 ipc.receive:IPC4 ipc.wait:IPC4 ipc.call:IPC4 ipc.send_and_wait:IPC4 ipc.reply:IPC4 "
     "ipc.reply_and_receive:IPC4 ipc.reply_and_wait:IPC4")
{
	static act_t a;
	l4_cap_t empty = conf_slot();

	for (const operation_t *o = operations; o < operations + OPERATIONS; o++) {
		a = act_of(o);
		a.wait_first = false;
		a.to = empty;
		l4_cap_t thread = act_start(&a);
		check_failed(o, &a, L4_TAG_ERROR, L4_IPC_NOT_EXISTENT);
		l4_task_delete(l4_own_task(), thread);
		if (o == operations + CONF_HELPERS - 1)
			break;
	}
	/* The rest, by the worker itself. */
	for (const operation_t *o = operations + CONF_HELPERS; o < operations + OPERATIONS; o++) {
		l4_utcb()->error = 0;
		CHECK_EQ(l4_invoke(empty, o->code, l4_tag(PASSED, 0, 0), 0, l4_forever()).tag.raw, L4_TAG_ERROR);
		CHECK_EQ(l4_utcb()->error, L4_IPC_NOT_EXISTENT);
	}
}
