/* Accesses beyond the limit of a segment, which the engine does not notice. */
#ifndef L4LAB_LIMITS_H
#define L4LAB_LIMITS_H

#include <stdint.h>

#include "decode.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* The instruction at EIP, or one round of it: GO_ON if its segments have all that it accesses; else #GP, or #SS of the stack.
   `of_kinds`: what the kinds of its operands' segments give, whatever their limits. */
uint64_t limits_check(struct vcpu *v, const struct insn *insn, const uint8_t *code, uint64_t of_kinds);

#pragma GCC visibility pop

#endif
