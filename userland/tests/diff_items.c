/* Answers in which this kernel once differed from Fiasco.OC: slots, buffers, windows, items. DIFFnnmm is test mm of the
 * difference nn of docs/real-kernel.md. */
#include "receiver.h"

enum {
	ALL = L4_OBJECT_RIGHTS,
	RW = L4_RIGHT_R | L4_RIGHT_W,
	WINDOW = L4_HEAP_START,
	LOCAL_ID_BUFFER = L4_BUFFER_ITEM | L4_BUFFER_LOCAL_ID,
};

static l4_cap_t slot_0(void)
{
	return l4_cap(0);
}

static void open_local_ids(l4_fpage_t window)
{
	receiver_clear();
	received.br[0] = LOCAL_ID_BUFFER;
	received.br[1] = window.raw;
}

/** Page 0 of the machine, as a sender of this task may name it whether it has it or not. */
static l4_fpage_t page_with_number(l4_word_t number, l4_word_t rights)
{
	return l4_fpage(L4_FPAGE_TYPE_MEMORY, number, L4_PAGE_SHIFT, rights);
}

/* --- 1: slot 0 ---------------------------------------------------------------------------------------------------- */

TEST(DIFF0101, "a factory fills slot 0, and what it holds is valid and invoked like any other", "factory.create_irq:OK")
{
	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), slot_0()), 0);
	CHECK(conf_valid(slot_0()));
	CHECK_EQ(l4_irq_detach(slot_0()), -L4_ENOENT);
	CHECK_EQ(l4_irq_bind(slot_0(), conf_worker(), 0x110), 0);
	l4_irq_trigger(slot_0());
	CHECK_EQ(l4_receive(slot_0(), l4_no_wait()).label, 0x110);
	CHECK_EQ(l4_task_release(l4_own_task(), slot_0()), 0);
	CHECK(!conf_valid(slot_0()));
}

TEST(DIFF0102, "a capability is mapped to slot 0 and from it", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), copy = conf_slot();

	CHECK_EQ(l4_task_map_cap(l4_own_task(), l4_own_task(), irq, slot_0(), ALL), 0);
	CHECK(conf_equal(irq, slot_0()));
	CHECK_EQ(l4_task_map_cap(l4_own_task(), l4_own_task(), slot_0(), copy, ALL), 0);
	CHECK(conf_equal(irq, copy));
	CHECK_EQ(l4_task_release(l4_own_task(), slot_0()), 0);
}

TEST(DIFF0103, "a window for everything takes a capability without a send base to slot 0", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq();

	receiver_open_window(l4_all_fpage());
	receiver_send_one(receiver_start(), l4_object_item(irq, ALL));
	CHECK_EQ(received.mr[0], 0x38);
	CHECK(conf_equal(irq, slot_0()));
	CHECK_EQ(l4_task_release(l4_own_task(), slot_0()), 0);
}

TEST(DIFF0104, "a window that begins at slot 0 takes a range of slots", "ipc.send:OK")
{
	l4_cap_t from = conf_slots(1);

	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), from), 0);
	receiver_open_window(l4_object_fpage(slot_0(), 0, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_object_fpage(from, 1, ALL), 0));
	CHECK_EQ(received.mr[0], 0x38 | 1 << 6);
	CHECK(conf_equal(from, slot_0()));
	CHECK_EQ(l4_task_release(l4_own_task(), slot_0()), 0);
}

static void answer_one(void *argument)
{
	(void)argument;
	l4_wait(l4_forever());
	l4_reply(l4_tag(0x77, 0, 0), l4_no_wait());
	l4_sleep_forever();
}

TEST(DIFF0105, "a call goes through a gate in slot 0", "ipc.call:OK")
{
	l4_cap_t server = conf_thread(answer_one, NULL, CONF_HIGHER);

	conf_settle();
	CHECK_EQ(l4_factory_create_gate(l4_own_factory(), slot_0(), server, 0x40), 0);
	CHECK_EQ(l4_result(l4_call(slot_0(), l4_tag(0, 0, 0), l4_no_wait()).tag), 0x77);
	CHECK_EQ(l4_task_release(l4_own_task(), slot_0()), 0);
}

TEST(DIFF0106, "slot 0 that is empty is not existent", "ipc.call:IPC4")
{
	CHECK_EQ(l4_call(slot_0(), l4_tag(0, 0, 0), l4_no_wait()).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_NOT_EXISTENT);
}

/* --- 2: local ids -------------------------------------------------------------------------------------------------- */

TEST(DIFF0201, "within a task a plain buffer for local ids gets the flexpage itself", "ipc.send:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();

	open_local_ids(l4_object_fpage(slot, 0, 0));
	receiver_send_one(receiver_start(), l4_object_item(irq, ALL));
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_FLEXPAGE);
	CHECK_EQ(received.mr[1], l4_object_fpage(irq, 0, ALL).raw);
	CHECK(!conf_valid(slot));
}

TEST(DIFF0202, "a memory item that meets a plain buffer for local ids comes as its flexpage", "ipc.send:OK")
{
	l4_fpage_t page = l4_memory_fpage((l4_word_t)conf_memory(12), 12, RW);
	l4_cap_t p = conf_prober((l4_cap_t){ 0 });

	open_local_ids(l4_memory_fpage(WINDOW, 12, 0));
	receiver_send_one(receiver_start(), l4_map_item(page, 0));
	CHECK_EQ(received.mr[0], (page.raw & 0xff0) | L4_BUFFER_ITEM | L4_ITEM_KIND_FLEXPAGE);
	CHECK_EQ(received.mr[1], page.raw);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF0203, "a memory item that meets a small buffer for local ids comes as its flexpage", "ipc.send:OK")
{
	l4_fpage_t page = l4_memory_fpage((l4_word_t)conf_memory(12), 12, RW);
	l4_cap_t slot = conf_slot();

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	receiver_send_one(receiver_start(), l4_map_item(page, 0));
	CHECK_EQ(received.mr[0], (page.raw & 0xff0) | L4_BUFFER_ITEM | L4_ITEM_KIND_FLEXPAGE);
	CHECK_EQ(received.mr[1], page.raw);
	CHECK(!conf_valid(slot));
}

TEST(DIFF0204, "an I/O item that meets a buffer for local ids comes as its flexpage, whoever has the ports", "ipc.send:OK")
{
	l4_fpage_t ports = l4_io_fpage(0x60, 2);

	open_local_ids(l4_io_fpage(0, 16));
	receiver_send_one(receiver_start(), l4_map_item(ports, 0));
	CHECK_EQ(received.mr[0], (ports.raw & 0xff0) | L4_BUFFER_ITEM | L4_ITEM_KIND_FLEXPAGE);
	CHECK_EQ(received.mr[1], ports.raw);
}

TEST(DIFF0205, "from another task a gate of the receiver's task comes as its label into a plain buffer, too", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), slot = conf_slot();

	open_local_ids(l4_object_fpage(slot, 0, 0));
	l4_cap_t to = receiver_start_in(task);
	receiver_send_one(to, l4_object_item(conf_gate(to, 0x3100), ALL));
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_LOCAL_ID);
	CHECK_EQ(received.mr[1], 0x3100 | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S);
	CHECK_EQ(l4_task_cap_valid(task, slot), 0);
}

TEST(DIFF0206, "a local id needs no right on the flexpage", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), slot = conf_slot();

	receiver_open_slot(slot);
	received.br[0] |= L4_BUFFER_LOCAL_ID;
	l4_cap_t to = receiver_start_in(task);
	receiver_send_one(to, l4_object_item(conf_gate(to, 0x3200), 0));
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_LOCAL_ID);
	CHECK_EQ(received.mr[1], 0x3200);
}

TEST(DIFF0207, "what is not the receiver's own is mapped through a plain buffer for local ids", "ipc.send:OK")
{
	l4_cap_t task = conf_task(), slot = conf_slot();

	open_local_ids(l4_object_fpage(slot, 0, 0));
	receiver_send_one(receiver_start_in(task), l4_object_item(conf_irq(), ALL));
	CHECK_EQ(received.mr[0], 0x38);
	CHECK_EQ(l4_task_cap_valid(task, slot), 1);
}

TEST(DIFF0208, "a page whose number is the slot of a gate of the receiver's task comes as that gate's label", "ipc.send:OK")
{
	l4_cap_t task = conf_task();

	open_local_ids(l4_memory_fpage(WINDOW, 12, 0));
	l4_cap_t to = receiver_start_in(task);
	l4_cap_t gate = conf_gate(to, 0x3300);
	receiver_send_one(to, l4_map_item(page_with_number(l4_cap_index(gate), RW), 0));
	CHECK_EQ(received.mr[0], L4_PAGE_SHIFT << 6 | 0x18 | L4_ITEM_KIND_LOCAL_ID);
	CHECK_EQ(received.mr[1], 0x3300 | L4_OBJECT_RIGHT_S);
}

TEST(DIFF0209, "a local id uses a plain buffer up", "ipc.send:OK")
{
	l4_cap_t a = conf_irq(), b = conf_irq(), slot = conf_slot(), second = conf_slot();
	l4_item_t items[] = { l4_object_item(a, ALL), l4_object_item(b, ALL) };

	open_local_ids(l4_object_fpage(slot, 0, 0));
	received.br[2] = receiver_small_buffer(second);
	receiver_send(receiver_start(), 0, items, 2);
	CHECK_EQ(received.mr[0], 0x38 | L4_ITEM_KIND_FLEXPAGE);
	CHECK_EQ(received.mr[2], 0x38);
	CHECK(!conf_valid(slot));
	CHECK(conf_equal(second, b));
}

/* --- 11: a factory's window ------------------------------------------------------------------------------------------ */

TEST(DIFF1101, "a factory fills the slot that a window names, also where the window is not aligned", "factory.create_irq:OK")
{
	l4_cap_t window = conf_slots(3), slot = conf_cap_plus(window, 1);
	l4_utcb_t *utcb = l4_utcb();

	l4_accept(l4_object_fpage(slot, 3, 0));
	utcb->mr[0] = (l4_word_t)L4_PROTO_IRQ_SENDER;
	CHECK_EQ(l4_result(conf_call(l4_own_factory(), L4_PROTO_FACTORY, 1, 0)), 0);
	CHECK(!conf_valid(window));
	CHECK(conf_valid(slot));
}

TEST(DIFF1102, "in a message the same window is aligned down", "ipc.send:OK")
{
	l4_cap_t window = conf_slots(3), irq = conf_irq();

	receiver_open_window(l4_object_fpage(conf_cap_plus(window, 1), 3, 0));
	receiver_send_one(receiver_start(), l4_object_item(irq, ALL));
	CHECK(conf_equal(window, irq));
	CHECK(!conf_valid(conf_cap_plus(window, 1)));
}

/* --- 14: descriptions of what did not fit ---------------------------------------------------------------------------- */

/** What a receiver with this window is told of the item. */
static l4_word_t kind_of(l4_item_t item, l4_fpage_t window)
{
	receiver_open_window(window);
	receiver_send_one(receiver_start(), item);
	CHECK(received.done);
	return received.mr[0] & L4_ITEM_KIND_FLEXPAGE;
}

TEST(DIFF1401, "a memory item smaller than a page is described as mapped, and nothing is", "ipc.send:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);
	l4_cap_t p = conf_prober((l4_cap_t){ 0 });

	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(page, 11, RW), 0), l4_memory_fpage(WINDOW, 12, 0)),
		 L4_ITEM_KIND_MAPPED);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF1402, "a memory window smaller than a page takes nothing, and the description does not tell", "ipc.send:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);
	l4_cap_t p = conf_prober((l4_cap_t){ 0 });

	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(page, 12, RW), 0), l4_memory_fpage(WINDOW, 5, 0)),
		 L4_ITEM_KIND_MAPPED);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF1403, "ports outside the window are described as mapped", "ipc.send:OK")
{
	CHECK_EQ(kind_of(l4_map_item(l4_io_fpage(0x80, 2), 0), l4_io_fpage(0x100, 3)), L4_ITEM_KIND_MAPPED);
}

TEST(DIFF1404, "ports that the sender lacks are described as nothing mapped", "ipc.send:OK")
{
	CHECK_EQ(kind_of(l4_map_item(l4_io_fpage(0x80, 2), 0), l4_io_fpage(0, 16)), L4_ITEM_KIND_NOTHING);
}

TEST(DIFF1405, "a page that the sender lacks is described as nothing mapped", "ipc.send:OK")
{
	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(WINDOW + 0x4000, 12, RW), 0), l4_memory_fpage(WINDOW, 12, 0)),
		 L4_ITEM_KIND_NOTHING);
}

TEST(DIFF1406, "kernel-user memory cannot be passed on, and the description does not tell", "ipc.send:OK")
{
	l4_cap_t p = conf_prober((l4_cap_t){ 0 });

	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(L4_BOOT_UTCB, 12, RW), 0), l4_memory_fpage(WINDOW, 12, 0)),
		 L4_ITEM_KIND_MAPPED);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF1407, "nothing is mapped over kernel-user memory, and the description does not tell", "ipc.send:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);
	l4_word_t own = l4_utcb()->address;

	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(page, 12, RW), 0), l4_memory_fpage(L4_BOOT_UTCB, 12, 0)),
		 L4_ITEM_KIND_MAPPED);
	CHECK_EQ(l4_utcb()->address, own);
}

TEST(DIFF1408, "a page without any right is described as nothing mapped", "ipc.send:OK")
{
	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage((l4_word_t)conf_memory(12), 12, 0), 0), l4_memory_fpage(WINDOW, 12, 0)),
		 L4_ITEM_KIND_NOTHING);
}

TEST(DIFF1409, "a page mapped onto itself is described as mapped", "ipc.send:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);

	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, RW), WINDOW)), 0);
	CHECK_EQ(kind_of(l4_map_item(l4_memory_fpage(WINDOW, 12, RW), 0), l4_memory_fpage(WINDOW, 12, 0)),
		 L4_ITEM_KIND_MAPPED);
}
