/* Page fault trampolines: a thread that handles its own faults (ABI 8). The helper has a block in kernel-user memory and a
 * handler in assembler (entry.S); the worker looks at what they leave behind. */
#include "conf.h"

#include <l4/string.h>

enum { KU_AREA = 0xb5000000, WINDOW = L4_HEAP_START, GATE = 0x4440 };

/** The block that the kernel and the handler share. */
typedef struct {
	l4_word_t handler, user_data[2], saved_mr0, flags;
	l4_word_t state[L4_EXCEPTION_WORDS];
} block_t;

_Static_assert(sizeof(block_t) == L4_TRAMPOLINE_BYTES, "trampoline block");
_Static_assert(offsetof(block_t, saved_mr0) == L4_TRAMPOLINE_SAVED_MR0, "saved message register");
_Static_assert(offsetof(block_t, flags) == L4_TRAMPOLINE_FLAGS, "flags");
_Static_assert(offsetof(block_t, state) == L4_TRAMPOLINE_STATE, "register state");

/* entry.S: called with EAX = block and EDX = fault. Keeps both in conf_tramp_seen and the block in conf_tramp_block, calls
 * conf_tramp_handle with the block, and then invokes the thread operation in conf_tramp_operation. */
void conf_tramp_handler(void);
extern volatile l4_word_t conf_tramp_seen[3]; /* EAX, EDX, ESP */
extern volatile l4_word_t conf_tramp_operation;
void conf_tramp_handle(block_t *block);

static block_t seen;
static volatile unsigned handled;
static volatile bool provide_page, fault_again;
static l4_word_t page;
static volatile struct {
	l4_word_t value, mr0, done;
	int setup;
} victim;

/** In the handler, on the stack of the interrupted thread: makes the page there, or does not. */
void conf_tramp_handle(block_t *block)
{
	seen = *block;
	handled++;
	if (provide_page)
		l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), WINDOW));
	if (fault_again)
		(void)*(volatile l4_word_t *)(WINDOW + 0x4000);
}

static block_t *block(void)
{
	return (block_t *)KU_AREA;
}

/** A trampoline operation of the calling thread on itself. */
static int control(l4_word_t operation, l4_word_t argument, unsigned words)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | operation;
	utcb->mr[1] = argument;
	return l4_request(l4_self(), l4_tag(L4_PROTO_THREAD, words, 0));
}

static void fault_with_trampoline(void *argument)
{
	(void)argument;
	block()->handler = (l4_word_t)conf_tramp_handler;
	block()->user_data[0] = 0x51;
	block()->user_data[1] = 0x52;
	block()->flags = 0;
	victim.setup = control(L4_PF_TRAMP_SETUP, KU_AREA, 2);
	l4_utcb()->mr[0] = 0x1234;
	victim.value = *(volatile l4_word_t *)(WINDOW + 4);
	victim.mr0 = l4_utcb()->mr[0];
	victim.done = 1;
	l4_sleep_forever();
}

/** Prepares for and starts the helper; its pager and exception handler are the worker. */
static l4_cap_t start_at(l4_word_t operation, bool with_page, unsigned priority)
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);
	int error = l4_task_add_ku_mem(l4_own_task(), l4_memory_fpage(KU_AREA, 12, 6));

	CHECK(error >= 0 || error == -L4_EEXIST);
	memset((void *)&victim, 0, sizeof victim);
	memset(&seen, 0, sizeof seen);
	handled = 0;
	fault_again = false;
	provide_page = with_page;
	page = (l4_word_t)conf_memory(12);
	((l4_word_t *)page)[1] = 0x7a7a;
	conf_tramp_operation = L4_THREAD_PF_TRAMP_CONTROL | operation;
	return conf_helper(&(conf_helper_t){ .entry = fault_with_trampoline, .pager = gate, .handler = gate,
					     .priority = priority });
}

static l4_cap_t start(l4_word_t operation, bool with_page)
{
	return start_at(operation, with_page, CONF_HIGHER);
}

static l4_message_t next_message(void)
{
	l4_accept_nothing();
	return l4_wait(receive_within(20000));
}

TEST(TRMP0001, "an armed fault runs the handler with block and fault word, and resume repeats the instruction",
     "thread.pf_tramp_setup:OK thread.pf_tramp_resume:OK")
{
	start(L4_PF_TRAMP_RESUME, true);
	conf_settle();
	CHECK_EQ(victim.setup, 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(conf_tramp_seen[0], KU_AREA);
	CHECK_EQ(conf_tramp_seen[1], WINDOW);
	CHECK_EQ(victim.value, 0x7a7a);
	CHECK_EQ(victim.mr0, 0x1234);
	CHECK(victim.done);
}

TEST(TRMP0002, "the block holds the interrupted state, the first message register and the user's data",
     "thread.pf_tramp_setup:OK")
{
	start(L4_PF_TRAMP_RESUME, true);
	conf_settle();
	CHECK_EQ(seen.flags, L4_TRAMPOLINE_IN_PROGRESS);
	CHECK_EQ(seen.saved_mr0, 0x1234);
	CHECK_EQ(seen.user_data[0], 0x51);
	CHECK_EQ(seen.user_data[1], 0x52);
	CHECK_EQ(seen.state[L4_EXC_PFA], WINDOW + 4);
	CHECK_EQ(seen.state[L4_EXC_TRAPNO], 14);
	CHECK_EQ(seen.state[L4_EXC_ESP], conf_tramp_seen[2]);
	CHECK(seen.state[L4_EXC_EIP] > (l4_word_t)fault_with_trampoline &&
	      seen.state[L4_EXC_EIP] < (l4_word_t)fault_with_trampoline + 256);
	CHECK_EQ(block()->flags, 0);
}

TEST(TRMP0003, "a fault in the handler goes to the pager", "page_fault.message:OK")
{
	start(L4_PF_TRAMP_RESUME, true);
	fault_again = true;
	l4_message_t message = next_message();
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_PAGE_FAULT);
	CHECK_EQ(l4_utcb()->mr[0], WINDOW + 0x4000);
	CHECK_EQ(handled, 1);
	CHECK(!victim.done);
}

TEST(TRMP0004, "reflect makes the fault an exception for the handler thread", "thread.pf_tramp_reflect:OK")
{
	start(L4_PF_TRAMP_REFLECT, false);
	l4_message_t message = next_message();
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 14);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], WINDOW + 4);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], seen.state[L4_EXC_EIP]);
	CHECK_EQ(block()->flags, 0);
}

TEST(TRMP0005, "resume arms again: the next fault runs the handler too", "thread.pf_tramp_resume:OK")
{
	start_at(L4_PF_TRAMP_RESUME, false, CONF_LOWER); /* it will fault without end */
	for (unsigned i = 0; i < 10 && handled < 3; i++)
		conf_settle();
	CHECK(handled >= 3);
	CHECK(!victim.done);
	provide_page = true;
	conf_settle();
	l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), WINDOW));
	conf_settle();
	CHECK(victim.done);
}

static volatile int outcomes[8];

static void disable_and_fault(void *argument)
{
	(void)argument;
	block()->handler = (l4_word_t)conf_tramp_handler;
	block()->flags = 0;
	outcomes[0] = control(L4_PF_TRAMP_SETUP, KU_AREA, 2);
	outcomes[1] = control(L4_PF_TRAMP_DISABLE, 0, 1);
	outcomes[2] = (int)l4_utcb()->mr[0];
	outcomes[3] = control(L4_PF_TRAMP_DISABLE, 0, 1);
	outcomes[4] = (int)l4_utcb()->mr[0];
	victim.value = *(volatile l4_word_t *)(WINDOW + 8);
	outcomes[5] = control(L4_PF_TRAMP_ENABLE, 0, 1);
	victim.value = *(volatile l4_word_t *)(WINDOW + 0x1000);
	l4_sleep_forever();
}

TEST(TRMP0006, "a trampoline can be switched off, which tells whether it was on, and on again",
     "thread.pf_tramp_disable:OK thread.pf_tramp_enable:OK")
{
	l4_cap_t thread = start_at(L4_PF_TRAMP_RESUME, false, CONF_LOWER);
	conf_restart(thread, disable_and_fault, NULL);
	CHECK_EQ(l4_tag_label(next_message().tag), L4_PROTO_PAGE_FAULT);
	CHECK_EQ(outcomes[0], 0);
	CHECK_EQ(outcomes[1], 0);
	CHECK_EQ(outcomes[2], 1);
	CHECK_EQ(outcomes[3], 0);
	CHECK_EQ(outcomes[4], 0);
	CHECK_EQ(handled, 0);
	provide_page = false;
	l4_put_item(0, l4_map_item(l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), WINDOW));
	l4_reply(l4_tag(0, 0, 1), l4_no_wait());
	conf_settle();
	CHECK_EQ(outcomes[5], 0);
	CHECK(handled >= 1);
}

TEST(TRMP0007, "a block must lie in kernel-user memory", "thread.pf_tramp_setup:EINVAL")
{
	CHECK_EQ(control(L4_PF_TRAMP_SETUP, (l4_word_t)conf_memory(12), 2), -L4_EINVAL);
	CHECK_EQ(control(L4_PF_TRAMP_SETUP, L4_BOOT_UTCB + L4_PAGE_BYTES - 0x20, 2), -L4_EINVAL);
}

TEST(TRMP0008, "setup needs an address, and nothing more", "thread.pf_tramp_setup:EMSGTOOSHORT,EMSGTOOLONG")
{
	CHECK_EQ(control(L4_PF_TRAMP_SETUP, 0, 1), -L4_EMSGTOOSHORT);
	CHECK_EQ(control(L4_PF_TRAMP_SETUP, KU_AREA, 3), -L4_EMSGTOOLONG);
	l4_utcb()->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | L4_PF_TRAMP_SETUP;
	l4_utcb()->mr[1] = KU_AREA;
	l4_put_item(2, l4_argument(l4_own_task()));
	CHECK_EQ(l4_request(l4_self(), l4_tag(L4_PROTO_THREAD, 2, 1)), -L4_EMSGTOOLONG);
}

TEST(TRMP0009, "without a fault in progress there is nothing to resume or to reflect",
     "thread.pf_tramp_resume:EINVAL thread.pf_tramp_reflect:EINVAL")
{
	CHECK_EQ(control(L4_PF_TRAMP_RESUME, 0, 1), -L4_EINVAL);
	CHECK_EQ(control(L4_PF_TRAMP_REFLECT, 0, 1), -L4_EINVAL);
}

TEST(TRMP0013, "without a block there is nothing to switch on, and switching off tells that it was off",
     "thread.pf_tramp_disable:OK thread.pf_tramp_enable:EINVAL")
{
	CHECK_EQ(control(L4_PF_TRAMP_DISABLE, 0, 1), 0);
	CHECK_EQ(l4_utcb()->mr[0], 0);
	CHECK_EQ(control(L4_PF_TRAMP_ENABLE, 0, 1), -L4_EINVAL);
}

TEST(TRMP0014, "the operations on a trampoline take one word",
     "thread.pf_tramp_resume:EMSGTOOLONG thread.pf_tramp_reflect:EMSGTOOLONG thread.pf_tramp_disable:EMSGTOOLONG "
     "thread.pf_tramp_enable:EMSGTOOLONG")
{
	for (l4_word_t operation = L4_PF_TRAMP_RESUME; operation <= L4_PF_TRAMP_ENABLE; operation += L4_PF_TRAMP_RESUME)
		CHECK_EQ(control(operation, 0, 2), -L4_EMSGTOOLONG);
}

TEST(TRMP0010, "only the thread itself may resume and reflect", "thread.pf_tramp_resume:EPERM thread.pf_tramp_reflect:EPERM")
{
	l4_cap_t other = conf_helper(&(conf_helper_t){ 0 });

	l4_utcb()->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | L4_PF_TRAMP_RESUME;
	CHECK_EQ(l4_request(other, l4_tag(L4_PROTO_THREAD, 1, 0)), -L4_EPERM);
	l4_utcb()->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | L4_PF_TRAMP_REFLECT;
	CHECK_EQ(l4_request(other, l4_tag(L4_PROTO_THREAD, 1, 0)), -L4_EPERM);
}

TEST(TRMP0011, "another trampoline operation is not implemented", "thread.pf_tramp_unknown:ENOSYS")
{
	CHECK_EQ(control(0x50000, 0, 1), -L4_ENOSYS);
}

TEST(TRMP0012, "an exception noted while the handler ran comes with resume", "thread.pf_tramp_resume:OK exception.message:OK")
{
	start(L4_PF_TRAMP_RESUME, true);
	fault_again = true;
	CHECK_EQ(l4_tag_label(next_message().tag), L4_PROTO_PAGE_FAULT);
	block()->flags |= L4_TRAMPOLINE_EXCEPTION_PENDING;
	fault_again = false;
	l4_put_item(0, l4_map_item(l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), WINDOW + 0x4000));
	l4_reply(l4_tag(0, 0, 1), l4_no_wait());
	l4_message_t message = next_message();
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], L4_TRAP_EX_REGS);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], 0);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], 0);
	CHECK_EQ(block()->flags, 0);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK(victim.done);
}
