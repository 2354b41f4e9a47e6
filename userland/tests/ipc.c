/* Messages between threads: who meets whom, timeouts, cancelling, the reply slot (ABI 4, 5, 6). */
#include "act.h"

/** The IPC failed in its send phase with this code: the result is exactly the error bit. */
static void check_send_failed(l4_tag_t tag, l4_word_t code)
{
	CHECK_EQ(tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, code);
}

/** It failed in its receive phase: the result is the tag passed in with the error bit. */
static void check_receive_failed(l4_tag_t tag, l4_tag_t passed, l4_word_t code)
{
	CHECK_EQ(tag.raw, passed.raw | L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, code);
}

/* --- sending --------------------------------------------------------------------------------------------------- */

TEST(IPC0001, "a message through a thread capability brings tag, words and the sender's label", "ipc.send:OK ipc.wait:OK")
{
	act_t a = act_waiter();
	l4_cap_t thread = act_start(&a);
	l4_tag_t tag = l4_tag(-77, 3, 0);

	conf_fill(0x500, 3);
	CHECK_EQ(l4_send(thread, tag, 0xfeedbee7, l4_no_wait()).raw, tag.raw);
	conf_settle();
	CHECK_EQ(a.out_tag, tag.raw);
	CHECK_EQ(a.out_label, 0xfeedbee7);
	CHECK_EQ(a.mr[0], 0x500);
	CHECK_EQ(a.mr[2], 0x502);
}

TEST(IPC0002, "63 words fit into a message", "ipc.send:OK")
{
	act_t a = act_waiter();
	l4_cap_t thread = act_start(&a);

	conf_fill(0x7000, 63);
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(1, 63, 0), 0, l4_no_wait())), 1);
	conf_settle();
	for (unsigned i = 0; i < 63; i++)
		CHECK_EQ(a.mr[i], 0x7000 + i);
}

TEST(IPC0003, "only the words of the message are written", "ipc.send:OK")
{
	act_t a = act_waiter();
	a.first_word = 0x100;
	l4_cap_t thread = act_start(&a);

	conf_fill(0x7000, 63);
	l4_send(thread, l4_tag(0, 5, 0), 0, l4_no_wait());
	conf_settle();
	CHECK_EQ(a.mr[4], 0x7004);
	CHECK_EQ(a.mr[5], 0x105);
	CHECK_EQ(a.mr[62], 0x100 + 62);
}

TEST(IPC0004, "send to a thread that waits for another blocks until its timeout", "ipc.send:IPC2")
{
	act_t other = act_sleeper(), a = act_waiter();
	a.operation = L4_OP_RECV;
	a.to = act_start(&other);
	l4_cap_t thread = act_start(&a);
	uint64_t before = conf_now_us();

	check_send_failed(l4_send(thread, l4_tag(0, 0, 0), 0, send_within(3000)), L4_IPC_SEND_TIMEOUT);
	CHECK(conf_now_us() - before >= 3000);
	CHECK(!a.done);
}

TEST(IPC0005, "send with timeout zero to a thread that does not wait fails at once", "ipc.send:IPC2")
{
	act_t a = act_sleeper();

	check_send_failed(l4_send(act_start(&a), l4_tag(7, 2, 0), 5, l4_no_wait()), L4_IPC_SEND_TIMEOUT);
}

TEST(IPC0006, "after a failed send there is no receive phase", "ipc.call:IPC2 ipc.send_and_wait:IPC2")
{
	act_t a = act_sleeper();
	l4_cap_t thread = act_start(&a), irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x10), 0);
	l4_irq_trigger(irq);
	check_send_failed(l4_call(thread, l4_tag(7, 2, 0), l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER)).tag,
			  L4_IPC_SEND_TIMEOUT);
	check_send_failed(
		l4_send_and_wait(thread, l4_tag(7, 2, 0), 0, l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER)).tag,
		L4_IPC_SEND_TIMEOUT);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x10);
}

TEST(IPC0007, "nothing can be done with an empty slot, not even waiting",
     "ipc.send:IPC4 ipc.call:IPC4 ipc.receive:IPC4 ipc.wait:IPC4 ipc.send_and_wait:IPC4")
{
	static const l4_word_t operations[] = { L4_OP_SEND, L4_OP_CALL, L4_OP_RECV, L4_OP_WAIT, L4_OP_SEND_AND_WAIT };

	for (unsigned i = 0; i < 5; i++) {
		l4_utcb()->error = 0;
		check_send_failed(l4_invoke(conf_slot(), operations[i], l4_tag(3, 1, 0), 0, l4_forever()).tag,
				  L4_IPC_NOT_EXISTENT);
	}
}

TEST(IPC0008, "a thread that was never started does not exist for messages", "ipc.send:IPC4")
{
	l4_cap_t bound = conf_helper(&(conf_helper_t){ 0 });

	check_send_failed(l4_send(bound, l4_tag(0, 0, 0), 0, l4_forever()), L4_IPC_NOT_EXISTENT);
	check_send_failed(l4_call(bound, l4_tag(0, 0, 0), l4_forever()).tag, L4_IPC_NOT_EXISTENT);
}

TEST(IPC0009, "a dead thread does not exist for messages", "ipc.send:IPC4 ipc.call:IPC4")
{
	l4_cap_t dead = conf_helper(&(conf_helper_t){ .entry = (l4_thread_entry_t *)0x10, .no_pager = true,
						      .priority = CONF_HIGHER });

	conf_settle();
	check_send_failed(l4_send(dead, l4_tag(0, 0, 0), 0, l4_forever()), L4_IPC_NOT_EXISTENT);
	check_send_failed(l4_call(dead, l4_tag(0, 0, 0), l4_forever()).tag, L4_IPC_NOT_EXISTENT);
}

TEST(IPC0010, "a started thread without a processor counts as not receiving", "ipc.send:IPC2")
{
	act_t a = act_waiter();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = act_run, .argument = &a, .no_cpu = true });

	check_send_failed(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait()), L4_IPC_SEND_TIMEOUT);
	check_send_failed(l4_send(thread, l4_tag(0, 0, 0), 0, send_within(2000)), L4_IPC_SEND_TIMEOUT);
}

TEST(IPC0011, "a message to oneself is never received", "ipc.send:IPC2 ipc.call:IPC2")
{
	uint64_t before = conf_now_us();

	check_send_failed(l4_send(l4_self(), l4_tag(0, 0, 0), 0, l4_no_wait()), L4_IPC_SEND_TIMEOUT);
	check_send_failed(l4_call(conf_worker(), l4_tag(0, 0, 0), send_within(2000)).tag, L4_IPC_SEND_TIMEOUT);
	CHECK(conf_now_us() - before >= 2000);
}

TEST(IPC0012, "a sender blocks until the receiver comes", "ipc.send:OK ipc.wait:OK")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(2, 1, 0), 0x99);
	a.first_word = 0x42;
	act_start(&a);
	CHECK(!a.done);
	l4_message_t message = l4_wait(l4_no_wait());
	CHECK_EQ(message.tag.raw, l4_tag(2, 1, 0).raw);
	CHECK_EQ(message.label, 0x99);
	CHECK_EQ(l4_utcb()->mr[0], 0x42);
	conf_settle();
	CHECK(a.done);
	CHECK_EQ(a.out_tag, l4_tag(2, 1, 0).raw);
	CHECK_EQ(a.error, 0);
}

TEST(IPC0013, "the flags of the tag arrive as they were sent", "ipc.send:OK")
{
	static const l4_word_t flags[] = { 0, L4_TAG_SCHEDULE, L4_TAG_PROPAGATE };

	for (unsigned i = 0; i < 3; i++) {
		act_t a = act_waiter();
		l4_cap_t thread = act_start(&a);
		l4_tag_t tag = l4_tag_with(l4_tag(1, 0, 0), flags[i]);
		CHECK_EQ(l4_send(thread, tag, 0, l4_no_wait()).raw, tag.raw);
		conf_settle();
		CHECK_EQ(a.out_tag, tag.raw);
	}
}

TEST(IPC0014, "the error word is written only by failures", "ipc.send:OK")
{
	act_t a = act_waiter();
	l4_cap_t thread = act_start(&a);

	l4_utcb()->error = 0x55;
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), 0);
	CHECK_EQ(l4_utcb()->error, 0x55);
}

TEST(IPC0015, "a thread capability with the thread protocol is the kernel's, with any other the thread's", "ipc.call:OK")
{
	act_t a = act_server();
	l4_cap_t thread = act_start(&a);

	for (int label = -25; label <= 1; label++) {
		l4_utcb()->mr[0] = L4_THREAD_STATS;
		int expected = label == L4_PROTO_THREAD ? 0 : 1;
		CHECK_EQ(l4_result(l4_call(thread, l4_tag(label, 1, 0), receive_within(5000)).tag), expected);
	}
	CHECK_EQ(a.served, 26);
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

TEST(IPC0020, "a wait in vain ends with its timeout and returns the tag that was passed", "ipc.wait:IPC3")
{
	l4_tag_t tag = l4_tag(0x1234, 3, 0);
	uint64_t before = conf_now_us();

	conf_fill(0x600, 63);
	l4_message_t message = l4_invoke(l4_self(), L4_OP_WAIT, tag, 0x7777, receive_within(3000));
	check_receive_failed(message.tag, tag, L4_IPC_RECEIVE_TIMEOUT);
	CHECK_EQ(message.label, 0x7777);
	CHECK(conf_now_us() - before >= 3000);
	for (unsigned i = 0; i < 63; i++)
		CHECK_EQ(l4_utcb()->mr[i], 0x600 + i);
}

TEST(IPC0021, "a closed receive in vain ends with its timeout", "ipc.receive:IPC3")
{
	act_t a = act_sleeper();
	l4_tag_t tag = l4_tag(5, 0, 0);
	l4_cap_t thread = act_start(&a);

	check_receive_failed(l4_invoke(thread, L4_OP_RECV, tag, 0, receive_within(2000)).tag, tag, L4_IPC_RECEIVE_TIMEOUT);
	check_receive_failed(l4_invoke(thread, L4_OP_RECV, tag, 0, l4_no_wait()).tag, tag, L4_IPC_RECEIVE_TIMEOUT);
}

TEST(IPC0022, "a closed receive takes its partner's message and leaves the others' queued", "ipc.receive:OK ipc.wait:OK")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(1, 0, 0), 0xa), b = act_sender_to(conf_worker(), l4_tag(2, 0, 0), 0xb);

	act_start(&a);
	l4_cap_t second = act_start(&b);
	CHECK_EQ(l4_receive(second, l4_no_wait()).label, 0xb);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0xa);
}

TEST(IPC0023, "sleeping leaves messages queued", "ipc.receive:IPC3 ipc.wait:OK")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(1, 0, 0), 0xa);
	uint64_t before = conf_now_us();

	act_start(&a);
	l4_sleep_us(3000);
	CHECK(conf_now_us() - before >= 5000);
	CHECK(!a.done);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0xa);
}

TEST(IPC0024, "an open wait may name any capability that exists", "ipc.wait:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x10), 0);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_invoke(l4_main_thread(), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait()).label, 0x10);
}

TEST(IPC0025, "waiting senders are taken by priority, and of one priority in order of coming", "ipc.wait:OK")
{
	act_t a[4];

	for (unsigned i = 0; i < 4; i++)
		a[i] = act_sender_to(conf_worker(), l4_tag(1, 0, 0), i);
	act_start_at(&a[0], CONF_LOWER);
	act_start_at(&a[1], CONF_HIGHER);
	act_start_at(&a[2], CONF_HIGHER);
	act_start_at(&a[3], CONF_HIGHER + 1);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 3);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 1);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 2);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0);
}

TEST(IPC0026, "an IRQ comes before senders of any other priority", "ipc.wait:OK")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(1, 0, 0), 1);
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x10), 0);
	act_start(&a);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x10);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 1);
}

TEST(IPC0027, "a closed receive through a gate takes messages of the thread bound to it", "ipc.receive:OK,IPC3")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(1, 0, 0), 0xa), b = act_sender_to(conf_worker(), l4_tag(1, 0, 0), 0xb);
	act_start(&a);
	l4_cap_t gate = conf_gate(act_start(&b), 0x40);

	CHECK_EQ(l4_receive(gate, l4_no_wait()).label, 0xb);
	CHECK_EQ(l4_result(l4_receive(gate, l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(IPC0028, "receiving from an object that never sends is sleeping", "ipc.receive:IPC3")
{
	l4_cap_t objects[] = { l4_own_factory(), l4_own_log(), l4_own_scheduler(), l4_cap(L4_BOOT_CAP_ICU), conf_semaphore() };

	for (unsigned i = 0; i < 5; i++) {
		uint64_t before = conf_now_us();
		check_receive_failed(l4_receive(objects[i], receive_within(2000)).tag, l4_tag(0, 0, 0),
				     L4_IPC_RECEIVE_TIMEOUT);
		CHECK(conf_now_us() - before >= 2000);
	}
}

TEST(IPC0029, "an object's answer comes at once, even to who would wait for anybody", "ipc.send_and_wait:OK")
{
	l4_utcb()->mr[0] = L4_SCHEDULER_INFO;
	l4_utcb()->mr[1] = 0;
	l4_message_t message =
		l4_invoke(l4_own_scheduler(), L4_OP_SEND_AND_WAIT, l4_tag(L4_PROTO_SCHEDULER, 2, 0), 0x321, l4_forever());
	CHECK_EQ(message.tag.raw, l4_tag(0, 3, 0).raw);
	CHECK_EQ(message.label, 0x321);
}

/* --- timeouts ------------------------------------------------------------------------------------------------------ */

static void check_sleep(l4_timeout_t timeout, l4_word_t least_us, l4_word_t most_us)
{
	uint64_t before = conf_now_us();

	l4_receive(l4_self(), l4_timeouts(L4_TIMEOUT_NEVER, timeout));
	CHECK_EQ(l4_utcb()->error, L4_IPC_RECEIVE_TIMEOUT);
	uint64_t slept = conf_now_us() - before;
	CHECK(slept >= least_us);
	CHECK(slept <= most_us);
}

TEST(TIME0001, "a relative timeout is mantissa times two to the exponent, in microseconds", "ipc.receive:IPC3")
{
	check_sleep(625 << 0 | 4 << 10, 10000, 13000);
	check_sleep(5 << 0 | 11 << 10, 10240, 13000);
	check_sleep(l4_timeout_us(4000), 4000, 7000);
}

TEST(TIME0002, "a mantissa of 0 is no time, whatever the exponent", "ipc.receive:IPC3")
{
	for (unsigned exponent = 1; exponent < 32; exponent++)
		check_sleep((l4_timeout_t)(exponent << 10), 0, 1500);
}

static void set_time(unsigned br, uint64_t time_us)
{
	l4_utcb()->br[br] = (l4_word_t)time_us;
	l4_utcb()->br[br + 1] = (l4_word_t)(time_us >> 32);
}

TEST(TIME0003, "an absolute timeout is a clock time in the buffer registers", "ipc.receive:IPC3")
{
	set_time(10, conf_now_us() + 5000);
	check_sleep(l4_timeout_at(10), 4000, 8000);
}

TEST(TIME0004, "an absolute timeout in the past is over", "ipc.receive:IPC3 ipc.send:IPC2")
{
	act_t a = act_sleeper();
	l4_cap_t thread = act_start(&a);

	set_time(4, conf_now_us() - 1000);
	check_sleep(l4_timeout_at(4), 0, 1500);
	set_time(4, 0);
	check_sleep(l4_timeout_at(4), 0, 1500);
	check_send_failed(l4_send(thread, l4_tag(0, 0, 0), 0, l4_timeouts(l4_timeout_at(4), 0)), L4_IPC_SEND_TIMEOUT);
}

TEST(TIME0005, "an absolute timeout beyond the last register pair is that of the last", "ipc.receive:IPC3")
{
	set_time(56, conf_now_us() + 5000);
	check_sleep(l4_timeout_at(63), 4000, 8000);
}

TEST(TIME0006, "the send timeout is the high half, the receive timeout the low one", "ipc.call:IPC2,IPC3")
{
	act_t asleep = act_sleeper(), waits = act_waiter();
	l4_cap_t first = act_start(&asleep), second = act_start(&waits);
	uint64_t before = conf_now_us();

	check_send_failed(l4_call(first, l4_tag(0, 0, 0), (l4_timeouts_t){ 0x07d00400 | 0x10000 << 10 }).tag,
			  L4_IPC_SEND_TIMEOUT);
	CHECK(conf_now_us() - before >= 2000);
	before = conf_now_us();
	check_receive_failed(l4_call(second, l4_tag(0, 0, 0), (l4_timeouts_t){ 0x04000000 | l4_timeout_us(2000) }).tag,
			     l4_tag(0, 0, 0), L4_IPC_RECEIVE_TIMEOUT);
	CHECK(conf_now_us() - before >= 2000);
}

TEST(TIME0007, "the timeouts of several threads end in order of time", "ipc.receive:IPC3")
{
	act_t a[4];

	for (unsigned i = 0; i < 4; i++) {
		a[i] = act_sleeper();
		a[i].timeouts = receive_within(20000 + 5000 * (i ^ 1));
		conf_thread(act_run, &a[i], CONF_HIGHER);
	}
	l4_sleep_us(23000);
	CHECK(a[1].done && !a[0].done && !a[3].done && !a[2].done);
	l4_sleep_us(5000);
	CHECK(a[0].done && !a[3].done);
	l4_sleep_us(5000);
	CHECK(a[3].done && !a[2].done);
	l4_sleep_us(5000);
	CHECK(a[2].done);
}

/* --- cancelling ------------------------------------------------------------------------------------------------------ */

TEST(IPC0030, "a sender that is cancelled gets error 6 and the bare error bit", "ipc.send:IPC6 ipc.call:IPC6")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(4, 0, 0), 0), b = act_caller_of(conf_worker());

	act_cancel(act_start(&a));
	CHECK_EQ(a.out_tag, L4_TAG_ERROR);
	CHECK_EQ(a.error, L4_IPC_SEND_CANCELLED);
	act_cancel(act_start(&b));
	CHECK_EQ(b.out_tag, L4_TAG_ERROR);
	CHECK_EQ(b.error, L4_IPC_SEND_CANCELLED);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(IPC0031, "a receiver that is cancelled gets error 7 and the tag it passed", "ipc.receive:IPC7 ipc.call:IPC7")
{
	act_t a = { .to = conf_worker(), .operation = L4_OP_RECV, .tag = l4_tag(6, 2, 0) };
	act_t waits = act_waiter(), b = { .operation = L4_OP_CALL, .tag = l4_tag(8, 1, 0) };

	act_cancel(act_start(&a));
	CHECK_EQ(a.out_tag, l4_tag(6, 2, 0).raw | L4_TAG_ERROR);
	CHECK_EQ(a.error, L4_IPC_RECEIVE_CANCELLED);
	b.to = act_start(&waits);
	act_cancel(act_start(&b));
	CHECK_EQ(b.out_tag, l4_tag(8, 1, 0).raw | L4_TAG_ERROR);
	CHECK_EQ(b.error, L4_IPC_RECEIVE_CANCELLED);
}

/* --- calls and the reply slot -------------------------------------------------------------------------------------------- */

TEST(IPC0040, "a call waits for the answer of its partner, which knows it as its caller", "ipc.call:OK ipc.reply:OK")
{
	act_t a = act_caller_of(conf_worker());
	a.tag = l4_tag(3, 2, 0);
	a.label = 0x11;
	a.first_word = 0x30;
	act_start(&a);
	l4_message_t message = l4_wait(l4_no_wait());
	CHECK_EQ(message.tag.raw, l4_tag(3, 2, 0).raw);
	CHECK_EQ(message.label, 0x11);
	CHECK_EQ(l4_utcb()->mr[1], 0x31);
	l4_utcb()->mr[0] = 0x77;
	CHECK_EQ(l4_invoke(l4_self(), L4_OP_SEND | L4_OP_REPLY, l4_tag(9, 1, 0), 0x22, l4_no_wait()).tag.raw,
		 l4_tag(9, 1, 0).raw);
	conf_settle();
	CHECK(a.done);
	CHECK_EQ(a.out_tag, l4_tag(9, 1, 0).raw);
	CHECK_EQ(a.out_label, 0x22);
	CHECK_EQ(a.mr[0], 0x77);
}

TEST(IPC0041, "a call in vain ends with its receive timeout", "ipc.call:IPC3")
{
	act_t a = act_waiter();
	l4_tag_t tag = l4_tag(7, 0, 0);

	check_receive_failed(l4_call(act_start(&a), tag, receive_within(3000)).tag, tag, L4_IPC_RECEIVE_TIMEOUT);
	CHECK(a.done);
}

/** The reply slot of the worker is empty: a reply says so. */
static void check_no_caller(void)
{
	l4_utcb()->error = 0;
	check_send_failed(l4_reply(l4_tag(1, 0, 0), l4_no_wait()), L4_IPC_NOT_EXISTENT);
}

TEST(IPC0042, "a reply without a caller fails, without a receive phase",
     "ipc.reply:IPC4 ipc.reply_and_wait:IPC4 ipc.reply_and_receive:IPC4")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x10), 0);
	l4_irq_trigger(irq);
	check_no_caller();
	check_send_failed(l4_reply_and_wait(l4_tag(1, 0, 0), l4_forever()).tag, L4_IPC_NOT_EXISTENT);
	check_send_failed(l4_invoke(l4_self(), L4_OP_REPLY_AND_RECV, l4_tag(1, 0, 0), 0, l4_forever()).tag,
			  L4_IPC_NOT_EXISTENT);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x10);
}

TEST(IPC0043, "a plain message leaves no caller", "ipc.reply:IPC4")
{
	act_t a = act_sender_to(conf_worker(), l4_tag(0, 0, 0), 1);
	act_t b = { .to = conf_worker(), .operation = L4_OP_SEND_AND_WAIT };

	act_start(&a);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 1);
	check_no_caller();
	act_start(&b);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	check_no_caller();
}

TEST(IPC0044, "a call taken by a closed receive leaves no caller", "ipc.reply:IPC4")
{
	act_t a = act_caller_of(conf_worker());
	l4_cap_t thread = act_start(&a);

	CHECK_EQ(l4_result(l4_receive(thread, l4_no_wait()).tag), 0);
	check_no_caller();
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(5, 0, 0), 0, l4_no_wait())), 5);
	conf_settle();
	CHECK_EQ(a.out_tag, l4_tag(5, 0, 0).raw);
}

TEST(IPC0045, "a new caller takes the place of an old one, who stays waiting", "ipc.reply:OK")
{
	act_t a = act_caller_of(conf_worker()), b = act_caller_of(conf_worker());

	act_start(&a);
	l4_wait(l4_no_wait());
	act_start(&b);
	l4_wait(l4_no_wait());
	CHECK_EQ(l4_result(l4_reply(l4_tag(3, 0, 0), l4_no_wait())), 3);
	check_no_caller();
	conf_settle();
	CHECK(!a.done);
	CHECK_EQ(b.out_tag, l4_tag(3, 0, 0).raw);
}

TEST(IPC0046, "a reply uses its caller up", "ipc.reply:IPC4")
{
	act_t a = act_caller_of(conf_worker());

	act_start(&a);
	l4_wait(l4_no_wait());
	CHECK_EQ(l4_result(l4_reply(l4_tag(3, 0, 0), l4_no_wait())), 3);
	check_no_caller();
}

TEST(IPC0047, "a reply that fails uses its caller up too", "ipc.reply:IPC8,IPC4")
{
	act_t a = act_caller_of(conf_worker());

	act_start(&a);
	l4_wait(l4_no_wait());
	l4_put_item(0, l4_argument(conf_irq()));
	check_send_failed(l4_reply(l4_tag(0, 0, 1), l4_no_wait()), L4_IPC_SEND_OVERFLOW);
	check_no_caller();
	conf_settle();
	CHECK(a.done);
	CHECK_EQ(a.error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(IPC0048, "a caller that gives up is no caller any more", "ipc.reply:IPC4")
{
	act_t a = act_caller_of(conf_worker()), b = act_caller_of(conf_worker());

	a.timeouts = receive_within(4000);
	act_start(&a);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	l4_sleep_us(6000);
	CHECK_EQ(a.error, L4_IPC_RECEIVE_TIMEOUT);
	check_no_caller();
	l4_cap_t thread = act_start(&b);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	act_cancel(thread);
	CHECK_EQ(b.error, L4_IPC_RECEIVE_CANCELLED);
	check_no_caller();
}

TEST(IPC0049, "a caller answered in another way is no caller any more", "ipc.reply:IPC4")
{
	act_t a = act_caller_of(conf_worker());
	l4_cap_t thread = act_start(&a);

	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(6, 0, 0), 0, l4_no_wait())), 6);
	check_no_caller();
	CHECK_EQ(a.out_tag, l4_tag(6, 0, 0).raw);
}

TEST(IPC0050, "a reply with the label of a kernel protocol is a message like any other", "ipc.reply:OK")
{
	static const int labels[] = { L4_PROTO_THREAD, L4_PROTO_TASK, L4_PROTO_KOBJECT, L4_PROTO_IRQ };

	for (unsigned i = 0; i < 4; i++) {
		act_t a = act_caller_of(conf_worker());
		l4_tag_t tag = l4_tag(labels[i], 0, 0);
		act_start(&a);
		l4_wait(l4_no_wait());
		CHECK_EQ(l4_reply(tag, l4_no_wait()).raw, tag.raw);
		conf_settle();
		CHECK_EQ(a.out_tag, tag.raw);
	}
}

TEST(IPC0051, "reply and wait answers one caller and receives the next", "ipc.reply_and_wait:OK")
{
	act_t a = act_caller_of(conf_worker()), b = act_caller_of(conf_worker());

	a.label = 0xa;
	b.label = 0xb;
	act_start(&a);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0xa);
	act_start(&b);
	l4_message_t message = l4_reply_and_wait(l4_tag(1, 0, 0), l4_no_wait());
	CHECK_EQ(message.label, 0xb);
	l4_message_t last = l4_reply_and_wait(l4_tag(2, 0, 0), receive_within(3000));
	check_receive_failed(last.tag, l4_tag(2, 0, 0), L4_IPC_RECEIVE_TIMEOUT);
	CHECK_EQ(a.out_tag, l4_tag(1, 0, 0).raw);
	CHECK_EQ(b.out_tag, l4_tag(2, 0, 0).raw);
}

static void call_and_send(void *argument)
{
	act_t *a = argument;

	l4_call(a->to, l4_tag(1, 0, 0), l4_forever());
	a->done = true;
	l4_send(a->to, l4_tag(2, 0, 0), 0x52, l4_forever());
	l4_sleep_forever();
}

TEST(IPC0052, "reply and receive answers the caller and takes the next message of just this caller",
     "ipc.reply_and_receive:OK,IPC3")
{
	act_t a = { .to = conf_worker() }, b = act_sender_to(conf_worker(), l4_tag(0, 0, 0), 0xb);

	conf_thread(call_and_send, &a, CONF_HIGHER);
	conf_settle();
	l4_wait(l4_no_wait());
	act_start(&b);
	l4_message_t message = l4_invoke(l4_self(), L4_OP_REPLY_AND_RECV, l4_tag(4, 0, 0), 0, receive_within(5000));
	CHECK_EQ(message.tag.raw, l4_tag(2, 0, 0).raw);
	CHECK_EQ(message.label, 0x52);
	CHECK(a.done);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0xb);
	act_t c = act_caller_of(conf_worker());
	act_start(&c);
	l4_wait(l4_no_wait());
	check_receive_failed(l4_invoke(l4_self(), L4_OP_REPLY_AND_RECV, l4_tag(4, 0, 0), 0, receive_within(2000)).tag,
			     l4_tag(4, 0, 0), L4_IPC_RECEIVE_TIMEOUT);
}

TEST(IPC0053, "send and wait sends to one and receives from anybody", "ipc.send_and_wait:OK,IPC3")
{
	act_t a = act_waiter(), b = act_sender_to(conf_worker(), l4_tag(0, 0, 0), 0xb);
	l4_cap_t thread = act_start(&a);

	act_start(&b);
	CHECK_EQ(l4_send_and_wait(thread, l4_tag(1, 0, 0), 0x1, l4_no_wait()).label, 0xb);
	CHECK(a.done);
	CHECK_EQ(a.out_label, 0x1);
}

TEST(IPC0054, "a call leads through a gate into another task, and its answer back", "ipc.call:OK")
{
	act_t *a = &(act_t){ 0 };
	static act_t shared; /* in memory that both tasks see */

	shared = act_server();
	a = &shared;
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = act_run, .argument = a, .priority = CONF_HIGHER,
							.task = conf_task() });
	l4_cap_t gate = conf_gate(thread, 0x90);
	conf_settle();
	conf_fill(0x200, 63);
	CHECK_EQ(l4_call(gate, l4_tag(2, 63, 0), receive_within(10000)).tag.raw, l4_tag(1, 0, 0).raw);
	CHECK_EQ(shared.out_label, 0x93);
	CHECK_EQ(shared.mr[62], 0x200 + 62);
}

TEST(IPC0055, "a caller may be answered by whoever sends to it as the partner it waits for", "ipc.call:OK")
{
	act_t a = act_waiter();
	l4_cap_t thread = act_start(&a);
	act_t b = act_caller_of(thread);

	l4_cap_t caller = act_start(&b);
	CHECK(a.done && !b.done);
	CHECK_EQ(l4_result(l4_send(caller, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
}

/* --- explicit reply slots ---------------------------------------------------------------------------------------------- */

TEST(IPC0060, "callers kept in explicit reply slots are answered in any order", "ipc.wait:OK ipc.send:OK")
{
	act_t a = act_caller_of(conf_worker()), b = act_caller_of(conf_worker());

	act_start(&a);
	act_start(&b);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(5), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait()).tag), 0);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(6), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait()).tag), 0);
	check_no_caller();
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(6), L4_OP_SEND | L4_OP_REPLY, l4_tag(6, 0, 0), 0, l4_no_wait()).tag), 6);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(5), L4_OP_SEND | L4_OP_REPLY, l4_tag(5, 0, 0), 0, l4_no_wait()).tag), 5);
	conf_settle();
	CHECK_EQ(a.out_tag, l4_tag(5, 0, 0).raw);
	CHECK_EQ(b.out_tag, l4_tag(6, 0, 0).raw);
}

TEST(IPC0061, "an explicit reply slot is used up by its reply", "ipc.reply:IPC4")
{
	act_t a = act_caller_of(conf_worker());

	act_start(&a);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(7), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait()).tag), 0);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(7), L4_OP_SEND | L4_OP_REPLY, l4_tag(3, 0, 0), 0, l4_no_wait()).tag), 3);
	check_send_failed(l4_invoke(l4_reply_cap(7), L4_OP_SEND | L4_OP_REPLY, l4_tag(3, 0, 0), 0, l4_no_wait()).tag,
			  L4_IPC_NOT_EXISTENT);
}

static volatile l4_word_t reply_slots_error;

/** Waits with one explicit reply slot after the other, each in another part of the table. */
static void use_reply_slots(void *argument)
{
	(void)argument;
	for (l4_word_t index = 0; index < L4_CAP_INDEX_LIMIT; index += 1024) {
		l4_invoke(l4_reply_cap(index), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait());
		if (l4_utcb()->error != L4_IPC_RECEIVE_TIMEOUT)
			break;
	}
	reply_slots_error = l4_utcb()->error;
	l4_sleep_forever();
}

TEST(IPC0062, "explicit reply slots are charged to the task's quota", "ipc.wait:IPC13")
{
	l4_cap_t limited = conf_slot();

	reply_slots_error = 0;
	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x40000), 0);
	conf_helper(&(conf_helper_t){ .entry = use_reply_slots, .task = conf_task_of(limited), .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(reply_slots_error, L4_IPC_NO_REPLY_SLOT);
}
