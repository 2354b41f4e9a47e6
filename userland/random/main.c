/* A random program: episodes of random steps, each the same for the same seed, and what comes of them. What is printed holds
 * neither times nor addresses that depend on the kernel, so two kernels with the same interface print the same.
 *
 *     --seed=N        which program it is
 *     --episodes=N    how many; each begins with fresh tasks
 *     --first=N       the first one's number
 *     --steps=3,17,4  only these steps of each episode
 */
#include "episode.h"

#include <l4/print.h>
#include <l4/scheduler.h>
#include <l4/string.h>

static l4_word_t number(const char **text)
{
	l4_word_t value = 0;

	while (**text >= '0' && **text <= '9')
		value = 10 * value + (l4_word_t)(*(*text)++ - '0');
	return value;
}

static const char *option(const char *name, int argc, char **argv)
{
	size_t length = strlen(name);

	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], name, length) == 0)
			return argv[i] + length;
	return NULL;
}

static l4_word_t option_number(const char *name, l4_word_t otherwise, int argc, char **argv)
{
	const char *text = option(name, argc, argv);

	return text != NULL ? number(&text) : otherwise;
}

/** Which steps are wanted; all of them without the option. */
static void read_steps(bool *wanted, const char *text)
{
	for (unsigned step = 0; step < EPISODE_STEPS; step++)
		wanted[step] = text == NULL;
	while (text != NULL && *text != '\0') {
		l4_word_t step = number(&text);
		if (step < EPISODE_STEPS)
			wanted[step] = true;
		if (*text != '\0')
			text++;
	}
}

int main(int argc, char **argv)
{
	l4_word_t seed = option_number("--seed=", 1, argc, argv), episodes = option_number("--episodes=", 10, argc, argv);
	l4_word_t first = option_number("--first=", 0, argc, argv);
	bool wanted[EPISODE_STEPS];

	read_steps(wanted, option("--steps=", argc, argv));
	episode_prepare();
	printf("RANDOM seed %u, episodes %u to %u\n", seed, first, first + episodes - 1);
	for (l4_word_t episode = first; episode < first + episodes; episode++)
		episode_run(seed, episode, wanted);
	printf("RANDOM done\n");
	return 0;
}
