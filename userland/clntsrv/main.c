/* A server and a client: two threads that know each other only through an IPC gate.
 *
 * The gate carries a label, so the server can tell its clients apart; the client cannot see or change it. Requests
 * and answers travel in message registers. */
#include <l4/factory.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/task.h>
#include <l4/thread.h>

enum { PROTO_ARITHMETIC = 1, OP_SQUARE = 0, OP_NEGATE = 1, CLIENT_LABEL = 0x10 };

/** One request in, one answer out. */
static l4_tag_t answer(l4_message_t message)
{
	l4_word_t *mr = l4_utcb()->mr;

	assert((message.label & ~(l4_word_t)L4_LABEL_RIGHTS_MASK) == CLIENT_LABEL);
	if (l4_tag_label(message.tag) != PROTO_ARITHMETIC)
		return l4_tag(-L4_EBADPROTO, 0, 0);
	switch (mr[0]) {
	case OP_SQUARE:
		mr[0] = mr[1] * mr[1];
		return l4_tag(0, 1, 0);
	case OP_NEGATE:
		mr[0] = -mr[1];
		return l4_tag(0, 1, 0);
	}
	return l4_tag(-L4_ENOSYS, 0, 0);
}

static void server(void *argument)
{
	(void)argument;
	for (l4_message_t message = l4_wait(l4_forever());;)
		message = l4_serve(answer(message));
}

/** What a client sees: a function. Returns 0 or a negative error. */
static int ask(l4_cap_t service, l4_word_t operation, l4_word_t number, l4_word_t *result)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = number;
	int error = l4_request(service, l4_tag(PROTO_ARITHMETIC, 2, 0));
	*result = utcb->mr[0];
	return error;
}

int main(void)
{
	static char stack[4096];
	l4_thread_options_t options = { .entry = server, .stack = stack, .stack_bytes = sizeof stack };
	l4_cap_t gate = l4_new_cap(), thread;
	l4_word_t result;

	assert(l4_thread_start(&options, &thread) == 0);
	assert(l4_factory_create_gate(l4_own_factory(), gate, thread, CLIENT_LABEL) == 0);
	for (l4_word_t number = 1; number <= 10; number++) {
		assert(ask(gate, OP_SQUARE, number, &result) == 0);
		printf("The square of %u is %u.\n", number, result);
	}
	assert(ask(gate, OP_NEGATE, 7, &result) == 0 && (int)result == -7);
	printf("What the server does not know: error %d.\n", ask(gate, 2, 0, &result));
	l4_task_delete(l4_own_task(), thread);
	printf("What nobody serves any more: error %d.\n", ask(gate, OP_SQUARE, 2, &result));
	return 0;
}
