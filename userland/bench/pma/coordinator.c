/* Starts the processes of the benchmark together and prints their results, a line each, for programs to read.
 *
 *     coordinator PROCESSES
 *
 * Processes that wait for it stay in reply slots of their own, numbered as they are, until all of them do. */
#include "group.h"

#include <l4/ipc.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>
#include <l4/tsc.h>

enum {
	MAX_PROCESSES = 64,
	EXIT_USAGE = 2,
	/* All answers must have arrived when the processes start: time for the way, and to send each. An answer takes
	 * up to 22,800 cycles (opteron-6174), so many need more; for few nothing changes that was measured with it. */
	START_CYCLES = 100000,
	START_CYCLES_EACH = 20000,
	START_CYCLES_EACH_OF_MANY = 30000,
	FEW_PROCESSES = 48,
};

static result_t results[MAX_PROCESSES];
static unsigned processes;

/** Waits for one request of each process, and leaves them all waiting. */
static void gather(l4_word_t operation)
{
	const l4_word_t *mr = l4_utcb()->mr;

	for (unsigned slot = 0; slot < processes; slot++) {
		l4_message_t message = l4_invoke(l4_reply_cap(slot), L4_OP_WAIT, l4_tag(0, 0, 0), 0, l4_forever());
		unsigned process = message.label >> GROUP_LABEL_SHIFT;
		if (l4_tag_failed(message.tag) || l4_tag_label(message.tag) != GROUP_PROTO || mr[0] != operation ||
		    process >= processes)
			l4_panic("process %u does not keep to the protocol", process);
		if (operation == GROUP_RESULT)
			memcpy(&results[process], &mr[1], sizeof(result_t));
	}
}

/** Without switching to any of them: one on this processor would run to its end before the next one gets its answer. */
static void answer_all(l4_word_t first, l4_word_t second)
{
	l4_tag_t tag = l4_tag_with(l4_tag(0, 2, 0), L4_TAG_SCHEDULE);
	l4_word_t *mr = l4_utcb()->mr;

	for (unsigned slot = 0; slot < processes; slot++) {
		mr[0] = first;
		mr[1] = second;
		l4_invoke(l4_reply_cap(slot), L4_OP_SEND | L4_OP_REPLY, tag, 0, l4_no_wait());
	}
}

static void print_results(void)
{
	for (unsigned process = 0; process < processes; process++) {
		const result_t *result = &results[process];
		printf("process number=%u begin=%llu end=%llu allocation=%llu touch=%llu free=%llu tasks=%u pages=%u errors=%u\n",
		       process, result->begin, result->end, result->allocation, result->touch, result->release,
		       result->tasks, result->pages, result->errors);
	}
}

int main(int argc, char **argv)
{
	processes = argc == 2 ? (unsigned)l4_number(argv[1], 0) : 0;
	if (processes < 1 || processes > MAX_PROCESSES) {
		printf("coordinator: expected the number of processes, 1 to %d\n", MAX_PROCESSES);
		return EXIT_USAGE;
	}
	unsigned cycles_each = processes > FEW_PROCESSES ? START_CYCLES_EACH_OF_MANY : START_CYCLES_EACH;
	l4_accept_nothing();
	gather(GROUP_READY);
	uint64_t start = l4_tsc() + START_CYCLES + processes * cycles_each;
	answer_all((l4_word_t)start, (l4_word_t)(start >> 32));
	gather(GROUP_RESULT);
	answer_all(0, 0);
	print_results();
	return 0;
}
