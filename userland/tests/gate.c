/* IPC gates: the server's operations, labels, views (ABI 6, 11.8). */
#include "conf.h"

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

static int kobject_request(l4_cap_t gate, l4_word_t operation, unsigned words)
{
	l4_utcb()->mr[0] = operation;
	return l4_request(gate, l4_tag(L4_PROTO_KOBJECT, words, 0));
}

static l4_cap_t unbound(void)
{
	l4_cap_t gate = conf_slot();

	CHECK_EQ(l4_factory_create_unbound_gate(l4_own_factory(), gate), 0);
	return gate;
}

/** Receives one message and keeps what came. */
static volatile struct {
	l4_word_t tag, label, mr0, count;
} got;

static void receive_and_reply(void *argument)
{
	(void)argument;
	got.count = 0;
	for (l4_message_t message = l4_wait(l4_forever());;) {
		got.tag = message.tag.raw;
		got.label = message.label;
		got.mr0 = l4_utcb()->mr[0];
		got.count++;
		message = l4_serve(l4_tag(1, 0, 0));
	}
}

TEST(GATE0001, "a gate is bound later, with a label", "gate.bind:OK gate.get_info:OK")
{
	l4_cap_t gate = unbound();
	l4_word_t label;

	CHECK_EQ(l4_gate_bind(gate, conf_worker(), 0xabcdef00), 0);
	CHECK_EQ(l4_gate_label(gate, &label), 0);
	CHECK_EQ(label, 0xabcdef00);
}

TEST(GATE0002, "a gate is bound again, to another thread and label", "gate.bind:OK")
{
	l4_cap_t first = conf_thread(sleeper, NULL, CONF_HIGHER), second = conf_thread(receive_and_reply, NULL, CONF_HIGHER);
	l4_cap_t gate = conf_gate(first, 0x10);

	conf_settle();
	CHECK_EQ(l4_gate_bind(gate, second, 0x20), 0);
	CHECK_EQ(l4_result(l4_call(gate, l4_tag(0, 0, 0), l4_no_wait()).tag), 1);
	CHECK_EQ(got.label, 0x23);
}

TEST(GATE0003, "the answer to get info is one word", "gate.get_info:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x30);

	l4_utcb()->mr[0] = L4_GATE_GET_INFO;
	CHECK_EQ(l4_call(gate, l4_tag(L4_PROTO_KOBJECT, 1, 0), l4_forever()).tag.raw, l4_tag(0, 1, 0).raw);
	CHECK_EQ(l4_utcb()->mr[0], 0x30);
}

TEST(GATE0004, "binding needs the S right on the gate, but get info only the server's view", "gate.bind:EPERM gate.get_info:OK")
{
	l4_cap_t weak = conf_copy(conf_gate(conf_worker(), 0x40), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_SERVER);
	l4_word_t label;

	CHECK_EQ(l4_gate_bind(weak, conf_worker(), 0), -L4_EPERM);
	CHECK_EQ(kobject_request(weak, L4_ENDPOINT_BIND, 1), -L4_EPERM);
	CHECK_EQ(l4_gate_label(weak, &label), 0);
	CHECK_EQ(label, 0x40);
}

TEST(GATE0005, "binding needs a label, with the two low bits clear", "gate.bind:EMSGTOOSHORT,EINVAL")
{
	l4_cap_t gate = unbound();

	CHECK_EQ(kobject_request(gate, L4_ENDPOINT_BIND, 1), -L4_EMSGTOOSHORT);
	CHECK_EQ(l4_gate_bind(gate, conf_worker(), 0x41), -L4_EINVAL);
	CHECK_EQ(l4_gate_bind(gate, conf_worker(), 0x42), -L4_EINVAL);
	CHECK_EQ(l4_gate_bind(gate, conf_worker(), 0x44), 0);
}

TEST(GATE0006, "binding needs a thread", "gate.bind:EINVAL,IPC8")
{
	l4_cap_t gate = unbound();

	l4_utcb()->mr[1] = 0x40;
	CHECK_EQ(kobject_request(gate, L4_ENDPOINT_BIND, 2), -L4_EINVAL);
	CHECK_EQ(l4_gate_bind(gate, conf_slot(), 0x40), -L4_EINVAL);
	CHECK_EQ(l4_gate_bind(gate, l4_own_log(), 0x40), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_ENDPOINT_BIND;
	l4_put_item(2, (l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, 7) });
	CHECK_EQ(l4_request(gate, l4_tag(L4_PROTO_KOBJECT, 2, 1)), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(GATE0007, "binding needs the S right on the thread", "gate.bind:EPERM")
{
	l4_cap_t weak = conf_copy(conf_worker(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(l4_gate_bind(unbound(), weak, 0), -L4_EPERM);
}

TEST(GATE0008, "a message without words is invalid", "gate.unknown:EINVAL")
{
	CHECK_EQ(l4_request(unbound(), l4_tag(L4_PROTO_KOBJECT, 0, 0)), -L4_EINVAL);
}

TEST(GATE0009, "an unknown operation is not implemented", "gate.unknown:ENOSYS")
{
	CHECK_EQ(kobject_request(unbound(), 0x12, 1), -L4_ENOSYS);
	CHECK_EQ(kobject_request(unbound(), 5, 1), -L4_ENOSYS);
}

/* --- counting ----------------------------------------------------------------------------------------------- */

TEST(GATE0020, "decreasing the count answers what remains", "gate.dec_refcnt:OK")
{
	l4_cap_t gate = unbound();
	l4_word_t remaining;

	conf_copy(gate, L4_OBJECT_RIGHTS);
	CHECK_EQ(l4_gate_decrease_count(gate, 0, &remaining), 0);
	CHECK_EQ(remaining, 2);
	CHECK_EQ(l4_gate_decrease_count(gate, 1, &remaining), 0);
	CHECK_EQ(remaining, 1);
}

TEST(GATE0021, "decreasing the count needs its difference", "gate.dec_refcnt:EINVAL")
{
	CHECK_EQ(kobject_request(unbound(), L4_KOBJECT_DEC_REFCNT, 1), -L4_EINVAL);
}

TEST(GATE0022, "a gate counted down ends with the client's capability, and the server's goes with it",
     "gate.dec_refcnt:OK task.unmap:OK")
{
	l4_cap_t server = unbound();
	l4_cap_t client = conf_copy(server, L4_OBJECT_RIGHTS);
	l4_word_t remaining;

	CHECK_EQ(l4_gate_decrease_count(server, 1, &remaining), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), server), 1);
	CHECK_EQ(l4_task_release(l4_own_task(), client), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), server), 0);
}

TEST(GATE0023, "counting down to nothing destroys nothing by itself", "gate.dec_refcnt:OK")
{
	l4_cap_t gate = unbound();
	l4_word_t remaining;

	CHECK_EQ(l4_gate_decrease_count(gate, 1, &remaining), 0);
	CHECK_EQ(remaining, 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), gate), 1);
}

/* --- labels and views ----------------------------------------------------------------------------------------- */

TEST(GATE0030, "the label arrives with the rights W and S of the capability used in its low bits", "ipc.call:OK")
{
	static const l4_word_t rights[] = { 0, L4_OBJECT_RIGHT_W, L4_OBJECT_RIGHT_S, L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S };
	l4_cap_t gate = conf_gate(conf_thread(receive_and_reply, NULL, CONF_HIGHER), 0x8765430c);

	conf_settle();
	for (unsigned i = 0; i < 4; i++) {
		l4_cap_t copy = conf_copy(gate, L4_OBJECT_RIGHT_R | rights[i]);
		CHECK_EQ(l4_result(l4_invoke(copy, L4_OP_CALL, l4_tag(9, 0, 0), 0x5555, l4_forever()).tag), 1);
		CHECK_EQ(got.label, 0x8765430c | rights[i]);
		CHECK_EQ(got.tag, l4_tag(9, 0, 0).raw);
	}
}

TEST(GATE0031, "a client's message of the kernel's own protocol goes to the thread", "ipc.call:OK")
{
	l4_cap_t gate = conf_gate(conf_thread(receive_and_reply, NULL, CONF_HIGHER), 0x40);
	l4_cap_t client = conf_copy(gate, L4_OBJECT_RIGHTS);

	conf_settle();
	CHECK_EQ(kobject_request(client, L4_GATE_GET_INFO, 1), 1);
	CHECK_EQ(got.tag, l4_tag(L4_PROTO_KOBJECT, 1, 0).raw);
	CHECK_EQ(got.mr0, L4_GATE_GET_INFO);
	CHECK_EQ(kobject_request(gate, L4_GATE_GET_INFO, 1), 0);
	CHECK_EQ(got.count, 1);
}

TEST(GATE0032, "other protocols go to the thread even with the server's view", "ipc.call:OK")
{
	l4_cap_t gate = conf_gate(conf_thread(receive_and_reply, NULL, CONF_HIGHER), 0x40);

	conf_settle();
	for (int label = -25; label < 3; label++) {
		if (label == L4_PROTO_KOBJECT)
			continue;
		CHECK_EQ(l4_result(l4_call(gate, l4_tag(label, 0, 0), l4_forever()).tag), 1);
		CHECK_EQ(got.tag, l4_tag(label, 0, 0).raw);
	}
}

/* --- unbound gates --------------------------------------------------------------------------------------------- */

static volatile l4_word_t sender_tag, sender_error;
static l4_cap_t sender_gate;
static l4_timeouts_t sender_timeouts;

static void call_gate(void *argument)
{
	(void)argument;
	sender_tag = 1;
	sender_tag = l4_call(sender_gate, l4_tag(3, 0, 0), sender_timeouts).tag.raw;
	sender_error = l4_utcb()->error;
	l4_sleep_forever();
}

TEST(GATE0040, "who invokes an unbound gate waits, and goes on once a thread is bound", "gate.bind:OK ipc.call:OK")
{
	l4_cap_t server = conf_thread(receive_and_reply, NULL, CONF_HIGHER);
	sender_gate = unbound();
	sender_timeouts = l4_forever();
	conf_thread(call_gate, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(sender_tag, 1);
	CHECK_EQ(l4_gate_bind(sender_gate, server, 0x70), 0);
	conf_settle();
	CHECK_EQ(sender_tag, l4_tag(1, 0, 0).raw);
	CHECK_EQ(got.label, 0x73);
}

TEST(GATE0041, "an unbound gate is waited for no longer than the send timeout", "ipc.call:IPC2 ipc.send:IPC2")
{
	l4_cap_t gate = unbound();
	uint64_t before = conf_now_us();

	CHECK_EQ(l4_call(gate, l4_tag(3, 0, 0), send_within(3000)).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_SEND_TIMEOUT);
	CHECK(conf_now_us() - before >= 3000);
	CHECK_EQ(l4_result(l4_send(gate, l4_tag(3, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(GATE0042, "who waits at a gate that is destroyed gets error 4", "ipc.call:IPC4")
{
	sender_gate = unbound();
	sender_timeouts = l4_forever();
	conf_thread(call_gate, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(l4_task_delete(l4_own_task(), sender_gate), 0);
	conf_settle();
	CHECK_EQ(sender_tag, L4_TAG_ERROR);
	CHECK_EQ(sender_error, L4_IPC_NOT_EXISTENT);
}

TEST(GATE0043, "who waits at an unbound gate can be cancelled: error 6", "ipc.call:IPC6")
{
	sender_gate = unbound();
	sender_timeouts = l4_forever();
	l4_cap_t sender = conf_thread(call_gate, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(sender, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(sender_tag, L4_TAG_ERROR);
	CHECK_EQ(sender_error, L4_IPC_SEND_CANCELLED);
}

TEST(GATE0044, "also who only receives from an unbound gate waits for its binding under the send timeout", "ipc.receive:IPC2")
{
	l4_cap_t gate = unbound();

	CHECK_EQ(l4_receive(gate, l4_timeouts(l4_timeout_us(2000), L4_TIMEOUT_NEVER)).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_SEND_TIMEOUT);
}
