/* Answers in which this kernel once differed from Fiasco.OC: handlers, aliens, triggers, dead threads. DIFFnnmm is test mm
 * of the difference nn of docs/real-kernel.md. */
#include "act.h"

#include <l4/string.h>

enum { GATE = 0x7770, IF = 0x200, KU_AREA = 0xb5000000 };

static volatile unsigned passed_by;

/** Raises exception 3, whose EIP is behind the instruction, and tells that it went on. */
static void break_and_go_on(void *argument)
{
	(void)argument;
	__asm__ volatile("int3");
	passed_by++;
	l4_sleep_forever();
}

static void landing(void *argument)
{
	(void)argument;
	passed_by++;
	l4_sleep_forever();
}

static l4_message_t next_message(void)
{
	l4_accept_nothing();
	return l4_wait(receive_within(20000));
}

static void check_next_exception(l4_word_t trap, l4_word_t error)
{
	CHECK_EQ(l4_tag_label(next_message().tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], trap);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], error);
}

/* --- 5: kernel objects as handlers ----------------------------------------------------------------------------------- */

static void check_goes_on(l4_cap_t handler)
{
	passed_by = 0;
	conf_helper(&(conf_helper_t){ .entry = break_and_go_on, .handler = handler, .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(passed_by, 1);
}

TEST(DIFF0501, "a thread whose exception handler is an IRQ goes on", "exception.answer:OK")
{
	check_goes_on(conf_irq());
}

TEST(DIFF0502, "a thread whose exception handler is a semaphore goes on", "exception.answer:OK")
{
	check_goes_on(conf_semaphore());
}

TEST(DIFF0503, "a thread whose exception handler is a factory goes on", "exception.answer:OK")
{
	check_goes_on(l4_own_factory());
}

TEST(DIFF0504, "a thread whose exception handler is the scheduler goes on", "exception.answer:OK")
{
	check_goes_on(l4_own_scheduler());
}

TEST(DIFF0505, "a thread whose exception handler is a task goes on", "exception.answer:OK")
{
	check_goes_on(l4_own_task());
}

TEST(DIFF0506, "a thread whose exception handler is the log goes on", "exception.answer:OK")
{
	check_goes_on(l4_own_log());
}

TEST(DIFF0507, "a thread whose exception handler is an interrupt controller goes on", "exception.answer:OK")
{
	check_goes_on(l4_cap(L4_BOOT_CAP_ICU));
}

TEST(DIFF0508, "a thread whose exception handler is an empty slot does not", "exception.message:IPC4")
{
	passed_by = 0;
	conf_helper(&(conf_helper_t){ .entry = break_and_go_on, .handler = conf_slot(), .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(passed_by, 0);
}

TEST(DIFF0509, "an alien's page fault does not go to its pager but to its exception handler", "exception.message:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	extern char conf_read_here[];
	void conf_read_at(void *address);

	conf_helper(&(conf_helper_t){ .entry = conf_read_at, .argument = (void *)L4_HEAP_START, .pager = gate,
				      .handler = gate, .alien = true, .priority = CONF_HIGHER });
	conf_settle();
	check_next_exception(14, 4);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], L4_HEAP_START);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], (l4_word_t)conf_read_here);
}

/* --- 6: aliens across a cancel --------------------------------------------------------------------------------------- */

/** An alien in a system call that blocks, let through by its handler, the worker. */
static l4_cap_t blocked_alien(act_t *act)
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = act_run, .argument = act, .handler = gate, .alien = true,
							.priority = CONF_HIGHER });

	conf_settle();
	check_next_exception(13, L4_ALIEN_BEFORE);
	l4_reply(l4_tag(L4_PROTO_ALLOW_SYSCALL, 0, 0), l4_no_wait());
	conf_settle();
	return thread;
}

static int cancel(l4_cap_t thread, l4_word_t eip, l4_word_t flags)
{
	return l4_thread_ex_regs(thread, eip, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL | flags, NULL);
}

TEST(DIFF0601, "an alien that is cancelled in its system call raises the exception behind it", "alien.after:OK")
{
	act_t act = act_sleeper();
	l4_cap_t alien = blocked_alien(&act);

	CHECK_EQ(cancel(alien, L4_EX_REGS_KEEP, 0), 0);
	check_next_exception(13, L4_ALIEN_AFTER);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EAX], L4_TAG_ERROR);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK_EQ(act.error, L4_IPC_RECEIVE_CANCELLED);
}

TEST(DIFF0602, "an alien that is cancelled and sent elsewhere raises the exception there", "alien.after:OK")
{
	act_t act = act_sleeper();
	l4_cap_t alien = blocked_alien(&act);

	passed_by = 0;
	CHECK_EQ(cancel(alien, (l4_word_t)landing, 0), 0);
	check_next_exception(13, L4_ALIEN_AFTER);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], (l4_word_t)landing);
	CHECK_EQ(passed_by, 0);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK_EQ(passed_by, 1);
}

TEST(DIFF0603, "an alien that is cancelled in its send phase raises the exception behind it", "alien.after:OK")
{
	act_t act = act_sender_to(l4_self(), l4_tag(0, 0, 0), 0);
	l4_cap_t alien = blocked_alien(&act);

	CHECK_EQ(cancel(alien, L4_EX_REGS_KEEP, 0), 0);
	check_next_exception(13, L4_ALIEN_AFTER);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EAX], L4_TAG_ERROR);
}

/* --- 7: triggers across a cancel --------------------------------------------------------------------------------------- */

/** A helper that sleeps, with the worker as its handler. */
static l4_cap_t sleeper(act_t *act)
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = act_run, .argument = act, .handler = gate,
							.priority = CONF_HIGHER });

	*act = act_sleeper();
	conf_settle();
	return thread;
}

static int trigger(l4_cap_t thread)
{
	return l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_TRIGGER_EXCEPTION, NULL);
}

TEST(DIFF0701, "an exception that waits for a blocked thread survives that it is cancelled and sent elsewhere",
     "thread.ex_regs:OK exception.message:OK")
{
	act_t act;
	l4_cap_t thread = sleeper(&act);

	CHECK_EQ(trigger(thread), 0);
	passed_by = 0;
	CHECK_EQ(cancel(thread, (l4_word_t)landing, 0), 0);
	check_next_exception(L4_TRAP_EX_REGS, 0);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], (l4_word_t)landing);
	CHECK_EQ(passed_by, 0);
}

TEST(DIFF0702, "an exception that is triggered twice is raised once", "thread.ex_regs:OK exception.message:OK")
{
	act_t act;
	l4_cap_t thread = sleeper(&act);

	CHECK_EQ(trigger(thread), 0);
	CHECK_EQ(trigger(thread), 0);
	passed_by = 0;
	CHECK_EQ(cancel(thread, (l4_word_t)landing, L4_EX_REGS_TRIGGER_EXCEPTION), 0);
	check_next_exception(L4_TRAP_EX_REGS, 0);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK_EQ(passed_by, 1);
	CHECK_EQ(l4_result(l4_wait(receive_within(5000)).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(DIFF0703, "of two new addresses for a thread with an exception to come the second holds", "thread.ex_regs:OK")
{
	act_t act;
	l4_cap_t thread = sleeper(&act);

	CHECK_EQ(l4_thread_ex_regs(thread, 0x1234, L4_EX_REGS_KEEP, L4_EX_REGS_TRIGGER_EXCEPTION, NULL), 0);
	CHECK_EQ(cancel(thread, (l4_word_t)landing, 0), 0);
	check_next_exception(L4_TRAP_EX_REGS, 0);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], (l4_word_t)landing);
}

/* --- 26: the state that ex_regs tells ------------------------------------------------------------------------------------ */

TEST(DIFF2601, "while an exception is to come, ex_regs tells EFLAGS without the interrupt flag, and the user's EIP",
     "thread.ex_regs:OK")
{
	act_t act;
	l4_cap_t thread = sleeper(&act);
	l4_thread_state_t before, after;

	CHECK_EQ(l4_thread_ex_regs(thread, 0x5678, L4_EX_REGS_KEEP, L4_EX_REGS_TRIGGER_EXCEPTION, &before), 0);
	CHECK(before.eflags & IF);
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, 0, &after), 0);
	CHECK_EQ(after.eflags, before.eflags & ~(l4_word_t)IF);
	CHECK_EQ(after.eip, 0x5678);
}

TEST(DIFF2602, "the exception itself tells EFLAGS with the interrupt flag", "exception.message:OK")
{
	act_t act;
	l4_cap_t thread = sleeper(&act);

	CHECK_EQ(cancel(thread, L4_EX_REGS_KEEP, L4_EX_REGS_TRIGGER_EXCEPTION), 0);
	check_next_exception(L4_TRAP_EX_REGS, 0);
	CHECK(l4_utcb()->mr[L4_EXC_EFLAGS] & IF);
}

/* --- 8: selectors of pager and handler ------------------------------------------------------------------------------------- */

TEST(DIFF0801, "the low twelve bits of a pager's and a handler's selector do not count", "thread.control:OK")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .unbound = true });
	l4_utcb_t *utcb = l4_utcb();
	l4_thread_control_t control = { .change = L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER,
					.pager = { 0xb1800 },
					.handler = { 0xc2fff } };

	CHECK_EQ(l4_thread_control(thread, &control), 0);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ 0 }), 0);
	CHECK_EQ(utcb->mr[1], 0xb1000);
	CHECK_EQ(utcb->mr[2], 0xc2000);
}

TEST(DIFF0802, "a handler whose selector has the bit of an invalid one gets the exceptions", "exception.message:OK")
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);

	gate.raw |= L4_CAP_INVALID_BIT | L4_CAP_EXPLICIT_REPLY_BIT | L4_OP_REPLY_AND_WAIT;
	conf_helper(&(conf_helper_t){ .entry = break_and_go_on, .handler = gate, .priority = CONF_HIGHER });
	conf_settle();
	check_next_exception(3, 0);
}

TEST(DIFF0803, "slot 0 can be a handler", "exception.message:OK")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_handler = true, .priority = CONF_HIGHER });
	l4_thread_control_t control = { .change = L4_CONTROL_SET_EXCEPTION_HANDLER, .handler = l4_cap(0) };

	CHECK_EQ(l4_factory_create_gate(l4_own_factory(), l4_cap(0), conf_worker(), GATE), 0);
	CHECK_EQ(l4_thread_control(thread, &control), 0);
	conf_restart(thread, break_and_go_on, NULL);
	conf_settle();
	check_next_exception(3, 0);
	CHECK_EQ(l4_task_release(l4_own_task(), l4_cap(0)), 0);
}

/* --- 9: a dead thread behind a gate ------------------------------------------------------------------------------------------ */

static l4_cap_t gate_to_dead(void)
{
	l4_cap_t thread = conf_thread(landing, NULL, CONF_HIGHER), gate = conf_gate(thread, GATE);

	conf_settle();
	CHECK_EQ(l4_task_delete(l4_own_task(), thread), 0);
	conf_settle();
	return gate;
}

static l4_cap_t gate_to_unstarted(void)
{
	return conf_gate(conf_helper(&(conf_helper_t){ .entry = NULL }), GATE);
}

static void check_dead_partner(l4_cap_t gate)
{
	l4_timeouts_t soon = receive_within(2000);

	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_WAIT, l4_tag(0, 0, 0), 0, soon).tag),
		 ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_RECV, l4_tag(0, 0, 0), 0, soon).tag),
		 ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_SEND, l4_tag(0, 0, 0), 0, soon).tag), ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_CALL, l4_tag(0, 0, 0), 0, soon).tag), ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_SEND_AND_WAIT, l4_tag(0, 0, 0), 0, soon).tag),
		 ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(DIFF0901, "through a gate to a dead thread one can wait, and not send", "ipc.wait:IPC3 ipc.receive:IPC3 ipc.call:IPC4")
{
	check_dead_partner(gate_to_dead());
}

TEST(DIFF0902, "through a gate to a thread that was never started one can wait, and not send",
     "ipc.wait:IPC3 ipc.receive:IPC3 ipc.call:IPC4")
{
	check_dead_partner(gate_to_unstarted());
}

TEST(DIFF0903, "who waits for anybody through a gate to a dead thread gets messages", "ipc.wait:OK")
{
	act_t act = act_sender_to(conf_worker(), l4_tag(0x99, 0, 0), 0);
	l4_cap_t gate = gate_to_dead();

	act_start(&act);
	CHECK_EQ(l4_result(l4_invoke(gate, L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_no_wait()).tag), 0x99);
}

/* --- 24: queued senders of a thread without a processor ----------------------------------------------------------------------- */

TEST(DIFF2401, "senders of a thread without a processor cannot be changed, whatever the message", "thread.modify_senders:EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	for (unsigned words = 1; words <= 5; words += 4) {
		l4_utcb()->mr[0] = L4_THREAD_MODIFY_SENDERS;
		CHECK_EQ(l4_result(conf_call(thread, L4_PROTO_THREAD, words, 0)), -L4_EINVAL);
	}
}

/* --- 25: operations without a phase ---------------------------------------------------------------------------------------------- */

static void check_no_phase(l4_cap_t to, l4_word_t operation)
{
	l4_utcb()->error = 0;
	CHECK_EQ(l4_invoke(to, operation, l4_tag(0x31, 1, 0), 0, l4_no_wait()).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_NOT_EXISTENT);
}

TEST(DIFF2501, "an operation that neither sends nor receives fails at oneself", "ipc.send:IPC4")
{
	check_no_phase(l4_self(), 0);
	check_no_phase(l4_self(), L4_OP_OPEN_WAIT);
}

TEST(DIFF2502, "an operation that neither sends nor receives fails at a thread", "ipc.send:IPC4")
{
	l4_cap_t thread = conf_thread(landing, NULL, CONF_HIGHER);

	check_no_phase(thread, 0);
	check_no_phase(thread, L4_OP_OPEN_WAIT);
}

TEST(DIFF2503, "an operation that neither sends nor receives fails at a gate", "ipc.send:IPC4")
{
	l4_cap_t gate = conf_gate(conf_thread(landing, NULL, CONF_HIGHER), GATE);

	check_no_phase(gate, 0);
	check_no_phase(gate, L4_OP_OPEN_WAIT);
}

TEST(DIFF2504, "a reply that neither sends nor receives fails, and empties the reply slot", "ipc.reply:IPC4")
{
	act_t act = act_caller_of(conf_worker());

	act_start(&act);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), 0);
	CHECK_EQ(l4_invoke(l4_self(), L4_OP_REPLY, l4_tag(0, 0, 0), 0, l4_no_wait()).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_NOT_EXISTENT);
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 0), l4_no_wait())), ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(DIFF2505, "an operation on a thread with the protocol of threads happens also with neither phase", "thread.control:OK")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .unbound = true });
	l4_utcb_t *utcb = l4_utcb();
	l4_tag_t tag = l4_tag(L4_PROTO_THREAD, 6, 0);

	memset(utcb->mr, 0, sizeof utcb->mr);
	utcb->mr[0] = L4_THREAD_CONTROL | L4_CONTROL_SET_PAGER;
	utcb->mr[1] = l4_cap(0x321).raw;
	CHECK_EQ(l4_invoke(thread, 0, tag, 0, l4_no_wait()).tag.raw, tag.raw);
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ 0 }), 0);
	CHECK_EQ(utcb->mr[1], l4_cap(0x321).raw);
}

TEST(DIFF2506, "an operation that only says open wait is no operation on a thread", "ipc.send:IPC4")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .unbound = true });

	l4_utcb()->mr[0] = L4_THREAD_CONTROL;
	CHECK_EQ(l4_invoke(thread, L4_OP_OPEN_WAIT, l4_tag(L4_PROTO_THREAD, 6, 0), 0, l4_no_wait()).tag.raw, L4_TAG_ERROR);
}

TEST(DIFF2507, "kernel objects leave an operation without a phase alone", "irq.trigger:OK")
{
	l4_cap_t irq = conf_irq();
	l4_tag_t tag = l4_tag(L4_PROTO_IRQ, 0, 0);

	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0x10), 0);
	CHECK_EQ(l4_invoke(irq, 0, tag, 0, l4_no_wait()).tag.raw, tag.raw);
	CHECK_EQ(l4_invoke(irq, L4_OP_OPEN_WAIT, tag, 0, l4_no_wait()).tag.raw, tag.raw);
	CHECK_EQ(l4_result(l4_receive(irq, l4_no_wait()).tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

/* --- 27: a trampoline's block ------------------------------------------------------------------------------------------------------ */

typedef struct {
	l4_word_t handler, user_data[2], saved_mr0, flags, state[L4_EXCEPTION_WORDS];
} trampoline_t;

static volatile struct {
	int disabled, enabled, armed_resume;
	l4_word_t mr0, flags;
	volatile bool back;
} tramp;

static int tramp_control(l4_word_t operation, l4_word_t argument, unsigned words)
{
	l4_utcb()->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | operation;
	l4_utcb()->mr[1] = argument;
	return l4_request(l4_self(), l4_tag(L4_PROTO_THREAD, words, 0));
}

/** Where the block says that the thread was. */
static void resumed_here(void)
{
	tramp.mr0 = l4_utcb()->mr[0];
	tramp.flags = ((trampoline_t *)KU_AREA)->flags;
	tramp.back = true;
	l4_sleep_forever();
}

static void resume_without_fault(void *argument)
{
	trampoline_t *block = (trampoline_t *)KU_AREA;
	l4_word_t esp, fs;

	(void)argument;
	memset(block, 0, sizeof *block);
	tramp.armed_resume = tramp_control(L4_PF_TRAMP_SETUP, KU_AREA, 2);
	tramp.armed_resume = tramp_control(L4_PF_TRAMP_RESUME, 0, 1);
	tramp.disabled = tramp_control(L4_PF_TRAMP_DISABLE, 0, 1);
	__asm__ volatile("movl %%esp, %0\n\tmovl %%fs, %1" : "=r"(esp), "=r"(fs));
	block->saved_mr0 = 0x2727;
	block->state[L4_EXC_ES] = block->state[L4_EXC_DS] = block->state[L4_EXC_SS] = 0x23;
	block->state[L4_EXC_FS] = block->state[L4_EXC_GS] = fs;
	block->state[L4_EXC_EIP] = (l4_word_t)resumed_here;
	block->state[L4_EXC_CS] = 0x1b;
	block->state[L4_EXC_EFLAGS] = 0x202;
	block->state[L4_EXC_ESP] = esp - 256;
	tramp_control(L4_PF_TRAMP_RESUME, 0, 1);
	l4_sleep_forever();
}

TEST(DIFF2701, "a trampoline that is disabled resumes from its block, whether a fault is in progress or not",
     "thread.pf_tramp_resume:OK,EINVAL")
{
	int error = l4_task_add_ku_mem(l4_own_task(), l4_memory_fpage(KU_AREA, 12, 6));

	CHECK(error >= 0 || error == -L4_EEXIST);
	memset((void *)&tramp, 0, sizeof tramp);
	conf_thread(resume_without_fault, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(tramp.armed_resume, -L4_EINVAL);
	CHECK(tramp.back);
	CHECK_EQ(tramp.mr0, 0x2727);
}
