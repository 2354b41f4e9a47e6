/* What an engine has and its interface does not show. */
#ifndef L4LAB_HIDDEN_H
#define L4LAB_HIDDEN_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct vcpu;

#pragma GCC visibility push(hidden)

/* Once, with an engine in setup: where things are. False: this is no engine that we know. */
bool hidden_find(struct vcpu *v);

/* After an exception was reported: its error code; makes the engine forget that it is handling it. */
uint32_t hidden_take_exception(struct engine *e);

/* The byte address of the TLB miss that was just refused. */
uint32_t hidden_fault_address(const struct engine *e);

/* To a linear address of more than 32 bits. */
void hidden_move_descriptors(struct engine *e, uint64_t base);

#pragma GCC visibility pop

#endif
