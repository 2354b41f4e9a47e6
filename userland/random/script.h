/* What a step of an episode lets an actor do. */
#ifndef RANDOM_SCRIPT_H
#define RANDOM_SCRIPT_H

#include "actor.h"

/** Fills in the next thing that actor `number` does; all of it comes from chance.h. */
void script_act(act_t *act, unsigned number);

#endif
