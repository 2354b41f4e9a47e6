/*
 * Instructions that the shim executes itself: all of the x87 and MMX, SSE arithmetic, and SSE instructions with
 * an operand of 16 bytes in memory. The engine computes some of them wrongly and reports no exceptions.
 */
#ifndef L4LAB_FLOATING_H
#define L4LAB_FLOATING_H

#include "softfloat.h"

struct vcpu;

/* x87 registers by their physical number; MXCSR. The XMM registers are the engine's. */
struct fpu_state {
    uint16_t control;
    uint16_t status;  /* without the top of the stack */
    uint8_t top;
    uint8_t valid;    /* bit per physical register: not empty */
    uint16_t opcode, cs, ds;
    uint32_t ip, dp;
    uint32_t mxcsr;
    struct extended st[8];
};

enum { STATUS_SF = 0x40, STATUS_ES = 0x80, STATUS_C0 = 0x100, STATUS_C1 = 0x200, STATUS_C2 = 0x400, STATUS_C3 = 0x4000,
       STATUS_B = 0x8000, STATUS_CC = STATUS_C0 | STATUS_C1 | STATUS_C2 | STATUS_C3 };
enum { MXCSR_DAZ = 0x40, MXCSR_FTZ = 0x8000, MXCSR_MASK = 0xffff, INITIAL_MXCSR = 0x1f80, INITIAL_CONTROL = 0x37f };

union xmm {
    uint8_t b[16];
    uint16_t w[8];
    uint32_t d[4];
    uint64_t q[2];
};

/* What an operation ended with. */
enum ending {
    DONE,
    LEFT,      /* v->event says why: a page fault, a watched access, a store to code */
    RAISED,    /* an exception: v->vector */
};

struct operation;

/* An instruction of these, decoded. */
struct operation {
    enum ending (*execute)(struct vcpu *v, const struct operation *op);
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
    uint32_t wide_immediate;  /* of test */
};

void operation_decode(const uint8_t *code, struct operation *op);
/* Moves nothing but registers, flags, memory and x87/SSE state; not EIP. */
enum ending operation_execute(struct vcpu *v, const struct operation *op);

/* The instructions of the shim in a block: those at its start, and perhaps one at its end. */
struct run {
    uint32_t eip, token, second_token;
    uint16_t bytes;  /* of the block, with its flags */
    uint16_t count, size;
    bool trails;     /* the last of them ends the block */
    struct operation *operations;
};

void x87_classify(struct operation *op);
enum ending x87_execute(struct vcpu *v, const struct operation *op);
enum ending x87_check_pending(struct vcpu *v);
bool sse_classify(struct operation *op);
enum ending simd_execute(struct vcpu *v, const struct operation *op);
enum ending fxsave(struct vcpu *v, const struct operation *op);
enum ending fxrstor(struct vcpu *v, const struct operation *op);
struct number x87_remainder(const struct number *a, const struct number *b, bool nearest, uint64_t *quotient, bool *partial,
                            struct float_env *env);

enum ending raise_vector(struct vcpu *v, uint32_t vector);
uint32_t operand_eflags(struct vcpu *v);
void operand_set_eflags(struct vcpu *v, uint32_t flags, uint32_t which);

#define TRY(call)                     \
    do {                              \
        enum ending ending_ = (call); \
        if (ending_ != DONE)          \
            return ending_;           \
    } while (0)

#endif
