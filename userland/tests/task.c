/* Operations on tasks (ABI 11.2). What mapping means is in memory.c and objects.c. */
#include "conf.h"

static l4_cap_t self(void)
{
	return l4_own_task();
}

static l4_fpage_t cap_page(l4_cap_t cap)
{
	return l4_object_fpage(cap, 0, L4_OBJECT_RIGHTS);
}

/** An unspecific message to a task with the words that are already in place. */
static int request(l4_cap_t task, unsigned words)
{
	return l4_request(task, l4_tag(L4_PROTO_TASK, words, 0));
}

/* --- map ------------------------------------------------------------------------------------------------ */

TEST(TASK0001, "map puts a copy of a capability into the named slot and answers no words", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), to = conf_slot();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_MAP;
	utcb->mr[1] = L4_ITEM_MAP | to.raw;
	utcb->mr[2] = cap_page(irq).raw;
	l4_put_item(3, l4_argument(self()));
	CHECK_EQ(l4_call(self(), l4_tag(L4_PROTO_TASK, 3, 1), l4_forever()).tag.raw, 0);
	CHECK_EQ(l4_task_cap_equal(self(), irq, to), 1);
}

TEST(TASK0002, "mapping what is not there is no error", "task.map:OK")
{
	l4_cap_t to = conf_slot();

	CHECK_EQ(l4_task_map_cap(self(), self(), conf_slot(), to, L4_OBJECT_RIGHTS), 0);
	CHECK_EQ(l4_task_cap_valid(self(), to), 0);
}

TEST(TASK0003, "map needs the W right on the destination", "task.map:EPERM")
{
	l4_cap_t weak = conf_copy(self(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_S);

	CHECK_EQ(l4_task_map_cap(weak, self(), conf_irq(), conf_slot(), L4_OBJECT_RIGHTS), -L4_EPERM);
}

/** Maps from the item `source` in place of a task's capability. */
static int map_from(l4_item_t source, unsigned items)
{
	l4_utcb_t *utcb = l4_utcb();
	l4_cap_t irq = conf_irq(), to = conf_slot();

	utcb->mr[0] = L4_TASK_MAP;
	utcb->mr[1] = L4_ITEM_MAP | to.raw;
	utcb->mr[2] = cap_page(irq).raw;
	l4_put_item(3, source);
	return l4_request(self(), l4_tag(L4_PROTO_TASK, 3, items));
}

TEST(TASK0004, "map from what is missing, void, an empty slot or no task is invalid", "task.map:EINVAL")
{
	CHECK_EQ(map_from(l4_argument(self()), 0), -L4_EINVAL);
	CHECK_EQ(map_from((l4_item_t){ 0, { 0 } }, 1), -L4_EINVAL);
	CHECK_EQ(map_from(l4_argument(conf_slot()), 1), -L4_EINVAL);
	CHECK_EQ(map_from(l4_argument(l4_own_log()), 1), -L4_EINVAL);
	CHECK_EQ(map_from(l4_argument(self()), 1), 0);
}

TEST(TASK0005, "map from an item that is no capability is an IPC error", "task.map:IPC8")
{
	l4_item_t memory = { L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS) };

	CHECK_EQ(map_from(memory, 1), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(TASK0006, "the S right comes along only if source and destination task capabilities have it", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), weak = conf_copy(self(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);
	l4_cap_t full = conf_slot(), a = conf_slot(), b = conf_slot();

	CHECK_EQ(l4_task_map_cap(self(), self(), irq, full, L4_OBJECT_RIGHTS), 0);
	CHECK_EQ(l4_irq_bind(full, conf_worker(), 0), 0);
	CHECK_EQ(l4_task_map_cap(weak, self(), irq, a, L4_OBJECT_RIGHTS), 0);
	CHECK_EQ(l4_irq_bind(a, conf_worker(), 0), -L4_EPERM);
	CHECK_EQ(l4_task_map_cap(self(), weak, irq, b, L4_OBJECT_RIGHTS), 0);
	CHECK_EQ(l4_irq_bind(b, conf_worker(), 0), -L4_EPERM);
}

TEST(TASK0007, "several capabilities are mapped by one flexpage, empty slots being left out", "task.map:OK")
{
	l4_cap_t from = conf_slots(2), to = conf_slots(2);
	l4_item_t item = l4_map_item(l4_object_fpage(from, 2, L4_OBJECT_RIGHTS), to.raw);

	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), from), 0);
	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), l4_cap(l4_cap_index(from) + 2)), 0);
	CHECK_EQ(l4_task_map(self(), self(), item), 0);
	for (l4_word_t i = 0; i < 4; i++)
		CHECK_EQ(l4_task_cap_valid(self(), l4_cap(l4_cap_index(to) + i)), i % 2 == 0);
}

TEST(TASK0008, "without the server right among its object rights a gate is mapped as client's view", "task.map:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x40), client = conf_slot(), server = conf_slot();
	l4_word_t label;

	CHECK_EQ(l4_task_map_cap(self(), self(), gate, client, L4_OBJECT_RIGHTS), 0);
	CHECK_EQ(l4_task_map_cap(self(), self(), gate, server, L4_OBJECT_RIGHTS | L4_OBJECT_RIGHT_SERVER), 0);
	CHECK_EQ(l4_gate_label(server, &label), 0);
	/* The client's view leads to the bound thread, the worker itself, which never receives from itself. */
	l4_utcb()->mr[0] = L4_GATE_GET_INFO;
	CHECK_EQ(l4_result(l4_call(client, l4_tag(L4_PROTO_KOBJECT, 1, 0), l4_no_wait()).tag),
		 ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(TASK0009, "map takes memory beyond a task's quota for an IPC error", "task.map:IPC10")
{
	l4_cap_t limited = conf_slot(), task = conf_slot(), irq = conf_irq();
	int error = 0;

	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x6000), 0);
	CHECK_EQ(l4_factory_create_task(limited, task, (l4_fpage_t){ 0 }), 0);
	for (l4_word_t index = 0; index < 64 && error == 0; index++)
		error = l4_task_map_cap(task, self(), irq, l4_cap(0x1000 * (index + 1)), L4_OBJECT_RIGHTS);
	CHECK_EQ(error, ipc_error(L4_IPC_SEND_MAP_FAILED));
}

/* --- unmap ---------------------------------------------------------------------------------------------- */

TEST(TASK0020, "unmap removes a capability and answers as many words as it was sent", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_UNMAP;
	utcb->mr[1] = L4_UNMAP_SELF;
	utcb->mr[2] = cap_page(irq).raw;
	utcb->mr[3] = cap_page(conf_slot()).raw;
	CHECK_EQ(l4_call(self(), l4_tag(L4_PROTO_TASK, 4, 0), l4_forever()).tag.raw, l4_tag(0, 4, 0).raw);
	CHECK_EQ(utcb->mr[1], L4_UNMAP_SELF);
	CHECK_EQ(utcb->mr[2], cap_page(irq).raw & ~15u);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 0);
}

TEST(TASK0021, "unmap needs no right", "task.unmap:OK")
{
	l4_cap_t weak = conf_copy(self(), L4_OBJECT_RIGHT_R), irq = conf_irq();

	CHECK_EQ(l4_task_unmap(weak, cap_page(irq), L4_UNMAP_SELF), 0);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 0);
}

TEST(TASK0022, "without the mask's self bit a capability stays", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_task_unmap(self(), cap_page(irq), 0), 0);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 1);
}

TEST(TASK0023, "without R in the flexpage a capability loses rights but stays", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_task_unmap(self(), l4_object_fpage(irq, 0, L4_OBJECT_RIGHT_S), L4_UNMAP_SELF), 0);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 1);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0), -L4_EPERM);
}

TEST(TASK0024, "unmap removes a range of slots at once", "task.unmap:OK")
{
	l4_cap_t slots = conf_slots(3);

	for (l4_word_t i = 0; i < 8; i += 3)
		CHECK_EQ(l4_factory_create_irq(l4_own_factory(), l4_cap(l4_cap_index(slots) + i)), 0);
	CHECK_EQ(l4_task_unmap(self(), l4_object_fpage(slots, 3, L4_OBJECT_RIGHTS), L4_UNMAP_SELF), 0);
	for (l4_word_t i = 0; i < 8; i++)
		CHECK_EQ(l4_task_cap_valid(self(), l4_cap(l4_cap_index(slots) + i)), 0);
}

TEST(TASK0025, "unmap works on the invoked task, not on the caller's", "task.unmap:OK")
{
	l4_cap_t task = conf_task(), irq = conf_irq();

	conf_give(task, irq);
	CHECK_EQ(l4_task_cap_valid(task, irq), 1);
	CHECK_EQ(l4_task_unmap(task, cap_page(irq), L4_UNMAP_SELF), 0);
	CHECK_EQ(l4_task_cap_valid(task, irq), 0);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 1);
}

/* --- information about capabilities ----------------------------------------------------------------------- */

TEST(TASK0030, "cap info tells filled slots from empty ones", "task.cap_info:OK")
{
	CHECK_EQ(l4_task_cap_valid(self(), self()), 1);
	CHECK_EQ(l4_task_cap_valid(self(), conf_slot()), 0);
	CHECK_EQ(l4_task_cap_valid(self(), l4_self()), 0);
	CHECK_EQ(l4_task_cap_valid(self(), l4_cap(0xfffff)), 0);
}

TEST(TASK0031, "capabilities are equal when object, view, and the rights W and S are", "task.cap_info:OK")
{
	l4_cap_t irq = conf_irq(), gate = conf_gate(conf_worker(), 0);

	CHECK_EQ(l4_task_cap_equal(self(), irq, irq), 1);
	CHECK_EQ(l4_task_cap_equal(self(), irq, conf_copy(irq, L4_OBJECT_RIGHTS)), 1);
	CHECK_EQ(l4_task_cap_equal(self(), irq, conf_copy(irq, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D)), 1);
	CHECK_EQ(l4_task_cap_equal(self(), irq, conf_copy(irq, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_W)), 0);
	CHECK_EQ(l4_task_cap_equal(self(), irq, conf_copy(irq, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_S)), 0);
	CHECK_EQ(l4_task_cap_equal(self(), irq, conf_irq()), 0);
	CHECK_EQ(l4_task_cap_equal(self(), gate, conf_copy(gate, L4_OBJECT_RIGHTS | L4_OBJECT_RIGHT_SERVER)), 1);
	CHECK_EQ(l4_task_cap_equal(self(), gate, conf_copy(gate, L4_OBJECT_RIGHTS)), 0);
}

TEST(TASK0032, "empty slots are equal, and special selectors when bits 10 to 31 are", "task.cap_info:OK")
{
	CHECK_EQ(l4_task_cap_equal(self(), conf_slot(), conf_slot()), 1);
	CHECK_EQ(l4_task_cap_equal(self(), conf_irq(), conf_slot()), 0);
	CHECK_EQ(l4_task_cap_equal(self(), l4_self(), (l4_cap_t){ L4_CAP_INVALID | 3 }), 1);
	CHECK_EQ(l4_task_cap_equal(self(), l4_self(), self()), 0);
	CHECK_EQ(l4_task_cap_equal(self(), l4_reply_cap(1), l4_reply_cap(2)), 0);
}

TEST(TASK0033, "cap info takes one or two capabilities", "task.cap_info:EINVAL")
{
	l4_utcb()->mr[0] = L4_TASK_CAP_INFO;
	l4_utcb()->mr[1] = l4_utcb()->mr[2] = l4_utcb()->mr[3] = self().raw;
	CHECK_EQ(request(self(), 1), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_TASK_CAP_INFO;
	CHECK_EQ(request(self(), 4), -L4_EINVAL);
}

TEST(TASK0034, "cap info looks into the invoked task", "task.cap_info:OK")
{
	l4_cap_t task = conf_task(), irq = conf_irq();

	CHECK_EQ(l4_task_cap_valid(task, irq), 0);
	conf_give(task, irq);
	CHECK_EQ(l4_task_cap_valid(task, irq), 1);
}

/* --- kernel-user memory ----------------------------------------------------------------------------------- */

enum { NEW_KU = 0xb4000000 };

static l4_fpage_t ku_page(l4_word_t address, unsigned order)
{
	return l4_memory_fpage(address, order, L4_RIGHT_R | L4_RIGHT_W);
}

static volatile l4_word_t ku_seen[2];

static void use_ku_memory(void *argument)
{
	volatile l4_word_t *memory = argument;

	ku_seen[0] = memory[0];
	memory[1] = 5;
	ku_seen[1] = memory[1];
	l4_sleep_forever();
}

TEST(TASK0040, "kernel-user memory is added where nothing is: zeroed, writable, and told back", "task.add_ku_mem:OK")
{
	l4_cap_t task = conf_task();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_ADD_KU_MEM;
	utcb->mr[1] = ku_page(NEW_KU, 13).raw;
	CHECK_EQ(l4_call(task, l4_tag(L4_PROTO_TASK, 2, 0), l4_forever()).tag.raw, l4_tag(0, 1, 0).raw);
	CHECK_EQ(utcb->mr[0] >> 4, ku_page(NEW_KU, 13).raw >> 4);
	ku_seen[0] = 1;
	conf_helper(&(conf_helper_t){ .entry = use_ku_memory, .argument = (void *)NEW_KU, .task = task });
	conf_settle();
	CHECK_EQ(ku_seen[0], 0);
	CHECK_EQ(ku_seen[1], 5);
}

TEST(TASK0041, "a thread can have its UTCB in added kernel-user memory", "task.add_ku_mem:OK thread.control:OK")
{
	l4_cap_t task = conf_task();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .task = task, .unbound = true });
	l4_thread_control_t control = { .change = L4_CONTROL_BIND_TASK,
					.task = task,
					.utcb = (l4_utcb_t *)(NEW_KU + 0x110) };

	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(NEW_KU, 12)), 0);
	CHECK_EQ(l4_thread_control(thread, &control), 0);
}

TEST(TASK0042, "kernel-user memory of another type, size or place is refused", "task.add_ku_mem:EINVAL")
{
	l4_cap_t task = conf_task();

	CHECK_EQ(l4_task_add_ku_mem(task, l4_object_fpage(l4_cap(1), 0, 7)), -L4_EINVAL);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(NEW_KU, 11)), -L4_EINVAL);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(NEW_KU, 18)), -L4_EINVAL);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(L4_USER_LIMIT, 12)), -L4_EINVAL);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(NEW_KU, 17)), 0);
}

TEST(TASK0043, "kernel-user memory does not go where something is mapped", "task.add_ku_mem:EEXIST")
{
	l4_cap_t task = conf_task();
	extern char l4_image_start[];

	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(L4_UTCB_AREA, 12)), -L4_EEXIST);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page((l4_word_t)l4_image_start, 12)), -L4_EEXIST);
}

TEST(TASK0044, "kernel-user memory is charged to the task's quota", "task.add_ku_mem:ENOMEM")
{
	l4_cap_t limited = conf_slot(), task = conf_slot();
	int error = 0;

	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x20000), 0);
	CHECK_EQ(l4_factory_create_task(limited, task, (l4_fpage_t){ 0 }), 0);
	for (l4_word_t i = 0; i < 64 && error == 0; i++)
		error = l4_task_add_ku_mem(task, ku_page(NEW_KU + i * 0x4000, 14));
	CHECK_EQ(error, -L4_ENOMEM);
}

TEST(TASK0045, "kernel-user memory can neither be unmapped nor mapped elsewhere, and trying is no error",
     "task.unmap:OK task.map:OK")
{
	l4_cap_t task = conf_task();
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t own = (l4_word_t)utcb & ~(l4_word_t)(L4_PAGE_BYTES - 1);

	CHECK_EQ(l4_task_unmap(self(), ku_page(own, 12), L4_UNMAP_SELF), 0);
	utcb->mr[0] = 77;
	CHECK_EQ(utcb->mr[0], 77);
	CHECK_EQ(l4_task_map(task, self(), l4_map_item(ku_page(own, 12), NEW_KU)), 0);
	CHECK_EQ(l4_task_add_ku_mem(task, ku_page(NEW_KU, 12)), 0);
}

/* --- the rest --------------------------------------------------------------------------------------------- */

TEST(TASK0050, "setting the LDT is not implemented", "task.ldt_set:ENOSYS")
{
	l4_utcb()->mr[0] = L4_TASK_LDT_SET;
	l4_utcb()->mr[1] = 0;
	CHECK_EQ(request(self(), 2), -L4_ENOSYS);
}

TEST(TASK0051, "an unknown operation is not implemented, and all bits of the word count", "task.unknown:ENOSYS")
{
	l4_utcb()->mr[0] = 0x55;
	CHECK_EQ(request(self(), 1), -L4_ENOSYS);
	l4_utcb()->mr[0] = 0x10000 | L4_TASK_CAP_INFO;
	l4_utcb()->mr[1] = self().raw;
	CHECK_EQ(request(self(), 2), -L4_ENOSYS);
}

TEST(TASK0052, "another protocol is refused, which is said even to who does not wait for an answer",
     "task.unknown:EBADPROTO")
{
	l4_utcb()->mr[0] = L4_TASK_CAP_INFO;
	l4_utcb()->mr[1] = self().raw;
	CHECK_EQ(l4_request(self(), l4_tag(L4_PROTO_THREAD, 2, 0)), -L4_EBADPROTO);
	CHECK_EQ(l4_result(l4_send(self(), l4_tag(0, 2, 0), 0, l4_forever())), -L4_EBADPROTO);
	CHECK_EQ(l4_result(l4_receive(self(), l4_no_wait()).tag), -L4_EBADPROTO);
}

TEST(TASK0053, "an operation without a receive phase is done, and the tag stays as it was sent", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_tag_t tag = l4_tag(L4_PROTO_TASK, 3, 0);

	l4_utcb()->mr[0] = L4_TASK_UNMAP;
	l4_utcb()->mr[1] = L4_UNMAP_SELF;
	l4_utcb()->mr[2] = cap_page(irq).raw;
	CHECK_EQ(l4_send(self(), tag, 0, l4_forever()).raw, tag.raw);
	CHECK_EQ(l4_task_cap_valid(self(), irq), 0);
}

TEST(TASK0054, "unmapping nothing is no error", "task.unmap:OK")
{
	for (unsigned words = 1; words <= 2; words++) {
		l4_utcb()->mr[0] = L4_TASK_UNMAP;
		l4_utcb()->mr[1] = L4_UNMAP_SELF;
		CHECK_EQ(request(self(), words), 0);
	}
}
