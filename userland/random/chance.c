#include "chance.h"

static l4_word_t state;

static l4_word_t mixed(l4_word_t word)
{
	word = (word ^ word >> 16) * 0x7feb352d;
	word = (word ^ word >> 15) * 0x846ca68b;
	return word ^ word >> 16;
}

void chance_begin(l4_word_t seed, l4_word_t episode, l4_word_t step)
{
	state = mixed(mixed(mixed(seed + 0x9e3779b9) + episode) + step);
}

l4_word_t chance(l4_word_t limit)
{
	state += 0x9e3779b9;
	return mixed(state) % limit;
}

bool chance_of(unsigned percent)
{
	return chance(100) < percent;
}
