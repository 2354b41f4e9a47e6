/* A thread that traps at once, again and again, as its handler is a kernel object. A root task:
 *
 *     stuck KIND PRIORITY
 *
 * KIND: port, divide, undefined, pager. The thread has PRIORITY, as has a worker; main has a higher one. Main sleeps a while
 * and prints how often it has come by; then it waits for the worker, which needs a time slice. */
#include <l4/ipc.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>
#include <l4/thread.h>

enum { STACK_BYTES = 2048, SLEEPS = 5, SLEEP_US = 3000, PRIORITY = 100, NOWHERE = 0x60000000 };

extern char l4_image_start[], l4_image_end[];

static char stacks[2][STACK_BYTES] __attribute__((aligned(16)));
static const char *kind;
static volatile unsigned worked;

static void trap(void *unused)
{
	(void)unused;
	if (strcmp(kind, "port") == 0)
		__asm__ volatile("inb $0x60, %%al" ::: "eax");
	else if (strcmp(kind, "divide") == 0)
		__asm__ volatile("xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx");
	else if (strcmp(kind, "undefined") == 0)
		__asm__ volatile("ud2");
	else
		__asm__ volatile("movl %0, %%eax" ::"m"(*(volatile int *)NOWHERE) : "eax");
	printf("went on\n");
	l4_thread_exit();
}

static void work(void *unused)
{
	(void)unused;
	worked = 1;
	l4_thread_exit();
}

static void start(unsigned index, l4_thread_entry_t *entry, l4_cap_t pager, unsigned priority)
{
	l4_thread_options_t options = {
		.entry = entry, .stack = stacks[index], .stack_bytes = STACK_BYTES, .priority = priority,
		.pager = pager, .handler = l4_own_log(),
	};

	assert(l4_thread_start(&options, NULL) == 0);
}

int main(int argc, char **argv)
{
	assert(argc == 3);
	kind = argv[1];
	l4_word_t priority = l4_number(argv[2], 0);
	for (char *at = l4_image_start; at < l4_image_end; at += L4_PAGE_BYTES)
		(void)*(volatile char *)at; /* all that the threads need is there */
	for (unsigned i = 0; i < 2; i++)
		stacks[i][STACK_BYTES - 1] = 0;
	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), PRIORITY);
	start(0, trap, strcmp(kind, "pager") == 0 ? l4_own_log() : l4_parent(), priority);
	for (unsigned i = 1; i <= SLEEPS; i++) {
		l4_sleep_us(SLEEP_US);
		printf("%u\n", i);
	}
	start(1, work, l4_parent(), priority);
	for (unsigned i = 0; i < SLEEPS && !worked; i++)
		l4_sleep_us(SLEEP_US * 2);
	printf("worked %u\n", worked);
	return 0;
}
