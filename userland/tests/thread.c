/* Operations on threads (ABI 11.3). Exceptions, fault trampolines and aliens have files of their own. */
#include "conf.h"

static int request(l4_cap_t thread, unsigned words, unsigned items)
{
	return l4_request(thread, l4_tag(L4_PROTO_THREAD, words, items));
}

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

static volatile l4_word_t counter;

static void count_forever(void *argument)
{
	(void)argument;
	for (;;)
		counter++;
}

/** A thread that is made, but neither bound nor started. */
static l4_cap_t fresh(void)
{
	return conf_helper(&(conf_helper_t){ .unbound = true });
}

/** The UTCB of the helper made last. */
static l4_thread_control_t binding(void)
{
	return (l4_thread_control_t){
		.change = L4_CONTROL_BIND_TASK, .task = l4_own_task(), .utcb = conf_helper_utcb()
	};
}

/* --- control ---------------------------------------------------------------------------------------------- */

TEST(THRD0001, "control answers three words, the old pager and exception handler among them", "thread.control:OK")
{
	l4_cap_t thread = fresh();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_CONTROL | L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER;
	utcb->mr[1] = l4_cap(0x123).raw;
	utcb->mr[2] = l4_cap(0x456).raw;
	utcb->mr[4] = utcb->mr[5] = 0;
	CHECK_EQ(l4_call(thread, l4_tag(L4_PROTO_THREAD, 6, 0), l4_forever()).tag.raw, l4_tag(0, 3, 0).raw);
	CHECK_EQ(utcb->mr[1], L4_HANDLER_NEVER_SET);
	CHECK_EQ(utcb->mr[2], L4_HANDLER_NEVER_SET);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = 0 }), 0);
	CHECK_EQ(utcb->mr[1], l4_cap(0x123).raw);
	CHECK_EQ(utcb->mr[2], l4_cap(0x456).raw);
}

TEST(THRD0002, "control changes only what its flags name", "thread.control:OK")
{
	l4_cap_t thread = fresh();
	l4_utcb_t *utcb = l4_utcb();

	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = L4_CONTROL_SET_PAGER, .pager = l4_cap(4) }), 0);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = L4_CONTROL_SET_EXCEPTION_HANDLER,
								   .pager = l4_cap(7),
								   .handler = l4_cap(8) }),
		 0);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = 0 }), 0);
	CHECK_EQ(utcb->mr[1], l4_cap(4).raw);
	CHECK_EQ(utcb->mr[2], l4_cap(8).raw);
}

TEST(THRD0003, "control needs the S right", "thread.control:EPERM")
{
	l4_cap_t weak = conf_copy(fresh(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(l4_thread_control(weak, &(l4_thread_control_t){ .change = 0 }), -L4_EPERM);
}

TEST(THRD0004, "control needs six words", "thread.control:EINVAL")
{
	l4_cap_t thread = fresh();

	l4_utcb()->mr[0] = L4_THREAD_CONTROL;
	CHECK_EQ(request(thread, 5, 0), -L4_EINVAL);
}

TEST(THRD0005, "a thread is bound to a task and a UTCB, where the kernel writes the UTCB's address", "thread.control:OK")
{
	l4_cap_t thread = fresh();
	l4_thread_control_t control = binding();

	control.utcb->address = 0;
	CHECK_EQ(l4_thread_control(thread, &control), 0);
	CHECK_EQ(control.utcb->address, (l4_word_t)control.utcb);
}

TEST(THRD0006, "binding without a task, to no task or to an empty slot is invalid", "thread.control:EINVAL")
{
	l4_cap_t thread = fresh();
	l4_thread_control_t control = binding();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_CONTROL | L4_CONTROL_BIND_TASK;
	utcb->mr[5] = (l4_word_t)control.utcb;
	CHECK_EQ(request(thread, 6, 0), -L4_EINVAL);
	control.task = conf_slot();
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	control.task = l4_own_log();
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
}

TEST(THRD0007, "binding to an item that is no capability is an IPC error", "thread.control:IPC8")
{
	l4_cap_t thread = fresh();
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_CONTROL | L4_CONTROL_BIND_TASK;
	utcb->mr[5] = (l4_word_t)conf_helper_utcb();
	l4_put_item(6, (l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, 7) });
	CHECK_EQ(request(thread, 6, 1), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(THRD0008, "binding needs the S right on the task", "thread.control:EPERM")
{
	l4_cap_t thread = fresh();
	l4_thread_control_t control = binding();

	control.task = conf_copy(l4_own_task(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EPERM);
}

TEST(THRD0009, "a UTCB must lie whole in kernel-user memory and on a word", "thread.control:EINVAL")
{
	l4_cap_t thread = fresh();
	l4_thread_control_t control = binding();
	l4_word_t page = (l4_word_t)control.utcb & ~(l4_word_t)(L4_PAGE_BYTES - 1);

	control.utcb = (l4_utcb_t *)conf_memory(12);
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	control.utcb = (l4_utcb_t *)(page + L4_PAGE_BYTES - 256);
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	control.utcb = (l4_utcb_t *)(page + 0xa02);
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	control = binding();
	CHECK_EQ(l4_thread_control(thread, &control), 0);
}

TEST(THRD0010, "a thread is bound once, and a refused binding changes nothing else", "thread.control:EINVAL")
{
	l4_cap_t thread = fresh();
	l4_thread_control_t control = binding();

	CHECK_EQ(l4_thread_control(thread, &control), 0);
	control.change |= L4_CONTROL_SET_PAGER;
	control.pager = l4_cap(9);
	CHECK_EQ(l4_thread_control(thread, &control), -L4_EINVAL);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = 0 }), 0);
	CHECK_EQ(l4_utcb()->mr[1], L4_HANDLER_NEVER_SET);
}

/* --- ex_regs ---------------------------------------------------------------------------------------------- */

TEST(THRD0020, "ex_regs tells the state of a new thread as zero", "thread.ex_regs:OK")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_EX_REGS;
	utcb->mr[1] = (l4_word_t)sleeper;
	utcb->mr[2] = 0x1000;
	CHECK_EQ(l4_call(thread, l4_tag(L4_PROTO_THREAD, 3, 0), l4_forever()).tag.raw, l4_tag(0, 3, 0).raw);
	CHECK_EQ(utcb->mr[0], 0x202);
	CHECK_EQ(utcb->mr[1], 0);
	CHECK_EQ(utcb->mr[2], 0);
}

TEST(THRD0021, "ex_regs takes exactly three words and no reserved flag", "thread.ex_regs:EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	for (unsigned words = 1; words <= 4; words++) {
		l4_utcb()->mr[0] = L4_THREAD_EX_REGS;
		l4_utcb()->mr[1] = (l4_word_t)sleeper;
		CHECK_EQ(request(thread, words, 0), words == 3 ? 0 : -L4_EINVAL);
	}
	for (l4_word_t flag = 1 << 24; flag != 0; flag <<= 1)
		CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)sleeper, 0, flag, NULL), -L4_EINVAL);
}

TEST(THRD0022, "ex_regs needs no right", "thread.ex_regs:OK")
{
	l4_cap_t weak = conf_copy(conf_helper(&(conf_helper_t){ .no_cpu = true }), L4_OBJECT_RIGHT_R);

	CHECK_EQ(l4_thread_ex_regs(weak, (l4_word_t)sleeper, 0, 0, NULL), 0);
}

static volatile l4_word_t came_by;

static void come_by(void *argument)
{
	(void)argument;
	came_by++;
	l4_sleep_forever();
}

TEST(THRD0023, "ex_regs moves a running thread, and tells where it was", "thread.ex_regs:OK")
{
	l4_thread_state_t old;

	came_by = 0;
	l4_cap_t thread = conf_thread(count_forever, NULL, CONF_LOWER);
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)come_by, L4_EX_REGS_KEEP, 0, &old), 0);
	CHECK(old.eip >= (l4_word_t)count_forever && old.eip < (l4_word_t)count_forever + 64);
	CHECK(old.eflags & 0x200);
	conf_settle();
	CHECK_EQ(came_by, 1);
}

TEST(THRD0024, "without cancel a blocked thread goes on waiting, and moves when its IPC ends", "thread.ex_regs:OK")
{
	came_by = 0;
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)come_by, L4_EX_REGS_KEEP, 0, NULL), 0);
	conf_settle();
	CHECK_EQ(came_by, 0);
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(came_by, 1);
}

static volatile l4_word_t cancelled_tag, cancelled_error;

static void wait_once(void *argument)
{
	(void)argument;
	cancelled_tag = l4_invoke(l4_self(), L4_OP_WAIT, l4_tag(5, 1, 0), 0, l4_forever()).tag.raw;
	cancelled_error = l4_utcb()->error;
	l4_sleep_forever();
}

TEST(THRD0025, "with cancel a waiting thread gets error 7 and the tag it passed", "thread.ex_regs:OK ipc.wait:IPC7")
{
	cancelled_error = 0;
	l4_cap_t thread = conf_thread(wait_once, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(cancelled_error, L4_IPC_RECEIVE_CANCELLED);
	CHECK_EQ(cancelled_tag, l4_tag(5, 1, 0).raw | L4_TAG_ERROR);
}

TEST(THRD0026, "cancel does nothing to a thread that is not in an IPC, now or later", "thread.ex_regs:OK")
{
	cancelled_error = 0;
	l4_cap_t thread = conf_thread(count_forever, NULL, CONF_LOWER);
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)wait_once, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	conf_settle();
	CHECK_EQ(cancelled_error, 0);
}

TEST(THRD0027, "ex_regs of a dead thread answers as ever and does nothing", "thread.ex_regs:OK")
{
	came_by = 0;
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = (l4_thread_entry_t *)0x10, .no_pager = true,
							.priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)come_by, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(came_by, 0);
}

/* --- switch, statistics ----------------------------------------------------------------------------------- */

TEST(THRD0030, "switch lets a ready thread of lower priority run at once", "thread.switch:OK")
{
	came_by = 0;
	l4_cap_t thread = conf_thread(come_by, NULL, CONF_LOWER);
	CHECK_EQ(came_by, 0);
	CHECK_EQ(l4_thread_switch(thread), 0);
	CHECK_EQ(came_by, 1);
}

TEST(THRD0031, "switch to a thread that cannot run is no error", "thread.switch:OK")
{
	CHECK_EQ(l4_thread_switch(fresh()), 0);
	CHECK_EQ(l4_thread_switch(l4_self()), 0);
}

TEST(THRD0032, "statistics give the time a thread used", "thread.stats:OK")
{
	l4_cap_t thread = conf_thread(count_forever, NULL, CONF_LOWER);
	uint64_t before, after;

	CHECK_EQ(l4_thread_time_us(thread, &before), 0);
	l4_sleep_us(20000);
	CHECK_EQ(l4_thread_time_us(thread, &after), 0);
	CHECK(after - before >= 10000);
	CHECK(after - before <= 40000);
}

/* --- gates' end ------------------------------------------------------------------------------------------- */

TEST(THRD0040, "the deletion IRQ fires once for each gate that is destroyed", "thread.register_delete_irq:OK")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER), irq = conf_irq();
	l4_cap_t bound = conf_gate(thread, 0), unbound = conf_slot();

	CHECK_EQ(l4_factory_create_unbound_gate(l4_own_factory(), unbound), 0);
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x77), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, irq), 0);
	CHECK_EQ(l4_task_delete(l4_own_task(), unbound), 0);
	CHECK_EQ(l4_result(l4_receive(irq, l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK_EQ(l4_task_delete(l4_own_task(), bound), 0);
	l4_message_t message = l4_receive(irq, l4_no_wait());
	CHECK_EQ(message.tag.raw, 0);
	CHECK_EQ(message.label, 0x77);
	CHECK_EQ(l4_result(l4_receive(irq, l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(THRD0041, "a semaphore serves as deletion IRQ", "thread.register_delete_irq:OK")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER), semaphore = conf_semaphore();
	l4_cap_t gate = conf_gate(thread, 0);

	CHECK_EQ(l4_thread_register_delete_irq(thread, semaphore), 0);
	CHECK_EQ(l4_task_delete(l4_own_task(), gate), 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
}

TEST(THRD0042, "a second deletion IRQ is busy until the first is destroyed", "thread.register_delete_irq:EBUSY")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER), first = conf_irq(), second = conf_irq();

	CHECK_EQ(l4_thread_register_delete_irq(thread, first), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, second), -L4_EBUSY);
	CHECK_EQ(l4_task_delete(l4_own_task(), first), 0);
	CHECK_EQ(l4_thread_register_delete_irq(thread, second), 0);
}

TEST(THRD0043, "the deletion IRQ needs the W right and must be an IRQ", "thread.register_delete_irq:EPERM,EINVAL,IPC8")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER);
	l4_cap_t weak = conf_copy(conf_irq(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_S);

	CHECK_EQ(l4_thread_register_delete_irq(thread, weak), -L4_EPERM);
	CHECK_EQ(l4_thread_register_delete_irq(thread, thread), -L4_EINVAL);
	CHECK_EQ(l4_thread_register_delete_irq(thread, conf_slot()), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_THREAD_REGISTER_DELETE_IRQ;
	CHECK_EQ(request(thread, 1, 0), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_THREAD_REGISTER_DELETE_IRQ;
	l4_put_item(1, (l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, 7) });
	CHECK_EQ(request(thread, 1, 1), ipc_error(L4_IPC_SEND_OVERFLOW));
}

/* --- senders' labels -------------------------------------------------------------------------------------- */

static l4_cap_t modify_gate;

static void send_forever(void *argument)
{
	(void)argument;
	l4_send(modify_gate, l4_tag(0, 0, 0), 0, l4_forever());
	l4_sleep_forever();
}

TEST(THRD0050, "modify senders changes the label of a queued sender by the first group that matches",
     "thread.modify_senders:OK")
{
	l4_utcb_t *utcb = l4_utcb();

	modify_gate = conf_gate(conf_worker(), 0x1230);
	conf_thread(send_forever, NULL, CONF_HIGHER);
	conf_settle();
	utcb->mr[0] = L4_THREAD_MODIFY_SENDERS;
	static const l4_word_t groups[] = { ~0u, 0x1230, ~0u, 0, /* does not match: the rights bits are there */
					    ~3u, 0x1230, 0xff, 0x4, /* matches */
					    0,	 0,	 ~0u,  0x9 }; /* would match */
	for (unsigned i = 0; i < 12; i++)
		utcb->mr[1 + i] = groups[i];
	CHECK_EQ(request(conf_worker(), 13, 0), 0);
	CHECK_EQ(l4_wait(l4_forever()).label, 0x1204);
}

TEST(THRD0051, "modify senders changes an IRQ's label for good", "thread.modify_senders:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x51), 0);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_thread_modify_senders(conf_worker(), ~0u, 0x51, 0x1, 0x2), 0);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x52);
	l4_irq_trigger(irq);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x52);
}

TEST(THRD0052, "modify senders with less than one group does nothing", "thread.modify_senders:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x51), 0);
	l4_irq_trigger(irq);
	l4_utcb()->mr[0] = L4_THREAD_MODIFY_SENDERS;
	l4_utcb()->mr[1] = l4_utcb()->mr[2] = 0;
	l4_utcb()->mr[3] = l4_utcb()->mr[4] = ~0u;
	CHECK_EQ(request(conf_worker(), 4, 0), 0);
	CHECK_EQ(l4_wait(l4_no_wait()).label, 0x51);
}

/* --- segments --------------------------------------------------------------------------------------------- */

/** Data segment, read and write, user, 32 bit, limit in pages. */
static uint64_t data_segment(l4_word_t base)
{
	return 0x00cff2000000ffffull | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base >> 24) << 56;
}

static l4_word_t read_gs(l4_word_t selector)
{
	l4_word_t value;

	__asm__ volatile("movw %w1, %%gs\n\tmovl %%gs:0, %0" : "=r"(value) : "r"(selector));
	return value;
}

TEST(THRD0060, "the index of the first segment descriptor of a thread is 9", "thread.gdt:OK")
{
	l4_utcb()->mr[0] = L4_THREAD_GDT;
	l4_tag_t tag = l4_call(l4_self(), l4_tag(L4_PROTO_THREAD, 1, 0), l4_forever()).tag;
	CHECK_EQ(l4_result(tag), 0);
	CHECK_EQ(l4_utcb()->mr[0], L4_GDT_FIRST_USER_ENTRY);
}

TEST(THRD0061, "a descriptor's selector is answered, and its base holds for GS", "thread.gdt:OK")
{
	static l4_word_t words[L4_GDT_USER_ENTRIES];

	for (unsigned i = 0; i < L4_GDT_USER_ENTRIES; i++) {
		l4_word_t selector = L4_GDT_FIRST_USER_SELECTOR + 8 * i;
		words[i] = 0x1000 + i;
		CHECK_EQ(l4_thread_set_gdt(l4_self(), i, data_segment((l4_word_t)&words[i])), (int)selector);
		CHECK_EQ(read_gs(selector), 0x1000 + i);
	}
}

static volatile l4_word_t other_gs;

static void set_own_gs(void *argument)
{
	int selector = l4_thread_set_gdt(l4_self(), 0, data_segment((l4_word_t)argument));

	other_gs = read_gs((l4_word_t)selector);
	l4_sleep_forever();
}

TEST(THRD0062, "descriptors and segment registers belong to one thread", "thread.gdt:OK")
{
	static l4_word_t mine = 0x11, other = 0x22;
	l4_word_t value;
	int selector = l4_thread_set_gdt(l4_self(), 0, data_segment((l4_word_t)&mine));

	CHECK_EQ(read_gs((l4_word_t)selector), 0x11);
	conf_thread(set_own_gs, &other, CONF_HIGHER);
	conf_settle();
	__asm__ volatile("movl %%gs:0, %0" : "=r"(value));
	CHECK_EQ(other_gs, 0x22);
	CHECK_EQ(value, 0x11);
}

TEST(THRD0063, "several descriptors are set at once, and those beyond the last are ignored", "thread.gdt:OK")
{
	static l4_word_t words[2] = { 0x31, 0x32 };
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_GDT;
	utcb->mr[1] = 3;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t descriptor = data_segment((l4_word_t)&words[i]);
		utcb->mr[2 + 2 * i] = (l4_word_t)descriptor;
		utcb->mr[3 + 2 * i] = (l4_word_t)(descriptor >> 32);
	}
	CHECK_EQ(request(l4_self(), 6, 0), 0x63);
	CHECK_EQ(read_gs(0x63), 0x31);
}

TEST(THRD0064, "an empty descriptor is taken, an unsafe one refused", "thread.gdt:OK,EINVAL")
{
	static const uint64_t unsafe[] = {
		0x00cf92000000ffffull, /* data for the kernel */
		0x00cf9a000000ffffull, /* code for the kernel */
		0x0000ec0000180000ull, /* a call gate */
		0x0000890000000067ull, /* a task state segment */
	};

	CHECK_EQ(l4_thread_set_gdt(l4_self(), 1, 0), 0x53);
	for (unsigned i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
		CHECK_EQ(l4_thread_set_gdt(l4_self(), 0, unsafe[i]), -L4_EINVAL);
}

/* --- what all operations have in common --------------------------------------------------------------------- */

TEST(THRD0070, "a message without words is too short", "thread.unknown:EMSGTOOSHORT")
{
	CHECK_EQ(request(fresh(), 0, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(l4_result(l4_send(fresh(), l4_tag(L4_PROTO_THREAD, 0, 0), 0, l4_forever())), -L4_EMSGTOOSHORT);
}

TEST(THRD0071, "an unknown operation is not implemented", "thread.unknown:ENOSYS")
{
	l4_cap_t thread = fresh();

	l4_utcb()->mr[0] = 0x20;
	CHECK_EQ(request(thread, 1, 0), -L4_ENOSYS);
	l4_utcb()->mr[0] = 0xffff;
	CHECK_EQ(request(thread, 6, 0), -L4_ENOSYS);
}

TEST(THRD0072, "doorbells are not implemented", "thread.register_doorbell:ENOSYS")
{
	l4_cap_t thread = fresh(), irq = conf_irq();

	l4_utcb()->mr[0] = L4_THREAD_REGISTER_DOORBELL;
	l4_put_item(1, l4_argument(irq));
	CHECK_EQ(request(thread, 1, 1), -L4_ENOSYS);
}

TEST(THRD0073, "without a capability the calling thread is meant", "thread.control:OK thread.stats:OK")
{
	uint64_t time_us;

	CHECK_EQ(l4_thread_time_us(l4_self(), &time_us), 0);
	CHECK_EQ(l4_thread_control(l4_self(), &(l4_thread_control_t){ .change = 0 }), 0);
	CHECK_EQ(l4_utcb()->mr[1], l4_parent().raw);
}

TEST(THRD0074, "a thread that is no vCPU has nothing to resume, and vCPU memory must be kernel-user memory",
     "thread.vcpu_resume:EINVAL thread.vcpu_control:EINVAL")
{
	l4_word_t memory = (l4_word_t)conf_memory(12);

	l4_utcb()->mr[0] = L4_THREAD_VCPU_RESUME;
	CHECK_EQ(request(l4_self(), 1, 0), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_THREAD_VCPU_CONTROL;
	CHECK_EQ(request(l4_self(), 1, 0), -L4_EINVAL);
	l4_utcb()->mr[0] = L4_THREAD_VCPU_CONTROL;
	l4_utcb()->mr[1] = memory;
	CHECK_EQ(request(l4_self(), 2, 0), -L4_EINVAL);
}
