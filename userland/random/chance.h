/* Chance that comes again: the same numbers for the same seed, episode and step, whatever came before. */
#ifndef RANDOM_CHANCE_H
#define RANDOM_CHANCE_H

#include <l4/types.h>

void chance_begin(l4_word_t seed, l4_word_t episode, l4_word_t step);

/** Less than `limit`. */
l4_word_t chance(l4_word_t limit);

/** True `percent` times in a hundred. */
bool chance_of(unsigned percent);

#define CHOOSE(...)                                                                                                   \
	(((const l4_word_t[]){ __VA_ARGS__ })[chance(sizeof((l4_word_t[]){ __VA_ARGS__ }) / sizeof(l4_word_t))])

#endif
