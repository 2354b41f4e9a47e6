/* Factories (ABI 11.1): what they make, what the answer looks like, and everything they refuse. */
#include "conf.h"

static l4_cap_t factory(void)
{
	return l4_own_factory();
}

/** Creates without arguments and returns the answer's tag. */
static l4_tag_t create(int type, l4_cap_t slot)
{
	l4_utcb()->mr[0] = (l4_word_t)type;
	l4_accept_object(slot);
	return l4_call(factory(), l4_tag(L4_PROTO_FACTORY, 1, 0), l4_forever()).tag;
}

/** Creates with one argument and returns the result. */
static int create_with(int type, l4_cap_t slot, l4_word_t argument)
{
	return l4_factory_create_with(factory(), slot, type, L4_VARG_UNSIGNED, argument);
}

static l4_fpage_t utcb_area(void)
{
	return l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);
}

/* --- what is made --------------------------------------------------------------------------------------- */

static void check_created(int type)
{
	l4_cap_t slot = conf_slot();

	CHECK_EQ(create(type, slot).raw, l4_tag(0, 0, 1).raw);
	CHECK_EQ(l4_utcb()->mr[0], L4_ITEM_MAP | L4_FPAGE_TYPE_OBJECT << L4_FPAGE_TYPE_SHIFT);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), slot), 1);
}

TEST(FACT0001, "a thread is made: the answer has no word and one item", "factory.create_thread:OK")
{
	check_created(L4_PROTO_THREAD);
}

TEST(FACT0002, "an IRQ is made: the answer has no word and one item", "factory.create_irq:OK")
{
	check_created(L4_PROTO_IRQ_SENDER);
}

TEST(FACT0003, "a semaphore is made: the answer has no word and one item", "factory.create_semaphore:OK")
{
	check_created(L4_PROTO_SEMAPHORE);
}

TEST(FACT0004, "a task with a UTCB area is made: the answer has the area as word and one item", "factory.create_task:OK")
{
	l4_cap_t slot = conf_slot();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = (l4_word_t)L4_PROTO_TASK;
	utcb->mr[1] = L4_VARG_FPAGE | 4 << 16;
	utcb->mr[2] = utcb_area().raw;
	l4_accept_object(slot);
	CHECK_EQ(l4_call(factory(), l4_tag(L4_PROTO_FACTORY, 3, 0), l4_forever()).tag.raw, l4_tag(0, 1, 1).raw);
	CHECK_EQ(utcb->mr[0] >> 4, utcb_area().raw >> 4);
	CHECK_EQ(utcb->mr[1], 0x38);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), slot), 1);
}

TEST(FACT0005, "a task without a UTCB area is made: the answer has no word", "factory.create_task:OK")
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = (l4_word_t)L4_PROTO_TASK;
	utcb->mr[1] = L4_VARG_FPAGE | 4 << 16;
	utcb->mr[2] = 0;
	l4_accept_object(conf_slot());
	CHECK_EQ(l4_call(factory(), l4_tag(L4_PROTO_FACTORY, 3, 0), l4_forever()).tag.raw, l4_tag(0, 0, 1).raw);
}

TEST(FACT0006, "a factory with a limit is made, and makes objects", "factory.create_factory:OK")
{
	l4_cap_t child = conf_slot(), slot = conf_slot();

	CHECK_EQ(l4_factory_create_factory(factory(), child, 1 << 20), 0);
	CHECK_EQ(l4_factory_create_irq(child, slot), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), slot), 1);
}

TEST(FACT0007, "an IPC gate is made bound to a thread, with its label", "factory.create_gate:OK")
{
	l4_cap_t gate = conf_slot();
	l4_word_t label;

	CHECK_EQ(l4_factory_create_gate(factory(), gate, conf_worker(), 0x12345670), 0);
	CHECK_EQ(l4_gate_label(gate, &label), 0);
	CHECK_EQ(label, 0x12345670);
}

TEST(FACT0008, "a gate made without a thread is unbound, and its label is ignored", "factory.create_gate:OK")
{
	l4_cap_t gate = conf_slot();
	l4_word_t label;

	CHECK_EQ(create_with(L4_PROTO_NONE, gate, 0x40), 0);
	CHECK_EQ(l4_gate_label(gate, &label), 0);
	CHECK_EQ(label, 0);
	CHECK_EQ(l4_result(l4_call(gate, l4_tag(0, 0, 0), send_within(2000)).tag), ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(FACT0009, "protocol -10 also makes a gate", "factory.create_gate:OK")
{
	l4_cap_t gate = conf_slot();

	CHECK_EQ(create_with(L4_PROTO_KOBJECT, gate, 0), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), gate), 1);
}

TEST(FACT0010, "an object already in the slot goes before the new one comes", "factory.create_irq:OK")
{
	l4_cap_t slot = conf_slot();

	CHECK_EQ(l4_factory_create_semaphore(factory(), slot), 0);
	CHECK_EQ(l4_factory_create_irq(factory(), slot), 0);
	CHECK_EQ(l4_irq_bind(slot, conf_worker(), 0x10), 0);
}

TEST(FACT0011, "a plain buffer with a window is used at its base", "factory.create_irq:OK")
{
	l4_cap_t slots = conf_slots(2);

	l4_utcb()->mr[0] = (l4_word_t)L4_PROTO_IRQ_SENDER;
	l4_accept(l4_object_fpage(slots, 2, 0));
	CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_FACTORY, 1, 0)), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), slots), 1);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), l4_cap(l4_cap_index(slots) + 1)), 0);
}

TEST(FACT0012, "the new object's capability has all rights", "factory.create_thread:OK factory.create_gate:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), 0x40), irq = conf_irq();
	l4_word_t label;

	CHECK_EQ(l4_gate_label(gate, &label), 0);
	CHECK_EQ(l4_task_cap_equal(l4_own_task(), irq, conf_copy(irq, L4_OBJECT_RIGHTS)), 1);
	CHECK_EQ(l4_task_cap_equal(l4_own_task(), irq, conf_copy(irq, L4_OBJECT_RIGHT_R)), 0);
}

TEST(FACT0013, "without a receive phase nothing happens", "factory.create_irq:OK")
{
	l4_cap_t slot = conf_slot();
	l4_tag_t tag = l4_tag(L4_PROTO_FACTORY, 1, 0);

	l4_utcb()->mr[0] = (l4_word_t)L4_PROTO_IRQ_SENDER;
	l4_accept_object(slot);
	CHECK_EQ(l4_send(factory(), tag, 0, l4_forever()).raw, tag.raw);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), slot), 0);
}

/* --- what is refused by every type ---------------------------------------------------------------------- */

TEST(FACT0020, "another protocol is refused", "factory.unknown:EBADPROTO")
{
	l4_utcb()->mr[0] = (l4_word_t)L4_PROTO_IRQ_SENDER;
	l4_accept_object(conf_slot());
	CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_TASK, 1, 0)), -L4_EBADPROTO);
}

TEST(FACT0021, "the S right is needed, and its lack is found before an empty message",
     "factory.create_gate:EPERM factory.create_task:EPERM factory.create_thread:EPERM factory.create_factory:EPERM "
     "factory.create_irq:EPERM factory.create_semaphore:EPERM factory.unknown:EPERM")
{
	static const int types[] = { L4_PROTO_NONE, L4_PROTO_TASK, L4_PROTO_THREAD, L4_PROTO_FACTORY, L4_PROTO_IRQ_SENDER,
				     L4_PROTO_SEMAPHORE };
	l4_cap_t weak = conf_copy(factory(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++)
		CHECK_EQ(l4_factory_create_with(weak, conf_slot(), types[i], L4_VARG_UNSIGNED, 0), -L4_EPERM);
	CHECK_EQ(l4_request(weak, l4_tag(L4_PROTO_FACTORY, 0, 0)), -L4_EPERM);
}

TEST(FACT0022, "a message without words is too short", "factory.unknown:EMSGTOOSHORT")
{
	l4_accept_object(conf_slot());
	CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_FACTORY, 0, 0)), -L4_EMSGTOOSHORT);
}

TEST(FACT0023, "types that there are not are no device", "factory.unknown:ENODEV")
{
	CHECK_EQ(l4_result(create(1, conf_slot())), -L4_ENODEV);
	CHECK_EQ(l4_result(create(-3, conf_slot())), -L4_ENODEV);
	CHECK_EQ(l4_result(create(-13, conf_slot())), -L4_ENODEV);
	CHECK_EQ(l4_result(create(-1000, conf_slot())), -L4_ENODEV);
}

static void check_no_buffer(int type, unsigned words)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = (l4_word_t)type;
	utcb->mr[1] = L4_VARG_UNSIGNED | 4 << 16;
	utcb->mr[2] = 0;
	l4_accept_nothing();
	utcb->error = 0;
	CHECK_EQ(l4_call(factory(), l4_tag(L4_PROTO_FACTORY, words, 0), l4_forever()).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(utcb->error, L4_IPC_RECEIVE_OVERFLOW);
}

TEST(FACT0024, "without a buffer for the object the call fails, whatever it asks for",
     "factory.create_gate:IPC9 factory.create_task:IPC9 factory.create_thread:IPC9 factory.create_factory:IPC9 "
     "factory.create_irq:IPC9 factory.create_semaphore:IPC9")
{
	check_no_buffer(L4_PROTO_NONE, 3);
	check_no_buffer(L4_PROTO_TASK, 3);
	check_no_buffer(L4_PROTO_THREAD, 1);
	check_no_buffer(L4_PROTO_FACTORY, 3);
	check_no_buffer(L4_PROTO_IRQ_SENDER, 1);
	check_no_buffer(L4_PROTO_SEMAPHORE, 1);
	check_no_buffer(1, 1);
}

TEST(FACT0025, "a buffer that is no window of capabilities is none", "factory.create_irq:IPC9")
{
	static const l4_word_t windows[] = { L4_FPAGE_ALL, L4_HEAP_START | 12 << L4_FPAGE_ORDER_SHIFT | 0x10 };

	for (unsigned i = 0; i < 2; i++) {
		l4_utcb()->mr[0] = (l4_word_t)L4_PROTO_IRQ_SENDER;
		l4_accept((l4_fpage_t){ windows[i] });
		CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_FACTORY, 1, 0)), ipc_error(L4_IPC_RECEIVE_OVERFLOW));
	}
}

/* --- what single types refuse --------------------------------------------------------------------------- */

/** Asks for a gate with an item and returns the result. */
static int create_gate(l4_item_t item, l4_word_t label, unsigned words)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_PROTO_NONE;
	utcb->mr[1] = L4_VARG_UNSIGNED | 4 << 16;
	utcb->mr[2] = label;
	l4_put_item(words, item);
	l4_accept_object(conf_slot());
	return l4_request(factory(), l4_tag(L4_PROTO_FACTORY, words, 1));
}

TEST(FACT0030, "a gate's label must leave the two bits for rights alone", "factory.create_gate:EINVAL")
{
	CHECK_EQ(create_gate(l4_argument(conf_worker()), 1, 3), -L4_EINVAL);
	CHECK_EQ(create_gate(l4_argument(conf_worker()), 0xfffffffe, 3), -L4_EINVAL);
	CHECK_EQ(create_gate(l4_argument(conf_worker()), 0xfffffffc, 3), 0);
}

TEST(FACT0031, "a gate can be bound to nothing but a thread", "factory.create_gate:EINVAL")
{
	CHECK_EQ(create_gate(l4_argument(factory()), 0, 3), -L4_EINVAL);
	CHECK_EQ(create_gate(l4_argument(conf_slot()), 0, 3), -L4_EINVAL);
	CHECK_EQ(create_gate((l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, 12, 7) }, 0, 3), -L4_EINVAL);
}

TEST(FACT0032, "binding a gate to a thread needs the S right on the thread", "factory.create_gate:EPERM")
{
	l4_cap_t weak = conf_copy(conf_worker(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(create_gate(l4_argument(weak), 0x10, 3), -L4_EPERM);
}

TEST(FACT0033, "a gate with a thread but without a label is too short a message", "factory.create_gate:EMSGTOOSHORT")
{
	CHECK_EQ(create_gate(l4_argument(conf_worker()), 0, 2), -L4_EMSGTOOSHORT);
}

TEST(FACT0034, "a task needs the flexpage of its UTCB area", "factory.create_task:EINVAL")
{
	CHECK_EQ(l4_result(create(L4_PROTO_TASK, conf_slot())), -L4_EINVAL);
}

TEST(FACT0035, "a UTCB area must be user memory of a possible size", "factory.create_task:EINVAL")
{
	CHECK_EQ(create_with(L4_PROTO_TASK, conf_slot(), l4_object_fpage(l4_cap(1), 0, 7).raw), -L4_EINVAL);
	CHECK_EQ(create_with(L4_PROTO_TASK, conf_slot(), l4_memory_fpage(L4_UTCB_AREA, 11, 6).raw), -L4_EINVAL);
	CHECK_EQ(create_with(L4_PROTO_TASK, conf_slot(), l4_memory_fpage(L4_USER_LIMIT, 12, 6).raw), -L4_EINVAL);
}

TEST(FACT0036, "a factory needs a limit, and nothing more", "factory.create_factory:EMSGTOOSHORT,EMSGTOOLONG")
{
	l4_utcb_t *utcb = l4_utcb();

	CHECK_EQ(l4_result(create(L4_PROTO_FACTORY, conf_slot())), -L4_EMSGTOOSHORT);
	utcb->mr[0] = (l4_word_t)L4_PROTO_FACTORY;
	utcb->mr[2] = 0x10000;
	utcb->mr[3] = 0;
	l4_accept_object(conf_slot());
	CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_FACTORY, 4, 0)), -L4_EMSGTOOLONG);
	utcb->mr[0] = (l4_word_t)L4_PROTO_FACTORY;
	utcb->mr[2] = 0x10000;
	l4_put_item(3, l4_argument(conf_worker()));
	l4_accept_object(conf_slot());
	CHECK_EQ(l4_request(factory(), l4_tag(L4_PROTO_FACTORY, 3, 1)), -L4_EMSGTOOLONG);
}

TEST(FACT0037, "a limit of nothing or of half the address space is refused", "factory.create_factory:ENOMEM")
{
	CHECK_EQ(create_with(L4_PROTO_FACTORY, conf_slot(), 0), -L4_ENOMEM);
	CHECK_EQ(create_with(L4_PROTO_FACTORY, conf_slot(), 0x7fffffff), -L4_ENOMEM);
	CHECK_EQ(create_with(L4_PROTO_FACTORY, conf_slot(), 0xffffffff), -L4_ENOMEM);
}

TEST(FACT0038, "machine types without hardware for them are no device",
     "factory.create_vm:ENODEV factory.create_dma_space:ENODEV")
{
	CHECK_EQ(create_with(L4_PROTO_VM, conf_slot(), 0), -L4_ENODEV);
	CHECK_EQ(create_with(L4_PROTO_DMA_SPACE, conf_slot(), 0), -L4_ENODEV);
}

/* --- quota ---------------------------------------------------------------------------------------------- */

/** Makes objects of one type until the factory refuses; returns what it said. */
static int exhaust(l4_cap_t limited, int type, unsigned *made)
{
	int error = 0;

	for (*made = 0; *made < 4096; ++*made) {
		l4_cap_t slot = l4_cap(0x10000 + *made);
		l4_word_t argument = type == L4_PROTO_FACTORY ? 0x1000 : 0;
		bool plain = type == L4_PROTO_THREAD || type == L4_PROTO_IRQ_SENDER || type == L4_PROTO_SEMAPHORE;
		error = plain ? l4_factory_create(limited, slot, type) :
				l4_factory_create_with(limited, slot, type, L4_VARG_UNSIGNED, argument);
		if (error != 0)
			break;
	}
	l4_task_unmap(l4_own_task(), l4_object_fpage(l4_cap(0x10000), 12, L4_OBJECT_RIGHTS), L4_UNMAP_SELF | L4_UNMAP_DELETE);
	return error;
}

static void check_quota(int type)
{
	l4_cap_t limited = conf_slot();
	unsigned first, second;

	CHECK_EQ(l4_factory_create_factory(factory(), limited, 0x8000), 0);
	CHECK_EQ(exhaust(limited, type, &first), -L4_ENOMEM);
	CHECK(first < 4096);
	/* What the destroyed objects took is there again. */
	CHECK_EQ(exhaust(limited, type, &second), -L4_ENOMEM);
	CHECK_EQ(second, first);
}

TEST(FACT0040, "a factory's limit ends its gates, and destroying them gives it back", "factory.create_gate:ENOMEM")
{
	check_quota(L4_PROTO_NONE);
}

TEST(FACT0041, "a factory's limit ends its tasks, and destroying them gives it back", "factory.create_task:ENOMEM")
{
	check_quota(L4_PROTO_TASK);
}

TEST(FACT0042, "a factory's limit ends its threads, and destroying them gives it back", "factory.create_thread:ENOMEM")
{
	check_quota(L4_PROTO_THREAD);
}

TEST(FACT0043, "a factory's limit ends its IRQs, and destroying them gives it back", "factory.create_irq:ENOMEM")
{
	check_quota(L4_PROTO_IRQ_SENDER);
}

TEST(FACT0044, "a factory's limit ends its semaphores, and destroying them gives it back",
     "factory.create_semaphore:ENOMEM")
{
	check_quota(L4_PROTO_SEMAPHORE);
}

TEST(FACT0045, "a factory's limit ends its factories, and destroying them gives it back", "factory.create_factory:ENOMEM")
{
	check_quota(L4_PROTO_FACTORY);
}

TEST(FACT0046, "a table has 2^18 slots, and beyond them is no place for an object", "factory.create_irq:ENOMEM")
{
	enum { SLOTS = 1 << 18 };

	CHECK_EQ(l4_result(create(L4_PROTO_IRQ_SENDER, l4_cap(L4_CAP_INDEX_LIMIT - 1))), -L4_ENOMEM);
	CHECK_EQ(l4_result(create(L4_PROTO_IRQ_SENDER, l4_cap(SLOTS))), -L4_ENOMEM);
	CHECK_EQ(l4_result(create(L4_PROTO_IRQ_SENDER, l4_cap(SLOTS - 1))), 0);
	CHECK_EQ(l4_task_release(l4_own_task(), l4_cap(SLOTS - 1)), 0);
}

TEST(FACT0047, "a destroyed factory makes nothing more, but what it made stays", "ipc.call:IPC4")
{
	l4_cap_t limited = conf_slot(), irq = conf_slot();

	CHECK_EQ(l4_factory_create_factory(factory(), limited, 0x10000), 0);
	CHECK_EQ(l4_factory_create_irq(limited, irq), 0);
	CHECK_EQ(l4_task_delete(l4_own_task(), limited), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), irq), 1);
	CHECK_EQ(l4_factory_create_irq(limited, conf_slot()), ipc_error(L4_IPC_NOT_EXISTENT));
}
