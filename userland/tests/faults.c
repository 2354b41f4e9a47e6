/* Page faults as messages to a pager (ABI 8). The worker is the pager; the helper that faults is the victim. */
#include "conf.h"

#include <l4/string.h>

enum { WINDOW = L4_HEAP_START, GATE = 0x5550 };

/** What the victim shall do, and what it found. */
static volatile struct {
	l4_word_t value, done, mr[4], bdr, br[3];
} victim;

/** Reads from the address it is given, after filling its message registers, and looks at them again. */
static void read_word(void *argument)
{
	l4_utcb_t *utcb = l4_utcb();

	conf_fill(0xabc0, 4);
	utcb->bdr = 0x11;
	utcb->br[0] = 0x22;
	utcb->br[1] = 0x33;
	utcb->br[2] = 0x44;
	victim.value = *(volatile l4_word_t *)argument;
	for (unsigned i = 0; i < 4; i++)
		victim.mr[i] = utcb->mr[i];
	victim.bdr = utcb->bdr;
	for (unsigned i = 0; i < 3; i++)
		victim.br[i] = utcb->br[i];
	victim.done = 1;
	l4_sleep_forever();
}

static void write_word(void *argument)
{
	*(volatile l4_word_t *)argument = 0x600d;
	victim.done = 1;
	l4_sleep_forever();
}

/** Its instruction that faults. */
extern char conf_read_here[], conf_write_here[];
void conf_read_at(void *address);
void conf_write_at(void *address);

static l4_cap_t start(l4_thread_entry_t *entry, l4_word_t address, l4_cap_t pager, l4_cap_t handler)
{
	memset((void *)&victim, 0, sizeof victim);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = entry, .argument = (void *)address, .pager = pager,
							.handler = handler, .priority = CONF_HIGHER });
	conf_settle();
	return thread;
}

static l4_cap_t own_gate(void)
{
	return conf_gate(conf_worker(), GATE);
}

/** A fault that arrives without being waited for long. */
static l4_message_t next_message(void)
{
	l4_accept_nothing();
	return l4_wait(receive_within(20000));
}

/** Answers a fault with a fresh page and lets the victim go on. */
static l4_word_t *answer_with_page(l4_word_t address, l4_word_t rights)
{
	l4_word_t *page = conf_memory(L4_PAGE_SHIFT);

	page[0] = 0x9a9e;
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)page, L4_PAGE_SHIFT, rights), address));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	return page;
}

static const l4_word_t fault_tag = (l4_word_t)L4_PROTO_PAGE_FAULT << 16 | 2;

TEST(PF0001, "a read fault is a message with address and EIP, through the pager's gate", "page_fault.message:OK")
{
	start(conf_read_at, WINDOW + 0x124, own_gate(), own_gate());
	l4_message_t message = next_message();
	CHECK_EQ(message.tag.raw, fault_tag);
	CHECK_EQ(message.label, GATE | 3);
	CHECK_EQ(l4_utcb()->mr[0], (WINDOW + 0x124) & ~7u);
	CHECK_EQ(l4_utcb()->mr[1], (l4_word_t)conf_read_here);
}

TEST(PF0002, "a write fault has bit 1 set", "page_fault.message:OK")
{
	start(conf_write_at, WINDOW + 0x128, own_gate(), own_gate());
	CHECK_EQ(next_message().tag.raw, fault_tag);
	CHECK_EQ(l4_utcb()->mr[0], (WINDOW + 0x128) | L4_FAULT_WRITE);
	CHECK_EQ(l4_utcb()->mr[1], (l4_word_t)conf_write_here);
}

TEST(PF0003, "a write to a page that may only be read has bits 0 and 1 set", "page_fault.message:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(L4_PAGE_SHIFT);

	l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, L4_RIGHT_R), WINDOW));
	start(write_word, WINDOW + 8, own_gate(), own_gate());
	CHECK_EQ(next_message().tag.raw, fault_tag);
	CHECK_EQ(l4_utcb()->mr[0], (WINDOW + 8) | L4_FAULT_PRESENT | L4_FAULT_WRITE);
}

TEST(PF0004, "a jump to where nothing is looks like a read of that place", "page_fault.message:OK")
{
	start((l4_thread_entry_t *)(WINDOW + 0x40), 0, own_gate(), own_gate());
	CHECK_EQ(next_message().tag.raw, fault_tag);
	CHECK_EQ(l4_utcb()->mr[0], WINDOW + 0x40);
	CHECK_EQ(l4_utcb()->mr[1], WINDOW + 0x40);
}

TEST(PF0005, "a page in the answer lets the instruction go on", "page_fault.answer:OK")
{
	start(read_word, WINDOW + 0, own_gate(), own_gate());
	next_message();
	answer_with_page(WINDOW, L4_MEMORY_RIGHTS);
	CHECK(victim.done);
	CHECK_EQ(victim.value, 0x9a9e);
}

TEST(PF0006, "a fault leaves the thread's own message and buffer registers as they were", "page_fault.message:OK")
{
	start(read_word, WINDOW, own_gate(), own_gate());
	next_message();
	conf_fill(0x7777, 63);
	answer_with_page(WINDOW, L4_MEMORY_RIGHTS);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(victim.mr[i], 0xabc0 + i);
	CHECK_EQ(victim.bdr, 0x11);
	CHECK_EQ(victim.br[0], 0x22);
	CHECK_EQ(victim.br[1], 0x33);
	CHECK_EQ(victim.br[2], 0x44);
}

TEST(PF0007, "an answer that brings no page makes the instruction fault again", "page_fault.answer:OK")
{
	start(read_word, WINDOW, own_gate(), own_gate());
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(next_message().tag.raw, fault_tag);
		CHECK_EQ(l4_result(l4_reply(l4_tag((int)i, 0, 0), l4_no_wait())), (int)i);
	}
	CHECK_EQ(next_message().tag.raw, fault_tag);
	answer_with_page(WINDOW, L4_MEMORY_RIGHTS);
	CHECK(victim.done);
}

TEST(PF0008, "a page without the W right does not end a write fault", "page_fault.answer:OK")
{
	start(write_word, WINDOW, own_gate(), own_gate());
	next_message();
	l4_word_t *page = answer_with_page(WINDOW, L4_RIGHT_R);
	CHECK(!victim.done);
	CHECK_EQ(next_message().tag.raw, fault_tag);
	CHECK_EQ(l4_utcb()->mr[0], WINDOW | L4_FAULT_PRESENT | L4_FAULT_WRITE);
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)page, 12, L4_MEMORY_RIGHTS), WINDOW));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	CHECK(victim.done);
	CHECK_EQ(page[0], 0x600d);
}

TEST(PF0009, "a negative answer becomes a page fault exception for the handler", "page_fault.answer:EFAULT exception.message:OK")
{
	l4_cap_t handler = conf_gate(conf_worker(), 0x6660);

	start(conf_write_at, WINDOW + 0x44, own_gate(), handler);
	next_message();
	CHECK_EQ(l4_result(l4_reply(l4_tag(-L4_EFAULT, 0, 0), l4_no_wait())), -L4_EFAULT);
	l4_message_t message = next_message();
	CHECK_EQ(message.label, 0x6663);
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 14);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], WINDOW + 0x44);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], 4 | L4_FAULT_WRITE);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EIP], (l4_word_t)conf_write_here);
}

TEST(PF0010, "refused and without a handler a thread waits, until a cancel sets it elsewhere", "page_fault.answer:EFAULT")
{
	memset((void *)&victim, 0, sizeof victim);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = read_word, .argument = (void *)WINDOW, .pager = own_gate(),
							.no_handler = true, .priority = CONF_HIGHER });
	conf_settle();
	next_message();
	l4_reply(l4_tag(-L4_ENOMEM, 0, 0), l4_no_wait());
	CHECK_EQ(l4_result(next_message().tag), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	l4_word_t page = (l4_word_t)conf_memory(12);
	l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, 7), WINDOW));
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, 0, NULL), 0);
	conf_settle();
	CHECK(!victim.done);
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK(victim.done);
}

TEST(PF0011, "a fault of a thread with an empty pager slot kills it, which its UTCB shows", "page_fault.message:IPC4")
{
	memset((void *)&victim, 0, sizeof victim);
	conf_helper(&(conf_helper_t){ .entry = read_word, .argument = (void *)WINDOW, .pager = conf_slot(),
				      .priority = CONF_HIGHER });
	conf_helper_utcb()->free_marker = 5;
	conf_settle();
	CHECK(!victim.done);
	CHECK_EQ(conf_helper_utcb()->free_marker, 0);
}

TEST(PF0012, "a pager that is dead makes the fault an exception", "page_fault.message:IPC4 exception.message:OK")
{
	l4_cap_t dead = conf_helper(&(conf_helper_t){ .entry = (l4_thread_entry_t *)0x10, .no_pager = true,
						      .priority = CONF_HIGHER });
	conf_settle();
	start(read_word, WINDOW, conf_gate(dead, 0), own_gate());
	l4_message_t message = next_message();
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 14);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], WINDOW);
}

TEST(PF0013, "an access to the kernel's addresses is no pager's matter but an exception", "exception.message:OK")
{
	start(read_word, L4_USER_LIMIT + 0x123000, own_gate(), conf_gate(conf_worker(), 0x6660));
	l4_message_t message = next_message();
	CHECK_EQ(message.label, 0x6663);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 14);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], L4_USER_LIMIT + 0x123000);
}

TEST(PF0014, "the victim may be answered with memory far larger than the page it misses", "page_fault.answer:OK")
{
	l4_word_t *memory = conf_memory(16);

	memory[0xf000 / 4] = 0xf00d;
	start(read_word, WINDOW + 0xf000, own_gate(), own_gate());
	next_message();
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)memory, 16, L4_MEMORY_RIGHTS), WINDOW));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	CHECK_EQ(victim.value, 0xf00d);
}

TEST(PF0015, "a page granted in the answer leaves the pager", "page_fault.answer:OK")
{
	l4_word_t page = (l4_word_t)conf_memory(12), alias = WINDOW + 0x8000;

	*(volatile l4_word_t *)page = 0x151;
	l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, 7), alias));
	start(read_word, WINDOW, own_gate(), own_gate());
	next_message();
	l4_put_item(0, l4_grant_item(l4_memory_fpage(alias, 12, 7), WINDOW));
	CHECK_EQ(l4_result(l4_reply(l4_tag(0, 0, 1), l4_no_wait())), 0);
	conf_settle();
	CHECK_EQ(victim.value, 0x151);
	CHECK(!conf_read(conf_prober((l4_cap_t){ 0 }), alias, NULL));
}

TEST(PF0016, "a pager may keep a victim waiting while it serves others", "page_fault.message:OK")
{
	l4_cap_t gate = own_gate();

	start(read_word, WINDOW, gate, gate);
	CHECK_EQ(l4_result(l4_invoke(l4_reply_cap(9), L4_OP_WAIT, l4_tag(0, 0, 0), 0, receive_within(10000)).tag),
		 L4_PROTO_PAGE_FAULT);
	l4_sleep_us(5000);
	CHECK(!victim.done);
	l4_word_t *page = conf_memory(12);
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)page, 12, 7), WINDOW));
	l4_invoke(l4_reply_cap(9), L4_OP_SEND | L4_OP_REPLY, l4_tag(0, 0, 1), 0, l4_no_wait());
	conf_settle();
	CHECK(victim.done);
}

TEST(PF0017, "the pager answers through the slot in the victim's own task", "page_fault.message:OK")
{
	l4_cap_t task = conf_task(), gate = own_gate(), weak = conf_copy(gate, L4_OBJECT_RIGHT_R);

	memset((void *)&victim, 0, sizeof victim);
	conf_helper(&(conf_helper_t){ .entry = read_word, .argument = (void *)WINDOW, .task = task, .pager = weak,
				      .handler = gate, .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(next_message().label, GATE);
	answer_with_page(WINDOW, L4_RIGHT_R);
	CHECK(victim.done);
}
