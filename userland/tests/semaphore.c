/* Semaphores (ABI 11.6). */
#include "conf.h"

static l4_cap_t semaphore;
static volatile int results[CONF_HELPERS];
static volatile unsigned finished;
static volatile l4_word_t order[CONF_HELPERS];

/** Goes down once; `argument` is the helper's number. */
static void down(void *argument)
{
	unsigned number = (unsigned)(uintptr_t)argument;

	results[number] = 1;
	results[number] = l4_semaphore_down(semaphore, L4_TIMEOUT_NEVER);
	order[finished++ % CONF_HELPERS] = number;
	l4_sleep_forever();
}

static void start(unsigned number, unsigned priority)
{
	conf_thread(down, (void *)(uintptr_t)number, priority);
	conf_settle();
}

static int request(l4_cap_t cap, int label, l4_word_t operation, unsigned words)
{
	l4_utcb()->mr[0] = operation;
	return l4_result(l4_call(cap, l4_tag(label, words, 0), l4_no_wait()).tag);
}

TEST(SEM0001, "a new semaphore is not free", "semaphore.down:IPC3")
{
	l4_utcb_t *utcb = l4_utcb();

	semaphore = conf_semaphore();
	utcb->mr[0] = L4_SEMAPHORE_DOWN;
	utcb->error = 0;
	CHECK_EQ(l4_call(semaphore, l4_tag(L4_PROTO_SEMAPHORE, 1, 0), receive_within(2000)).tag.raw, L4_TAG_ERROR);
	CHECK_EQ(utcb->error, L4_IPC_RECEIVE_TIMEOUT);
}

TEST(SEM0002, "each up is one down", "semaphore.up:OK semaphore.down:OK")
{
	semaphore = conf_semaphore();
	CHECK_EQ(l4_semaphore_up(semaphore).raw, l4_tag(L4_PROTO_IRQ, 1, 0).raw);
	l4_semaphore_up(semaphore);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(SEM0003, "an up without words is one too, and needs no right", "semaphore.up:OK")
{
	semaphore = conf_semaphore();
	l4_cap_t weak = conf_copy(semaphore, L4_OBJECT_RIGHT_R);

	l4_send(weak, l4_tag(L4_PROTO_IRQ, 0, 0), 0, l4_forever());
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
}

TEST(SEM0004, "an up wakes the waiter of highest priority first, and of one priority the first to come",
     "semaphore.up:OK semaphore.down:OK")
{
	semaphore = conf_semaphore();
	finished = 0;
	start(0, CONF_LOWER);
	start(1, CONF_HIGHER);
	start(2, CONF_HIGHER);
	start(3, CONF_HIGHER + 1);
	for (unsigned i = 0; i < 4; i++) {
		l4_semaphore_up(semaphore);
		conf_settle();
	}
	CHECK_EQ(finished, 4);
	CHECK_EQ(order[0], 3);
	CHECK_EQ(order[1], 1);
	CHECK_EQ(order[2], 2);
	CHECK_EQ(order[3], 0);
	CHECK_EQ(results[0] | results[1] | results[2] | results[3], 0);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
}

TEST(SEM0005, "down needs the S right", "semaphore.down:EPERM")
{
	semaphore = conf_semaphore();
	l4_semaphore_up(semaphore);
	CHECK_EQ(l4_semaphore_down(conf_copy(semaphore, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W), L4_TIMEOUT_ZERO), -L4_EPERM);
}

TEST(SEM0006, "a waiter that is cancelled gets error 7", "semaphore.down:IPC7")
{
	semaphore = conf_semaphore();
	l4_cap_t thread = conf_thread(down, 0, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(results[0], 1);
	CHECK_EQ(l4_thread_ex_regs(thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(results[0], ipc_error(L4_IPC_RECEIVE_CANCELLED));
	l4_semaphore_up(semaphore);
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
}

TEST(SEM0007, "waiters of a semaphore that is destroyed get error 4", "semaphore.down:IPC4")
{
	semaphore = conf_semaphore();
	start(0, CONF_HIGHER);
	start(1, CONF_HIGHER);
	CHECK_EQ(l4_task_delete(l4_own_task(), semaphore), 0);
	conf_settle();
	CHECK_EQ(results[0], ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(results[1], ipc_error(L4_IPC_NOT_EXISTENT));
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), ipc_error(L4_IPC_NOT_EXISTENT));
}

TEST(SEM0008, "a waiter's timeout ends its wait alone", "semaphore.down:IPC3")
{
	semaphore = conf_semaphore();
	start(0, CONF_HIGHER);
	uint64_t before = conf_now_us();
	CHECK_EQ(l4_semaphore_down(semaphore, l4_timeout_us(4000)), ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK(conf_now_us() - before >= 4000);
	l4_semaphore_up(semaphore);
	conf_settle();
	CHECK_EQ(results[0], 0);
}

TEST(SEM0009, "another protocol is refused, another operation not implemented, and no words are invalid",
     "semaphore.unknown:EBADPROTO,ENOSYS,EINVAL")
{
	semaphore = conf_semaphore();
	CHECK_EQ(request(semaphore, L4_PROTO_TASK, 0, 1), -L4_EBADPROTO);
	CHECK_EQ(request(semaphore, L4_PROTO_SEMAPHORE, 1, 1), -L4_ENOSYS);
	CHECK_EQ(request(semaphore, L4_PROTO_SEMAPHORE, 0, 0), -L4_EINVAL);
}

TEST(SEM0010, "an up as a call sleeps until its receive timeout", "semaphore.up:IPC3")
{
	semaphore = conf_semaphore();
	l4_utcb()->mr[0] = L4_IRQ_TRIGGER;
	CHECK_EQ(l4_result(l4_call(semaphore, l4_tag(L4_PROTO_IRQ, 1, 0), receive_within(2000)).tag),
		 ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	CHECK_EQ(l4_semaphore_down(semaphore, L4_TIMEOUT_ZERO), 0);
}
