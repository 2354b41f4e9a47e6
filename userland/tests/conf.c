/* Runs the tests one after the other, each in a thread of its own, and watches over them. */
#include "conf.h"

#include <l4/panic.h>
#include <l4/string.h>

extern const conf_test_t l4_table_start[], l4_table_end[];
extern char l4_image_start[], l4_image_end[];

enum {
	MAIN_PRIORITY = 250,
	LIMIT_US = 8000000,
	STACK_BYTES = 8192,
	DETAIL_BYTES = 180,
	WORKER_UTCB = 1, /* index of the worker's in the task's UTCB page; helpers' follow */
	SETTLE_US = 2 * CONF_TICK_US,
	WATCH_LABEL = 0x1000,
	PROTO_DONE = 1,
	MEMORY_ORDER = 20,
	WINDOWS_ORDER = 24, /* from L4_HEAP_START: where tests map things */
};

typedef enum { PASSED, FAILED, SKIPPED, VERDICTS } verdict_t;

static l4_cap_t worker = { 0x3f0 << L4_CAP_SHIFT }, watch_gate = { 0x3f1 << L4_CAP_SHIFT };
static char stacks[CONF_HELPERS + 1][STACK_BYTES] __attribute__((aligned(16)));
static char detail[DETAIL_BYTES];
static verdict_t verdict;
static unsigned next_slot, next_helper;
static l4_cap_t helpers[CONF_HELPERS + 1]; /* by number of stack */
static l4_utcb_t *last_helper_utcb;
static l4_word_t memory_start, memory_used;

/* --- checks ------------------------------------------------------------------------------------------- */

static bool first_failure(void)
{
	if (verdict == FAILED)
		return false;
	verdict = FAILED;
	return true;
}

static const char *base_name(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash != NULL ? slash + 1 : file;
}

void conf_check(bool good, const char *what, const char *file, int line)
{
	if (!good && first_failure())
		snprintf(detail, sizeof detail, "%s:%d: not true: %s", base_name(file), line, what);
}

void conf_check_equal(l4_word_t found, l4_word_t expected, const char *what, const char *file, int line)
{
	if (found != expected && first_failure())
		snprintf(detail, sizeof detail, "%s:%d: %s: found %d (0x%x), expected %d (0x%x)", base_name(file), line, what,
			 found, found, expected, expected);
}

static _Noreturn void finish(void)
{
	l4_call(watch_gate, l4_tag(PROTO_DONE, 0, 0), l4_forever());
	l4_sleep_forever();
}

void conf_skip(const char *why)
{
	if (verdict == PASSED) {
		verdict = SKIPPED;
		snprintf(detail, sizeof detail, "%s", why);
	}
	finish();
}

/* --- time --------------------------------------------------------------------------------------------- */

uint64_t conf_now_us(void)
{
	return l4_kip_clock_us(l4_kip());
}

void conf_settle(void)
{
	l4_word_t error = l4_utcb()->error;

	l4_sleep_us(SETTLE_US);
	l4_utcb()->error = error;
}

void conf_spin_us(l4_word_t microseconds)
{
	uint64_t end = conf_now_us() + microseconds;

	while (conf_now_us() < end)
		;
}

/* --- what tests use ------------------------------------------------------------------------------------- */

l4_cap_t conf_slots(unsigned order)
{
	unsigned count = 1u << order;

	next_slot = (next_slot + count - 1) & ~(count - 1);
	l4_cap_t first = l4_cap(CONF_FIRST_SLOT + next_slot);
	next_slot += count;
	assert(next_slot <= CONF_SLOTS);
	return first;
}

l4_cap_t conf_slot(void)
{
	return conf_slots(0);
}

l4_cap_t conf_worker(void)
{
	return worker;
}

static l4_utcb_t *utcb_in(l4_cap_t task, unsigned index)
{
	l4_word_t area = task.raw == l4_own_task().raw ? L4_BOOT_UTCB : L4_UTCB_AREA;

	return (l4_utcb_t *)area + index;
}

l4_utcb_t *conf_helper_utcb(void)
{
	return last_helper_utcb;
}

static int control_helper(l4_cap_t thread, const conf_helper_t *how, l4_cap_t task)
{
	bool foreign = how->task.raw != 0;
	l4_thread_control_t control = {
		.change = L4_CONTROL_BIND_TASK | (how->no_pager ? 0 : L4_CONTROL_SET_PAGER) |
			  (how->no_handler ? 0 : L4_CONTROL_SET_EXCEPTION_HANDLER) | (how->alien ? L4_CONTROL_ALIEN : 0),
		.pager = how->pager.raw != 0 ? how->pager : l4_parent(),
		.handler = how->handler.raw != 0 ? how->handler : watch_gate,
		.alien = how->alien,
		.task = task,
		.utcb = last_helper_utcb,
	};

	if (foreign) {
		conf_give(task, thread);
		conf_give(task, control.pager);
		conf_give(task, control.handler);
	}
	return l4_thread_control(thread, &control);
}

static l4_word_t helper_stack(unsigned number, void *argument)
{
	l4_word_t *top = (l4_word_t *)(stacks[number] + STACK_BYTES - 16);

	top[0] = (l4_word_t)argument;
	top[-1] = 0;
	return (l4_word_t)&top[-1];
}

l4_cap_t conf_helper(const conf_helper_t *how)
{
	l4_cap_t thread = conf_slot(), task = how->task.raw != 0 ? how->task : l4_own_task();
	unsigned number = 1 + next_helper++;
	unsigned priority = how->priority != 0 ? how->priority : CONF_WORKER_PRIORITY;

	assert(number <= CONF_HELPERS);
	helpers[number] = thread;
	last_helper_utcb = utcb_in(task, WORKER_UTCB + number);
	CHECK_EQ(l4_factory_create_thread(l4_own_factory(), thread), 0);
	if (how->unbound)
		return thread;
	CHECK_EQ(control_helper(thread, how, task), 0);
	if (!how->no_cpu)
		CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, how->cpu, (int)priority), 0);
	if (how->entry != NULL)
		CHECK_EQ(l4_thread_ex_regs(thread, (l4_word_t)how->entry, helper_stack(number, how->argument), 0, NULL), 0);
	return thread;
}

void conf_restart(l4_cap_t helper, l4_thread_entry_t *entry, void *argument)
{
	unsigned number = 1;

	while (helpers[number].raw != helper.raw)
		number++;
	CHECK_EQ(l4_thread_ex_regs(helper, (l4_word_t)entry, helper_stack(number, argument), L4_EX_REGS_CANCEL, NULL), 0);
}

l4_cap_t conf_thread(l4_thread_entry_t *entry, void *argument, unsigned priority)
{
	return conf_helper(&(conf_helper_t){ .entry = entry, .argument = argument, .priority = priority });
}

l4_cap_t conf_task(void)
{
	return conf_task_of(l4_own_factory());
}

l4_cap_t conf_task_of(l4_cap_t factory)
{
	l4_cap_t task = conf_slot();
	l4_fpage_t utcbs = l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);

	CHECK_EQ(l4_factory_create_task(factory, task, utcbs), 0);
	for (l4_word_t page = (l4_word_t)l4_image_start; page < (l4_word_t)l4_image_end; page += L4_PAGE_BYTES) {
		l4_fpage_t fpage = l4_memory_fpage(page, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS);
		CHECK_EQ(l4_task_map(task, l4_own_task(), l4_map_item(fpage, page)), 0);
	}
	l4_word_t kip = (l4_word_t)l4_kip();
	l4_fpage_t fpage = l4_memory_fpage(kip, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_X);
	CHECK_EQ(l4_task_map(task, l4_own_task(), l4_map_item(fpage, kip)), 0);
	return task;
}

void conf_give(l4_cap_t task, l4_cap_t cap)
{
	/* With the delete right the end of that task would be the end of the object. */
	CHECK_EQ(l4_task_map_cap(task, l4_own_task(), cap, cap, L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D), 0);
}

l4_cap_t conf_gate(l4_cap_t thread, l4_word_t label)
{
	l4_cap_t gate = conf_slot();

	CHECK_EQ(l4_factory_create_gate(l4_own_factory(), gate, thread, label), 0);
	return gate;
}

l4_cap_t conf_copy(l4_cap_t cap, l4_word_t rights)
{
	l4_cap_t copy = conf_slot();

	CHECK_EQ(l4_task_map_cap(l4_own_task(), l4_own_task(), cap, copy, rights), 0);
	return copy;
}

l4_cap_t conf_irq(void)
{
	l4_cap_t irq = conf_slot();

	CHECK_EQ(l4_factory_create_irq(l4_own_factory(), irq), 0);
	return irq;
}

l4_cap_t conf_semaphore(void)
{
	l4_cap_t semaphore = conf_slot();

	CHECK_EQ(l4_factory_create_semaphore(l4_own_factory(), semaphore), 0);
	return semaphore;
}

void *conf_memory(unsigned order)
{
	l4_word_t bytes = 1u << order;

	memory_used = (memory_used + bytes - 1) & ~(bytes - 1);
	void *memory = (void *)(memory_start + memory_used);
	memory_used += bytes;
	assert(memory_used <= 1u << MEMORY_ORDER);
	return memset(memory, 0, bytes);
}

/* --- looking whether memory is there --------------------------------------------------------------------- */

enum { PROBE_READ, PROBE_WRITE };

static l4_word_t last_fault;

/** Does what the words of each message say: operation, address, value. Answers with the value. */
static void probe(void *argument)
{
	l4_word_t *mr = l4_utcb()->mr;

	(void)argument;
	for (l4_wait(l4_forever());; l4_serve(l4_tag(0, 1, 0))) {
		l4_word_t operation = mr[0], value = mr[2];
		volatile l4_word_t *memory = (volatile l4_word_t *)mr[1];
		if (operation == PROBE_WRITE)
			*memory = value;
		else
			value = *memory;
		mr[0] = value;
	}
}

l4_cap_t conf_prober(l4_cap_t task)
{
	l4_cap_t gate = conf_slot();

	CHECK_EQ(l4_factory_create_gate(l4_own_factory(), gate, worker, 0x7770), 0);
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = probe, .task = task, .pager = gate, .priority = CONF_HIGHER });
	conf_settle();
	return thread;
}

/** The pager of the prober is the very thread that waits for its answer, so a fault is the answer. */
static bool access(l4_cap_t prober, l4_word_t operation, l4_word_t address, l4_word_t *value)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = address;
	utcb->mr[2] = *value;
	l4_accept_nothing();
	l4_tag_t tag = l4_call(prober, l4_tag(0, 3, 0), receive_within(1000000)).tag;
	bool faulted = l4_tag_label(tag) == L4_PROTO_PAGE_FAULT;
	conf_check(!l4_tag_failed(tag), "the prober answers", __FILE__, __LINE__);
	*value = utcb->mr[0];
	last_fault = faulted ? utcb->mr[0] : 0;
	if (faulted) {
		conf_restart(prober, probe, NULL);
		conf_settle();
	}
	return !faulted;
}

bool conf_read(l4_cap_t prober, l4_word_t address, l4_word_t *value)
{
	l4_word_t found = 0;
	bool good = access(prober, PROBE_READ, address, &found);

	if (value != NULL)
		*value = found;
	return good;
}

bool conf_write(l4_cap_t prober, l4_word_t address, l4_word_t value)
{
	return access(prober, PROBE_WRITE, address, &value);
}

l4_word_t conf_last_fault(void)
{
	return last_fault;
}

void conf_fill(l4_word_t first, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		l4_utcb()->mr[i] = first + i;
}

/* --- running a test ------------------------------------------------------------------------------------- */

static void run_test(void *argument)
{
	const conf_test_t *test = argument;

	test->run();
	finish();
}

static void start_worker(const conf_test_t *test)
{
	l4_thread_options_t options = {
		.entry = run_test,
		.argument = (void *)test,
		.stack = stacks[0],
		.stack_bytes = STACK_BYTES,
		.utcb = utcb_in(l4_own_task(), WORKER_UTCB),
		.slot = worker,
		.handler = watch_gate,
		.priority = CONF_WORKER_PRIORITY,
	};
	int error = l4_thread_start(&options, NULL);

	if (error != 0)
		l4_panic("cannot start a worker: %d", error);
}

static void clean_up(void)
{
	l4_fpage_t slots = l4_object_fpage(l4_cap(CONF_FIRST_SLOT), __builtin_ctz(CONF_SLOTS), L4_OBJECT_RIGHTS);

	l4_task_delete(l4_own_task(), worker);
	l4_task_unmap(l4_own_task(), slots, L4_UNMAP_SELF | L4_UNMAP_DELETE);
	l4_task_unmap(l4_own_task(), l4_memory_fpage(L4_HEAP_START, WINDOWS_ORDER, L4_MEMORY_RIGHTS), L4_UNMAP_SELF);
	for (unsigned i = WORKER_UTCB; i <= WORKER_UTCB + CONF_HELPERS; i++)
		memset(utcb_in(l4_own_task(), i), 0, sizeof(l4_utcb_t));
	next_slot = next_helper = 0;
	memory_used = 0;
}

/** Where the worker is stuck: its EIP, or what a system call was made by. */
static void report_hang(void)
{
	l4_thread_state_t state = { 0 };

	l4_thread_ex_regs(worker, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, 0, &state);
	bool in_stub = state.eip >= L4_SYSTEM_CALL_PAGE;
	snprintf(detail, sizeof detail, "hangs at %p", in_stub ? *(void **)state.esp : (void *)state.eip);
}

/** Waits for the worker's end, or what else ends the test. */
static void watch(void)
{
	l4_accept_nothing();
	l4_message_t message = l4_wait(receive_within(LIMIT_US));
	const l4_word_t *mr = l4_utcb()->mr;

	if (l4_tag_failed(message.tag) && first_failure())
		report_hang();
	else if (l4_tag_label(message.tag) == L4_PROTO_EXCEPTION && first_failure())
		snprintf(detail, sizeof detail, "exception %u, error code 0x%x, at %p, address %p", mr[L4_EXC_TRAPNO],
			 mr[L4_EXC_ERR], (void *)mr[L4_EXC_EIP], (void *)mr[L4_EXC_PFA]);
}

static verdict_t run(const conf_test_t *test)
{
	static const char *const names[VERDICTS] = { "PASS", "FAIL", "SKIP" };

	verdict = PASSED;
	detail[0] = '\0';
	start_worker(test);
	watch();
	clean_up();
	printf("CONF %s %s%s%s\n", test->id, names[verdict], detail[0] != '\0' ? " " : "", detail);
	return verdict;
}

/* --- all tests ------------------------------------------------------------------------------------------ */

/** What is not mapped in the own task cannot be mapped on to others. */
static void touch_own_image(void)
{
	for (char *page = l4_image_start; page < l4_image_end; page += L4_PAGE_BYTES)
		(void)*(volatile char *)page;
}

static void set_up(void)
{
	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), MAIN_PRIORITY);
	touch_own_image();
	if (l4_factory_create_gate(l4_own_factory(), watch_gate, l4_main_thread(), WATCH_LABEL) != 0)
		l4_panic("cannot create a gate");
	if (l4_sigma0_any(l4_parent(), MEMORY_ORDER, &memory_start) != 0)
		l4_panic("no memory from sigma0");
}

static bool wanted(const conf_test_t *test, int argc, char **argv)
{
	bool all = true;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--only=", 7) != 0)
			continue;
		if (strncmp(test->id, argv[i] + 7, strlen(argv[i] + 7)) == 0)
			return true;
		all = false;
	}
	return all;
}

static bool has_option(const char *option, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], option) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	unsigned counts[VERDICTS] = { 0 };
	bool list = has_option("--list", argc, argv);

	if (!list)
		set_up();
	for (const conf_test_t *test = l4_table_start; test < l4_table_end; test++) {
		if (!wanted(test, argc, argv))
			continue;
		if (list)
			printf("LIST %s %s | %s\n", test->id, test->cells, test->sentence);
		else
			counts[run(test)]++;
	}
	if (!list)
		printf("CONF done: %u passed, %u failed, %u skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
	return counts[FAILED] != 0;
}
