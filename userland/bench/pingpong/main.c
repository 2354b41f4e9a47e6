/* What a message from one thread to another takes, in cycles, after the ping-pong benchmark of
 * 000_1be4d2f6ae8bebbc.txt, figure 5. A root task; it needs sigma0 and a kernel.
 *
 *     pingpong [--messages=M,...] [--samples=N] [--rounds=N] [--warmup=N] SPACE:CPU:CPU ...
 *     pingpong --parallel=N [options] SPACE
 *
 * SPACE is `intra` (both threads in one address space) or `inter`; the two CPUs are the client's and the server's. M is
 * a number of words, 0 to 63; or sends:N for N words in a send of its own; or pieces:N or mapping:N for N bytes from
 * one buffer into another (see rally.h). Every message is measured in every place, one after the other:
 *
 *     PINGPONG space=inter cpus=0,12 message=8 rounds=64 start=81263546 cycles=1503243,1503243
 *
 * `start` is the client's cycle counter before the first sample, each of `cycles` the sample's `rounds` messages there
 * and back, so a message takes cycles / rounds / 2. With --parallel one pair runs on each of the first N processors,
 * all at once.
 *
 * Exit code: 0, 1 if a message was lost or damaged, 2 for a mistake on the command line. */
#include "pair.h"

#include <l4/ipc.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>

enum { MAIN_PRIORITY = 200, MAX_PLACES = 16, MAX_MESSAGES = 16, EXIT_DAMAGED = 1, EXIT_USAGE = 2, LINE_BYTES = 400 };

typedef struct {
	bool apart;
	unsigned cpus[2];
} place_t;

typedef struct {
	rally_kind_t kind;
	unsigned size;
} message_t;

static const char *const kind_prefixes[RALLY_KINDS] = { "", "sends:", "pieces:", "mapping:" };

static place_t places[MAX_PLACES];
static message_t messages[MAX_MESSAGES];
static unsigned place_count, message_count, parallel;
static unsigned samples = 8, rounds = 64, warmup = 8;
static rally_t rallies[PAIR_MAX];
static bool damaged;

/* --- the command line ----------------------------------------------------------------------------------- */

/** The number at `*text`, which moves behind it; `limit` + 1 if there is none or it is larger. */
static unsigned take_number(const char **text, unsigned limit)
{
	unsigned number = 0;

	if (**text < '0' || **text > '9')
		return limit + 1;
	for (; **text >= '0' && **text <= '9'; (*text)++)
		if (number <= limit)
			number = number * 10 + (unsigned)(**text - '0');
	return number <= limit ? number : limit + 1;
}

/** Whether `*text` starts with `prefix`; then it moves behind it. */
static bool take(const char **text, const char *prefix)
{
	size_t length = strlen(prefix);
	bool found = strncmp(*text, prefix, length) == 0;

	*text += found ? length : 0;
	return found;
}

static bool take_message(const char **text)
{
	message_t *message = &messages[message_count];

	if (message_count == MAX_MESSAGES)
		return false;
	message->kind = RALLY_WORDS;
	for (rally_kind_t kind = RALLY_SENDS; kind < RALLY_KINDS; kind++)
		if (take(text, kind_prefixes[kind]))
			message->kind = kind;
	unsigned limit = message->kind <= RALLY_SENDS ? L4_UTCB_MR_WORDS : RALLY_MAX_BYTES;
	message->size = take_number(text, limit);
	message_count++;
	return message->size <= limit && (message->kind <= RALLY_SENDS || message->size > 0);
}

static bool take_messages(const char **text)
{
	do {
		if (!take_message(text))
			return false;
	} while (take(text, ","));
	return true;
}

static bool take_place(const char **text)
{
	place_t *place = &places[place_count];

	if (place_count == MAX_PLACES)
		return false;
	place->apart = take(text, "inter");
	if (!place->apart && !take(text, "intra"))
		return false;
	place_count++;
	for (unsigned side = 0; side < 2 && parallel == 0; side++) {
		if (!take(text, ":"))
			return false;
		place->cpus[side] = take_number(text, L4_SCHEDULER_MAX_CPUS - 1);
		if (place->cpus[side] >= L4_SCHEDULER_MAX_CPUS)
			return false;
	}
	return true;
}

static bool take_count(const char **text, const char *option, unsigned limit, unsigned *count)
{
	if (!take(text, option))
		return false;
	*count = take_number(text, limit);
	return *count > 0 && *count <= limit;
}

static bool take_argument(const char *text)
{
	bool good;

	if (take(&text, "--messages="))
		good = take_messages(&text);
	else if (text[0] == '-')
		good = take_count(&text, "--samples=", RALLY_MAX_SAMPLES, &samples) ||
		       take_count(&text, "--rounds=", 100000000, &rounds) ||
		       take_count(&text, "--warmup=", 100000000, &warmup) ||
		       take_count(&text, "--parallel=", PAIR_MAX, &parallel);
	else
		good = take_place(&text);
	return good && *text == '\0';
}

/** Whether there is a processor of each number that is asked for. */
static bool processors_exist(void)
{
	unsigned needed = parallel;

	for (unsigned i = 0; i < place_count; i++)
		for (unsigned side = 0; side < 2; side++)
			if (places[i].cpus[side] >= needed)
				needed = places[i].cpus[side] + 1;
	for (unsigned cpu = 0; cpu < needed; cpu++) {
		uint64_t idle_us;
		if (l4_scheduler_idle_time_us(l4_own_scheduler(), cpu, &idle_us) < 0)
			return false;
	}
	return true;
}

static const char *read_command_line(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!take_argument(argv[i]))
			return argv[i];
	if (place_count == 0)
		return "no place; expected SPACE:CPU:CPU as in inter:0:1";
	if (message_count == 0)
		messages[message_count++] = (message_t){ RALLY_WORDS, 0 };
	return processors_exist() ? NULL : "there are fewer processors";
}

/* --- measuring ------------------------------------------------------------------------------------------ */

static void print_result(const pair_t *pair)
{
	char line[LINE_BYTES];
	const rally_t *rally = pair->rally;

	size_t length = snprintf(line, sizeof line, "PINGPONG space=%s cpus=%u,%u message=%s%u rounds=%u start=%llu",
				 pair->apart ? "inter" : "intra", pair->cpus[0], pair->cpus[1],
				 kind_prefixes[rally->kind], rally->size, rally->rounds, rally->stamps[0]);
	for (unsigned i = 0; i < rally->samples; i++)
		length += snprintf(line + length, sizeof line - length, "%s%llu", i == 0 ? " cycles=" : ",",
				   rally->stamps[i + 1] - rally->stamps[i]);
	printf("%s%s\n", line, rally->damaged ? " damaged" : "");
	damaged = damaged || rally->damaged;
}

/** Waits until a client reports; returns the number of its pair. */
static unsigned wait_for_client(void)
{
	l4_message_t message = l4_wait(l4_forever());
	const l4_word_t *mr = l4_utcb()->mr;

	if (l4_tag_label(message.tag) == L4_PROTO_PAGE_FAULT)
		l4_panic("page fault at %p by the instruction at %p", (void *)mr[0], (void *)mr[1]);
	if (l4_tag_label(message.tag) == L4_PROTO_EXCEPTION)
		l4_panic("exception %u by the instruction at %p", mr[L4_EXC_TRAPNO], (void *)mr[L4_EXC_EIP]);
	return message.label >> PAIR_LABEL_SHIFT;
}

static void start(pair_t *pair, unsigned index, const message_t *message)
{
	pair->rally = &rallies[index];
	*pair->rally = (rally_t){
		.kind = message->kind,
		.size = message->size,
		.warmup = warmup,
		.rounds = rounds,
		.samples = samples,
	};
	pair_start(pair, index);
}

static void measure(const place_t *place, const message_t *message)
{
	pair_t pair = { .apart = place->apart, .cpus = { place->cpus[0], place->cpus[1] } };

	start(&pair, 0, message);
	wait_for_client();
	print_result(&pair);
	pair_end(&pair);
}

static void measure_in_parallel(void)
{
	static pair_t pairs[PAIR_MAX];

	for (unsigned cpu = 0; cpu < parallel; cpu++) {
		pairs[cpu] = (pair_t){ .apart = places[0].apart, .cpus = { cpu, cpu } };
		start(&pairs[cpu], cpu, &messages[0]);
	}
	for (unsigned done = 0; done < parallel; done++)
		print_result(&pairs[wait_for_client()]);
}

int main(int argc, char **argv)
{
	const char *mistake = read_command_line(argc, argv);

	if (mistake != NULL) {
		printf("pingpong: %s\n", mistake);
		return EXIT_USAGE;
	}
	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), MAIN_PRIORITY);
	l4_accept_nothing();
	pair_prepare(parallel != 0 ? parallel : 1);
	if (parallel != 0)
		measure_in_parallel();
	for (unsigned i = 0; i < place_count && parallel == 0; i++)
		for (unsigned j = 0; j < message_count; j++)
			measure(&places[i], &messages[j]);
	return damaged ? EXIT_DAMAGED : 0;
}
