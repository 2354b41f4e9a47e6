/* Sleeps longer than most machines run. A root task:
 *
 *     sleeper TIMEOUT TIMES        with a receive timeout as it is encoded
 *     sleeper until HIGH LOW       until the clock shows this time, in microseconds
 *
 * Prints the processor's clock behind each sleep, and then, after some work, how far it has come. */
#include <l4/ipc.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>
#include <l4/tsc.h>

enum { WORK = 1000 };

static void sleep_for(l4_timeout_t timeout)
{
	l4_receive(l4_self(), l4_timeouts(L4_TIMEOUT_NEVER, timeout));
	uint64_t now = l4_tsc();
	printf("%u %u\n", (unsigned)(now >> 32), (unsigned)now);
}

int main(int argc, char **argv)
{
	if (strcmp(argv[1], "until") == 0) {
		l4_utcb()->br[0] = l4_number(argv[3], 0);
		l4_utcb()->br[1] = l4_number(argv[2], 0);
		sleep_for(l4_timeout_at(0));
	} else {
		for (unsigned times = l4_number(argv[2], argc > 2); times > 0; times--)
			sleep_for((l4_timeout_t)l4_number(argv[1], 0));
	}
	uint64_t before = l4_tsc();
	for (volatile unsigned i = 0; i < WORK; i++)
		;
	printf("%u\n", (unsigned)(l4_tsc() - before));
	return 7;
}
