/*
 * Instructions that the shim executes itself: decoded, and executed where blocks meet. What they do is in floating.h
 * and, for the few integer ones, in integer.h.
 */
#ifndef L4LAB_OPERATION_H
#define L4LAB_OPERATION_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "blocks.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* What an operation ended with. */
enum ending {
    DONE,
    LEFT,      /* v->report has the reason: a page fault, a watched access, a store to code */
    RAISED,    /* an exception: v->report has the vector */
};

#define TRY(call)                     \
    do {                              \
        enum ending ending_ = (call); \
        if (ending_ != DONE)          \
            return ending_;           \
    } while (0)

struct operation;
typedef enum ending (*executor)(struct vcpu *v, const struct operation *op);

/* An instruction of these, decoded. */
struct operation {
    executor execute;
    uint32_t eip;
    uint8_t length;
    bool uses_fpu;
    bool control, waits;  /* of the x87: not remembered as the last instruction; traps for what is pending */
    uint8_t map;          /* 0: one byte, 1: 0f */
    uint8_t opcode, modrm, immediate;
    uint8_t prefix;       /* 0, 0x66, 0xf3, 0xf2: the one that is part of an SSE opcode */
    bool operand16;
    bool memory;          /* has a memory operand: */
    bool address16;
    uint8_t segment;
    int8_t base, index;   /* general register, or -1 */
    uint8_t scale;
    uint32_t displacement;
    uint32_t wide_immediate;  /* of test; the second byte of extrq's and insertq's */
};

/* `code` is an instruction that decode_insn() says is ours. */
void operation_decode(const uint8_t *code, struct operation *op);

/* The parts of that which any instruction has: prefixes and opcode, of the first two maps; a ModRM byte and its address.
   Both return what follows. */
const uint8_t *operation_decode_opcode(const uint8_t *code, struct operation *op, int *override);
const uint8_t *operation_decode_modrm(const uint8_t *p, struct operation *op, int override);

/* What it ends with before its memory operand is looked at: DONE, if it goes on. */
enum ending operation_begin(struct vcpu *v, const struct operation *op);

/* Whether it goes on without looking at its memory operand. */
bool operation_skips_operand(struct vcpu *v, const struct operation *op);

/* Moves nothing but registers, flags, memory and x87/SSE state; not EIP. */
enum ending operation_execute(struct vcpu *v, const struct operation *op);

#pragma GCC visibility pop

#endif
