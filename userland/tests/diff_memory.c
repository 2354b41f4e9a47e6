/* Answers in which this kernel once differed from Fiasco.OC: memory, what unmap writes, kernel-user memory. DIFFnnmm is
 * test mm of the difference nn of docs/real-kernel.md. */
#include "receiver.h"

enum {
	RW = L4_RIGHT_R | L4_RIGHT_W,
	WINDOW = L4_HEAP_START,
	OTHER = L4_HEAP_START + 0x800000,
	KU_AREA = 0xb6000000,
};

static int map(l4_word_t from, l4_word_t to, unsigned order, l4_word_t rights)
{
	l4_fpage_t page = l4_memory_fpage(from, order, rights);

	return l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(page, to));
}

static l4_cap_t prober(void)
{
	return conf_prober((l4_cap_t){ 0 });
}

/** Fresh pages at WINDOW, which the test may lose. */
static void map_window(unsigned order)
{
	CHECK_EQ(map((l4_word_t)conf_memory(order), WINDOW, order, RW), 0);
}

static l4_word_t flexpage_word(l4_word_t type, l4_word_t address, unsigned order, l4_word_t rights)
{
	return l4_fpage((unsigned)type, address >> L4_PAGE_SHIFT, order, rights).raw;
}

/* --- 3: memory without R ------------------------------------------------------------------------------------------- */

TEST(DIFF0301, "a page mapped with X alone can be read, and not written", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, L4_RIGHT_X), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(!conf_write(p, WINDOW, 1));
}

TEST(DIFF0302, "a page mapped with W alone can be read and written", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, L4_RIGHT_W), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(conf_write(p, WINDOW, 1));
}

TEST(DIFF0303, "a page mapped without any right is not there", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, 0), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF0304, "what was mapped with X alone is passed on with R", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, L4_RIGHT_X), 0);
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK(conf_read(p, OTHER, NULL));
	CHECK(!conf_write(p, OTHER, 1));
}

TEST(DIFF0305, "taking X alone leaves a page as it is", "task.unmap:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	CHECK_EQ(l4_task_unmap(l4_own_task(), l4_memory_fpage(WINDOW, 12, L4_RIGHT_X), L4_UNMAP_SELF), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(conf_write(p, WINDOW, 1));
}

TEST(DIFF0306, "a page read-only in its task is mapped on with W alone as readable", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, L4_RIGHT_R), 0);
	CHECK_EQ(map(WINDOW, OTHER, 12, L4_RIGHT_W | L4_RIGHT_X), 0);
	CHECK(conf_read(p, OTHER, NULL));
	CHECK(!conf_write(p, OTHER, 1));
}

TEST(DIFF0307, "a page that is read-only in its task is not mapped on with W alone", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map((l4_word_t)conf_memory(12), WINDOW, 12, L4_RIGHT_R), 0);
	CHECK_EQ(map(WINDOW, OTHER, 12, L4_RIGHT_W), 0);
	CHECK(!conf_read(p, OTHER, NULL));
}

/* --- 4: a page mapped onto itself ------------------------------------------------------------------------------------ */

TEST(DIFF0401, "a page that is mapped onto itself is lost", "task.map:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	CHECK_EQ(map(WINDOW, WINDOW, 12, RW), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF0402, "what was mapped on from a page is lost with it when it is mapped onto itself", "task.map:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(map(WINDOW, WINDOW, 12, RW), 0);
	CHECK(!conf_read(p, OTHER, NULL));
}

TEST(DIFF0403, "every page of a range mapped onto itself is lost", "task.map:OK")
{
	l4_cap_t p = prober();

	map_window(13);
	CHECK_EQ(map(WINDOW, WINDOW, 13, RW), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK(!conf_read(p, WINDOW + L4_PAGE_BYTES, NULL));
}

TEST(DIFF0404, "a page granted onto itself is lost", "task.map:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), l4_grant_item(l4_memory_fpage(WINDOW, 12, RW), WINDOW)), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF0405, "a page that a message brings onto itself is lost", "ipc.send:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	receiver_open_window(l4_memory_fpage(WINDOW, 12, 0));
	receiver_send_one(receiver_start(), l4_map_item(l4_memory_fpage(WINDOW, 12, RW), 0));
	CHECK(!conf_read(p, WINDOW, NULL));
}

TEST(DIFF0406, "a page mapped over what it comes from takes both away", "task.map:OK")
{
	l4_cap_t p = prober();

	map_window(12);
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(map(OTHER, WINDOW, 12, RW), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK(!conf_read(p, OTHER, NULL));
}

TEST(DIFF0407, "pages moved by one onto each other: the first is replaced by its neighbour", "task.map:OK")
{
	volatile l4_word_t *memory = conf_memory(13);
	l4_word_t value = 0;
	l4_cap_t p = prober();

	memory[0] = 0x41;
	memory[L4_PAGE_BYTES / sizeof *memory] = 0x42;
	CHECK_EQ(map((l4_word_t)memory, WINDOW, 13, RW), 0);
	CHECK_EQ(map(WINDOW + L4_PAGE_BYTES, WINDOW, 12, RW), 0);
	CHECK(conf_read(p, WINDOW, &value));
	CHECK_EQ(value, 0x42);
	CHECK(conf_read(p, WINDOW + L4_PAGE_BYTES, &value));
	CHECK_EQ(value, 0x42);
}

TEST(DIFF0408, "a capability mapped onto its own slot is lost, granted too", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), copy = conf_copy(irq, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D);
	l4_item_t item = l4_object_item(copy, L4_OBJECT_RIGHTS);

	item.control |= copy.raw | L4_ITEM_GRANT;
	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), item), 0);
	CHECK(!conf_valid(copy));
	CHECK(conf_valid(irq));
}

/* --- 12: kernel-user memory ------------------------------------------------------------------------------------------- */

/** Adds an area to a fresh task; the answer's label. Its first word is in MR[0]. */
static int add_area(l4_word_t word)
{
	l4_cap_t task = conf_slot();

	CHECK_EQ(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }), 0);
	return l4_task_add_ku_mem(task, (l4_fpage_t){ word });
}

/** Makes a task with that word as its UTCB area, or is refused. MR[0] has the area that it got. */
static int task_with(l4_word_t word)
{
	return l4_factory_create_task(l4_own_factory(), conf_slot(), (l4_fpage_t){ word });
}

TEST(DIFF1201, "an added area of kernel-user memory comes back without rights", "task.add_ku_mem:OK")
{
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, RW)), 0);
	CHECK_EQ(l4_utcb()->mr[0], flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, 0));
}

TEST(DIFF1202, "a task's UTCB area comes back without rights", "factory.create_task:OK")
{
	CHECK_EQ(task_with(flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, L4_MEMORY_RIGHTS)), 0);
	CHECK_EQ(l4_utcb()->mr[0], flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, 0));
}

TEST(DIFF1203, "a UTCB area of any type is taken for memory", "factory.create_task:OK")
{
	l4_word_t expected = flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 13, 0);

	CHECK_EQ(task_with(flexpage_word(L4_FPAGE_TYPE_IO, KU_AREA, 13, RW)), 0);
	CHECK_EQ(l4_utcb()->mr[0], expected);
	CHECK_EQ(task_with(flexpage_word(L4_FPAGE_TYPE_OBJECT, KU_AREA, 13, 0)), 0);
	CHECK_EQ(l4_utcb()->mr[0], expected);
	CHECK_EQ(task_with(flexpage_word(L4_FPAGE_TYPE_SPECIAL, KU_AREA, 13, 0)), 0);
	CHECK_EQ(l4_utcb()->mr[0], expected);
}

TEST(DIFF1204, "an area to add must be memory", "task.add_ku_mem:EINVAL")
{
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_IO, KU_AREA, 12, RW)), -L4_EINVAL);
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_OBJECT, KU_AREA, 12, RW)), -L4_EINVAL);
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_SPECIAL, KU_AREA, 12, RW)), -L4_EINVAL);
}

TEST(DIFF1205, "an area is not aligned down to its size: it begins at the page named", "task.add_ku_mem:OK")
{
	l4_cap_t task = conf_slot();
	l4_word_t first = KU_AREA + L4_PAGE_BYTES;
	l4_utcb_t *utcb = l4_utcb();

	CHECK_EQ(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }), 0);
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ flexpage_word(L4_FPAGE_TYPE_MEMORY, first, 13, RW) }), 0);
	CHECK_EQ(utcb->mr[0], flexpage_word(L4_FPAGE_TYPE_MEMORY, first, 13, 0));
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ flexpage_word(L4_FPAGE_TYPE_MEMORY, first + L4_PAGE_BYTES, 12, RW) }),
		 -L4_EEXIST);
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, RW) }), 0);
}

TEST(DIFF1206, "a UTCB lies across the pages of an area that is not aligned", "thread.control:OK")
{
	l4_cap_t task = conf_slot(), thread = conf_helper(&(conf_helper_t){ .unbound = true });
	l4_word_t first = KU_AREA + L4_PAGE_BYTES;
	l4_thread_control_t control = { .change = L4_CONTROL_BIND_TASK,
					.task = task,
					.utcb = (l4_utcb_t *)(first + L4_PAGE_BYTES - 0x100) };

	CHECK_EQ(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }), 0);
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ flexpage_word(L4_FPAGE_TYPE_MEMORY, first, 13, RW) }), 0);
	CHECK_EQ(l4_thread_control(thread, &control), 0);
}

TEST(DIFF1207, "an area that does not end in the user's part is invalid, wherever its size would align it",
     "task.add_ku_mem:EINVAL factory.create_task:EINVAL")
{
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_MEMORY, L4_USER_LIMIT - L4_PAGE_BYTES, 13, RW)), -L4_EINVAL);
	CHECK_EQ(task_with(flexpage_word(L4_FPAGE_TYPE_MEMORY, L4_USER_LIMIT - L4_PAGE_BYTES, 13, RW)), -L4_EINVAL);
	CHECK_EQ(add_area(flexpage_word(L4_FPAGE_TYPE_MEMORY, L4_USER_LIMIT - L4_PAGE_BYTES, 12, RW)), 0);
}

TEST(DIFF1208, "of several areas those before the refused one stay, and come back", "task.add_ku_mem:EINVAL")
{
	l4_cap_t task = conf_slot();
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t good = flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, RW);

	CHECK_EQ(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }), 0);
	utcb->mr[0] = L4_TASK_ADD_KU_MEM;
	utcb->mr[1] = good;
	utcb->mr[2] = flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA + 0x100000, 11, RW);
	CHECK_EQ(l4_result(conf_call(task, L4_PROTO_TASK, 3, 0)), -L4_EINVAL);
	CHECK_EQ(utcb->mr[0], flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, 0));
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ good }), -L4_EEXIST);
}

TEST(DIFF1209, "without a receive phase an area is added and its word left alone", "task.add_ku_mem:OK")
{
	l4_cap_t task = conf_slot();
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t good = flexpage_word(L4_FPAGE_TYPE_MEMORY, KU_AREA, 12, RW);

	CHECK_EQ(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }), 0);
	utcb->mr[0] = L4_TASK_ADD_KU_MEM;
	utcb->mr[1] = good;
	CHECK_EQ(l4_send(task, l4_tag(L4_PROTO_TASK, 2, 0), 0, l4_forever()).raw, l4_tag(L4_PROTO_TASK, 2, 0).raw);
	CHECK_EQ(utcb->mr[0], L4_TASK_ADD_KU_MEM);
	CHECK_EQ(l4_task_add_ku_mem(task, (l4_fpage_t){ good }), -L4_EEXIST);
}

/* --- 13: unmap without a receive phase -------------------------------------------------------------------------------- */

static void send_unmap(l4_fpage_t page, l4_word_t mask)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_UNMAP;
	utcb->mr[1] = mask;
	utcb->mr[2] = page.raw;
	CHECK_EQ(l4_send(l4_own_task(), l4_tag(L4_PROTO_TASK, 3, 0), 0, l4_forever()).raw,
		 l4_tag(L4_PROTO_TASK, 3, 0).raw);
}

TEST(DIFF1301, "unmap puts the access flags into the flexpages also without a receive phase", "task.unmap:OK")
{
	l4_fpage_t page = l4_memory_fpage(WINDOW, 12, L4_MEMORY_RIGHTS);

	map_window(12);
	CHECK(conf_write(prober(), WINDOW, 1));
	send_unmap(page, L4_UNMAP_SELF);
	CHECK_EQ(l4_utcb()->mr[2], (page.raw & ~(l4_word_t)0xf) | L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY);
}

TEST(DIFF1302, "unmap clears the rights of an object's flexpage also without a receive phase", "task.unmap:OK")
{
	l4_fpage_t page = l4_object_fpage(conf_irq(), 0, L4_OBJECT_RIGHTS);

	send_unmap(page, L4_UNMAP_SELF);
	CHECK_EQ(l4_utcb()->mr[2], page.raw & ~(l4_word_t)0xf);
}

TEST(DIFF1303, "unmap of nothing clears the rights too", "task.unmap:OK")
{
	l4_fpage_t page = l4_memory_fpage(OTHER, 12, L4_MEMORY_RIGHTS);

	send_unmap(page, 0);
	CHECK_EQ(l4_utcb()->mr[2], page.raw & ~(l4_word_t)0xf);
}

/* --- 33: access flags ------------------------------------------------------------------------------------------------------- */

static l4_word_t access_of(l4_word_t address, l4_word_t rights, l4_word_t mask)
{
	CHECK_EQ(l4_task_unmap(l4_own_task(), l4_memory_fpage(address, 12, rights), mask), 0);
	return l4_task_unmapped_access();
}

enum { BOTH = L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY };

TEST(DIFF3301, "unmap that leaves a page there leaves its access flags, too", "task.unmap:OK")
{
	map_window(12);
	CHECK(conf_write(prober(), WINDOW, 1));
	CHECK_EQ(access_of(WINDOW, L4_RIGHT_X, L4_UNMAP_SELF), BOTH);
	CHECK_EQ(access_of(WINDOW, 0, L4_UNMAP_SELF), BOTH);
	CHECK_EQ(access_of(WINDOW, L4_RIGHT_W, L4_UNMAP_SELF), BOTH);
	CHECK_EQ(access_of(WINDOW, L4_MEMORY_RIGHTS, L4_UNMAP_SELF), BOTH);
}

TEST(DIFF3302, "and a page gets the flags of those that were mapped on from it, which lose them", "task.unmap:OK")
{
	map_window(12);
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK(conf_write(prober(), OTHER, 1));
	CHECK_EQ(access_of(WINDOW, L4_RIGHT_W, L4_UNMAP_SELF), BOTH);
	CHECK_EQ(access_of(OTHER, L4_MEMORY_RIGHTS, L4_UNMAP_SELF), 0);
	CHECK_EQ(access_of(WINDOW, L4_MEMORY_RIGHTS, L4_UNMAP_SELF), BOTH);
}

TEST(DIFF3303, "mapped again with the same rights a page keeps its access flags", "task.map:OK")
{
	map_window(12);
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK(conf_write(prober(), OTHER, 1));
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(access_of(OTHER, L4_MEMORY_RIGHTS, L4_UNMAP_SELF), BOTH);
}

TEST(DIFF3304, "mapped again with more rights a page has the access flags of the one it comes from", "task.map:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12);

	CHECK_EQ(map(page, WINDOW, 12, RW), 0);
	CHECK_EQ(map(WINDOW, OTHER, 12, L4_RIGHT_R), 0);
	CHECK_EQ(access_of(page, L4_RIGHT_X, 0), BOTH); /* WINDOW and OTHER have none now */
	CHECK(conf_read(prober(), OTHER, NULL));
	CHECK_EQ(map(WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(access_of(OTHER, L4_MEMORY_RIGHTS, L4_UNMAP_SELF), 0);
}

/* --- ports, as far as they are like memory ----------------------------------------------------------------------------- */

enum { PORT = 0x84, GATE = 0x8880 };

/** The task that tries ports, with one that the root task has from sigma0. */
static l4_cap_t task_with_port(void)
{
	l4_cap_t task = conf_task();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = l4_io_fpage(PORT, 0).raw;
	l4_accept(l4_all_fpage());
	CHECK_EQ(l4_result(l4_call(l4_parent(), l4_tag(L4_PROTO_IO_PAGE_FAULT, 2, 0), l4_forever()).tag), 0);
	CHECK_EQ(l4_task_map(task, l4_own_task(), l4_map_item(l4_io_fpage(PORT, 0), 0)), 0);
	return task;
}

static volatile bool has_read;

static void read_port(void *argument)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "d"((uint16_t)(l4_word_t)argument));
	has_read = true;
	l4_sleep_forever();
}

static bool can_read(l4_cap_t task)
{
	has_read = false;
	conf_helper(&(conf_helper_t){ .entry = read_port, .argument = (void *)PORT, .task = task,
				      .handler = conf_gate(conf_worker(), GATE), .priority = CONF_HIGHER });
	conf_settle();
	return has_read;
}

static l4_fpage_t port_with(l4_word_t rights)
{
	return l4_fpage(L4_FPAGE_TYPE_IO, PORT, 0, rights);
}

TEST(DIFF0409, "a port that is mapped onto itself is lost", "task.map:OK")
{
	l4_cap_t task = task_with_port();

	CHECK(can_read(task));
	CHECK_EQ(l4_task_map(task, task, l4_map_item(port_with(6), 0)), 0);
	CHECK(!can_read(task));
}

TEST(DIFF0410, "a granted port moves", "task.map:OK")
{
	l4_cap_t first = task_with_port(), second = conf_task();

	CHECK_EQ(l4_task_map(second, first, l4_grant_item(port_with(6), 0)), 0);
	CHECK(!can_read(first));
	CHECK(can_read(second));
}

TEST(DIFF0411, "a port is not passed on with X alone or without a right, and with any other it is", "task.map:OK")
{
	l4_cap_t first = task_with_port(), second = conf_task();

	CHECK_EQ(l4_task_map(second, first, l4_map_item(port_with(L4_RIGHT_X), 0)), 0);
	CHECK_EQ(l4_task_map(second, first, l4_map_item(port_with(0), 0)), 0);
	CHECK(!can_read(second));
	CHECK_EQ(l4_task_map(second, first, l4_map_item(port_with(L4_RIGHT_W), 0)), 0);
	CHECK(can_read(second));
}

TEST(DIFF0412, "unmapping a port without a right leaves it, and with any it goes", "task.unmap:OK")
{
	l4_cap_t task = task_with_port();

	CHECK_EQ(l4_task_unmap(task, port_with(0), L4_UNMAP_SELF), 0);
	CHECK(can_read(task));
	CHECK_EQ(l4_task_unmap(task, port_with(L4_RIGHT_X), L4_UNMAP_SELF), 0);
	CHECK(!can_read(task));
}
