/* Mostly well-formed system calls that name things which are there, over all that the interface has. */
#include "script.h"
#include "chance.h"
#include "places.h"

#include <l4/string.h>

static unsigned acting; /* whose act is written */

/* --- words ----------------------------------------------------------------------------------------------------------- */

static l4_word_t slot(void)
{
	return chance_of(6) ? CHOOSE(0, 0, 1, 2, 5, 7, 8, 0x3ff, 1 << 18) : SLOT_FIRST + chance(SLOT_COUNT);
}

static l4_word_t of_kind(unsigned first, unsigned count)
{
	return chance_of(94) ? first + chance(count) : slot();
}

static l4_word_t cap(l4_word_t index)
{
	return index << L4_CAP_SHIFT;
}

static l4_word_t object_page(l4_word_t index)
{
	l4_word_t order = chance_of(88) ? 0 : CHOOSE(1, 1, 2, 3);
	l4_word_t rights = chance_of(75) ? CHOOSE(15, 7, 7) : chance(16);

	return l4_fpage(L4_FPAGE_TYPE_OBJECT, index, (unsigned)order, rights).raw;
}

static l4_word_t memory_page(void)
{
	l4_word_t rights = chance_of(70) ? CHOOSE(7, 6, 5) : chance(16);
	bool large = chance_of(15);
	l4_word_t address = large ? SUPER + (chance(SUPERPAGES) << L4_SUPERPAGE_SHIFT) + chance(3) * L4_PAGE_BYTES :
				    page_address((unsigned)chance(WINDOW_PAGES));
	unsigned order = (unsigned)(large ? CHOOSE(12, 12, 22, 22, 23) : CHOOSE(12, 12, 12, 12, 13, 14, 15, 11));

	return l4_memory_fpage(address, order, rights).raw;
}

static l4_word_t port_page(void)
{
	return l4_fpage(L4_FPAGE_TYPE_IO, CHOOSE(0x80, 0x81, 0x82, 0x90), (unsigned)CHOOSE(0, 0, 1, 4),
			CHOOSE(6, 6, 7, 0))
		.raw;
}

static l4_word_t flexpage(void)
{
	l4_word_t which = chance(20);

	if (which < 8)
		return object_page(slot());
	return which < 17 ? memory_page() : port_page();
}

/** Where an item of a flexpage goes in a window of everything. */
static l4_word_t send_base(l4_word_t page)
{
	switch (l4_fpage_type((l4_fpage_t){ page })) {
	case L4_FPAGE_TYPE_MEMORY:
		return chance_of(80) ? page_address((unsigned)chance(WINDOW_PAGES)) :
				       SUPER + (chance(SUPERPAGES) << L4_SUPERPAGE_SHIFT);
	case L4_FPAGE_TYPE_OBJECT:
		return cap(chance_of(93) ? SLOT_FREE + chance(SLOT_FIRST + SLOT_COUNT - SLOT_FREE) : 0);
	default:
		return 0;
	}
}

static l4_item_t item(void)
{
	l4_word_t page = flexpage();
	l4_word_t control = send_base(page) | L4_ITEM_MAP;

	if (chance_of(12))
		control |= L4_ITEM_GRANT;
	if (chance_of(10))
		control |= L4_ITEM_COMPOUND;
	if (chance_of(30))
		control |= CHOOSE(0x10, 0x20, 0xe0);
	if (chance_of(3))
		control = CHOOSE(0, 0x1, 0x10);
	return (l4_item_t){ control, { page } };
}

static l4_item_t argument(l4_word_t index)
{
	return chance_of(95) ? l4_argument(l4_cap(index)) : item();
}

static l4_word_t timeouts(void)
{
	l4_timeout_t short_time = l4_timeout_us(3000);
	l4_timeout_t some[] = { L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER, short_time, short_time };

	return l4_timeouts(some[chance(4)], some[chance(4)]).raw;
}

/** Buffers for what may come. */
static void open_buffers(act_t *act)
{
	unsigned at = 0;

	if (chance_of(20))
		return;
	for (unsigned kind = 0; kind < 1 + chance(2) && at + 3 < ACT_BRS; kind++) {
		l4_word_t flags = L4_BUFFER_ITEM | (chance_of(25) ? L4_BUFFER_LOCAL_ID : 0);
		if (chance_of(50)) {
			act->br[at++] = cap(SLOT_FREE + chance(12)) | flags | L4_BUFFER_SMALL;
			continue;
		}
		bool forward = chance_of(8);
		act->br[at++] = flags | (forward ? L4_BUFFER_FORWARD : 0);
		act->br[at++] = chance_of(50) ? L4_FPAGE_ALL :
				chance_of(50) ? object_page(SLOT_FREE + chance(12)) :
						memory_page();
		if (forward)
			act->br[at++] = cap(SLOT_OTHER_TASK);
	}
}

/* --- acts ------------------------------------------------------------------------------------------------------------ */

static void set(act_t *act, const char *name, l4_word_t selector, l4_word_t operation, int label)
{
	act->name = name;
	act->selector = selector | operation;
	act->tag = l4_tag(label, 0, 0).raw;
}

static void add_words(act_t *act, unsigned count, const l4_word_t *words)
{
	for (unsigned i = 0; i < count; i++)
		act->mr[(act->tag & L4_TAG_WORDS_MASK) + i] = words[i];
	act->tag += count;
}

static void add_item(act_t *act, l4_item_t it)
{
	unsigned at = l4_tag_words((l4_tag_t){ act->tag }) + 2 * l4_tag_items((l4_tag_t){ act->tag });

	act->mr[at] = it.control;
	act->mr[at + 1] = it.fpage.raw;
	act->tag += 1 << L4_TAG_ITEMS_SHIFT;
}

#define WORDS(act, ...)                                                                                               \
	add_words(act, sizeof((l4_word_t[]){ __VA_ARGS__ }) / sizeof(l4_word_t), (l4_word_t[]){ __VA_ARGS__ })

static l4_word_t thread_selector(void)
{
	return chance_of(20) ? L4_CAP_INVALID : cap(of_kind(SLOT_THREADS, ACTORS));
}

static void message(act_t *act)
{
	l4_word_t to = chance_of(10) ? L4_CAP_INVALID :
		       chance_of(55) ? cap(of_kind(SLOT_GATES, ACTORS)) :
				       cap(of_kind(SLOT_THREADS, ACTORS));

	set(act, "message", to, CHOOSE(1, 1, 3, 3, 3, 7, 2, 6, 6, 6, 9, 0xb, 0xf, 0xf, 0, 4), (int)CHOOSE(0, 1, 0x21, 0x4000));
	for (l4_word_t words = CHOOSE(0, 0, 1, 2, 3); words > 0; words--)
		WORDS(act, 0x1000 + chance(16));
	for (l4_word_t items = CHOOSE(0, 0, 0, 1, 1, 2); items > 0; items--)
		add_item(act, item());
	if (chance_of(8))
		act->tag |= CHOOSE(L4_TAG_SCHEDULE, L4_TAG_FPU, L4_TAG_ERROR);
	if ((act->selector & L4_CAP_INVALID_BIT) && chance_of(10))
		act->selector = (act->selector & 0xf) | L4_CAP_EXPLICIT_REPLY_BIT | cap(chance(3));
}

static void create(act_t *act)
{
	l4_word_t kind = CHOOSE((l4_word_t)L4_PROTO_IRQ_SENDER, (l4_word_t)L4_PROTO_SEMAPHORE, 0, 0,
				(l4_word_t)L4_PROTO_FACTORY, (l4_word_t)-7);

	set(act, "create", cap(chance_of(80) ? 2 : SLOT_FACTORY), L4_OP_CALL, L4_PROTO_FACTORY);
	WORDS(act, kind);
	if (kind == 0 || kind == (l4_word_t)L4_PROTO_FACTORY)
		WORDS(act, L4_VARG_UNSIGNED | 4 << 16, kind == 0 ? chance(256) << (chance_of(90) ? 2 : 0) : CHOOSE(0x4000, 0, 0x20000));
	if (kind == 0 && chance_of(80))
		add_item(act, argument(of_kind(SLOT_THREADS, ACTORS)));
	if (chance_of(90)) {
		memset(act->br, 0, sizeof act->br);
		act->bdr = 0;
		act->br[0] = cap(chance_of(95) ? SLOT_FREE + chance(12) : 0) | L4_BUFFER_ITEM | L4_BUFFER_SMALL;
	}
}

static l4_word_t task_cap(void)
{
	return cap(chance_of(70) ? 1 : SLOT_OTHER_TASK);
}

static void map(act_t *act)
{
	l4_word_t page = flexpage();
	l4_word_t control = send_base(page) | (chance_of(15) ? L4_ITEM_GRANT : 0) | (chance_of(25) ? CHOOSE(0x10, 0x20, 0xe0) : 0);

	set(act, "task.map", task_cap(), L4_OP_CALL, L4_PROTO_TASK);
	WORDS(act, L4_TASK_MAP, control, page);
	add_item(act, argument(chance_of(65) ? 1 : SLOT_OTHER_TASK));
}

static void unmap(act_t *act)
{
	l4_word_t page = flexpage(), mask = CHOOSE(0, 0, L4_UNMAP_SELF, L4_UNMAP_SELF, L4_UNMAP_SELF | L4_UNMAP_DELETE);

	set(act, "task.unmap", task_cap(), chance_of(90) ? L4_OP_CALL : L4_OP_SEND, L4_PROTO_TASK);
	WORDS(act, L4_TASK_UNMAP, mask, page);
	if (chance_of(20))
		WORDS(act, flexpage());
}

static void ask_task(act_t *act)
{
	set(act, "task.ask", task_cap(), L4_OP_CALL, L4_PROTO_TASK);
	if (chance_of(20)) {
		l4_word_t address = KU_MEMORY + chance(4) * L4_PAGE_BYTES;
		WORDS(act, L4_TASK_ADD_KU_MEM,
		      l4_fpage((unsigned)CHOOSE(1, 1, 1, 2, 3), address >> L4_PAGE_SHIFT, (unsigned)CHOOSE(12, 12, 13, 11), chance(16)).raw);
		return;
	}
	WORDS(act, chance_of(95) ? L4_TASK_CAP_INFO : 9, cap(slot()));
	if (chance_of(50))
		WORDS(act, cap(slot()));
}

/** A handler other than its own gate would tell of it as of another actor, so that may only be a kernel object; and with that,
 * an alien would never come to its first call. */
static void control(act_t *act)
{
	bool own = chance_of(75);
	l4_word_t handler = own ? SLOT_HANDLER + acting : CHOOSE(7, 5, 1, SLOT_IRQS);
	l4_word_t flags = L4_CONTROL_SET_EXCEPTION_HANDLER | L4_CONTROL_ALIEN;

	set(act, "thread.control", L4_CAP_INVALID, L4_OP_CALL, L4_PROTO_THREAD);
	if (chance_of(25)) {
		act->selector = cap(of_kind(SLOT_THREADS, ACTORS)) | L4_OP_CALL;
		flags = 0;
	}
	WORDS(act, L4_THREAD_CONTROL | flags, 0, cap(handler) | CHOOSE(0, 0x800), 0, own && chance_of(40) ? L4_CONTROL_ALIEN : 0, 0);
}

static void ex_regs(act_t *act)
{
	set(act, "thread.ex_regs", thread_selector(), L4_OP_CALL, L4_PROTO_THREAD);
	act->quiet = true; /* it answers addresses */
	WORDS(act, L4_THREAD_EX_REGS | CHOOSE(0, L4_EX_REGS_CANCEL, L4_EX_REGS_TRIGGER_EXCEPTION, 0x30000), L4_EX_REGS_KEEP,
	      L4_EX_REGS_KEEP);
}

static void other_thread(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_THREAD_SWITCH, L4_THREAD_STATS, L4_THREAD_REGISTER_DELETE_IRQ, L4_THREAD_REGISTER_DELETE_IRQ,
				     L4_THREAD_MODIFY_SENDERS, L4_THREAD_GDT, L4_THREAD_VCPU_CONTROL, 0x33);

	set(act, "thread.other", thread_selector(), L4_OP_CALL, L4_PROTO_THREAD);
	act->quiet = operation == L4_THREAD_STATS;
	WORDS(act, operation);
	if (operation == L4_THREAD_REGISTER_DELETE_IRQ)
		add_item(act, argument(of_kind(SLOT_IRQS, 4)));
	else if (operation == L4_THREAD_MODIFY_SENDERS)
		WORDS(act, CHOOSE(0, 3), CHOOSE(0, 3), chance(16), chance(16));
	else if (operation == L4_THREAD_GDT)
		WORDS(act, chance(6), 0, 0);
}

static void trampoline_control(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_PF_TRAMP_DISABLE, L4_PF_TRAMP_ENABLE, 0x50000);

	set(act, "thread.tramp", thread_selector(), L4_OP_CALL, L4_PROTO_THREAD);
	WORDS(act, L4_THREAD_PF_TRAMP_CONTROL | operation);
}

static void schedule(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_SCHEDULER_INFO, L4_SCHEDULER_RUN_THREAD, L4_SCHEDULER_RUN_THREAD, L4_SCHEDULER_IDLE_TIME, 7);
	l4_word_t cpus = chance_of(85) ? 0 : CHOOSE(1u << 24 | 1, 0xff000000, 2u << 24 | 3);

	set(act, "scheduler", cap(7), L4_OP_CALL, L4_PROTO_SCHEDULER);
	act->quiet = operation != L4_SCHEDULER_RUN_THREAD;
	WORDS(act, operation, cpus);
	if (operation == L4_SCHEDULER_RUN_THREAD) {
		WORDS(act, 1, chance_of(90) ? 10 + chance(3) : CHOOSE(0, 0xfffffffe, 0xffffffff), CHOOSE(0, 0, 2000));
		add_item(act, argument(of_kind(SLOT_THREADS, ACTORS)));
	} else if (operation == L4_SCHEDULER_IDLE_TIME) {
		WORDS(act, CHOOSE(1, 1, 0));
	}
}

static void gate(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_ENDPOINT_BIND, L4_ENDPOINT_BIND, L4_GATE_GET_INFO, L4_KOBJECT_DEC_REFCNT, 0x44);

	set(act, "gate", cap(of_kind(SLOT_GATES, ACTORS)), L4_OP_CALL, L4_PROTO_KOBJECT);
	WORDS(act, operation, operation == L4_KOBJECT_DEC_REFCNT ? CHOOSE(1, 0xffffffff, 2) : chance(64) << (chance_of(85) ? 2 : 0));
	if (operation == L4_ENDPOINT_BIND)
		add_item(act, argument(of_kind(SLOT_THREADS, ACTORS)));
}

static void irq(act_t *act)
{
	l4_word_t to = cap(of_kind(SLOT_IRQS, 2));

	switch (chance(6)) {
	case 0:
		set(act, "irq.bind", to, L4_OP_CALL, L4_PROTO_KOBJECT);
		WORDS(act, L4_ENDPOINT_BIND, 0x5000 + chance(16));
		add_item(act, argument(of_kind(SLOT_THREADS, ACTORS)));
		return;
	case 1:
		set(act, "irq.detach", to, L4_OP_CALL, L4_PROTO_IRQ_SENDER);
		WORDS(act, L4_IRQ_SENDER_DETACH);
		return;
	case 2:
		set(act, "irq.receive", to, L4_OP_RECV, 0);
		return;
	default:
		set(act, "irq.trigger", to, CHOOSE(L4_OP_SEND, L4_OP_SEND, L4_OP_CALL, L4_OP_SEND_AND_WAIT), L4_PROTO_IRQ);
		if (chance_of(40))
			WORDS(act, CHOOSE(L4_IRQ_TRIGGER, L4_IRQ_TRIGGER, L4_IRQ_UNMASK, 9));
	}
}

static void semaphore(act_t *act)
{
	l4_word_t to = cap(of_kind(SLOT_SEMAPHORES, 2));

	set(act, "semaphore", to, L4_OP_CALL, chance_of(55) ? L4_PROTO_SEMAPHORE : L4_PROTO_IRQ);
	if (chance_of(90))
		WORDS(act, l4_tag_label((l4_tag_t){ act->tag }) == L4_PROTO_SEMAPHORE ? CHOOSE(0, 0, 0, 3) : L4_IRQ_TRIGGER);
}

static void controller(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_ICU_BIND, L4_ICU_BIND, L4_ICU_UNBIND, L4_ICU_INFO, L4_ICU_MASK, L4_ICU_UNMASK, 0x10002,
				     L4_ICU_MSI_INFO);

	set(act, "icu", cap(CHOOSE(5, 7)), operation == L4_ICU_MASK || operation == L4_ICU_UNMASK ? L4_OP_SEND : L4_OP_CALL,
	    L4_PROTO_IRQ);
	WORDS(act, operation, CHOOSE(0, 0, 0, 1, 100));
	if (operation <= L4_ICU_UNBIND && chance_of(92))
		add_item(act, argument(of_kind(SLOT_IRQS, 4)));
}

static void console(act_t *act)
{
	l4_word_t operation = CHOOSE(L4_LOG_SET_ATTR, L4_LOG_GET_ATTR, L4_LOG_GET_ATTR, L4_LOG_READ, L4_LOG_WRITE, 6);

	set(act, "log", cap(5), operation == L4_LOG_WRITE ? L4_OP_SEND : L4_OP_CALL, L4_PROTO_LOG);
	WORDS(act, operation, operation == L4_LOG_WRITE ? CHOOSE(0, 300) : CHOOSE(0x100, 0), CHOOSE(4, 0), CHOOSE(8, 0));
}

static void touch(act_t *act)
{
	act->kind = chance_of(50) ? ACT_READ : ACT_WRITE;
	act->name = act->kind == ACT_READ ? "read" : "write";
	act->address = chance_of(80) ? page_address((unsigned)chance(WINDOW_PAGES)) + 4 :
				       SUPER + (chance(SUPERPAGES) << L4_SUPERPAGE_SHIFT) + chance(3) * L4_PAGE_BYTES + 4;
	act->label = 0xd000 + chance(0x1000);
}

static void misbehave(act_t *act)
{
	act->kind = (act_kind_t)CHOOSE(ACT_BREAK, ACT_PORT, ACT_PORT, ACT_TRAMPOLINE, ACT_TRAMPOLINE);
	act->name = act->kind == ACT_BREAK ? "break" : act->kind == ACT_PORT ? "port" : "trampoline";
	act->address = act->kind == ACT_PORT ? CHOOSE(0x80, 0x81, 0x90) : page_address((unsigned)chance(WINDOW_PAGES));
	act->mr[0] = chance(4);
	act->quiet = act->kind == ACT_PORT; /* what a port holds is the machine's business */
}

/** One thing is wrong. */
static void spoil(act_t *act)
{
	switch (chance(4)) {
	case 0:
		act->tag ^= 1u << chance(12);
		break;
	case 1:
		act->tag ^= (1 + chance(31)) << L4_TAG_LABEL_SHIFT;
		break;
	case 2:
		act->selector ^= 1u << chance(4);
		break;
	default:
		act->mr[chance(6)] ^= CHOOSE(1, 2, 8, 0x40, 0x10000, 0x80000000);
	}
}

void script_act(act_t *act, unsigned number)
{
	static const struct {
		unsigned weight;
		void (*write)(act_t *);
	} acts[] = { { 34, message }, { 6, create }, { 13, map },    { 8, unmap },     { 4, ask_task },   { 4, control },
		     { 4, ex_regs },  { 5, other_thread }, { 1, trampoline_control }, { 3, schedule }, { 5, gate }, { 9, irq },
		     { 5, semaphore }, { 3, controller }, { 2, console }, { 9, touch }, { 5, misbehave } };
	unsigned total = 0, which = 0;

	for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++)
		total += acts[i].weight;
	l4_word_t ticket = chance(total);
	while (ticket >= acts[which].weight)
		ticket -= acts[which++].weight;
	acting = number;
	memset(act, 0, sizeof *act);
	act->timeouts = timeouts();
	act->label = 0x900 + chance(16);
	open_buffers(act);
	acts[which].write(act);
	if (act->kind == ACT_CALL && acts[which].write != control && chance_of(5))
		spoil(act);
}
