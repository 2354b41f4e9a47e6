/* Kernel entries of one kind, over and over, for whoever measures what they cost the host (`l4lab bench kernel`).
 *
 *     kernelbench MODE ROUNDS [threads=N] [tasks=N] [mappings=N]
 *
 *     null    a kernel object's cheapest operation
 *     intra   call and reply between two threads of one address space
 *     inter   call and reply between two address spaces
 *     fault   a page fault served by a pager in another address space, and the unmap that makes the next one
 *
 * Before it starts, N more threads block, N more tasks exist, N pages are mapped into one more task; then it says
 * `ready`, and `done` at the end. */
#include <l4/bootinfo.h>
#include <l4/factory.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>
#include <l4/task.h>
#include <l4/thread.h>

enum {
	LABEL_UNMAP = 1,
	LABEL_DONE = 2,
	CHILD_PAGE = 0x50000000, /* what the child touches */
	MANY_PAGES = 0x60000000, /* where the mappings of `mappings=` go */
	UTCB_AREAS = 0xa0000000, /* of the threads of `threads=` */
	CHILD_UTCB = 0xb3000000,
};

extern char l4_image_start[], l4_image_end[];
static char shared_page[L4_PAGE_BYTES] __attribute__((aligned(L4_PAGE_BYTES)));
static char child_stack[L4_PAGE_BYTES] __attribute__((aligned(L4_PAGE_BYTES)));
static char idle_stack[256];

/** The number behind `key` if `text` starts with it, else `fallback`. */
static unsigned number_after(const char *text, const char *key, unsigned fallback)
{
	for (; *key != '\0'; key++, text++)
		if (*text != *key)
			return fallback;
	unsigned number = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (unsigned)(*text - '0');
	return number;
}

/* --- the other side: these use no variables but their stack, so they run in any address space ------------- */

static void echo(void *argument)
{
	(void)argument;
	for (l4_wait(l4_forever());;)
		l4_reply_and_wait(l4_tag(0, 0, 0), l4_forever());
}

/** Touches the page and asks its pager to take it back, until the pager never answers again. */
static void toucher(void *argument)
{
	(void)argument;
	for (;;) {
		*(volatile char *)CHILD_PAGE = 1;
		l4_call(l4_parent(), l4_tag(LABEL_UNMAP, 0, 0), l4_forever());
	}
}

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

/* --- making things -------------------------------------------------------------------------------------- */

static void start(l4_cap_t thread, l4_cap_t task, l4_word_t utcb, l4_thread_entry_t *entry, char *stack_top)
{
	l4_thread_control_t control = {
		.change = L4_CONTROL_BIND_TASK | L4_CONTROL_SET_PAGER,
		.pager = l4_parent(),
		.task = task,
		.utcb = (l4_utcb_t *)utcb,
	};

	assert(l4_thread_control(thread, &control) >= 0);
	l4_word_t *stack = (l4_word_t *)stack_top - 2; /* the argument, below it a return address */
	assert(l4_thread_ex_regs(thread, (l4_word_t)entry, (l4_word_t)stack, 0, NULL) >= 0);
	assert(l4_scheduler_run_on(l4_own_scheduler(), thread, 0, L4_PRIORITY_DEFAULT) >= 0);
}

/** A thread of another address space that sees this program's code and one page of stack. Its slot 4 is `parent`. */
static l4_cap_t start_child(l4_thread_entry_t *entry, l4_cap_t parent)
{
	l4_cap_t task = l4_new_cap(), thread = l4_new_cap();
	l4_word_t image = (l4_word_t)l4_image_start, end = (l4_word_t)l4_image_end;

	assert(l4_factory_create_task(l4_own_factory(), task, l4_memory_fpage(CHILD_UTCB, 12, L4_MEMORY_RIGHTS)) >= 0);
	for (l4_word_t page = image; page < end; page += L4_PAGE_BYTES)
		assert(l4_task_map(task, l4_own_task(),
				   l4_map_item(l4_memory_fpage(page, 12, L4_RIGHT_R | L4_RIGHT_X), page)) >= 0);
	l4_word_t stack = (l4_word_t)child_stack;
	child_stack[0] = 0; /* mapped here, so that it can be mapped there */
	assert(l4_task_map(task, l4_own_task(), l4_map_item(l4_memory_fpage(stack, 12, L4_MEMORY_RIGHTS), stack)) >= 0);
	assert(l4_task_map_cap(task, l4_own_task(), parent, l4_parent(), L4_OBJECT_RIGHTS) >= 0);
	assert(l4_factory_create_thread(l4_own_factory(), thread) >= 0);
	start(thread, task, CHILD_UTCB, entry, child_stack + sizeof child_stack);
	return thread;
}

static void touch_own_image(void)
{
	for (char *page = l4_image_start; page < l4_image_end; page += L4_PAGE_BYTES)
		(void)*(volatile char *)page;
}

static void add_threads(unsigned count)
{
	const unsigned per_area = (1u << L4_KU_MEM_MAX_ORDER) / L4_UTCB_BYTES;

	for (unsigned i = 0; i < count; i++) {
		l4_word_t area = UTCB_AREAS + (i / per_area << L4_KU_MEM_MAX_ORDER);
		l4_cap_t thread = l4_new_cap();

		if (i % per_area == 0)
			assert(l4_task_add_ku_mem(l4_own_task(),
						  l4_memory_fpage(area, L4_KU_MEM_MAX_ORDER, L4_MEMORY_RIGHTS)) >= 0);
		assert(l4_factory_create_thread(l4_own_factory(), thread) >= 0);
		start(thread, l4_own_task(), area + i % per_area * L4_UTCB_BYTES, sleeper,
		      idle_stack + sizeof idle_stack);
	}
	l4_sleep_us(100 * 1000); /* let them block */
}

static void add_tasks(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert(l4_factory_create_task(l4_own_factory(), l4_new_cap(), (l4_fpage_t){ 0 }) >= 0);
}

static void add_mappings(unsigned count)
{
	l4_cap_t task = l4_new_cap();
	l4_word_t source = (l4_word_t)shared_page;

	shared_page[0] = 0;
	assert(l4_factory_create_task(l4_own_factory(), task, (l4_fpage_t){ 0 }) >= 0);
	for (unsigned i = 0; i < count; i++)
		assert(l4_task_map(task, l4_own_task(),
				   l4_map_item(l4_memory_fpage(source, 12, L4_RIGHT_R),
					       MANY_PAGES + i * L4_PAGE_BYTES)) >= 0);
}

/* --- the modes ------------------------------------------------------------------------------------------ */

static void run_null(unsigned rounds)
{
	while (rounds-- > 0)
		l4_task_cap_valid(l4_own_task(), l4_own_task());
}

static void call_rounds(l4_cap_t partner, unsigned rounds)
{
	while (rounds-- > 0)
		l4_call(partner, l4_tag(0, 0, 0), l4_forever());
}

static void run_intra(unsigned rounds)
{
	static char stack[L4_PAGE_BYTES];
	l4_thread_options_t options = { .entry = echo, .stack = stack, .stack_bytes = sizeof stack };
	l4_cap_t thread;

	assert(l4_thread_start(&options, &thread) == 0);
	call_rounds(thread, rounds);
}

static void run_inter(unsigned rounds)
{
	call_rounds(start_child(echo, l4_main_thread()), rounds);
}

/** The pager's side: one fault and one unmap a round. */
static void run_fault(unsigned rounds)
{
	l4_cap_t gate = l4_new_cap();
	l4_word_t page = (l4_word_t)shared_page;

	shared_page[0] = 0;
	assert(l4_factory_create_gate(l4_own_factory(), gate, l4_main_thread(), 0x10) >= 0);
	start_child(toucher, gate);
	l4_message_t message = l4_wait(l4_forever());
	while (rounds > 0) {
		if (l4_tag_label(message.tag) == L4_PROTO_PAGE_FAULT) {
			l4_put_item(0, l4_map_item(l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), CHILD_PAGE));
			message = l4_reply_and_wait(l4_tag(0, 0, 1), l4_forever());
		} else {
			l4_task_unmap(l4_own_task(), l4_memory_fpage(page, 12, L4_MEMORY_RIGHTS), 0);
			rounds--;
			message = l4_reply_and_wait(l4_tag(0, 0, 0), l4_forever());
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(unsigned rounds);
	} modes[] = { { "null", run_null }, { "intra", run_intra }, { "inter", run_inter }, { "fault", run_fault } };
	unsigned threads = 0, tasks = 0, mappings = 0;

	if (argc < 3) {
		printf("kernelbench: expected MODE ROUNDS [threads=N] [tasks=N] [mappings=N]\n");
		return 2;
	}
	for (int i = 3; i < argc; i++) {
		threads = number_after(argv[i], "threads=", threads);
		tasks = number_after(argv[i], "tasks=", tasks);
		mappings = number_after(argv[i], "mappings=", mappings);
	}
	touch_own_image();
	add_threads(threads);
	add_tasks(tasks);
	add_mappings(mappings);
	printf("ready\n"); /* whoever measures starts here */
	for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(argv[1], modes[i].name) == 0) {
			modes[i].run(number_after(argv[2], "", 0));
			printf("done\n");
			return 0;
		}
	printf("kernelbench: found mode %s, expected null, intra, inter or fault\n", argv[1]);
	return 2;
}
