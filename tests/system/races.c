/* Races between processors, at chosen cycles. A root task:
 *
 *     races MODE STEP ROUNDS
 *
 * In each round something is started on one processor at cycle `go`, and something that collides with it on
 * another at cycle `go` + STEP * round. Whatever comes first, the outcome must be one of those that the interface
 * allows, on all sides the same. Prints how often each outcome came, and what was violated. */
#include <l4/factory.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/sigma0.h>
#include <l4/string.h>
#include <l4/task.h>
#include <l4/thread.h>
#include <l4/tsc.h>

enum {
	LEAD_CYCLES = 40000, /* from a round's preparation to `go` */
	PRIORITY = 100,
	WINDOW = 0x50000000,
	STACK_BYTES = 2048,
	THREADS = 4,
	LABEL = 0x10,
	FREEZE_CYCLES = 20000,
};

extern char l4_image_start[], l4_image_end[];

static char stacks[THREADS][STACK_BYTES] __attribute__((aligned(16)));
static char page[L4_PAGE_BYTES] __attribute__((aligned(L4_PAGE_BYTES)));

static volatile uint64_t go; /* 0: not yet */
static volatile l4_word_t number, offset_cycles;
static volatile l4_word_t received, received_number, result, finished;
static l4_cap_t server_thread;

static unsigned outcomes[32]; /* by IPC error, 0: success */

static void violated(const char *what)
{
	printf("RACE violated in round %u, offset %u: %s\n", number, offset_cycles, what);
	exit(1);
}

static void until(uint64_t cycle)
{
	while (l4_tsc() < cycle)
		;
}

static uint64_t wait_for_go(void)
{
	while (go == 0)
		;
	return go;
}

/** The IPC error of an operation that has ended with `tag`; 0: none. */
static l4_word_t error_of(l4_tag_t tag)
{
	return l4_tag_failed(tag) ? l4_utcb()->error : 0;
}

static void count(l4_word_t error)
{
	outcomes[error]++;
}

static l4_cap_t start(unsigned index, l4_thread_entry_t *entry, unsigned cpu)
{
	l4_thread_options_t options = {
		.entry = entry, .stack = stacks[index], .stack_bytes = STACK_BYTES, .priority = PRIORITY, .cpu = cpu,
	};
	l4_cap_t thread;
	int error = l4_thread_start(&options, &thread);

	if (error != 0)
		l4_panic("cannot start a thread: %d", error);
	return thread;
}

static void destroy(l4_cap_t object)
{
	l4_task_delete(l4_own_task(), object);
}

/** Starts the round that has been prepared; returns when the collision is due. */
static uint64_t start_round(void)
{
	uint64_t start = l4_tsc() + LEAD_CYCLES;

	go = start;
	return start + offset_cycles;
}

static void wait_finished(void)
{
	while (!finished)
		;
	go = 0;
}

/* --- the sides --------------------------------------------------------------------------------------- */

/** Answers every message with its number. */
static void server(void *argument)
{
	(void)argument;
	l4_accept(l4_memory_fpage(WINDOW, L4_PAGE_SHIFT, 0));
	for (l4_message_t message = l4_wait(l4_forever());;) {
		if (!l4_tag_failed(message.tag)) {
			received_number = l4_tag_words(message.tag) > 0 ? l4_utcb()->mr[0] : 0;
			received++;
			message = l4_serve(l4_tag(0, 1, 0));
		} else {
			message = l4_wait(l4_forever());
		}
	}
}

static void caller(void *argument)
{
	bool with_page = argument != NULL;

	until(wait_for_go());
	l4_utcb()->mr[0] = number;
	if (with_page)
		l4_put_item(1, l4_map_item(l4_memory_fpage((l4_word_t)page, L4_PAGE_SHIFT, L4_RIGHT_R), 0));
	l4_tag_t tag = l4_call(server_thread, l4_tag(0, 1, with_page), l4_forever()).tag;
	result = error_of(tag);
	if (result == 0 && l4_utcb()->mr[0] != number)
		violated("the answer is another one's");
	finished = 1;
	l4_thread_exit();
}

static void caller_with_page(void *argument)
{
	(void)argument;
	caller(page);
}

static void sender(void *argument)
{
	(void)argument;
	until(wait_for_go());
	l4_utcb()->mr[0] = number;
	result = error_of(l4_send(server_thread, l4_tag(0, 1, 0), 0, l4_forever()));
	finished = 1;
	l4_thread_exit();
}

/** Receives one message for at most a tick or two, from the moment of the collision on. */
static void patient_receiver(void *argument)
{
	(void)argument;
	until(wait_for_go() + offset_cycles);
	l4_tag_t tag = l4_wait(l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(2000))).tag;
	received = error_of(tag) == 0;
	received_number = l4_utcb()->mr[0];
	finished = 1;
	l4_thread_exit();
}

/* --- the races --------------------------------------------------------------------------------------- */

/** A send that may time out against a receive that may come too late. */
static void race_timeout(void)
{
	l4_cap_t receiver = start(0, patient_receiver, 1);
	uint64_t start_cycle;

	received = finished = 0;
	l4_utcb()->mr[0] = number;
	start_cycle = l4_tsc() + LEAD_CYCLES;
	go = start_cycle;
	until(start_cycle);
	l4_utcb()->mr[0] = number;
	l4_word_t error = error_of(
		l4_send(receiver, l4_tag(0, 1, 0), 0, l4_timeouts(l4_timeout_us(1000), L4_TIMEOUT_NEVER)));
	wait_finished();
	if (error != 0 && error != L4_IPC_SEND_TIMEOUT)
		violated("a send ended with another error");
	if ((error == 0) != received || (received && received_number != number))
		violated("sender and receiver do not agree");
	count(error);
	destroy(receiver);
}

/** A call, cancelled. */
static void race_cancel(l4_thread_entry_t *entry)
{
	l4_cap_t thread = start(0, entry, 1);

	received = finished = 0;
	until(start_round());
	l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL);
	wait_finished();
	until(l4_tsc() + FREEZE_CYCLES); /* a request under way may still arrive */
	if (result != 0 && result != L4_IPC_SEND_CANCELLED && result != L4_IPC_RECEIVE_CANCELLED)
		violated("a call ended with another error");
	if (received != (result != L4_IPC_SEND_CANCELLED))
		violated("caller and server do not agree");
	count(result);
	destroy(thread);
}

/** Whether the server is in order is what the next call shows. */
static void call_server(void)
{
	l4_utcb()->mr[0] = number;
	l4_tag_t tag = l4_call(server_thread, l4_tag(0, 1, 0), l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(50000))).tag;
	if (l4_tag_failed(tag) || l4_utcb()->mr[0] != number)
		violated("the server does not answer any more");
}

/** A caller that is destroyed in the middle of its call. */
static void race_kill_caller(l4_thread_entry_t *entry)
{
	l4_cap_t thread = start(0, entry, 1);

	received = finished = 0;
	until(start_round());
	destroy(thread);
	go = 0;
	until(l4_tsc() + FREEZE_CYCLES);
	count(finished ? 0 : received ? L4_IPC_RECEIVE_CANCELLED : L4_IPC_SEND_CANCELLED);
	call_server();
}

/** A receiver that is destroyed in the middle of what is sent to it. */
static void race_kill_receiver(void)
{
	server_thread = start(1, server, 3);
	l4_cap_t thread = start(0, sender, 1);

	until(l4_tsc() + LEAD_CYCLES);
	received = finished = 0;
	until(start_round());
	destroy(server_thread);
	wait_finished();
	if (result != 0 && result != L4_IPC_NOT_EXISTENT && result != L4_IPC_SEND_CANCELLED)
		violated("a send to a thread that dies ended with another error");
	count(result);
	destroy(thread);
}

/** A server that goes to another processor and back while it is called. */
static void race_migrate(l4_thread_entry_t *entry)
{
	l4_cap_t thread = start(0, entry, 1);

	received = finished = 0;
	until(start_round());
	l4_scheduler_run_on(l4_own_scheduler(), server_thread, number % 2 == 0 ? 2 : 3, PRIORITY);
	wait_finished();
	if (result != 0 || received != 1)
		violated("a call to a thread that moves is lost");
	count(result);
	destroy(thread);
}

static volatile l4_word_t crowd_finished;

/** One of several that call at about the same time; the number tells whose answer it is. */
static void crowd_caller(void *argument)
{
	l4_word_t mine = (l4_word_t)argument << 16 | number;

	until(wait_for_go() + (l4_word_t)argument * offset_cycles);
	l4_utcb()->mr[0] = mine;
	l4_tag_t tag = l4_call(server_thread, l4_tag(0, 1, 0), l4_forever()).tag;
	if (l4_tag_failed(tag) || l4_utcb()->mr[0] != mine)
		violated("a call in a crowd has no or another's answer");
	__atomic_fetch_add(&crowd_finished, 1, __ATOMIC_RELAXED);
	l4_thread_exit();
}

/** Calls from three processors to one server: requests meet in its queue. */
static void race_crowd(void)
{
	l4_cap_t threads[3];

	received = crowd_finished = 0;
	for (l4_word_t i = 0; i < 3; i++) {
		static const unsigned cpus[] = { 1, 3, 4 };
		l4_thread_options_t options = { .entry = crowd_caller,
						.argument = (void *)i,
						.stack = stacks[i == 0 ? 0 : i + 1], /* the server has 1 */
						.stack_bytes = STACK_BYTES,
						.priority = PRIORITY,
						.cpu = cpus[i] };
		if (l4_thread_start(&options, &threads[i]) != 0)
			l4_panic("cannot start a thread");
	}
	start_round();
	while (crowd_finished < 3)
		;
	go = 0;
	if (received != 3)
		violated("the server has not seen every call");
	count(0);
	for (unsigned i = 0; i < 3; i++)
		destroy(threads[i]);
}

/* --- memory ------------------------------------------------------------------------------------------ */

static l4_cap_t other_task, writers[2];
static unsigned writer_count;

/** Writes without end; runs in another task, where `page` is mapped and taken away again. */
static void writer(void *argument)
{
	volatile l4_word_t *counter = argument;

	for (;;)
		(*counter)++;
}

static void make_other_task(void)
{
	other_task = l4_new_cap();
	l4_fpage_t utcbs = l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);
	l4_cap_t gate = l4_new_cap();

	assert(l4_factory_create_task(l4_own_factory(), other_task, utcbs) == 0);
	assert(l4_factory_create_gate(l4_own_factory(), gate, l4_main_thread(), LABEL) == 0);
	for (char *at = l4_image_start; at < l4_image_end; at += L4_PAGE_BYTES)
		if (at != page)
			assert(l4_task_map(other_task, l4_own_task(),
					   l4_map_item(l4_memory_fpage((l4_word_t)at, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS),
						       (l4_word_t)at)) == 0);
	assert(l4_task_map_cap(other_task, l4_own_task(), gate, l4_parent(), L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D) == 0);
}

static void start_writer(unsigned index, unsigned cpu)
{
	l4_cap_t thread = writers[index] = l4_new_cap();
	l4_thread_control_t control = {
		.change = L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER | L4_CONTROL_BIND_TASK,
		.pager = l4_parent(),
		.handler = l4_parent(),
		.task = other_task,
		.utcb = (l4_utcb_t *)L4_UTCB_AREA + index,
	};
	l4_word_t *stack = (l4_word_t *)(stacks[index] + STACK_BYTES) - 4;

	stack[1] = (l4_word_t)page + index * 64;
	assert(l4_factory_create_thread(l4_own_factory(), thread) == 0);
	assert(l4_thread_control(thread, &control) >= 0);
	assert(l4_thread_ex_regs(thread, (l4_word_t)writer, (l4_word_t)stack, 0, NULL) >= 0);
	assert(l4_scheduler_run_on(l4_own_scheduler(), thread, cpu, PRIORITY) == 0);
}

/** Serves the faults of all writers: from then on they run. */
static void serve_writers(void)
{
	for (unsigned i = 0; i < writer_count; i++) {
		l4_message_t message = l4_wait(l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(50000)));
		if (l4_tag_failed(message.tag))
			violated("a writer does not fault");
		l4_word_t fault = l4_utcb()->mr[0];
		if (l4_tag_label(message.tag) != L4_PROTO_PAGE_FAULT || (fault & ~0xfffu) != (l4_word_t)page)
			violated("a writer faults elsewhere");
		l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)page, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS),
					   (l4_word_t)page));
		if (l4_tag_failed(l4_reply(l4_tag(0, 0, 1), l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER))))
			violated("a writer does not wait for its page");
	}
}

static void check_frozen(const char *what)
{
	l4_word_t before[2], after[2];

	for (unsigned i = 0; i < writer_count; i++)
		before[i] = *(volatile l4_word_t *)(page + i * 64);
	until(l4_tsc() + FREEZE_CYCLES);
	for (unsigned i = 0; i < writer_count; i++) {
		after[i] = *(volatile l4_word_t *)(page + i * 64);
		if (after[i] != before[i])
			violated(what);
		count(before[i] != 0);
	}
}

/** What is unmapped is not written to any more from the moment on that unmap returns. */
static void race_unmap(void)
{
	if (number == 0) {
		make_other_task();
		writer_count = 2;
		start_writer(0, 1);
		start_writer(1, 3);
	}
	serve_writers();
	until(l4_tsc() + offset_cycles);
	assert(l4_task_unmap(l4_own_task(), l4_memory_fpage((l4_word_t)page, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS), 0) == 0);
	check_frozen("a page was written to after it had been unmapped");
}

/** Nor is anything written by a task that has been destroyed. */
static void race_end_task(void)
{
	make_other_task();
	writer_count = 2;
	start_writer(0, 1);
	start_writer(1, 3);
	serve_writers();
	until(l4_tsc() + offset_cycles);
	destroy(other_task);
	check_frozen("a task wrote after its end");
	destroy(writers[0]);
	destroy(writers[1]);
}

static void run_round(const char *mode)
{
	if (strcmp(mode, "timeout") == 0)
		race_timeout();
	else if (strcmp(mode, "cancel") == 0)
		race_cancel(caller);
	else if (strcmp(mode, "cancel-page") == 0)
		race_cancel(caller_with_page);
	else if (strcmp(mode, "kill-caller") == 0)
		race_kill_caller(caller);
	else if (strcmp(mode, "kill-caller-page") == 0)
		race_kill_caller(caller_with_page);
	else if (strcmp(mode, "kill-receiver") == 0)
		race_kill_receiver();
	else if (strcmp(mode, "migrate") == 0)
		race_migrate(caller);
	else if (strcmp(mode, "migrate-page") == 0)
		race_migrate(caller_with_page);
	else if (strcmp(mode, "crowd") == 0)
		race_crowd();
	else if (strcmp(mode, "unmap") == 0)
		race_unmap();
	else if (strcmp(mode, "end-task") == 0)
		race_end_task();
	else
		l4_panic("no race %s", mode);
}

int main(int argc, char **argv)
{
	assert(argc == 4);
	l4_word_t step = l4_number(argv[2], 0), rounds = l4_number(argv[3], 0);

	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), PRIORITY);
	for (char *at = l4_image_start; at < l4_image_end; at += L4_PAGE_BYTES)
		(void)*(volatile char *)at; /* what is not mapped here cannot be mapped on */
	server_thread = start(1, server, 2);
	until(l4_tsc() + LEAD_CYCLES);
	for (number = 0; number < rounds; number++) {
		offset_cycles = number * step;
		run_round(argv[1]);
	}
	printf("RACE %s", argv[1]);
	for (unsigned i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++)
		if (outcomes[i] != 0)
			printf(" %u:%u", i, outcomes[i]);
	printf("\n");
	return 0;
}
