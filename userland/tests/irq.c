/* IRQ objects (ABI 11.5). */
#include "conf.h"

/** The next message is this IRQ's, and is there already. */
static bool delivered(l4_word_t label)
{
	l4_message_t message = l4_wait(l4_no_wait());

	return message.tag.raw == 0 && message.label == label;
}

static bool nothing_delivered(void)
{
	return l4_result(l4_wait(l4_no_wait()).tag) == ipc_error(L4_IPC_RECEIVE_TIMEOUT);
}

static l4_cap_t bound(l4_word_t label)
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), label), 0);
	return irq;
}

static int request(l4_cap_t irq, int label, l4_word_t operation, unsigned words)
{
	l4_utcb()->mr[0] = operation;
	return l4_request(irq, l4_tag(label, words, 0));
}

TEST(IRQ0001, "a trigger arrives with the bound label, tag 0, and no message register written", "irq.trigger:OK irq.bind:OK")
{
	l4_cap_t irq = bound(0x12345677);

	CHECK_EQ(l4_irq_trigger(irq).raw, l4_tag(L4_PROTO_IRQ, 1, 0).raw);
	conf_fill(0x900, 63);
	l4_message_t message = l4_wait(l4_no_wait());
	CHECK_EQ(message.tag.raw, 0);
	CHECK_EQ(message.label, 0x12345677);
	for (unsigned i = 0; i < 63; i++)
		CHECK_EQ(l4_utcb()->mr[i], 0x900 + i);
}

TEST(IRQ0002, "triggers while one is queued are lost", "irq.trigger:OK")
{
	l4_cap_t irq = bound(0x20);

	l4_irq_trigger(irq);
	l4_irq_trigger(irq);
	CHECK(delivered(0x20));
	CHECK(nothing_delivered());
	l4_irq_trigger(irq);
	CHECK(delivered(0x20));
}

TEST(IRQ0003, "a trigger before the binding is kept, once, and comes with the binding", "irq.trigger:OK irq.bind:OK")
{
	l4_cap_t irq = conf_irq();

	l4_irq_trigger(irq);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x30), 0);
	CHECK(delivered(0x30));
	CHECK(nothing_delivered());
}

TEST(IRQ0004, "a trigger without words is one too, and needs no right", "irq.trigger:OK")
{
	l4_cap_t weak = conf_copy(bound(0x40), L4_OBJECT_RIGHT_R);

	CHECK_EQ(l4_send(weak, l4_tag(L4_PROTO_IRQ, 0, 0), 0, l4_forever()).raw, l4_tag(L4_PROTO_IRQ, 0, 0).raw);
	CHECK(delivered(0x40));
}

TEST(IRQ0005, "binding again to the same thread changes the label, even of a queued delivery", "irq.bind:OK")
{
	l4_cap_t irq = bound(0x50);

	l4_irq_trigger(irq);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x51), 0);
	CHECK(delivered(0x51));
}

static volatile l4_word_t moved_label;

static void receive_one(void *argument)
{
	(void)argument;
	moved_label = l4_wait(l4_forever()).label;
	l4_sleep_forever();
}

TEST(IRQ0006, "binding to another thread moves a queued delivery", "irq.bind:OK")
{
	l4_cap_t irq = bound(0x60);

	moved_label = 0;
	l4_irq_trigger(irq);
	CHECK_EQ(l4_irq_bind(irq, conf_thread(receive_one, NULL, CONF_HIGHER), 0x61), 0);
	conf_settle();
	CHECK_EQ(moved_label, 0x61);
	CHECK(nothing_delivered());
}

TEST(IRQ0007, "binding needs the S right on the IRQ", "irq.bind:EPERM")
{
	l4_cap_t weak = conf_copy(conf_irq(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(l4_irq_bind(weak, conf_worker(), 0), -L4_EPERM);
}

TEST(IRQ0008, "binding needs the S right on the thread", "irq.bind:EPERM")
{
	l4_cap_t weak = conf_copy(conf_worker(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(l4_irq_bind(conf_irq(), weak, 0), -L4_EPERM);
}

TEST(IRQ0009, "binding needs a thread", "irq.bind:EINVAL,IPC8")
{
	l4_cap_t irq = conf_irq();

	l4_utcb()->mr[1] = 0;
	CHECK_EQ(request(irq, L4_PROTO_KOBJECT, L4_ENDPOINT_BIND, 2), -L4_EINVAL);
	CHECK_EQ(l4_irq_bind(irq, conf_slot(), 0), -L4_EINVAL);
	CHECK_EQ(l4_irq_bind(irq, l4_own_log(), 0), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_ENDPOINT_BIND;
	l4_put_item(2, (l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, 7) });
	CHECK_EQ(l4_request(irq, l4_tag(L4_PROTO_KOBJECT, 2, 1)), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(IRQ0010, "detaching answers 0, or 1 for a pending trigger, which the next binding brings", "irq.detach:OK")
{
	l4_cap_t irq = bound(0x70);

	CHECK_EQ(l4_irq_detach(irq), 0);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x70), 0);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_irq_detach(irq), 1);
	CHECK(nothing_delivered());
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x71), 0);
	CHECK(delivered(0x71));
}

TEST(IRQ0011, "detaching what is not bound finds nothing", "irq.detach:ENOENT")
{
	CHECK_EQ(l4_irq_detach(conf_irq()), -L4_ENOENT);
}

TEST(IRQ0012, "detaching needs the S right", "irq.detach:EPERM")
{
	CHECK_EQ(l4_irq_detach(conf_copy(bound(0), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W)), -L4_EPERM);
}

TEST(IRQ0013, "binding a vCPU is not implemented", "irq.bind_vcpu:ENOSYS")
{
	l4_utcb()->mr[1] = 0;
	CHECK_EQ(request(conf_irq(), L4_PROTO_IRQ_SENDER, L4_IRQ_SENDER_BIND_VCPU, 2), -L4_ENOSYS);
}

TEST(IRQ0014, "unmask answers nothing: as a call it waits for just this IRQ", "irq.unmask:OK,IPC3")
{
	l4_cap_t irq = bound(0x80), other = bound(0x81);

	l4_irq_trigger(other);
	l4_utcb()->mr[0] = L4_IRQ_UNMASK;
	CHECK_EQ(l4_result(l4_call(irq, l4_tag(L4_PROTO_IRQ, 1, 0), receive_within(2000)).tag),
		 ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	l4_irq_trigger(irq);
	l4_utcb()->mr[0] = L4_IRQ_UNMASK;
	l4_message_t message = l4_call(irq, l4_tag(L4_PROTO_IRQ, 1, 0), l4_forever());
	CHECK_EQ(message.tag.raw, 0);
	CHECK_EQ(message.label, 0x80);
}

TEST(IRQ0015, "unmask with an open wait waits for any message", "irq.unmask:OK")
{
	l4_cap_t irq = bound(0x90), other = bound(0x91);

	l4_irq_trigger(other);
	l4_utcb()->mr[0] = L4_IRQ_UNMASK;
	CHECK_EQ(l4_send_and_wait(irq, l4_tag(L4_PROTO_IRQ, 1, 0), 0, l4_forever()).label, 0x91);
	CHECK_EQ(l4_irq_unmask(irq).raw, l4_tag(L4_PROTO_IRQ, 1, 0).raw);
}

TEST(IRQ0016, "a closed receive on an IRQ takes just its delivery", "ipc.receive:OK,IPC3")
{
	l4_cap_t irq = bound(0xa0), other = bound(0xa1);

	l4_irq_trigger(other);
	CHECK_EQ(l4_result(l4_receive(irq, receive_within(2000)).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	l4_irq_trigger(irq);
	CHECK_EQ(l4_receive(irq, l4_forever()).label, 0xa0);
}

TEST(IRQ0017, "another protocol is refused, and a message without words is invalid", "irq.unknown:EBADPROTO,EINVAL")
{
	CHECK_EQ(request(conf_irq(), L4_PROTO_TASK, 0, 1), -L4_EBADPROTO);
	CHECK_EQ(l4_request(conf_irq(), l4_tag(L4_PROTO_KOBJECT, 0, 0)), -L4_EINVAL);
	CHECK_EQ(l4_request(conf_irq(), l4_tag(L4_PROTO_IRQ_SENDER, 0, 0)), -L4_EINVAL);
}

TEST(IRQ0018, "an unknown operation is not implemented", "irq.unknown:ENOSYS")
{
	CHECK_EQ(request(conf_irq(), L4_PROTO_IRQ_SENDER, 7, 1), -L4_ENOSYS);
	CHECK_EQ(request(conf_irq(), L4_PROTO_KOBJECT, 7, 1), -L4_ENOSYS);
	CHECK_EQ(request(conf_irq(), L4_PROTO_IRQ, 7, 1), -L4_ENOSYS);
}

static volatile l4_word_t order;

static void note_order(void *argument)
{
	(void)argument;
	l4_wait(l4_forever());
	order = 1;
	l4_sleep_forever();
}

TEST(IRQ0019, "a trigger wakes a receiver of the same priority at once, and not one of a lower", "irq.trigger:OK")
{
	l4_cap_t irq = conf_irq();

	order = 0;
	CHECK_EQ(l4_irq_bind(irq, conf_thread(note_order, NULL, CONF_WORKER_PRIORITY), 0), 0);
	conf_settle();
	l4_irq_trigger(irq);
	CHECK_EQ(order, 1);
	order = 0;
	CHECK_EQ(l4_irq_bind(irq, conf_thread(note_order, NULL, CONF_LOWER), 0), 0);
	conf_settle();
	l4_irq_trigger(irq);
	CHECK_EQ(order, 0);
	conf_settle();
	CHECK_EQ(order, 1);
}

TEST(IRQ0020, "only the low half of the first word names the operation", "irq.trigger:OK")
{
	l4_cap_t irq = bound(0xb0);

	l4_utcb()->mr[0] = 0xffff0000 | L4_IRQ_TRIGGER;
	l4_send(irq, l4_tag(L4_PROTO_IRQ, 1, 0), 0, l4_forever());
	CHECK(delivered(0xb0));
}
