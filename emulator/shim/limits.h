/* Accesses beyond the limit of a segment, which the engine does not notice. */
#ifndef L4LAB_LIMITS_H
#define L4LAB_LIMITS_H

#include <stdint.h>

#include "decode.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* The instruction at EIP, or one round of it: GO_ON if its segments have all that it accesses; else #GP, or #SS of the stack. */
uint64_t limits_check(struct vcpu *v, const struct insn *insn, const uint8_t *code);

#pragma GCC visibility pop

#endif
