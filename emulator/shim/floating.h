/*
 * x87, MMX and SSE instructions, in integers: all of the x87 and MMX, SSE arithmetic, and SSE instructions with an
 * operand of 16 bytes in memory. The engine computes some of them wrongly and reports no exceptions. x87.c (and
 * the files that x87.h names), sse.c and simd.c execute them, on numbers of softfloat.c; the commonest cases of the commonest
 * have functions of their own, in x87_quick.c and sse_quick.c.
 */
#ifndef L4LAB_FLOATING_H
#define L4LAB_FLOATING_H

#include <stdbool.h>
#include <stdint.h>

#include "operation.h"
#include "softfloat.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* x87 registers by their physical number; MXCSR. The XMM registers are the engine's (native.h). */
struct floating {
    uint16_t control;
    uint16_t status;  /* without the top of the stack */
    uint8_t top;
    uint8_t valid;    /* bit per physical register: not empty */
    uint16_t opcode, cs, ds;
    uint32_t ip, dp;
    uint32_t mxcsr;
    struct extended st[8];
    bool is_amd;      /* AMD's processors do some things that Intel's manual says are not done */
};

enum { STATUS_SF = 0x40, STATUS_ES = 0x80, STATUS_C0 = 0x100, STATUS_C1 = 0x200, STATUS_C2 = 0x400, STATUS_C3 = 0x4000,
       STATUS_B = 0x8000, STATUS_CC = STATUS_C0 | STATUS_C1 | STATUS_C2 | STATUS_C3 };
enum { MXCSR_DAZ = 0x40, MXCSR_FTZ = 0x8000, MXCSR_MASK = 0xffff, INITIAL_MXCSR = 0x1f80, INITIAL_CONTROL = 0x37f };

/* What fxsave stores, and a frame keeps. */
struct fxsave_area {
    uint16_t control, status;
    uint8_t tags, reserved0;
    uint16_t opcode;
    uint32_t ip;
    uint16_t cs, reserved1;
    uint32_t dp;
    uint16_t ds, reserved2;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[8][16];
    uint8_t rest[224];
};

/* Whether an exception is pending, which the next x87 instruction takes. */
static inline bool floating_is_pending(const struct floating *f)
{
    return f->status & STATUS_ES;
}

static inline void floating_init(struct floating *f, bool is_amd)
{
    f->is_amd = is_amd;
}

/* All registers out, and in again: as fxsave has them, those of the x87 by their place in the stack. */
void floating_save(const struct vcpu *v, struct fxsave_area *area);
void floating_load(struct vcpu *v, const struct fxsave_area *area);

void x87_classify(struct operation *op);
enum ending x87_check_pending(struct vcpu *v);
enum ending x87_begin(struct vcpu *v, const struct operation *op);
/* Whether an unmasked exception prevents a store of which an Intel then does not even look at the segment. */
bool x87_skips_operand(struct vcpu *v, const struct operation *op);
bool sse_classify(struct operation *op);
executor simd_executor(const struct operation *op);
bool simd_is_mmx(const struct operation *op);
/* What an MMX instruction does before anything of its memory operand. */
void simd_begin(struct vcpu *v, const struct operation *op);
void simd_enter_mmx(struct vcpu *v);
enum ending fxsave(struct vcpu *v, const struct operation *op);
enum ending fxrstor(struct vcpu *v, const struct operation *op);

#pragma GCC visibility pop

#endif
