/* Alien threads: their system calls are exceptions first (ABI 1). */
#include "conf.h"

enum { GATE = 0x3330 };

/* entry.S: asks the scheduler, keeps EAX and ESI that it goes on with behind the call, sets conf_alien_done and spins. */
void conf_alien(void *argument);
extern char conf_alien_behind_call[];
extern volatile l4_word_t conf_alien_result[3]; /* EAX, ESI, done */
extern volatile l4_word_t conf_alien_esp;       /* behind the call */

static l4_cap_t start(void)
{
	l4_cap_t gate = conf_gate(conf_worker(), GATE);

	conf_alien_result[0] = conf_alien_result[1] = conf_alien_result[2] = 0;
	l4_cap_t thread =
		conf_helper(&(conf_helper_t){ .entry = conf_alien, .handler = gate, .alien = true, .priority = CONF_LOWER });
	conf_settle();
	return thread;
}

static l4_message_t next_message(void)
{
	l4_accept_nothing();
	return l4_wait(receive_within(20000));
}

TEST(ALI0001, "an alien's system call is exception 13 before it happens", "alien.before:OK")
{
	start();
	l4_message_t message = next_message();
	CHECK_EQ(message.label, GATE | 3);
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 13);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], L4_ALIEN_BEFORE);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EDX], l4_own_scheduler().raw | L4_OP_CALL);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EAX], l4_tag(L4_PROTO_SCHEDULER, 2, 0).raw);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ESI], 0x1133);
	CHECK(!conf_alien_result[2]);
}

TEST(ALI0002, "an answer with label 1 lets the call through, and a second exception follows it",
     "alien.before:OK alien.after:OK")
{
	start();
	next_message();
	CHECK_EQ(l4_result(l4_reply(l4_tag(L4_PROTO_ALLOW_SYSCALL, 0, 0), l4_no_wait())), L4_PROTO_ALLOW_SYSCALL);
	l4_message_t message = next_message();
	CHECK_EQ(l4_tag_label(message.tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_TRAPNO], 13);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], L4_ALIEN_AFTER);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_EAX], l4_tag(0, 3, 0).raw);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK(conf_alien_result[2]);
	CHECK_EQ(conf_alien_result[0], l4_tag(0, 3, 0).raw);
}

TEST(ALI0003, "without label 1 the call is raised again", "alien.before:OK")
{
	start();
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(l4_tag_label(next_message().tag), L4_PROTO_EXCEPTION);
		CHECK_EQ(l4_utcb()->mr[L4_EXC_ERR], L4_ALIEN_BEFORE);
		l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	}
	CHECK(!conf_alien_result[2]);
}

TEST(ALI0004, "a handler can leave the call out and set its results", "alien.before:OK")
{
	start();
	next_message();
	l4_word_t *mr = l4_utcb()->mr;
	mr[L4_EXC_EIP] = (l4_word_t)conf_alien_behind_call;
	mr[L4_EXC_ESP] = conf_alien_esp;
	mr[L4_EXC_EAX] = 0x00770000;
	mr[L4_EXC_ESI] = 0x4455;
	l4_reply(l4_tag(0, L4_EXCEPTION_WORDS, 0), l4_no_wait());
	conf_settle();
	CHECK(conf_alien_result[2]);
	CHECK_EQ(conf_alien_result[0], 0x00770000);
	CHECK_EQ(conf_alien_result[1], 0x4455);
}

TEST(ALI0005, "a thread that is no alien any more calls as others do", "thread.control:OK")
{
	l4_cap_t thread = start();

	next_message();
	CHECK_EQ(l4_thread_control(thread, &(l4_thread_control_t){ .change = L4_CONTROL_ALIEN, .alien = false }), 0);
	l4_reply(l4_tag(0, 0, 0), l4_no_wait());
	conf_settle();
	CHECK(conf_alien_result[2]);
	CHECK_EQ(conf_alien_result[0], l4_tag(0, 3, 0).raw);
}
