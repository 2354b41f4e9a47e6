/* The scheduler object (ABI 11.4), and who runs when (ABI 6). */
#include "conf.h"

static l4_cap_t scheduler(void)
{
	return l4_own_scheduler();
}

static void sleeper(void *argument)
{
	(void)argument;
	l4_sleep_forever();
}

static int request(l4_word_t operation, unsigned words, unsigned items)
{
	l4_utcb()->mr[0] = operation;
	return l4_request(scheduler(), l4_tag(L4_PROTO_SCHEDULER, words, items));
}

/** run_thread with every word given. */
static int run_raw(l4_cap_t thread, l4_word_t set, l4_word_t bits, l4_word_t priority, l4_word_t quantum)
{
	return l4_scheduler_run_thread(scheduler(), thread, set, bits, (int)priority, quantum);
}

/* --- operations ------------------------------------------------------------------------------------------------- */

TEST(SCHD0001, "info tells the processors that are there, their greatest number, and the scheduling classes",
     "scheduler.info:OK")
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SCHEDULER_INFO;
	utcb->mr[1] = 0;
	l4_tag_t tag = l4_call(scheduler(), l4_tag(L4_PROTO_SCHEDULER, 2, 0), l4_forever()).tag;
	CHECK_EQ(tag.raw, l4_tag(0, 3, 0).raw);
	CHECK(utcb->mr[0] & 1);
	CHECK(utcb->mr[1] >= 1);
	CHECK_EQ(utcb->mr[2], L4_SCHEDULER_CLASS_FIXED_PRIORITY);
}

TEST(SCHD0002, "info beyond the last processor is out of range", "scheduler.info:ERANGE")
{
	l4_word_t present, maximum;

	CHECK_EQ(l4_scheduler_info(scheduler(), &present, &maximum), 0);
	l4_utcb()->mr[1] = maximum;
	CHECK_EQ(request(L4_SCHEDULER_INFO, 2, 0), -L4_ERANGE);
	l4_utcb()->mr[1] = maximum - 1;
	CHECK_EQ(request(L4_SCHEDULER_INFO, 2, 0), 0);
}

TEST(SCHD0003, "info needs the set to tell about", "scheduler.info:EMSGTOOSHORT")
{
	CHECK_EQ(request(L4_SCHEDULER_INFO, 1, 0), -L4_EMSGTOOSHORT);
}

TEST(SCHD0004, "run thread needs five words", "scheduler.run_thread:EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	l4_utcb()->mr[1] = 0;
	l4_utcb()->mr[2] = 1;
	l4_utcb()->mr[3] = 10;
	l4_put_item(4, l4_argument(thread));
	CHECK_EQ(request(L4_SCHEDULER_RUN_THREAD, 4, 1), -L4_EINVAL);
}

TEST(SCHD0005, "run thread needs a thread", "scheduler.run_thread:EINVAL,IPC8")
{
	CHECK_EQ(run_raw(conf_slot(), 0, 1, 10, 0), -L4_EINVAL);
	CHECK_EQ(run_raw(l4_own_log(), 0, 1, 10, 0), -L4_EINVAL);
	for (unsigned i = 1; i < 5; i++)
		l4_utcb()->mr[i] = 1;
	CHECK_EQ(request(L4_SCHEDULER_RUN_THREAD, 5, 0), -L4_EINVAL);
	l4_put_item(5, (l4_item_t){ L4_ITEM_MAP, l4_memory_fpage(0, L4_PAGE_SHIFT, 7) });
	CHECK_EQ(request(L4_SCHEDULER_RUN_THREAD, 5, 1), ipc_error(L4_IPC_SEND_OVERFLOW));
}

TEST(SCHD0006, "priority 0 is invalid, and one above 255 counts as 255", "scheduler.run_thread:OK,EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	CHECK_EQ(run_raw(thread, 0, 1, 0, 0), -L4_EINVAL);
	CHECK_EQ(run_raw(thread, 0, 1, 256, 0), 0);
	CHECK_EQ(run_raw(thread, 0, 1, 255, 0), 0);
	CHECK_EQ(run_raw(thread, 0, 1, 1, 1000), 0);
}

/** run_thread with a scheduling class and its parameters. */
static int run_class(l4_cap_t thread, int class, l4_word_t bytes)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[1] = 0;
	utcb->mr[2] = 1;
	utcb->mr[3] = (l4_word_t)class;
	utcb->mr[4] = bytes;
	utcb->mr[5] = 0;
	utcb->mr[6] = 10;
	l4_put_item(7, l4_argument(thread));
	return request(L4_SCHEDULER_RUN_THREAD, 7, 1);
}

TEST(SCHD0007, "a scheduling class is a negative priority, -1 the only one, and its parameters must be in the message", "scheduler.run_thread:OK,ERANGE,EINVAL")
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .no_cpu = true });

	enum { BYTES = 24 }; /* processors, class, length, quantum, priority */

	CHECK_EQ(run_class(thread, L4_SCHEDULER_PARAM_CLASS_FIXED_PRIORITY, BYTES), 0);
	CHECK_EQ(run_class(thread, L4_SCHEDULER_PARAM_CLASS_FIXED_PRIORITY, BYTES - 1), -L4_EINVAL);
	CHECK_EQ(run_class(thread, L4_SCHEDULER_PARAM_CLASS_FIXED_PRIORITY, BYTES + 1), -L4_EINVAL);
	CHECK_EQ(run_class(thread, -2, BYTES), -L4_ERANGE);
}

TEST(SCHD0008, "a thread without a processor of its set stays off, and runs when it gets one", "scheduler.run_thread:OK")
{
	l4_cap_t thread = conf_thread(sleeper, NULL, CONF_HIGHER);

	conf_settle();
	CHECK_EQ(run_raw(thread, 0, 0, CONF_HIGHER, 0), 0);
	CHECK_EQ(l4_result(l4_send(thread, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
	CHECK_EQ(run_raw(thread, 0, 1, CONF_HIGHER, 0), 0);
}

TEST(SCHD0009, "a processor is idle for as long as nothing runs", "scheduler.idle_time:OK")
{
	uint64_t before, after;

	CHECK_EQ(l4_scheduler_idle_time_us(scheduler(), 0, &before), 0);
	l4_sleep_us(20000);
	CHECK_EQ(l4_scheduler_idle_time_us(scheduler(), 0, &after), 0);
	CHECK(after - before >= 10000);
	CHECK(after - before <= 40000);
}

TEST(SCHD0010, "the idle time of no processor is invalid", "scheduler.idle_time:EINVAL")
{
	l4_utcb()->mr[1] = 0;
	l4_utcb()->mr[2] = 0;
	CHECK_EQ(request(L4_SCHEDULER_IDLE_TIME, 3, 0), -L4_EINVAL);
	l4_utcb()->mr[1] = 60;
	l4_utcb()->mr[2] = 1;
	CHECK_EQ(request(L4_SCHEDULER_IDLE_TIME, 3, 0), -L4_EINVAL);
}

TEST(SCHD0013, "the idle time needs the set to tell about", "scheduler.idle_time:EMSGTOOSHORT")
{
	CHECK_EQ(request(L4_SCHEDULER_IDLE_TIME, 1, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(L4_SCHEDULER_IDLE_TIME, 2, 0), -L4_EMSGTOOSHORT);
}

TEST(SCHD0011, "other protocols, messages without words and unknown operations are refused",
     "scheduler.unknown:EBADPROTO,EMSGTOOSHORT,ENOSYS")
{
	l4_utcb()->mr[0] = L4_SCHEDULER_INFO;
	CHECK_EQ(l4_request(scheduler(), l4_tag(L4_PROTO_TASK, 2, 0)), -L4_EBADPROTO);
	CHECK_EQ(request(0, 0, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(3, 1, 0), -L4_ENOSYS);
}

TEST(SCHD0012, "no right is needed", "scheduler.run_thread:OK scheduler.info:OK")
{
	l4_cap_t weak = conf_copy(scheduler(), L4_OBJECT_RIGHT_R), thread = conf_helper(&(conf_helper_t){ .no_cpu = true });
	l4_word_t present, maximum;

	CHECK_EQ(l4_scheduler_info(weak, &present, &maximum), 0);
	CHECK_EQ(l4_scheduler_run_on(weak, thread, 0, 10), 0);
}

/* --- who runs when ------------------------------------------------------------------------------------------------ */

static volatile unsigned steps;
static volatile l4_word_t step[16];

/** Notes that `who` came by. */
static void note(l4_word_t who)
{
	if (steps < 16)
		step[steps++] = who;
}

static void note_and_sleep(void *argument)
{
	note((l4_word_t)argument);
	l4_sleep_forever();
}

static void note_messages(void *argument)
{
	for (;;) {
		l4_wait(l4_forever());
		note((l4_word_t)argument);
	}
}

static void note_calls(void *argument)
{
	for (l4_wait(l4_forever());; l4_serve(l4_tag(0, 0, 0)))
		note((l4_word_t)argument);
}

TEST(RUN0001, "a started thread of higher priority runs when the starter blocks, not before", "thread.ex_regs:OK")
{
	steps = 0;
	conf_thread(note_and_sleep, (void *)1, CONF_HIGHER);
	note(0);
	conf_settle();
	CHECK_EQ(steps, 2);
	CHECK_EQ(step[0], 0);
	CHECK_EQ(step[1], 1);
}

TEST(RUN0002, "run thread switches at once to a started thread of equal or higher priority", "scheduler.run_thread:OK")
{
	steps = 0;
	l4_cap_t equal = conf_helper(&(conf_helper_t){ .entry = note_and_sleep, .argument = (void *)1, .no_cpu = true });
	l4_cap_t lower = conf_helper(&(conf_helper_t){ .entry = note_and_sleep, .argument = (void *)2, .no_cpu = true });

	CHECK_EQ(l4_scheduler_run_on(scheduler(), lower, 0, CONF_LOWER), 0);
	CHECK_EQ(steps, 0);
	CHECK_EQ(l4_scheduler_run_on(scheduler(), equal, 0, CONF_WORKER_PRIORITY), 0);
	CHECK_EQ(steps, 1);
	CHECK_EQ(l4_scheduler_run_on(scheduler(), lower, 0, CONF_HIGHER), 0);
	CHECK_EQ(steps, 2);
	CHECK_EQ(step[1], 2);
}

TEST(RUN0003, "two equal threads started by a higher one run in reverse order of starting", "thread.ex_regs:OK")
{
	steps = 0;
	conf_thread(note_and_sleep, (void *)1, CONF_LOWER);
	conf_thread(note_and_sleep, (void *)2, CONF_LOWER);
	conf_settle();
	CHECK_EQ(steps, 2);
	CHECK_EQ(step[0], 2);
	CHECK_EQ(step[1], 1);
}

TEST(RUN0004, "a message wakes an equal or higher receiver at once, and a lower one later", "ipc.send:OK")
{
	steps = 0;
	l4_cap_t lower = conf_thread(note_messages, (void *)1, CONF_LOWER);
	l4_cap_t equal = conf_thread(note_messages, (void *)2, CONF_WORKER_PRIORITY);
	l4_cap_t higher = conf_thread(note_messages, (void *)3, CONF_HIGHER);
	conf_settle();
	l4_send(lower, l4_tag(0, 0, 0), 0, l4_forever());
	note(0);
	l4_send(equal, l4_tag(0, 0, 0), 0, l4_forever());
	note(0);
	l4_send(higher, l4_tag_with(l4_tag(0, 0, 0), L4_TAG_SCHEDULE), 0, l4_forever());
	note(0);
	conf_settle();
	static const l4_word_t expected[] = { 0, 2, 0, 3, 0, 1 };
	CHECK_EQ(steps, 6);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(step[i], expected[i]);
}

static l4_cap_t low_server;

static void call_low_server(void *argument)
{
	l4_call(low_server, l4_tag_with(l4_tag(0, 0, 0), (l4_word_t)argument), l4_forever());
	note(3);
	l4_sleep_forever();
}

TEST(RUN0005, "a call runs a server of lower priority at once, on the caller's time", "ipc.call:OK")
{
	steps = 0;
	low_server = conf_thread(note_calls, (void *)1, CONF_LOWER);
	conf_settle();
	l4_cap_t other = conf_thread(note_messages, (void *)2, CONF_LOWER + 10);
	conf_settle();
	l4_send(other, l4_tag(0, 0, 0), 0, l4_forever()); /* ready, and above the server's own priority */
	conf_thread(call_low_server, (void *)0, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(steps, 3);
	CHECK_EQ(step[0], 1);
	CHECK_EQ(step[1], 3);
	CHECK_EQ(step[2], 2);
}

TEST(RUN0006, "with the schedule flag a call leaves a server of lower priority to its own time", "ipc.call:OK")
{
	steps = 0;
	low_server = conf_thread(note_calls, (void *)1, CONF_LOWER);
	conf_settle();
	l4_cap_t other = conf_thread(note_messages, (void *)2, CONF_LOWER + 10);
	conf_settle();
	l4_send(other, l4_tag(0, 0, 0), 0, l4_forever());
	conf_thread(call_low_server, (void *)L4_TAG_SCHEDULE, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(steps, 3);
	CHECK_EQ(step[0], 2);
	CHECK_EQ(step[1], 1);
	CHECK_EQ(step[2], 3);
}

static void reply_then_note(void *argument)
{
	l4_wait(l4_forever());
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	note((l4_word_t)argument);
	l4_sleep_forever();
}

TEST(RUN0007, "a server on donated time that replies hands it back: the client goes on first", "ipc.reply:OK")
{
	steps = 0;
	l4_cap_t server = conf_thread(reply_then_note, (void *)1, CONF_HIGHER);
	conf_settle();
	l4_call(server, l4_tag(0, 0, 0), l4_forever());
	note(0);
	conf_settle();
	CHECK_EQ(steps, 2);
	CHECK_EQ(step[0], 0);
	CHECK_EQ(step[1], 1);
}

static volatile l4_word_t spins[2];

static void spin(void *argument)
{
	for (;;)
		spins[(l4_word_t)argument]++;
}

TEST(RUN0008, "equal threads that never block share the processor in turns of their quantum", "scheduler.run_thread:OK")
{
	l4_cap_t a = conf_thread(spin, (void *)0, CONF_LOWER), b = conf_thread(spin, (void *)1, CONF_LOWER);
	uint64_t a_us, b_us;

	CHECK_EQ(run_raw(a, 0, 1, CONF_LOWER, 5000), 0);
	CHECK_EQ(run_raw(b, 0, 1, CONF_LOWER, 5000), 0);
	l4_sleep_us(60000);
	CHECK_EQ(l4_thread_time_us(a, &a_us), 0);
	CHECK_EQ(l4_thread_time_us(b, &b_us), 0);
	CHECK(a_us >= 15000 && b_us >= 15000);
}

TEST(RUN0009, "a thread of lower priority does not run while a higher one is ready", "scheduler.run_thread:OK")
{
	spins[0] = 0;
	conf_thread(spin, (void *)0, CONF_LOWER);
	conf_spin_us(15000);
	CHECK_EQ(spins[0], 0);
}

TEST(RUN0010, "a timeout wakes its thread above a lower one that is running", "ipc.receive:IPC3")
{
	conf_thread(spin, (void *)0, CONF_LOWER);
	uint64_t before = conf_now_us();

	l4_sleep_us(3000);
	uint64_t slept = conf_now_us() - before;
	CHECK(slept >= 3000 && slept <= 6000);
}

TEST(RUN0011, "a timeout does not preempt an equal thread before its quantum ends", "ipc.receive:IPC3")
{
	conf_thread(spin, (void *)0, CONF_WORKER_PRIORITY);
	uint64_t before = conf_now_us();

	l4_sleep_us(3000);
	uint64_t slept = conf_now_us() - before;
	CHECK(slept >= 8000 && slept <= 15000);
}

TEST(RUN0012, "a receive with timeout zero does not give the processor away", "ipc.receive:IPC3")
{
	steps = 0;
	conf_thread(note_and_sleep, (void *)1, CONF_WORKER_PRIORITY);
	for (unsigned i = 0; i < 3; i++)
		l4_receive(l4_self(), l4_no_wait());
	note(0);
	conf_settle();
	CHECK_EQ(step[0], 0);
}
