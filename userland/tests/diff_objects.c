/* Answers in which this kernel once differed from Fiasco.OC: which refusal comes first, and what is none. DIFFnnmm is test
 * mm of the difference nn of docs/real-kernel.md. */
#include "act.h"

enum { ALL = L4_OBJECT_RIGHTS, OTHER_PROTOCOL = 0x55, BIT_15 = L4_TAG_ERROR };

static l4_cap_t icu(void)
{
	return l4_cap(L4_BOOT_CAP_ICU);
}

static l4_word_t free_pin(void)
{
	l4_icu_info_t info;

	CHECK_EQ(l4_icu_info(icu(), &info), 0);
	return info.pins - 1;
}

static int request(l4_cap_t object, int label, unsigned words, unsigned items)
{
	return l4_result(conf_call(object, label, words, items));
}

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

/* --- 10: notification objects move ------------------------------------------------------------------------------------- */

static l4_cap_t thread_with_gate(l4_cap_t *gate)
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER);

	*gate = conf_gate(thread, 0x10);
	return thread;
}

/** Whether destroying the gate triggers `irq`, which the worker is bound to. */
static bool tells(l4_cap_t irq, l4_cap_t gate)
{
	CHECK_EQ(l4_task_delete(l4_own_task(), gate), 0);
	return !l4_tag_failed(l4_receive(irq, receive_within(2000)).tag);
}

TEST(DIFF1001, "a notification object that is registered for a second thread leaves the first", "thread.register_delete_irq:OK")
{
	l4_cap_t gates[2], irq = conf_irq();
	l4_cap_t first = thread_with_gate(&gates[0]), second = thread_with_gate(&gates[1]);

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(first, irq), 0);
	CHECK_EQ(l4_thread_register_delete_irq(second, irq), 0);
	CHECK_EQ(l4_thread_register_delete_irq(first, conf_irq()), 0);
	CHECK(!tells(irq, gates[0]));
	CHECK(tells(irq, gates[1]));
}

TEST(DIFF1002, "a semaphore that is registered for a second thread leaves the first", "thread.register_delete_irq:OK")
{
	l4_cap_t gates[2], semaphore = conf_semaphore();
	l4_cap_t first = thread_with_gate(&gates[0]), second = thread_with_gate(&gates[1]);

	CHECK_EQ(l4_thread_register_delete_irq(first, semaphore), 0);
	CHECK_EQ(l4_thread_register_delete_irq(second, semaphore), 0);
	CHECK_EQ(l4_task_delete(l4_own_task(), gates[0]), 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK_EQ(l4_task_delete(l4_own_task(), gates[1]), 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
}

TEST(DIFF1003, "binding to a pin ends a registration", "icu.bind:OK")
{
	l4_cap_t gate, irq = conf_irq(), thread = thread_with_gate(&gate);

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_icu_bind(icu(), free_pin(), irq), 0);
	CHECK(!tells(irq, gate));
	CHECK_EQ(l4_thread_register_delete_irq(thread, conf_irq()), 0);
	CHECK_EQ(l4_icu_unbind(icu(), free_pin(), irq), 0);
}

TEST(DIFF1004, "a refused binding to a pin ends a registration, too", "icu.bind:EINVAL")
{
	l4_cap_t gate, irq = conf_irq(), thread = thread_with_gate(&gate);

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_icu_bind(l4_own_log(), 1, irq), -L4_EINVAL);
	CHECK(!tells(irq, gate));
}

TEST(DIFF1005, "a refused registration leaves a pin bound", "thread.register_delete_irq:EBUSY")
{
	l4_cap_t gate, irq = conf_irq(), thread = thread_with_gate(&gate);
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_thread_register_delete_irq(thread, conf_irq()), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), -L4_EBUSY);
	CHECK_EQ(l4_icu_bind(icu(), pin, conf_irq()), -L4_EINVAL);
	CHECK_EQ(l4_icu_unbind(icu(), pin, irq), 0);
}

TEST(DIFF1006, "a thread's own notification object cannot be registered again", "thread.register_delete_irq:EBUSY")
{
	l4_cap_t gate, irq = conf_irq(), thread = thread_with_gate(&gate);

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), -L4_EBUSY);
	CHECK(tells(irq, gate));
}

/* --- 15: bit 15 of a tag ------------------------------------------------------------------------------------------------- */

static l4_tag_t marked(int label)
{
	return l4_tag_with(l4_tag(label, 0, 0), BIT_15);
}

TEST(DIFF1501, "bit 15 of a tag comes back from a send that found its receiver waiting", "ipc.send:OK")
{
	act_t act = act_waiter();
	l4_cap_t to = act_start(&act);

	CHECK_EQ(l4_send(to, marked(0x15), 0, l4_no_wait()).raw, l4_tag(0x15, 0, 0).raw | BIT_15);
	conf_settle();
	CHECK_EQ(act.out_tag, l4_tag(0x15, 0, 0).raw);
}

TEST(DIFF1502, "bit 15 of a tag does not come back from a send that had to queue", "ipc.send:OK")
{
	act_t act = act_sender_to(conf_worker(), marked(0x16), 0);

	act_start(&act);
	CHECK_EQ(l4_wait(l4_no_wait()).tag.raw, l4_tag(0x16, 0, 0).raw);
	conf_settle();
	CHECK(act.done);
	CHECK_EQ(act.out_tag, l4_tag(0x16, 0, 0).raw);
}

TEST(DIFF1503, "bit 15 of a tag comes back from a reply, and not to the caller", "ipc.reply:OK")
{
	act_t act = act_caller_of(conf_worker());

	act_start(&act);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	CHECK_EQ(l4_reply(marked(0x17), l4_no_wait()).raw, l4_tag(0x17, 0, 0).raw | BIT_15);
	conf_settle();
	CHECK_EQ(act.out_tag, l4_tag(0x17, 0, 0).raw);
}

TEST(DIFF1504, "bit 15 of a tag comes back from a kernel object that does not answer", "irq.trigger:OK")
{
	CHECK_EQ(l4_send(conf_irq(), marked(L4_PROTO_IRQ), 0, l4_no_wait()).raw, l4_tag(L4_PROTO_IRQ, 0, 0).raw | BIT_15);
}

TEST(DIFF1505, "bit 15 of a call's tag is replaced by the answer's", "ipc.call:OK")
{
	act_t act = act_server();
	l4_cap_t to = act_start(&act);

	CHECK_EQ(l4_call(to, marked(0x18), l4_no_wait()).tag.raw, l4_tag(1, 0, 0).raw);
	CHECK_EQ(act.out_tag, l4_tag(0x18, 0, 0).raw);
}

/* --- 16: map with few words ---------------------------------------------------------------------------------------------- */

static int map_with_words(unsigned words, l4_item_t source)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_MAP;
	utcb->mr[1] = utcb->mr[2] = 0;
	l4_put_item(words, source);
	return request(l4_own_task(), L4_PROTO_TASK, words, 1);
}

TEST(DIFF1601, "map looks for the source behind two words, and takes its control word for the flexpage", "task.map:OK")
{
	CHECK_EQ(map_with_words(2, l4_argument(l4_own_task())), 0);
}

TEST(DIFF1602, "map with two words wants a capability, too", "task.map:IPC8,EINVAL")
{
	CHECK_EQ(map_with_words(2, l4_map_item(l4_memory_fpage(0, 12, 7), 0)), ipc_error(L4_IPC_SEND_OVERFLOW));
	CHECK_EQ(map_with_words(2, l4_argument(l4_own_log())), -L4_EINVAL);
}

TEST(DIFF1603, "map with one word maps what it looks up: the source task's capability", "task.map:OK")
{
	l4_cap_t slot = conf_slot();
	l4_item_t source = l4_argument(l4_own_task());

	source.control |= slot.raw;
	CHECK_EQ(map_with_words(1, source), 0);
	CHECK(conf_valid(slot));
	CHECK_EQ(l4_task_cap_valid(slot, slot), 1);
}

TEST(DIFF1604, "map without words finds a void item", "task.map:EINVAL")
{
	l4_utcb()->mr[0] = L4_TASK_MAP;
	CHECK_EQ(request(l4_own_task(), L4_PROTO_TASK, 0, 1), -L4_EINVAL);
}

TEST(DIFF1605, "an argument's control word needs no more than not to be zero", "task.map:OK irq.bind:OK")
{
	l4_item_t source = { 0x10, l4_argument(l4_own_task()).fpage }, thread = { 1, l4_argument(conf_worker()).fpage };
	l4_utcb_t *utcb = l4_utcb();
	l4_cap_t irq = conf_irq();

	CHECK_EQ(map_with_words(3, source), 0);
	utcb->mr[0] = L4_ENDPOINT_BIND;
	utcb->mr[1] = 0x20;
	l4_put_item(2, thread);
	CHECK_EQ(request(irq, L4_PROTO_KOBJECT, 2, 1), 0);
}

/* --- 17: making a gate ------------------------------------------------------------------------------------------------------- */

static int create_gate(unsigned words, l4_word_t label, l4_item_t item)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_PROTO_NONE;
	utcb->mr[1] = L4_VARG_UNSIGNED | sizeof(l4_word_t) << 16;
	utcb->mr[2] = label;
	l4_put_item(words, item);
	l4_accept_object(conf_slot());
	return request(l4_own_factory(), L4_PROTO_FACTORY, words, 1);
}

TEST(DIFF1701, "a gate with a void item is invalid", "factory.create_gate:EINVAL")
{
	CHECK_EQ(create_gate(3, 0x10, (l4_item_t){ 0, { 0 } }), -L4_EINVAL);
}

TEST(DIFF1702, "of a gate's arguments the flexpage is looked at first, then the thread, then its S right",
     "factory.create_gate:EINVAL,EPERM")
{
	l4_cap_t weak = conf_copy(conf_worker(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(create_gate(1, 3, l4_map_item(l4_memory_fpage(0, 12, 7), 0)), -L4_EINVAL);
	CHECK_EQ(create_gate(1, 3, l4_argument(l4_own_log())), -L4_EINVAL);
	CHECK_EQ(create_gate(1, 3, l4_argument(weak)), -L4_EPERM);
	CHECK_EQ(create_gate(3, 3, l4_argument(weak)), -L4_EPERM);
}

TEST(DIFF1703, "then the words, and the label last", "factory.create_gate:EMSGTOOSHORT,EINVAL")
{
	CHECK_EQ(create_gate(1, 3, l4_argument(conf_worker())), -L4_EMSGTOOSHORT);
	CHECK_EQ(create_gate(2, 3, l4_argument(conf_worker())), -L4_EMSGTOOSHORT);
	CHECK_EQ(create_gate(3, 3, l4_argument(conf_worker())), -L4_EINVAL);
}

TEST(DIFF1704, "a gate's thread may be named by an item without the mapping bit", "factory.create_gate:OK")
{
	CHECK_EQ(create_gate(3, 0x10, (l4_item_t){ 0x20, l4_argument(conf_worker()).fpage }), 0);
}

/* --- 18, 19: IRQ objects and semaphores ------------------------------------------------------------------------------------ */

TEST(DIFF1801, "an IRQ takes a message without words for invalid, whatever the protocol", "irq.unknown:EINVAL,EBADPROTO")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(request(irq, OTHER_PROTOCOL, 0, 0), -L4_EINVAL);
	CHECK_EQ(request(irq, L4_PROTO_KOBJECT, 0, 0), -L4_EINVAL);
	CHECK_EQ(request(irq, L4_PROTO_IRQ_SENDER, 0, 0), -L4_EINVAL);
	CHECK_EQ(request(irq, OTHER_PROTOCOL, 1, 0), -L4_EBADPROTO);
}

TEST(DIFF1802, "a semaphore takes a message without words for invalid, whatever the protocol",
     "semaphore.unknown:EINVAL,EBADPROTO")
{
	l4_cap_t semaphore = conf_semaphore();

	CHECK_EQ(request(semaphore, OTHER_PROTOCOL, 0, 0), -L4_EINVAL);
	CHECK_EQ(request(semaphore, L4_PROTO_KOBJECT, 0, 0), -L4_EINVAL);
	CHECK_EQ(request(semaphore, OTHER_PROTOCOL, 1, 0), -L4_EBADPROTO);
}

TEST(DIFF1901, "an IRQ does not let its count be lowered", "irq.unknown:ENOSYS")
{
	l4_utcb()->mr[0] = L4_KOBJECT_DEC_REFCNT;
	l4_utcb()->mr[1] = 1;
	CHECK_EQ(request(conf_irq(), L4_PROTO_KOBJECT, 2, 0), -L4_ENOSYS);
}

TEST(DIFF1902, "a semaphore does not know the protocol of counts", "semaphore.unknown:EBADPROTO")
{
	l4_utcb()->mr[0] = L4_KOBJECT_DEC_REFCNT;
	l4_utcb()->mr[1] = 1;
	CHECK_EQ(request(conf_semaphore(), L4_PROTO_KOBJECT, 2, 0), -L4_EBADPROTO);
}

/* --- 20: counts that rise ----------------------------------------------------------------------------------------------------- */

TEST(DIFF2001, "a negative difference raises a gate's count", "gate.dec_refcnt:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x10);
	l4_word_t count;

	CHECK_EQ(l4_gate_decrease_count(gate, (l4_word_t)-1, &count), 0);
	CHECK_EQ(count, 2);
	CHECK_EQ(l4_gate_decrease_count(gate, (l4_word_t)-3, &count), 0);
	CHECK_EQ(count, 5);
}

/** A copy that does not count. */
static l4_cap_t weak_copy(l4_cap_t cap)
{
	l4_cap_t copy = conf_slot();
	l4_item_t item = l4_object_item(cap, ALL);

	item.control |= copy.raw | L4_ITEM_WEAK;
	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), item), 0);
	return copy;
}

TEST(DIFF2002, "a raised count keeps weak capabilities when the last counted one goes", "gate.dec_refcnt:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x10), weak = weak_copy(gate);
	l4_word_t count;

	CHECK_EQ(l4_gate_decrease_count(gate, (l4_word_t)-1, &count), 0);
	CHECK_EQ(l4_task_release(l4_own_task(), gate), 0);
	CHECK(conf_valid(weak));
}

TEST(DIFF2003, "with its last capability a gate ends, however high its count", "gate.dec_refcnt:OK")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER), gate = conf_gate(thread, 0x10), irq = conf_irq();
	l4_word_t count;

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_gate_decrease_count(gate, (l4_word_t)-5, &count), 0);
	CHECK_EQ(l4_task_release(l4_own_task(), gate), 0);
	CHECK_EQ(l4_result(l4_receive(irq, receive_within(5000)).tag), 0);
}

TEST(DIFF2004, "with its last capability, a weak one, a gate ends", "gate.dec_refcnt:OK")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER), gate = conf_gate(thread, 0x10), irq = conf_irq();
	l4_cap_t weak = weak_copy(gate);
	l4_word_t count;

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x40), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_gate_decrease_count(gate, (l4_word_t)-5, &count), 0);
	CHECK_EQ(l4_task_release(l4_own_task(), gate), 0);
	CHECK(conf_valid(weak));
	CHECK_EQ(l4_task_release(l4_own_task(), weak), 0);
	CHECK_EQ(l4_result(l4_receive(irq, receive_within(5000)).tag), 0);
}

/* --- 21: interrupt controllers -------------------------------------------------------------------------------------------------- */

static int icu_request(l4_cap_t cap, l4_word_t operation, l4_word_t pin, unsigned words, unsigned items)
{
	l4_utcb()->mr[0] = operation;
	l4_utcb()->mr[1] = pin;
	return request(cap, L4_PROTO_IRQ, words, items);
}

TEST(DIFF2101, "unbinding a pin that is not there is no error", "icu.unbind:OK")
{
	CHECK_EQ(l4_icu_unbind(icu(), free_pin() + 100, conf_irq()), 0);
	CHECK_EQ(l4_icu_unbind(l4_own_log(), 100, conf_irq()), 0);
}

TEST(DIFF2102, "unbinding takes away who is bound, whichever IRQ it names", "icu.unbind:OK")
{
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, conf_irq()), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, conf_irq()), -L4_EINVAL);
	CHECK_EQ(l4_icu_unbind(icu(), pin, conf_irq()), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, conf_irq()), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, conf_irq()), 0);
}

TEST(DIFF2103, "unbinding needs no right on the IRQ, but an IRQ", "icu.unbind:OK,EMSGTOOSHORT")
{
	l4_word_t pin = free_pin();
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, l4_own_log()), -L4_EINVAL);
	CHECK_EQ(icu_request(icu(), L4_ICU_UNBIND, pin, 2, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(l4_icu_unbind(icu(), pin, conf_copy(irq, L4_OBJECT_RIGHT_R)), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, irq), 0);
}

TEST(DIFF2104, "the operation of a controller is the whole word", "icu.unknown:ENOSYS")
{
	CHECK_EQ(icu_request(icu(), 0x10000 | L4_ICU_INFO, 0, 1, 0), -L4_ENOSYS);
	CHECK_EQ(icu_request(l4_own_log(), 0x10000 | L4_ICU_BIND, 0, 2, 0), -L4_ENOSYS);
	CHECK_EQ(icu_request(l4_own_scheduler(), 0x10000 | L4_ICU_INFO, 0, 1, 0), -L4_ENOSYS);
}

TEST(DIFF2105, "asking for a message-signalled interrupt takes four words", "icu.msi_info:EMSGTOOSHORT,ENOSYS")
{
	for (unsigned words = 1; words < 4; words++)
		CHECK_EQ(icu_request(l4_own_log(), L4_ICU_MSI_INFO, 0, words, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(icu_request(l4_own_log(), L4_ICU_MSI_INFO, 0, 4, 0), -L4_ENOSYS);
}

TEST(DIFF2106, "binding a void item is invalid, and one that is no capability an IPC error", "icu.bind:EINVAL")
{
	l4_word_t pin = free_pin();

	l4_utcb()->mr[2] = 0;
	CHECK_EQ(icu_request(icu(), L4_ICU_BIND, pin, 2, 1), -L4_EINVAL);
	l4_put_item(2, l4_map_item(l4_memory_fpage(0, 12, 7), 0));
	CHECK_EQ(icu_request(icu(), L4_ICU_BIND, pin, 2, 1), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(DIFF2107, "a refused binding takes the IRQ from the pin that it had", "icu.bind:EINVAL")
{
	l4_cap_t irq = conf_irq();
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_bind(l4_own_scheduler(), 1, irq), -L4_EINVAL);
	CHECK_EQ(l4_icu_bind(icu(), pin, conf_irq()), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, irq), 0);
}

TEST(DIFF2108, "binding to the pin that an IRQ has already works", "icu.bind:OK")
{
	l4_cap_t irq = conf_irq();
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, irq), 0);
}

TEST(DIFF2109, "words and items together beyond the message registers are too short a message",
     "icu.unknown:EMSGTOOSHORT scheduler.info:EMSGTOOSHORT")
{
	CHECK_EQ(icu_request(icu(), L4_ICU_INFO, 0, 63, 0), 0);
	CHECK_EQ(icu_request(icu(), L4_ICU_INFO, 0, 63, 1), -L4_EMSGTOOSHORT);
	l4_utcb()->mr[0] = L4_SCHEDULER_INFO;
	l4_utcb()->mr[1] = 0;
	CHECK_EQ(request(l4_own_scheduler(), L4_PROTO_SCHEDULER, 60, 4), -L4_EMSGTOOSHORT);
}

/* --- 22: segment descriptors ------------------------------------------------------------------------------------------------------ */

static const uint64_t data_segment = 0x00cff2000000ffff, call_gate = 0x0000ec0000000000;

static int set_gdt(l4_word_t entry, unsigned words, uint64_t first, uint64_t second)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_GDT;
	utcb->mr[1] = entry;
	utcb->mr[2] = (l4_word_t)first;
	utcb->mr[3] = (l4_word_t)(first >> 32);
	utcb->mr[4] = (l4_word_t)second;
	utcb->mr[5] = (l4_word_t)(second >> 32);
	int result = request(l4_self(), L4_PROTO_THREAD, words, 0);
	conf_settle();
	return result;
}

/** Whether the calling thread could load the selector of that entry. */
static bool is_readable(unsigned entry)
{
	unsigned char readable;

	__asm__ volatile("verr %w1\n\tsetz %0" : "=q"(readable) : "r"(L4_GDT_FIRST_USER_SELECTOR + 8 * entry) : "cc");
	return readable;
}

TEST(DIFF2201, "with an entry and no descriptor the selector is told, and nothing written", "thread.gdt:OK")
{
	CHECK_EQ(set_gdt(1, 2, data_segment, 0), L4_GDT_FIRST_USER_SELECTOR + 8);
	CHECK(!is_readable(1));
}

TEST(DIFF2202, "with half a descriptor the second half is taken, whatever stands there", "thread.gdt:OK,EINVAL")
{
	CHECK_EQ(set_gdt(1, 3, call_gate, 0), -L4_EINVAL);
	CHECK_EQ(set_gdt(1, 3, data_segment, 0), L4_GDT_FIRST_USER_SELECTOR + 8);
	CHECK(is_readable(1));
	CHECK_EQ(set_gdt(1, 4, 0, 0), L4_GDT_FIRST_USER_SELECTOR + 8);
	CHECK(!is_readable(1));
}

TEST(DIFF2203, "what is unsafe beyond the last entry is ignored", "thread.gdt:OK")
{
	CHECK_EQ(set_gdt(3, 6, 0, call_gate), L4_GDT_FIRST_USER_SELECTOR + 24);
	CHECK_EQ(set_gdt(7, 4, call_gate, 0), L4_GDT_FIRST_USER_SELECTOR + 56);
}

TEST(DIFF2204, "of an odd number of words the last begins a descriptor", "thread.gdt:OK,EINVAL")
{
	CHECK_EQ(set_gdt(0, 5, 0, call_gate), -L4_EINVAL);
	CHECK_EQ(set_gdt(0, 5, 0, data_segment), L4_GDT_FIRST_USER_SELECTOR);
	CHECK(!is_readable(0));
	CHECK(is_readable(1));
	CHECK_EQ(set_gdt(0, 6, 0, 0), L4_GDT_FIRST_USER_SELECTOR);
}

TEST(DIFF2205, "descriptors before the unsafe one are written", "thread.gdt:EINVAL")
{
	CHECK_EQ(set_gdt(0, 6, data_segment, call_gate), -L4_EINVAL);
	CHECK(is_readable(0));
	CHECK_EQ(set_gdt(0, 4, 0, 0), L4_GDT_FIRST_USER_SELECTOR);
}

/* --- 23: the scheduler -------------------------------------------------------------------------------------------------------------- */

static int run_thread(l4_cap_t thread, l4_word_t cpus, l4_word_t map, l4_word_t priority, l4_word_t length, l4_word_t last)
{
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t words[] = { L4_SCHEDULER_RUN_THREAD, cpus, map, priority, length, 0, last };

	for (unsigned i = 0; i < 7; i++)
		utcb->mr[i] = words[i];
	l4_put_item(7, l4_argument(thread));
	return request(l4_own_scheduler(), L4_PROTO_SCHEDULER, 7, 1);
}

TEST(DIFF2301, "a class with more bytes than the message is invalid, whether there is such a class or not",
     "scheduler.run_thread:EINVAL,ERANGE")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	CHECK_EQ(run_thread(thread, 0, 1, (l4_word_t)-2, 25, 2), -L4_EINVAL);
	CHECK_EQ(run_thread(thread, 0, 1, (l4_word_t)-2, 24, 2), -L4_ERANGE);
	CHECK_EQ(run_thread(thread, 0, 1, (l4_word_t)-2, 0, 2), -L4_ERANGE);
	CHECK_EQ(run_thread(thread, 0, 1, (l4_word_t)L4_SCHEDULER_PARAM_CLASS_FIXED_PRIORITY, 23, 2), -L4_EINVAL);
}

TEST(DIFF2302, "the priority behind a class has no sign", "scheduler.run_thread:OK,EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });
	l4_word_t class = (l4_word_t)L4_SCHEDULER_PARAM_CLASS_FIXED_PRIORITY;

	CHECK_EQ(run_thread(thread, 0, 1, class, 24, 0), -L4_EINVAL);
	CHECK_EQ(run_thread(thread, 0, 1, class, 24, (l4_word_t)-7), 0);
}

static l4_word_t cpu_set(unsigned offset, unsigned granularity)
{
	return granularity << L4_CPU_SET_GRANULARITY_SHIFT | offset;
}

TEST(DIFF2303, "a set's offset is rounded down to its granularity", "scheduler.info:OK")
{
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t sets[] = { cpu_set(1, 1), cpu_set(3, 2), cpu_set(0x123456, 24), cpu_set(7, 255) };

	for (unsigned i = 0; i < 4; i++) {
		utcb->mr[0] = L4_SCHEDULER_INFO;
		utcb->mr[1] = sets[i];
		CHECK_EQ(request(l4_own_scheduler(), L4_PROTO_SCHEDULER, 2, 0), 0);
		CHECK_EQ(utcb->mr[0], 1);
	}
}

TEST(DIFF2304, "a thread runs on a processor of a set whose offset is rounded down", "scheduler.run_thread:OK")
{
	act_t act = act_waiter();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = act_run, .argument = &act, .no_cpu = true });

	CHECK_EQ(run_thread(thread, cpu_set(1, 1), 1, CONF_HIGHER, 0, 0), 0);
	conf_settle();
	CHECK_EQ(l4_send(thread, l4_tag(3, 0, 0), 0, l4_no_wait()).raw, l4_tag(3, 0, 0).raw);
}

TEST(DIFF2305, "the idle time of a set whose offset is rounded down is told", "scheduler.idle_time:OK")
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SCHEDULER_IDLE_TIME;
	utcb->mr[1] = cpu_set(1, 1);
	utcb->mr[2] = 1;
	CHECK_EQ(request(l4_own_scheduler(), L4_PROTO_SCHEDULER, 3, 0), 0);
}

/* --- 28: budgets of factories --------------------------------------------------------------------------------------------------------- */

enum { BUDGET = 0x10000 };

static l4_cap_t budget(l4_cap_t factory, l4_word_t bytes, int expected)
{
	l4_cap_t made = conf_slot();

	CHECK_EQ(l4_factory_create_factory(factory, made, bytes), expected);
	return made;
}

TEST(DIFF2801, "a factory cannot give all it has to another", "factory.create_factory:ENOMEM")
{
	l4_cap_t parent = budget(l4_own_factory(), BUDGET, 0);

	budget(parent, BUDGET, -L4_ENOMEM);
	budget(parent, BUDGET / 2, 0);
}

TEST(DIFF2802, "what a factory has given away is taken at once", "factory.create_factory:ENOMEM")
{
	l4_cap_t parent = budget(l4_own_factory(), BUDGET, 0);

	budget(parent, BUDGET / 2, 0);
	budget(parent, BUDGET / 2, -L4_ENOMEM);
}

TEST(DIFF2803, "a deleted factory gives back what it was given", "factory.create_factory:OK")
{
	l4_cap_t parent = budget(l4_own_factory(), BUDGET, 0), child = budget(parent, BUDGET / 2, 0);

	CHECK_EQ(l4_task_delete(l4_own_task(), child), 0);
	conf_settle();
	budget(parent, BUDGET / 2, 0);
}

TEST(DIFF2804, "a deleted factory gives back nothing while something that it made lives", "factory.create_factory:ENOMEM")
{
	l4_cap_t parent = budget(l4_own_factory(), BUDGET, 0), child = budget(parent, BUDGET / 2, 0), irq = conf_slot();

	CHECK_EQ(l4_factory_create_irq(child, irq), 0);
	CHECK_EQ(l4_task_delete(l4_own_task(), child), 0);
	conf_settle();
	budget(parent, BUDGET / 2, -L4_ENOMEM);
	CHECK_EQ(l4_task_delete(l4_own_task(), irq), 0);
	conf_settle();
	budget(parent, BUDGET / 2, 0);
}

TEST(DIFF2805, "a child's expenses are not the parent's any more", "factory.create_irq:OK")
{
	l4_cap_t parent = budget(l4_own_factory(), BUDGET, 0), child = budget(parent, BUDGET / 2, 0), rest;
	l4_cap_t made = conf_slots(4);

	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(l4_factory_create_irq(child, conf_cap_plus(made, i)), 0);
	rest = budget(parent, BUDGET / 2 - 0x1000, 0);
	CHECK(conf_valid(rest));
}

/* --- further orders, found while reading for the above ----------------------------------------------------------------------------------- */

TEST(DIFF3201, "the log's attributes keep that a new line also returns", "log.set_attr:OK log.get_attr:OK")
{
	l4_log_attributes_t old, none = { 0, 0, 0 }, now;

	CHECK_EQ(l4_log_get_attributes(l4_own_log(), &old), 0);
	CHECK_EQ(l4_log_set_attributes(l4_own_log(), &none), 0);
	CHECK_EQ(l4_log_get_attributes(l4_own_log(), &now), 0);
	CHECK_EQ(l4_log_set_attributes(l4_own_log(), &old), 0);
	CHECK_EQ(l4_utcb()->mr[0], L4_LOG_SET_ATTR);
	CHECK_EQ(((l4_word_t *)&now)[0], 0);
	CHECK_EQ(((l4_word_t *)&now)[1], L4_LOG_NEW_LINE_RETURNS);
	CHECK_EQ(((l4_word_t *)&now)[2], 0);
}

TEST(DIFF3202, "a capability for a slot beyond the table is not mapped, without an error", "task.map:OK")
{
	l4_item_t item = l4_object_item(conf_irq(), ALL);
	l4_cap_t beyond = l4_cap(1 << 18);

	item.control |= beyond.raw;
	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), item), 0);
	CHECK(!conf_valid(beyond));
}

TEST(DIFF3203, "a task's memory is looked for before its UTCB area is looked at", "factory.create_task:ENOMEM")
{
	l4_cap_t poor = budget(l4_own_factory(), 64, 0);

	CHECK_EQ(l4_factory_create_task(poor, conf_slot(), l4_memory_fpage(L4_USER_LIMIT, 12, 6)), -L4_ENOMEM);
}
