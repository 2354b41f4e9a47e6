/* Exceptions as messages to a handler (ABI 9). The worker is the handler; the helper that raises is the victim. */
#include "conf.h"

#include <l4/string.h>

enum { GATE = 0x6660, WINDOW = L4_HEAP_START, USER_DATA = 0x23, USER_CODE = 0x1b };

/* entry.S: each raises one exception at its label, or right behind it. Afterwards the victim sleeps. */
extern char conf_raise_divide_here[], conf_raise_breakpoint_here[], conf_raise_overflow_here[], conf_raise_bound_here[],
	conf_raise_undefined_here[], conf_raise_cli_here[], conf_raise_interrupt_here[], conf_raise_port_here[],
	conf_raise_segment_here[], conf_raise_step_here[], conf_raise_far_call_here[], conf_raise_far_jump_here[],
	conf_raise_far_return_here[], conf_raise_stack_segment_here[], conf_raise_local_call_here[];
void conf_raise_divide(void *), conf_raise_breakpoint(void *), conf_raise_overflow(void *), conf_raise_bound(void *),
	conf_raise_undefined(void *), conf_raise_cli(void *), conf_raise_interrupt(void *), conf_raise_port(void *),
	conf_raise_segment(void *), conf_raise_step(void *), conf_raise_far_call(void *), conf_raise_far_jump(void *),
	conf_raise_far_return(void *), conf_raise_stack_segment(void *), conf_raise_local_call(void *);

static const l4_word_t exception_tag = (l4_word_t)L4_PROTO_EXCEPTION << 16 | L4_EXCEPTION_WORDS;
static volatile l4_word_t came[4];

static l4_cap_t start(l4_thread_entry_t *entry)
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	l4_cap_t thread =
		conf_helper(&(conf_helper_t){ .entry = entry, .handler = gate, .priority = CONF_HIGHER });

	memset((void *)came, 0, sizeof came);
	conf_settle();
	return thread;
}

static l4_message_t next_message(void)
{
	l4_accept_nothing();
	return l4_wait(receive_within(20000));
}

static const l4_word_t *state(void)
{
	return l4_utcb()->mr;
}

static void check_exception(l4_thread_entry_t *entry, l4_word_t trap, l4_word_t error, const char *eip)
{
	start(entry);
	l4_message_t message = next_message();
	CHECK_EQ(message.label, GATE | 3);
	CHECK_EQ(message.tag.raw & ~(l4_word_t)L4_TAG_FPU, exception_tag);
	CHECK_EQ(state()[L4_EXC_TRAPNO], trap);
	CHECK_EQ(state()[L4_EXC_ERR], error);
	CHECK_EQ(state()[L4_EXC_EIP], (l4_word_t)eip);
}

/** Continues the victim with the state that is in the message registers. */
static void resume(void)
{
	l4_tag_t tag = l4_tag(0, L4_EXCEPTION_WORDS, 0);

	CHECK_EQ(l4_reply(tag, l4_no_wait()).raw, tag.raw);
	conf_settle();
}

TEST(EXC0001, "a division by zero is exception 0 at the instruction", "exception.message:OK")
{
	check_exception(conf_raise_divide, 0, 0, conf_raise_divide_here);
}

TEST(EXC0002, "a breakpoint is exception 3 behind the instruction", "exception.message:OK")
{
	check_exception(conf_raise_breakpoint, 3, 0, conf_raise_breakpoint_here);
}

TEST(EXC0003, "a bound check out of range is exception 5", "exception.message:OK")
{
	check_exception(conf_raise_bound, 5, 0, conf_raise_bound_here);
}

TEST(EXC0004, "an instruction that is none is exception 6", "exception.message:OK")
{
	check_exception(conf_raise_undefined, 6, 0, conf_raise_undefined_here);
}

TEST(EXC0005, "an instruction for the kernel only is exception 13", "exception.message:OK")
{
	check_exception(conf_raise_cli, 13, 0, conf_raise_cli_here);
}

TEST(EXC0006, "a software interrupt that is not the user's is exception 13, its error code naming the gate",
     "exception.message:OK")
{
	check_exception(conf_raise_interrupt, 13, 0x21 << 3 | 2, conf_raise_interrupt_here);
}

TEST(EXC0007, "an I/O port without permission is exception 13", "exception.message:OK io_fault.message:OK")
{
	check_exception(conf_raise_port, 13, 0, conf_raise_port_here);
}

TEST(EXC0008, "a kernel segment selector is exception 13", "exception.message:OK")
{
	start(conf_raise_segment);
	next_message();
	CHECK_EQ(state()[L4_EXC_TRAPNO], 13);
	CHECK_EQ(state()[L4_EXC_EIP], (l4_word_t)conf_raise_segment_here);
}

TEST(EXC0009, "a single step is exception 1 behind the instruction", "exception.message:OK")
{
	check_exception(conf_raise_step, 1, 0, conf_raise_step_here);
	CHECK(state()[L4_EXC_EFLAGS] & 0x100);
}

TEST(EXC0010, "an overflow trap is not the user's: exception 13", "exception.message:OK")
{
	check_exception(conf_raise_overflow, 13, 4 << 3 | 2, conf_raise_overflow_here);
}

/* --- state ---------------------------------------------------------------------------------------------------------- */

void conf_raise_with_registers(void *argument);
extern char conf_raise_with_registers_here[];
extern volatile l4_word_t conf_registers_after[7]; /* eax ebx ecx edx esi edi ebp */

TEST(EXC0020, "the message holds all registers of the victim", "exception.message:OK")
{
	start(conf_raise_with_registers);
	next_message();
	CHECK_EQ(state()[L4_EXC_EAX], 0x11111111);
	CHECK_EQ(state()[L4_EXC_EBX], 0x22222222);
	CHECK_EQ(state()[L4_EXC_ECX], 0x33333333);
	CHECK_EQ(state()[L4_EXC_EDX], 0x44444444);
	CHECK_EQ(state()[L4_EXC_ESI], 0x55555555);
	CHECK_EQ(state()[L4_EXC_EDI], 0x66666666);
	CHECK_EQ(state()[L4_EXC_EBP], 0x77777777);
	CHECK_EQ(state()[L4_EXC_CS] & 0xffff, USER_CODE);
	CHECK_EQ(state()[L4_EXC_SS] & 0xffff, USER_DATA);
	CHECK_EQ(state()[L4_EXC_DS] & 0xffff, USER_DATA);
	CHECK_EQ(state()[L4_EXC_ES] & 0xffff, USER_DATA);
	CHECK_EQ(state()[L4_EXC_FS] & 0xffff, 0x43);
	CHECK_EQ(state()[L4_EXC_GS] & 0xffff, 0x43);
	CHECK_EQ(state()[L4_EXC_EFLAGS] & 0x200, 0x200);
	CHECK(state()[L4_EXC_ESP] > L4_PAGE_BYTES);
}

TEST(EXC0021, "an answer of 19 words sets all registers", "exception.answer:OK")
{
	start(conf_raise_with_registers);
	next_message();
	l4_utcb()->mr[L4_EXC_EIP] += 2; /* over the instruction */
	l4_utcb()->mr[L4_EXC_EAX] = 0xa1;
	l4_utcb()->mr[L4_EXC_EBX] = 0xa2;
	l4_utcb()->mr[L4_EXC_ECX] = 0xa3;
	l4_utcb()->mr[L4_EXC_EDX] = 0xa4;
	l4_utcb()->mr[L4_EXC_ESI] = 0xa5;
	l4_utcb()->mr[L4_EXC_EDI] = 0xa6;
	l4_utcb()->mr[L4_EXC_EBP] = 0xa7;
	resume();
	for (l4_word_t i = 0; i < 7; i++)
		CHECK_EQ(conf_registers_after[i], 0xa1 + i);
}

TEST(EXC0022, "an answer cannot change CS, nor give rights through EFLAGS", "exception.answer:OK")
{
	start(conf_raise_undefined);
	next_message();
	l4_utcb()->mr[L4_EXC_CS] = 8;
	l4_utcb()->mr[L4_EXC_EFLAGS] = 0x7000; /* NT, IOPL 3, interrupts off */
	resume();
	next_message();
	CHECK_EQ(state()[L4_EXC_TRAPNO], 6);
	CHECK_EQ(state()[L4_EXC_CS] & 0xffff, USER_CODE);
	CHECK_EQ(state()[L4_EXC_EFLAGS] & 0x7200, 0x200);
}

TEST(EXC0023, "a shorter answer changes nothing: the instruction is tried again", "exception.answer:OK")
{
	start(conf_raise_undefined);
	for (unsigned words = 0; words < 3; words++) {
		CHECK_EQ(next_message().tag.raw & ~(l4_word_t)L4_TAG_FPU, exception_tag);
		CHECK_EQ(state()[L4_EXC_EIP], (l4_word_t)conf_raise_undefined_here);
		l4_utcb()->mr[L4_EXC_EIP] += 2;
		l4_reply(l4_tag(0, words * 9, 0), l4_no_wait());
	}
	CHECK_EQ(next_message().tag.raw & ~(l4_word_t)L4_TAG_FPU, exception_tag);
}

TEST(EXC0024, "a negative label in the answer is no refusal", "exception.answer:OK")
{
	start(conf_raise_with_registers);
	next_message();
	l4_utcb()->mr[L4_EXC_EIP] += 2;
	l4_utcb()->mr[L4_EXC_EAX] = 0xb1;
	conf_registers_after[0] = 0;
	l4_reply(l4_tag(-L4_EINVAL, L4_EXCEPTION_WORDS, 0), l4_no_wait());
	conf_settle();
	CHECK_EQ(conf_registers_after[0], 0xb1);
}

static void divide_and_look(void *argument)
{
	l4_utcb_t *utcb = l4_utcb();

	(void)argument;
	conf_fill(0xd00, 4);
	utcb->bdr = 0x12;
	utcb->br[0] = 0x34;
	utcb->br[1] = 0x56;
	__asm__ volatile("ud2" ::: "memory");
	came[0] = utcb->mr[0];
	came[1] = utcb->mr[3];
	came[2] = utcb->bdr << 16 | utcb->br[0] << 8 | utcb->br[1];
	came[3] = 1;
	l4_sleep_forever();
}

TEST(EXC0025, "an exception leaves the victim's message and buffer registers as they were", "exception.message:OK")
{
	start(divide_and_look);
	next_message();
	l4_utcb()->mr[L4_EXC_EIP] += 2;
	resume();
	CHECK_EQ(came[3], 1);
	CHECK_EQ(came[0], 0xd00);
	CHECK_EQ(came[1], 0xd03);
	CHECK_EQ(came[2], 0x123456);
}

TEST(EXC0026, "items of a full answer are mapped into the victim's task", "exception.answer:OK")
{
	l4_cap_t task = conf_task(), irq = conf_irq(), gate = conf_gate(conf_worker(), GATE);
	l4_item_t item = l4_object_item(irq, L4_OBJECT_RIGHT_R);

	conf_helper(&(conf_helper_t){ .entry = conf_raise_undefined, .task = task, .handler = gate,
				      .priority = CONF_HIGHER });
	conf_settle();
	next_message();
	item.control |= irq.raw;
	l4_utcb()->mr[L4_EXC_EIP] = (l4_word_t)conf_raise_undefined_here + 2;
	l4_put_item(L4_EXCEPTION_WORDS, item);
	l4_tag_t tag = l4_tag(0, L4_EXCEPTION_WORDS, 1);
	CHECK_EQ(l4_reply(tag, l4_no_wait()).raw, tag.raw);
	CHECK_EQ(l4_task_cap_valid(task, irq), 1);
}

/* --- from outside --------------------------------------------------------------------------------------------------- */

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

TEST(EXC0030, "ex_regs makes a running thread raise exception 255", "thread.ex_regs:OK exception.message:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = count_forever, .handler = gate, .priority = CONF_LOWER });

	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_TRIGGER_EXCEPTION, NULL), 0);
	l4_message_t message = next_message();
	CHECK_EQ(message.label, GATE | 3);
	CHECK_EQ(state()[L4_EXC_TRAPNO], L4_TRAP_EX_REGS);
	l4_word_t before = counter;
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK(counter != before);
}

TEST(EXC0031, "with cancel a blocked thread raises exception 255 at the new place", "thread.ex_regs:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = sleeper, .handler = gate, .priority = CONF_HIGHER });
	l4_word_t flags = L4_EX_REGS_TRIGGER_EXCEPTION | L4_EX_REGS_CANCEL;

	conf_settle();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)count_forever, L4_EX_REGS_KEEP, flags, NULL), 0);
	next_message();
	CHECK_EQ(state()[L4_EXC_TRAPNO], L4_TRAP_EX_REGS);
	CHECK_EQ(state()[L4_EXC_EIP], (l4_word_t)count_forever);
}

TEST(EXC0032, "ex_regs without cancel does nothing to a thread in an exception", "thread.ex_regs:OK")
{
	l4_cap_t thread = start(conf_raise_undefined);

	next_message();
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)sleeper, L4_EX_REGS_KEEP, 0, NULL), 0);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	next_message();
	CHECK_EQ(state()[L4_EXC_EIP], (l4_word_t)conf_raise_undefined_here);
}

TEST(EXC0033, "an exception of a thread without a handler makes it wait for ever", "exception.message:IPC4")
{
	memset((void *)came, 0, sizeof came);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = divide_and_look, .no_handler = true,
							.priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(came[3], 0);
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
	CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)count_forever, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
}

/* --- I/O ports ------------------------------------------------------------------------------------------------------- */

static void read_port(void *argument)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "d"((uint16_t)(l4_word_t)argument));
	came[0] = 1;
	l4_sleep_forever();
}

enum { PORT = 0x80, PROTO_IO = L4_PROTO_IO_PAGE_FAULT };

/** Gets a port from sigma0 the way an I/O fault would. */
static int fetch_port(void)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = l4_io_fpage(PORT, 0).raw;
	utcb->mr[1] = 0;
	l4_accept(l4_all_fpage());
	return l4_result(l4_call(l4_parent(), l4_tag(PROTO_IO, 2, 0), l4_forever()).tag);
}

TEST(EXC0040, "a port is used after it was mapped, and no more after it was unmapped", "task.map:OK task.unmap:OK")
{
	l4_cap_t task = conf_task(), gate = conf_gate(conf_worker(), GATE);
	l4_item_t item = l4_map_item(l4_io_fpage(PORT, 0), 0);

	CHECK_EQ(fetch_port(), 0);
	CHECK_EQ(l4_task_map(task, l4_own_task(), item), 0);
	came[0] = 0;
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = read_port, .argument = (void *)PORT, .task = task,
							.handler = gate, .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(came[0], 1);
	CHECK_EQ(l4_task_unmap(task, l4_io_fpage(PORT, 0), L4_UNMAP_SELF), 0);
	came[0] = 0;
	conf_restart(thread, read_port, (void *)PORT);
	next_message();
	CHECK_EQ(state()[L4_EXC_TRAPNO], 13);
	CHECK_EQ(came[0], 0);
}

/* --- floating point ----------------------------------------------------------------------------------------------------- */

static volatile double results[2];

static void compute(void *argument)
{
	double sum = 0, step = argument != NULL ? 0.5 : 0.25;

	for (unsigned i = 0; i < 20000; i++)
		sum += step;
	results[argument != NULL] = sum;
	l4_sleep_forever();
}

TEST(FPU0001, "threads that take turns keep their floating-point registers", "user.fpu:OK")
{
	results[0] = results[1] = 0;
	l4_cap_t a = conf_thread(compute, NULL, CONF_LOWER), b = conf_thread(compute, (void *)1, CONF_LOWER);

	l4_scheduler_run_thread(l4_own_scheduler(), a, 0, 1, CONF_LOWER, 1000);
	l4_scheduler_run_thread(l4_own_scheduler(), b, 0, 1, CONF_LOWER, 1000);
	for (unsigned i = 0; i < 100 && (results[0] == 0 || results[1] == 0); i++)
		l4_sleep_us(3000);
	CHECK(results[0] == 5000.0);
	CHECK(results[1] == 10000.0);
}

static volatile l4_word_t control_word;

static void receive_fpu(void *argument)
{
	uint16_t word;

	(void)argument;
	__asm__ volatile("fninit");
	l4_accept_nothing();
	l4_utcb()->bdr = L4_BDR_ACCEPT_FPU;
	l4_wait(l4_forever());
	__asm__ volatile("fnstcw %0" : "=m"(word));
	control_word = word;
	l4_sleep_forever();
}

TEST(FPU0002, "a new thread's floating-point control word is the processor's first", "user.fpu:OK")
{
	l4_cap_t thread = conf_thread(receive_fpu, NULL, CONF_HIGHER);

	conf_settle();
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), 0);
	conf_settle();
	CHECK_EQ(control_word, 0x37f);
}

TEST(FPU0003, "a message with the floating-point flag gives the sender's state to who accepts it", "ipc.send:OK")
{
	l4_cap_t thread = conf_thread(receive_fpu, NULL, CONF_HIGHER);
	uint16_t word = 0x27f;

	conf_settle();
	__asm__ volatile("fldcw %0" : : "m"(word));
	CHECK_EQ(l4_result(l4_send(thread, l4_tag_with(l4_tag(0, 0, 0), L4_TAG_FPU), 0, l4_no_wait())), 0);
	conf_settle();
	CHECK_EQ(control_word, 0x27f);
}

/* The processor says which selector; the kernel takes what could be a refused port for one. */

TEST(DIFF3401, "a far call into the kernel's segment has error code 0", "exception.message:OK")
{
	check_exception(conf_raise_far_call, 13, 0, conf_raise_far_call_here);
}

TEST(DIFF3402, "and so has a far jump to data", "exception.message:OK")
{
	check_exception(conf_raise_far_jump, 13, 0, conf_raise_far_jump_here);
}

TEST(DIFF3403, "and so has a far return into the kernel", "exception.message:OK")
{
	check_exception(conf_raise_far_return, 13, 0, conf_raise_far_return_here);
}

TEST(DIFF3404, "and so has a stack segment that is code", "exception.message:OK")
{
	check_exception(conf_raise_stack_segment, 13, 0, conf_raise_stack_segment_here);
}

TEST(DIFF3405, "a far call through the local table, which is empty, has the selector", "exception.message:OK")
{
	check_exception(conf_raise_local_call, 13, 0xc, conf_raise_local_call_here);
}
