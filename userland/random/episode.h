/* One episode: two tasks with two actors each, random steps, a look at everything, and all is taken away. */
#ifndef RANDOM_EPISODE_H
#define RANDOM_EPISODE_H

#include <l4/types.h>

enum { EPISODE_STEPS = 40 };

/** Once, before the first. */
void episode_prepare(void);

void episode_run(l4_word_t seed, l4_word_t episode, const bool *wanted);

#endif
