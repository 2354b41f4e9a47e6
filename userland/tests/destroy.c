/* What partners see when an object is destroyed: the table of ABI 7. */
#include "conf.h"

#include <l4/string.h>

static volatile struct {
	l4_word_t tag, error, label, done;
} seen;

static l4_cap_t partner;

static void note(l4_message_t message)
{
	seen.tag = message.tag.raw;
	seen.label = message.label;
	seen.error = l4_utcb()->error;
	seen.done = 1;
	l4_sleep_forever();
}

static void send(void *argument)
{
	(void)argument;
	note((l4_message_t){ l4_send(partner, l4_tag(4, 0, 0), 0, l4_forever()), 0 });
}

static void call(void *argument)
{
	(void)argument;
	note(l4_call(partner, l4_tag(4, 0, 0), l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(30000))));
}

static void receive(void *argument)
{
	(void)argument;
	note(l4_receive(partner, receive_within(30000)));
}

static void wait_once(void *argument)
{
	(void)argument;
	l4_wait(l4_forever());
	l4_sleep_forever();
}

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

static void spinner(void *argument)
{
	(void)argument;
	for (;;)
		;
}

static l4_cap_t start(l4_thread_entry_t *entry)
{
	if (entry == send || entry == call || entry == receive)
		memset((void *)&seen, 0, sizeof seen);
	l4_cap_t thread = conf_thread(entry, NULL, CONF_HIGHER);
	conf_settle();
	return thread;
}

static void destroy(l4_cap_t cap)
{
	CHECK_EQ(l4_task_delete(l4_own_task(), cap), 0);
	conf_settle();
}

/* --- threads --------------------------------------------------------------------------------------------------------- */

TEST(DEST0001, "a sender queued on a thread that dies gets error 6", "ipc.send:IPC6")
{
	partner = start(sleeper);
	start(send);
	CHECK(!seen.done);
	destroy(partner);
	CHECK_EQ(seen.tag, L4_TAG_ERROR);
	CHECK_EQ(seen.error, L4_IPC_SEND_CANCELLED);
}

TEST(DEST0002, "a caller queued on a thread that dies gets error 6", "ipc.call:IPC6")
{
	partner = start(sleeper);
	start(call);
	destroy(partner);
	CHECK_EQ(seen.tag, L4_TAG_ERROR);
	CHECK_EQ(seen.error, L4_IPC_SEND_CANCELLED);
}

TEST(DEST0003, "a caller whose message was received waits for its timeout when the server dies", "ipc.call:IPC3")
{
	partner = start(wait_once);
	start(call);
	destroy(partner);
	CHECK(!seen.done);
	l4_sleep_us(40000);
	CHECK_EQ(seen.tag, l4_tag(4, 0, 0).raw | L4_TAG_ERROR);
	CHECK_EQ(seen.error, L4_IPC_RECEIVE_TIMEOUT);
}

TEST(DEST0004, "a closed receiver waits for its timeout when its partner dies", "ipc.receive:IPC3")
{
	partner = start(sleeper);
	start(receive);
	destroy(partner);
	CHECK(!seen.done);
	l4_sleep_us(40000);
	CHECK_EQ(seen.error, L4_IPC_RECEIVE_TIMEOUT);
}

TEST(DEST0005, "a gate of a thread that died fails with error 4 until it is bound again", "ipc.call:IPC4 gate.bind:OK")
{
	l4_cap_t thread = start(wait_once), gate = conf_gate(thread, 0x40);

	destroy(thread);
	CHECK_EQ(l4_result(l4_call(gate, l4_tag(0, 0, 0), l4_forever()).tag), ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_result(l4_send(gate, l4_tag(0, 0, 0), 0, l4_forever())), ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_gate_bind(gate, start(wait_once), 0x40), 0);
	CHECK_EQ(l4_result(l4_send(gate, l4_tag(5, 0, 0), 0, l4_no_wait())), 5);
}

TEST(DEST0006, "a delivery queued at a thread that dies comes to the thread its IRQ is bound to next", "irq.bind:OK")
{
	l4_cap_t irq = conf_irq(), thread = start(sleeper);

	CHECK_EQ(l4_irq_bind(irq, thread, 0x61), 0);
	l4_irq_trigger(irq);
	destroy(thread);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x62), 0);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x62);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(DEST0007, "a caller that dies is no caller any more", "ipc.reply:IPC4")
{
	partner = conf_worker();
	l4_cap_t caller = start(call);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 4);
	destroy(caller);
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 0), l4_no_wait())), ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(DEST0008, "the UTCB of a thread shows when it is gone", "task.unmap:OK")
{
	l4_cap_t thread = conf_thread(spinner, NULL, CONF_LOWER);
	l4_utcb_t *utcb = conf_helper_utcb();

	utcb->free_marker = 7;
	conf_settle();
	CHECK_EQ(utcb->free_marker, 7);
	destroy(thread);
	CHECK_EQ(utcb->free_marker, 0);
}

TEST(DEST0009, "a queued sender that dies is not received from", "ipc.wait:IPC3")
{
	partner = conf_worker();
	l4_cap_t sender = start(send);
	destroy(sender);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(DEST0010, "a UTCB is free for another thread when its thread is gone", "thread.control:OK")
{
	l4_cap_t thread = start(sleeper), other = conf_helper(&(conf_helper_t){ .unbound = true });
	l4_utcb_t *utcb = conf_helper_utcb() - 1;
	l4_thread_control_t control = { .change = L4_CONTROL_BIND_TASK, .task = l4_own_task(), .utcb = utcb };

	destroy(thread);
	CHECK_EQ(l4_thread_control(other, &control), 0);
	CHECK_EQ(utcb->address, (l4_word_t)utcb);
}

/* --- gates, IRQs -------------------------------------------------------------------------------------------------------- */

TEST(DEST0020, "a message queued through a gate is delivered even if the gate is destroyed meanwhile", "ipc.call:OK")
{
	partner = conf_gate(conf_worker(), 0x200);
	start(call);
	destroy(partner);
	l4_message_t message = l4_wait(l4_no_wait());
	CHECK_EQ(message.tag.raw, l4_tag(4, 0, 0).raw);
	CHECK_EQ(message.label, 0x203);
	CHECK_EQ(l4_result(l4_reply(l4_tag(6, 0, 0), l4_no_wait())), 6);
	conf_settle();
	CHECK_EQ(seen.tag, l4_tag(6, 0, 0).raw);
}

TEST(DEST0021, "a call being served is answered even if its gate is destroyed meanwhile", "ipc.reply:OK")
{
	partner = conf_gate(conf_worker(), 0x210);
	start(call);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 4);
	destroy(partner);
	CHECK_EQ(l4_result(l4_reply(l4_tag(6, 0, 0), l4_no_wait())), 6);
	conf_settle();
	CHECK_EQ(seen.tag, l4_tag(6, 0, 0).raw);
}

TEST(DEST0022, "a closed receiver on an IRQ waits for its timeout when the IRQ is destroyed", "ipc.receive:IPC3")
{
	partner = conf_irq();
	l4_cap_t thread = start(receive);
	CHECK_EQ(l4_irq_bind(partner, thread, 0), 0);
	destroy(partner);
	CHECK(!seen.done);
	l4_sleep_us(40000);
	CHECK_EQ(seen.error, L4_IPC_RECEIVE_TIMEOUT);
}

TEST(DEST0023, "a pending delivery goes with its IRQ", "ipc.wait:IPC3")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x230), 0);
	l4_irq_trigger(irq);
	destroy(irq);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(DEST0024, "a pin is free again when its IRQ is destroyed", "icu.bind:OK")
{
	l4_cap_t first = conf_irq(), second = conf_irq();

	CHECK_EQ(l4_icu_bind(l4_own_scheduler(), 0, first), 0);
	destroy(first);
	CHECK_EQ(l4_icu_bind(l4_own_scheduler(), 0, second), 0);
}

/* --- tasks -------------------------------------------------------------------------------------------------------------- */

TEST(DEST0030, "threads die with the task that holds their last capability", "task.unmap:OK")
{
	l4_cap_t task = conf_task();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = sleeper, .task = task, .priority = CONF_HIGHER });
	l4_cap_t gate = conf_gate(thread, 0x300);

	conf_settle();
	/* The task got a copy when the helper was made; with ours gone it is the last. */
	CHECK_EQ(l4_task_release(l4_own_task(), thread), 0);
	CHECK_EQ(l4_result(l4_send(gate, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
	destroy(task);
	CHECK_EQ(l4_result(l4_send(gate, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(DEST0031, "a blocked thread outlives its task while its capability is held elsewhere", "task.unmap:OK")
{
	l4_cap_t task = conf_task();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = sleeper, .task = task, .priority = CONF_HIGHER });

	conf_settle();
	destroy(task);
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(DEST0032, "a running thread whose task is destroyed faults, finds no pager, and is gone", "task.unmap:OK")
{
	l4_cap_t task = conf_task();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = spinner, .task = task, .priority = CONF_LOWER });

	conf_settle();
	destroy(task);
	conf_settle();
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(DEST0033, "a task that ends destroys the objects on which it has the D right, others it only releases",
     "task.unmap:OK")
{
	l4_cap_t task = conf_task(), kept = conf_irq(), lost = conf_irq();

	CHECK_EQ(l4_task_map_cap(task, l4_own_task(), kept, kept, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D), 0);
	CHECK_EQ(l4_task_map_cap(task, l4_own_task(), lost, lost, L4_OBJECT_RIGHTS), 0);
	destroy(task);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), kept), 1);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), lost), 0);
}

TEST(DEST0034, "an object that only a dying task holds ends with it", "task.unmap:OK")
{
	l4_cap_t task = conf_task(), thread = start(wait_once), gate = conf_gate(thread, 0x340), irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x341), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	conf_give(task, gate);
	CHECK_EQ(l4_task_release(l4_own_task(), gate), 0);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	destroy(task);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x341);
}

TEST(DEST0035, "an operation on a task that is gone finds nothing", "ipc.call:IPC4 task.map:EINVAL")
{
	l4_cap_t task = conf_task(), irq = conf_irq();

	destroy(task);
	CHECK_EQ(l4_task_cap_valid(task, irq), ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_task_map_cap(l4_own_task(), task, irq, conf_slot(), L4_OBJECT_RIGHTS), -L4_EINVAL);
}

static void fault(void *argument)
{
	*(volatile l4_word_t *)argument = 1;
	seen.done = 1;
	l4_sleep_forever();
}

TEST(DEST0036, "a thread in a fault call is answered though its pager's gate is destroyed meanwhile", "page_fault.answer:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x360);
	l4_word_t page = (l4_word_t)conf_memory(12);

	memset((void *)&seen, 0, sizeof seen);
	conf_helper(&(conf_helper_t){ .entry = fault, .argument = (void *)L4_HEAP_START, .pager = gate, .handler = gate,
				      .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), L4_PROTO_PAGE_FAULT);
	destroy(gate);
	l4_put_item(0, l4_map_item(l4_memory_fpage(page, 12, 7), L4_HEAP_START));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	CHECK(seen.done);
}
