#include "episode.h"
#include "actor.h"
#include "chance.h"
#include "places.h"
#include "script.h"

#include <l4/factory.h>
#include <l4/irq.h>
#include <l4/log.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/scheduler.h>
#include <l4/sigma0.h>
#include <l4/string.h>

extern char l4_image_start[], l4_image_end[];

enum {
	OWN_FIRST = 0x400, /* the root task's capabilities of an episode */
	OWN_COUNT = 0x40,
	OWN_TASKS = OWN_FIRST,
	OWN_THREADS = OWN_FIRST + 0x08,
	OWN_HANDLERS = OWN_FIRST + 0x10,
	OWN_GATES = OWN_FIRST + 0x18,
	OWN_IRQS = OWN_FIRST + 0x20,
	OWN_SEMAPHORES = OWN_FIRST + 0x22,
	OWN_FACTORY = OWN_FIRST + 0x24,
	OWN_PRIORITY = 250,
	PROBER_PRIORITY = 251,
	ACTOR_PRIORITY = 10,
	QUIET_US = 10000, /* longer than any timeout, and than a deletion takes */
	FAULTS_A_STEP = 6,
	NO_DELETE = L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D,
	FACTORY_BYTES = 0x40000,
	PORTS = 0x80,
};

static l4_word_t memory, super; /* of the root task, for the tasks of all episodes */
static l4_word_t prefix[2];     /* episode and step, for what is printed */
static unsigned faults;

#define TELL(format, ...) printf("%u.%u " format "\n", prefix[0], prefix[1], __VA_ARGS__)

static void must(int result, const char *what)
{
	if (result < 0)
		l4_panic("%s: %d", what, result);
}

/* --- what an episode begins with ------------------------------------------------------------------------------------- */

void episode_prepare(void)
{
	for (char *page = l4_image_start; page < l4_image_end; page += L4_PAGE_BYTES)
		(void)*(volatile char *)page; /* what is not mapped here cannot be mapped on */
	must(l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), OWN_PRIORITY), "priority");
	must(l4_sigma0_any(l4_parent(), L4_PAGE_SHIFT + 3, &memory), "memory");
	must(l4_sigma0_any(l4_parent(), L4_SUPERPAGE_SHIFT, &super), "a superpage");
	l4_utcb()->mr[0] = l4_io_fpage(PORTS, 2).raw; /* the way an I/O fault would ask */
	l4_accept(l4_io_fpage(0, 16));
	must(l4_result(l4_call(l4_parent(), l4_tag(L4_PROTO_IO_PAGE_FAULT, 2, 0), l4_forever()).tag), "ports");
}

static l4_cap_t task_of(unsigned thread)
{
	return l4_cap(OWN_TASKS + (thread < ACTORS ? thread / 2 : thread - ACTORS));
}

static l4_cap_t thread_cap(unsigned thread)
{
	return l4_cap(OWN_THREADS + thread);
}

static void give(l4_cap_t task, l4_cap_t from, l4_word_t to, l4_word_t rights)
{
	must(l4_task_map_cap(task, l4_own_task(), from, l4_cap(to), rights), "a capability");
}

static void give_memory(l4_cap_t task, l4_word_t from, l4_word_t to, unsigned order, l4_word_t rights)
{
	must(l4_task_map(task, l4_own_task(), l4_map_item(l4_memory_fpage(from, order, rights), to)), "memory");
}

static void make_task(unsigned number)
{
	l4_cap_t task = l4_cap(OWN_TASKS + number);
	l4_word_t kip = (l4_word_t)l4_kip();

	must(l4_factory_create_task(l4_own_factory(), task, l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, 6)), "a task");
	for (l4_word_t page = (l4_word_t)l4_image_start; page < (l4_word_t)l4_image_end; page += L4_PAGE_BYTES)
		give_memory(task, page, page, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS);
	give_memory(task, kip, kip, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_X);
	for (unsigned i = 0; i < 4; i++)
		give_memory(task, memory + (4 * number + i) * L4_PAGE_BYTES, page_address(4 * number + i), L4_PAGE_SHIFT,
			    L4_MEMORY_RIGHTS);
	if (number == 0)
		give_memory(task, super, SUPER, L4_SUPERPAGE_SHIFT, L4_MEMORY_RIGHTS);
	must(l4_task_map(task, l4_own_task(), l4_map_item(l4_io_fpage(PORTS, 1), 0)), "ports");
}

static void start(unsigned thread, l4_thread_entry_t *entry)
{
	must(l4_thread_ex_regs(thread_cap(thread), (l4_word_t)entry, actor_stack(thread), L4_EX_REGS_CANCEL, NULL), "ex_regs");
}

static void make_thread(unsigned thread)
{
	l4_cap_t cap = thread_cap(thread), handler = l4_cap(OWN_HANDLERS + thread);
	l4_thread_control_t control = { .change = L4_CONTROL_BIND_TASK | L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER,
					.pager = handler_cap(thread),
					.handler = handler_cap(thread),
					.task = task_of(thread),
					.utcb = utcb_of(thread) };

	must(l4_factory_create_thread(l4_own_factory(), cap), "a thread");
	must(l4_thread_control(cap, &control), "control");
	must(l4_factory_create_gate(l4_own_factory(), handler, l4_main_thread(), LABEL_STEP * (thread + 1)), "a gate");
	give(task_of(thread), handler, (l4_word_t)(SLOT_HANDLER + thread), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S);
	must(l4_scheduler_run_on(l4_own_scheduler(), cap, 0, thread < ACTORS ? ACTOR_PRIORITY + (int)(thread & 1) : PROBER_PRIORITY),
	     "run_thread");
	start(thread, thread < ACTORS ? actor_park : actor_probe);
}

/** What both tasks have. Few things come with the right to delete them. */
static void furnish(unsigned number)
{
	l4_cap_t task = l4_cap(OWN_TASKS + number);

	give(task, task, L4_BOOT_CAP_TASK, NO_DELETE);
	give(task, l4_cap(OWN_TASKS + 1 - number), SLOT_OTHER_TASK, NO_DELETE);
	give(task, l4_cap(OWN_FACTORY), SLOT_FACTORY, NO_DELETE);
	give(task, l4_own_factory(), L4_BOOT_CAP_FACTORY, NO_DELETE);
	give(task, l4_own_log(), L4_BOOT_CAP_LOG, NO_DELETE);
	give(task, l4_own_scheduler(), L4_BOOT_CAP_SCHEDULER, NO_DELETE);
	for (unsigned i = 0; i < ACTORS; i++) {
		give(task, thread_cap(i), SLOT_THREADS + i, NO_DELETE);
		give(task, l4_cap(OWN_GATES + i), SLOT_GATES + i, NO_DELETE | L4_OBJECT_RIGHT_SERVER | (i == 3 ? L4_OBJECT_RIGHT_D : 0));
	}
	for (unsigned i = 0; i < 2; i++) {
		give(task, l4_cap(OWN_IRQS + i), SLOT_IRQS + i, i == 0 ? NO_DELETE : L4_OBJECT_RIGHTS);
		give(task, l4_cap(OWN_SEMAPHORES + i), SLOT_SEMAPHORES + i, i == 0 ? NO_DELETE : L4_OBJECT_RIGHTS);
	}
}

static void set_up(void)
{
	memset(actors, 0, sizeof actors);
	memset((void *)super, 0, 4 * L4_PAGE_BYTES);
	for (unsigned i = 0; i < WINDOW_PAGES; i++)
		memset((void *)(memory + i * L4_PAGE_BYTES), (int)(0xa0 + i), L4_PAGE_BYTES);
	for (unsigned i = 0; i < TASKS; i++)
		make_task(i);
	for (unsigned i = 0; i < THREADS; i++)
		make_thread(i);
	for (unsigned i = 0; i < ACTORS; i++)
		must(l4_factory_create_gate(l4_own_factory(), l4_cap(OWN_GATES + i), thread_cap(i), 0x20 * (i + 1)), "a gate");
	for (unsigned i = 0; i < 2; i++) {
		must(l4_factory_create_irq(l4_own_factory(), l4_cap(OWN_IRQS + i)), "an IRQ");
		must(l4_factory_create_semaphore(l4_own_factory(), l4_cap(OWN_SEMAPHORES + i)), "a semaphore");
	}
	must(l4_irq_bind(l4_cap(OWN_IRQS), thread_cap(0), 0x5001), "bind");
	must(l4_factory_create_factory(l4_own_factory(), l4_cap(OWN_FACTORY), FACTORY_BYTES), "a factory");
	for (unsigned i = 0; i < TASKS; i++)
		furnish(i);
}

static void take_away(void)
{
	l4_log_attributes_t usual = { 0x100, 4, 8 };

	for (unsigned i = 0; i < THREADS; i++)
		l4_task_delete(l4_own_task(), thread_cap(i));
	l4_task_unmap(l4_own_task(), l4_object_fpage(l4_cap(OWN_FIRST), 6, L4_OBJECT_RIGHTS), L4_UNMAP_SELF | L4_UNMAP_DELETE);
	l4_task_unmap(l4_own_task(), l4_memory_fpage(memory, L4_PAGE_SHIFT + 3, L4_MEMORY_RIGHTS), 0);
	l4_task_unmap(l4_own_task(), l4_memory_fpage(super, L4_SUPERPAGE_SHIFT, L4_MEMORY_RIGHTS), 0);
	l4_task_unmap(l4_own_task(), l4_io_fpage(PORTS, 2), 0);
	l4_log_set_attributes(l4_own_log(), &usual);
}

/* --- what comes of a step ------------------------------------------------------------------------------------------------ */

/** An address of the tasks' windows by its place; others are the kernel's or the program's business. */
static l4_word_t place(l4_word_t address)
{
	return address >= MEMORY && address < L4_HEAP_END ? address - MEMORY : 1;
}

static void tell_outcome(unsigned number)
{
	actor_t *a = &actors[number];
	const act_t *act = &a->act;

	a->fresh = false;
	if (act->kind != ACT_CALL) {
		TELL("actor %u did %s: value 0x%x, %x, %x, %d", number, act->name, act->quiet ? 0 : a->value, a->tag, a->label, a->error);
		return;
	}
	TELL("actor %u did %s: tag 0x%x label 0x%x error %u", number, act->name, a->tag, a->label, a->error);
	for (unsigned i = 0; i < 16 && !act->quiet; i++)
		if (a->mr[i] != act->mr[i])
			TELL("    mr[%u] 0x%x", i, a->mr[i]);
}

/** Sends a thread away from what it did, from inside its exception. */
static void park(unsigned number)
{
	l4_word_t *mr = l4_utcb()->mr;

	mr[L4_EXC_EIP] = (l4_word_t)actor_park;
	mr[L4_EXC_ESP] = actor_stack(number);
	l4_reply(l4_tag(0, L4_EXCEPTION_WORDS, 0), l4_no_wait());
}

static void answer_exception(unsigned number)
{
	const l4_word_t *mr = l4_utcb()->mr;
	l4_word_t trap = mr[L4_EXC_TRAPNO], error = mr[L4_EXC_ERR];
	bool alien = trap == 13 && (error == L4_ALIEN_BEFORE || error == L4_ALIEN_AFTER);

	TELL("actor %u: exception %u, error 0x%x, eflags 0x%x, at 0x%x", number, trap, error, mr[L4_EXC_EFLAGS] & 0x300,
	     trap == 14 ? place(mr[L4_EXC_PFA]) : 0);
	if (alien)
		TELL("    eax 0x%x esi 0x%x", mr[L4_EXC_EAX], mr[L4_EXC_ESI]);
	if (alien || trap == 3 || trap == L4_TRAP_EX_REGS)
		l4_reply(l4_tag(alien && chance_of(85) ? L4_PROTO_ALLOW_SYSCALL : 0, 0, 0), l4_no_wait());
	else
		park(number);
}

static void answer_fault(unsigned number)
{
	l4_word_t word = l4_utcb()->mr[0], address = word & ~(l4_word_t)(L4_PAGE_BYTES - 1);
	l4_word_t from = memory + chance(WINDOW_PAGES) * L4_PAGE_BYTES;

	TELL("actor %u: page fault 0x%x", number, place(word));
	if (place(word) == 1 || chance_of(20)) {
		l4_reply(l4_tag(-1, 0, 0), l4_no_wait());
		return;
	}
	l4_put_item(0, l4_map_item(l4_memory_fpage(from, L4_PAGE_SHIFT, CHOOSE(7, 7, 4, 1)), address));
	l4_reply(l4_tag(0, 0, 1), l4_no_wait());
}

/** A thread's message to its handler; with the last ones of too many it is sent away. */
static void answer(l4_message_t message)
{
	unsigned number = message.label / LABEL_STEP - 1;

	if (number >= ACTORS) {
		TELL("message 0x%x with label 0x%x", message.tag.raw, message.label);
	} else if (faults++ >= FAULTS_A_STEP) {
		TELL("actor %u: too many faults", number);
		l4_thread_control(thread_cap(number), &(l4_thread_control_t){ .change = L4_CONTROL_ALIEN });
		start(number, actor_park);
	} else if (l4_tag_label(message.tag) == L4_PROTO_EXCEPTION) {
		answer_exception(number);
	} else if (l4_tag_label(message.tag) == L4_PROTO_PAGE_FAULT) {
		answer_fault(number);
	} else {
		TELL("actor %u: message 0x%x", number, message.tag.raw);
	}
}

/** Lets all that can happen happen, and tells it. */
static void watch(void)
{
	faults = 0;
	for (;;) {
		l4_accept_nothing();
		l4_message_t message = l4_wait(l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(QUIET_US)));
		if (l4_tag_failed(message.tag) && l4_utcb()->error == L4_IPC_RECEIVE_TIMEOUT)
			break;
		answer(message);
	}
	for (unsigned i = 0; i < ACTORS; i++) {
		if (actors[i].parked)
			TELL("actor %u: sent away from %s", i, actors[i].act.name);
		actors[i].parked = false;
		if (actors[i].busy && actors[i].act.kind == ACT_PORT) {
			TELL("actor %u: kept from a port", i); /* by a handler that does not, and so for ever */
			start(i, actor_park);
		}
		if (actors[i].fresh)
			tell_outcome(i);
	}
}

/* --- steps ------------------------------------------------------------------------------------------------------------------ */

/** What only the root task does to an actor. */
static void meddle(unsigned number)
{
	l4_word_t flags = CHOOSE(L4_EX_REGS_CANCEL, L4_EX_REGS_CANCEL, L4_EX_REGS_TRIGGER_EXCEPTION, 0x30000);
	l4_fpage_t page = l4_memory_fpage(page_address((unsigned)chance(WINDOW_PAGES)), (unsigned)CHOOSE(12, 13, 15), CHOOSE(7, 5, 2));
	int result;

	if (chance_of(65)) {
		result = l4_thread_ex_regs(thread_cap(number), L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, flags, NULL);
		TELL("root: ex_regs 0x%x of actor %u: %d", flags, number, result);
	} else {
		result = l4_task_unmap(task_of(number), page, chance_of(50) ? 0 : L4_UNMAP_SELF);
		TELL("root: unmap 0x%x: %d, flags %u", page.raw, result, l4_task_unmapped_access());
	}
}

static void step(void)
{
	unsigned number = (unsigned)chance(ACTORS);

	if (chance_of(8) || (actors[number].busy && chance_of(50))) {
		meddle(number);
	} else {
		if (actors[number].busy)
			TELL("actor %u: no longer waits for %s", number, actors[number].act.name);
		script_act(&actors[number].act, number);
		actors[number].busy = true;
		actors[number].fresh = false;
		const act_t *act = &actors[number].act;
		TELL("actor %u: %s 0x%x tag 0x%x, 0x%x 0x%x 0x%x 0x%x", number, act->name, act->selector, act->tag, act->mr[0],
		     act->mr[1], act->mr[2], act->mr[3]);
		start(number, actor_act);
	}
	watch();
}

/* --- the end ------------------------------------------------------------------------------------------------------------------ */

/** Whether a prober can read, or read and write, the word at an address; 0 if neither. */
static unsigned probe(unsigned task, l4_word_t address, bool writes, l4_word_t *value)
{
	unsigned prober = ACTORS + task;
	l4_word_t *mr = l4_utcb()->mr;

	mr[0] = writes;
	mr[1] = address;
	if (l4_tag_failed(l4_send(thread_cap(prober), l4_tag(0, 2, 0), 0, l4_no_wait())))
		return 2;
	l4_message_t message = l4_wait(l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(QUIET_US)));
	if (l4_tag_label(message.tag) == PROTO_PROBED) {
		*value = mr[0];
		return 1;
	}
	start(prober, actor_probe);
	l4_sleep_us(2000);
	return 0;
}

static void tell_memory(unsigned task)
{
	for (unsigned i = 0; i < WINDOW_PAGES + 2 * SUPERPAGES; i++) {
		unsigned large = i - WINDOW_PAGES;
		l4_word_t address = i < WINDOW_PAGES ? page_address(i) :
						       SUPER + ((l4_word_t)(large / 2) << L4_SUPERPAGE_SHIFT) + large % 2 * L4_PAGE_BYTES;
		l4_word_t value = 0;
		unsigned reads = probe(task, address, false, &value);
		if (reads)
			TELL("task %u page 0x%x: %s 0x%x", task, place(address), probe(task, address, true, &value) ? "writes" : "reads", value);
	}
}

/** Each slot by the first one that holds the same. */
static void tell_slots(unsigned task)
{
	l4_cap_t cap = l4_cap(OWN_TASKS + task);

	for (unsigned i = 0; i < SLOT_FIRST + SLOT_COUNT; i++) {
		l4_word_t at = i, first = SLOT_FIRST;
		if ((i > 0 && i < SLOT_FIRST) || l4_task_cap_valid(cap, l4_cap(at)) != 1)
			continue;
		while (first < at && l4_task_cap_equal(cap, l4_cap(first), l4_cap(at)) != 1)
			first++;
		TELL("task %u slot 0x%x: as 0x%x", task, at, first);
	}
}

void episode_run(l4_word_t seed, l4_word_t episode, const bool *wanted)
{
	prefix[0] = episode;
	set_up();
	chance_begin(seed, episode, EPISODE_STEPS);
	for (prefix[1] = 0; prefix[1] < EPISODE_STEPS; prefix[1]++) {
		chance_begin(seed, episode, prefix[1]);
		if (wanted[prefix[1]])
			step();
	}
	for (unsigned i = 0; i < ACTORS; i++) {
		TELL("actor %u: %s", i, actors[i].busy ? "waits" : "idle");
		/* Whatever it was in ends here, and an alien tells of it: killed in its call it would only later. */
		l4_thread_control(thread_cap(i), &(l4_thread_control_t){ .change = L4_CONTROL_ALIEN });
		start(i, actor_park);
	}
	watch();
	for (unsigned i = 0; i < TASKS; i++) {
		tell_slots(i);
		tell_memory(i);
	}
	take_away();
}
