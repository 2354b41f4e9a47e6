/* Typed items in messages: buffers, placement, local ids, rights (ABI 6). The tests send to a helper, the receiver, which
 * opens the buffers that a test describes. */
#include "receiver.h"

enum { ALL = L4_OBJECT_RIGHTS, RWS = L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S };

/* --- capabilities --------------------------------------------------------------------------------------------------- */

TEST(ITEM0001, "a capability arrives in the receiver's slot, described behind the words", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	receiver_open_slot(slot);
	l4_item_t item = l4_object_item(irq, ALL);
	CHECK_EQ(receiver_send(receiver_start(), 3, &item, 1).raw, l4_tag(0x21, 3, 1).raw);
	CHECK_EQ(received.tag, l4_tag(0x21, 3, 1).raw);
	CHECK_EQ(received.label, 0x999);
	CHECK_EQ(received.mr[2], 0x102);
	CHECK_EQ(received.mr[3], 0x38);
	CHECK_EQ(received.mr[4], 0xeee00004);
	CHECK(conf_equal(slot, irq));
}

TEST(ITEM0002, "the description keeps send base, type and size", "ipc.send:OK")
{
	l4_cap_t slots = conf_slots(3), from = conf_slots(1);

	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), from), 0);
	receiver_open_window(l4_object_fpage(slots, 3, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_object_fpage(from, 1, ALL), 0x5000));
	CHECK_EQ(received.mr[0], 0x5000 | 1 << 6 | 0x30 | 0x8);
}

TEST(ITEM0003, "an empty slot is described as nothing mapped", "ipc.send:OK")
{
	l4_cap_t slot = conf_slot();

	receiver_open_slot(slot);
	CHECK_EQ(receiver_send_one(receiver_start(), l4_object_item(conf_slot(), ALL)).raw, l4_tag(0x21, 0, 1).raw);
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_NOTHING);
	CHECK(!conf_valid(slot));
}

TEST(ITEM0004, "without the R right nothing is mapped", "ipc.send:OK")
{
	l4_cap_t slot = conf_slot();

	receiver_open_slot(slot);
	receiver_send_one(receiver_start(), l4_object_item(conf_irq(), L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S));
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_NOTHING);
	CHECK(!conf_valid(slot));
}

TEST(ITEM0005, "an item that finds no buffer fails on both sides, and the words have arrived", "ipc.send:IPC8 ipc.wait:IPC9")
{
	receiver_clear();
	l4_item_t item = l4_object_item(conf_irq(), ALL);
	CHECK_EQ(receiver_send(receiver_start(), 2, &item, 1).raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_SEND_OVERFLOW);
	CHECK(received.done);
	CHECK_EQ(received.tag, l4_tag(0x21, 2, 1).raw | L4_TAG_ERROR);
	CHECK_EQ(received.label, 0x999);
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
	CHECK_EQ(received.mr[1], 0x101);
}

TEST(ITEM0006, "a call whose item finds no buffer fails in its send phase", "ipc.call:IPC8")
{
	receiver_clear();
	l4_put_item(0, l4_object_item(conf_irq(), ALL));
	CHECK_EQ(l4_call(receiver_start(), l4_tag(0, 0, 1), l4_no_wait()).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_SEND_OVERFLOW);
}

TEST(ITEM0007, "an answer whose item finds no buffer fails the caller's receive phase", "ipc.call:IPC9 ipc.reply:IPC8")
{
	receiver_clear();
	received.call = true;
	received.partner = conf_worker();
	receiver_start();
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	l4_put_item(1, l4_object_item(conf_irq(), ALL));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0x33, 1, 1), l4_no_wait())), ipc_error(L4_IPC_SEND_OVERFLOW));
	conf_settle();
	CHECK_EQ(received.tag, l4_tag(0x33, 1, 1).raw | L4_TAG_ERROR);
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(ITEM0008, "a void item is delivered as 0 and takes no buffer", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();
	l4_item_t items[] = { { 0, { 0x1234 } }, l4_object_item(irq, ALL) };

	receiver_open_slot(slot);
	CHECK_EQ(receiver_send(receiver_start(), 1, items, 2).raw, l4_tag(0x21, 1, 2).raw);
	CHECK_EQ(received.mr[1], 0);
	CHECK_EQ(received.mr[2], 0xeee00002);
	CHECK_EQ(received.mr[3], 0x38);
	CHECK(conf_equal(slot, irq));
}

TEST(ITEM0009, "a control word without the item bit is an error", "ipc.send:IPC8 ipc.wait:IPC9")
{
	receiver_open_slot(conf_slot());
	l4_item_t item = { 0x10, l4_object_fpage(conf_irq(), 0, ALL) };
	CHECK_EQ(l4_result(receiver_send_one(receiver_start(), item)), ipc_error(L4_IPC_SEND_OVERFLOW));
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(ITEM0010, "a flexpage of no type is an error", "ipc.send:IPC8 ipc.wait:IPC9")
{
	receiver_open_slot(conf_slot());
	CHECK_EQ(l4_result(receiver_send_one(receiver_start(), (l4_item_t){ L4_ITEM_MAP, { 0x1000 } })), ipc_error(L4_IPC_SEND_OVERFLOW));
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(ITEM0011, "items beyond the last message register are an error", "ipc.send:IPC8 ipc.wait:IPC9")
{
	receiver_open_slot(conf_slot());
	l4_cap_t to = receiver_start();

	conf_fill(0x100, 62);
	l4_utcb()->mr[62] = L4_ITEM_MAP;
	CHECK_EQ(l4_result(l4_send(to, l4_tag(0, 62, 1), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_OVERFLOW));
	conf_settle();
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(ITEM0012, "several items go into several buffers in order", "ipc.send:OK")
{
	l4_cap_t a = conf_irq(), b = conf_semaphore(), to_a = conf_slot(), to_b = conf_slot();
	l4_item_t items[] = { l4_object_item(a, ALL), l4_object_item(b, ALL) };

	receiver_open_slot(to_a);
	received.br[1] = receiver_small_buffer(to_b);
	receiver_send(receiver_start(), 0, items, 2);
	CHECK_EQ(received.mr[0], 0x38);
	CHECK_EQ(received.mr[2], 0x38);
	CHECK(conf_equal(a, to_a));
	CHECK(conf_equal(b, to_b));
}

TEST(ITEM0013, "more items than buffers: those that have one arrive, then the message fails", "ipc.send:IPC8 ipc.wait:IPC9")
{
	l4_cap_t a = conf_irq(), to = conf_slot();
	l4_item_t items[] = { l4_object_item(a, ALL), l4_object_item(conf_irq(), ALL) };

	receiver_open_slot(to);
	CHECK_EQ(l4_result(receiver_send(receiver_start(), 0, items, 2)), ipc_error(L4_IPC_SEND_OVERFLOW));
	CHECK_EQ(received.error, L4_IPC_RECEIVE_OVERFLOW);
	CHECK_EQ(received.mr[0], 0x38);
	CHECK(conf_equal(a, to));
}

TEST(ITEM0014, "compound items share a buffer", "ipc.send:OK")
{
	l4_cap_t a = conf_irq(), b = conf_semaphore(), window = conf_slots(1);
	l4_item_t items[] = { l4_object_item(a, ALL), l4_object_item(b, ALL) };

	items[0].control |= L4_ITEM_COMPOUND;
	items[1].control |= l4_cap(1).raw;
	receiver_open_window(l4_object_fpage(window, 1, 0));
	CHECK_EQ(receiver_send(receiver_start(), 0, items, 2).raw, l4_tag(0x21, 0, 2).raw);
	CHECK_EQ(received.mr[0], 0x39);
	CHECK(conf_equal(a, window));
	CHECK(conf_equal(b, conf_cap_plus(window, 1)));
}

TEST(ITEM0015, "each kind of item has its own list of buffers", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();
	l4_word_t page = (l4_word_t)conf_memory(12), window = L4_HEAP_START;
	l4_item_t items[] = { l4_object_item(irq, ALL), l4_map_item(l4_memory_fpage(page, 12, 7), 0) };

	receiver_clear();
	received.bdr = 2 << L4_BDR_MEMORY_SHIFT | 0 << L4_BDR_OBJECT_SHIFT;
	received.br[0] = receiver_small_buffer(slot);
	received.br[2] = L4_BUFFER_ITEM;
	received.br[3] = l4_memory_fpage(window, 12, 0).raw;
	CHECK_EQ(receiver_send(receiver_start(), 0, items, 2).raw, l4_tag(0x21, 0, 2).raw);
	CHECK_EQ(received.mr[0], 0x38);
	CHECK_EQ(received.mr[2], 12 << 6 | 0x18);
	CHECK(conf_equal(irq, slot));
	*(volatile l4_word_t *)page = 0x1515;
	CHECK_EQ(*(volatile l4_word_t *)window, 0x1515);
}

TEST(ITEM0016, "a buffer of another kind is used up silently: nothing is mapped, and the description does not tell",
     "ipc.send:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);

	receiver_open_slot(conf_slot());
	CHECK_EQ(receiver_send_one(receiver_start(), l4_map_item(l4_memory_fpage(page, 12, 7), 0)).raw, l4_tag(0x21, 0, 1).raw);
	CHECK_EQ(received.mr[0], 12 << 6 | 0x18);
}

TEST(ITEM0017, "a window for everything takes a capability to the slot that the sender names", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();
	l4_item_t item = l4_object_item(irq, ALL);

	item.control |= slot.raw;
	receiver_open_window(l4_all_fpage());
	receiver_send_one(receiver_start(), item);
	CHECK_EQ(received.mr[0], slot.raw | 0x38);
	CHECK(conf_equal(irq, slot));
}

/* --- placement ------------------------------------------------------------------------------------------------------- */

TEST(ITEM0020, "a larger window takes the item where its send base points, modulo the window", "ipc.send:OK")
{
	l4_cap_t from = conf_slots(1), window = conf_slots(3);

	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), from), 0);
	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), conf_cap_plus(from, 1)), 0);
	receiver_open_window(l4_object_fpage(window, 3, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_object_fpage(from, 1, ALL), (8 + 5) << 12));
	for (l4_word_t i = 0; i < 8; i++)
		CHECK_EQ(conf_valid(conf_cap_plus(window, i)), i == 4 || i == 5);
	CHECK(conf_equal(conf_cap_plus(window, 4), from));
}

TEST(ITEM0021, "a smaller window takes the part of the item that its send base points at", "ipc.send:OK")
{
	l4_cap_t from = conf_slots(3), window = conf_slots(1);

	for (l4_word_t i = 0; i < 8; i++)
		CHECK_EQ(l4_factory_create_irq(l4_own_factory(), conf_cap_plus(from, i)), 0);
	receiver_open_window(l4_object_fpage(window, 1, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_object_fpage(from, 3, ALL), (8 + 5) << 12));
	CHECK(conf_equal(window, conf_cap_plus(from, 4)));
	CHECK(conf_equal(conf_cap_plus(window, 1), conf_cap_plus(from, 5)));
}

TEST(ITEM0022, "memory is placed by the same rule", "ipc.send:OK")
{
	volatile l4_word_t *pages = conf_memory(14);
	l4_word_t window = L4_HEAP_START;

	for (unsigned i = 0; i < 4; i++)
		pages[i * 1024] = 0x2200 + i;
	receiver_open_window(l4_memory_fpage(window, 13, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_memory_fpage((l4_word_t)pages, 14, 7), 0x2000));
	CHECK_EQ(*(volatile l4_word_t *)window, 0x2202);
	CHECK_EQ(*(volatile l4_word_t *)(window + 0x1000), 0x2203);
	l4_task_unmap(l4_own_task(), l4_memory_fpage(window, 13, 7), L4_UNMAP_SELF);
	receiver_open_window(l4_memory_fpage(window, 14, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_memory_fpage((l4_word_t)pages + 0x1000, 12, 7), 0x3000));
	CHECK_EQ(*(volatile l4_word_t *)(window + 0x3000), 0x2201);
}

TEST(ITEM0023, "a forwarding buffer puts the item into another task", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), irq = conf_irq(), slot = conf_slot();

	receiver_clear();
	received.br[0] = L4_BUFFER_ITEM | L4_BUFFER_FORWARD;
	received.br[1] = l4_object_fpage(slot, 0, 0).raw;
	received.br[2] = task.raw;
	CHECK_EQ(receiver_send_one(receiver_start(), l4_object_item(irq, ALL)).raw, l4_tag(0x21, 0, 1).raw);
	CHECK_EQ(received.mr[0], 0x38);
	CHECK(!conf_valid(slot));
	CHECK_EQ(l4_task_cap_valid(task, slot), 1);
}

/* --- local ids --------------------------------------------------------------------------------------------------------- */

TEST(ITEM0030, "within a task a buffer for local ids gets the flexpage itself", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	receiver_send_one(receiver_start(), l4_object_item(irq, RWS));
	CHECK_EQ(received.mr[0], 0x3e);
	CHECK_EQ(received.mr[1], l4_object_fpage(irq, 0, RWS).raw);
	CHECK(!conf_valid(slot));
}

TEST(ITEM0031, "from another task a gate of the receiver's task comes as its label and rights", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), slot = conf_slot();

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	l4_cap_t to = receiver_start_in(task);
	l4_cap_t gate = conf_gate(to, 0x3100);
	receiver_send_one(to, l4_object_item(gate, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W));
	CHECK_EQ(received.mr[0], 0x3c);
	CHECK_EQ(received.mr[1], 0x3100 | L4_OBJECT_RIGHT_W);
	CHECK_EQ(l4_task_cap_valid(task, slot), 0);
}

TEST(ITEM0032, "other objects, and gates of other tasks, are mapped into the buffer for a local id", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), slot = conf_slot();

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	receiver_send_one(receiver_start_in(task), l4_object_item(conf_irq(), RWS));
	CHECK_EQ(received.mr[0], 0x38);
	CHECK_EQ(l4_task_cap_valid(task, slot), 1);
	slot = conf_slot();
	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	receiver_send_one(receiver_start_in(task), l4_object_item(conf_gate(conf_worker(), 0x40), RWS));
	CHECK_EQ(received.mr[0], 0x38);
	CHECK_EQ(l4_task_cap_valid(task, slot), 1);
}

TEST(ITEM0033, "a local id uses its buffer up", "ipc.send:OK")
{
	l4_cap_t a = conf_irq(), b = conf_irq(), slot = conf_slot(), second = conf_slot();
	l4_item_t items[] = { l4_object_item(a, RWS), l4_object_item(b, RWS) };

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	received.br[1] = receiver_small_buffer(second);
	receiver_send(receiver_start(), 0, items, 2);
	CHECK_EQ(received.mr[0], 0x3e);
	CHECK_EQ(received.mr[2], 0x38);
	CHECK(!conf_valid(slot));
	CHECK(conf_equal(second, b));
}

/* --- rights ------------------------------------------------------------------------------------------------------------- */

/** Receives `irq`, sent through `to`; whether it came with S. */
static bool arrives_with_s(l4_cap_t to, l4_cap_t irq, l4_cap_t slot)
{
	receiver_send_one(to, l4_object_item(irq, RWS));
	CHECK(conf_valid(slot));
	return l4_irq_detach(slot) != -L4_EPERM;
}

TEST(ITEM0040, "a capability sent without the S right on the way loses its S right", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	receiver_open_slot(slot);
	CHECK(arrives_with_s(receiver_start(), irq, slot));
	slot = conf_slot();
	receiver_open_slot(slot);
	l4_cap_t weak = conf_copy(receiver_start(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);
	CHECK(!arrives_with_s(weak, irq, slot));
	slot = conf_slot();
	receiver_open_slot(slot);
	weak = conf_copy(conf_gate(receiver_start(), 0), L4_OBJECT_RIGHT_R);
	CHECK(!arrives_with_s(weak, irq, slot));
}

TEST(ITEM0041, "the W right is never lost on the way", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	receiver_open_slot(slot);
	receiver_send_one(conf_copy(conf_gate(receiver_start(), 0), L4_OBJECT_RIGHT_R), l4_object_item(irq, RWS));
	CHECK(conf_equal(slot, conf_copy(irq, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W)));
}

/** The helper calls the worker through `gate` and gets `irq` as answer in `slot`. */
static void answer_with(l4_cap_t gate, l4_cap_t irq, l4_cap_t slot)
{
	receiver_open_slot(slot);
	received.call = true;
	received.partner = gate;
	receiver_start();
	l4_wait(l4_no_wait());
	l4_put_item(0, l4_object_item(irq, RWS));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	CHECK_EQ(received.mr[0], 0x38);
}

TEST(ITEM0042, "what an answer brings depends on the rights that the call was made with", "ipc.reply:OK ipc.call:OK")
{
	l4_cap_t irq = conf_irq(), gate = conf_gate(conf_worker(), 0), slot = conf_slot();

	answer_with(gate, irq, slot);
	CHECK_EQ(l4_irq_detach(slot), -L4_ENOENT);
	slot = conf_slot();
	answer_with(conf_copy(gate, L4_OBJECT_RIGHT_R), irq, slot);
	CHECK_EQ(l4_irq_detach(slot), -L4_EPERM);
}

TEST(ITEM0043, "rights that the sender leaves out of the item do not arrive", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	receiver_open_slot(slot);
	receiver_send_one(receiver_start(), l4_object_item(irq, L4_OBJECT_RIGHT_R));
	CHECK(conf_equal(slot, conf_copy(irq, L4_OBJECT_RIGHT_R)));
}

TEST(ITEM0044, "a gate keeps its server's view only if the item says so", "ipc.send:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x40), slot = conf_slot();
	l4_word_t label;

	receiver_open_slot(slot);
	receiver_send_one(receiver_start(), l4_object_item(gate, RWS | L4_OBJECT_RIGHT_SERVER));
	CHECK_EQ(l4_gate_label(slot, &label), 0);
	slot = conf_slot();
	receiver_open_slot(slot);
	receiver_send_one(receiver_start(), l4_object_item(gate, RWS));
	CHECK(conf_valid(slot));
	l4_utcb()->mr[0] = L4_GATE_GET_INFO;
	CHECK_EQ(l4_result(l4_call(slot, l4_tag(L4_PROTO_KOBJECT, 1, 0), l4_no_wait()).tag), ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(ITEM0045, "a granted capability leaves its sender", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();
	l4_item_t item = l4_object_item(irq, ALL);

	item.control |= L4_ITEM_GRANT;
	receiver_open_slot(slot);
	receiver_send_one(receiver_start(), item);
	CHECK(conf_valid(slot));
	CHECK(!conf_valid(irq));
}

TEST(ITEM0046, "items that the receiver's quota does not suffice for fail on both sides", "ipc.send:IPC10 ipc.wait:IPC11")
{
	l4_cap_t limited = conf_slot(), irq = conf_irq();

	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x20000), 0);
	l4_cap_t task = conf_task_of(limited);
	receiver_open_slot(l4_cap(0x3f000));
	l4_cap_t to = receiver_start_in(task);
	/* Fill it: each slot in another part of the table. */
	for (l4_word_t i = 1; i < 63 && l4_task_map_cap(task, l4_own_task(), irq, l4_cap(0x1000 * i), RWS) == 0; i++)
		;
	CHECK_EQ(l4_result(receiver_send_one(to, l4_object_item(irq, RWS))), ipc_error(L4_IPC_SEND_MAP_FAILED));
	CHECK_EQ(received.error, L4_IPC_RECEIVE_MAP_FAILED);
}
