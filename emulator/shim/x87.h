/* The x87's register stack, flags and environment, for the files that execute its instructions: arithmetic and comparisons,
 * functions of one register (D9 E0..FF), transfers from and to memory, state; x87.c decodes. */
#ifndef L4LAB_X87_H
#define L4LAB_X87_H

#include "floating.h"
#include "operation.h"
#include "segments.h"
#include "softfloat.h"
#include "vcpu.h"

#pragma GCC visibility push(hidden)

static inline struct extended *st(struct floating *f, unsigned i)
{
    return &f->st[(f->top + i) & 7];
}

static inline bool is_empty(const struct floating *f, unsigned i)
{
    return !(f->valid >> ((f->top + i) & 7) & 1);
}

static inline void put(struct floating *f, unsigned i, struct extended value)
{
    *st(f, i) = value;
    f->valid |= (uint8_t)(1 << ((f->top + i) & 7));
}

static inline void pop(struct floating *f)
{
    f->valid &= (uint8_t)~(1 << f->top);
    f->top = (f->top + 1) & 7;
}

static inline void push(struct floating *f, struct extended value)
{
    f->top = (f->top - 1) & 7;
    put(f, 0, value);
}

static inline struct number number_at(struct floating *f, unsigned i)
{
    return unpack_extended(*st(f, i));
}

static inline void summarize(struct floating *f)
{
    bool pending = f->status & ~f->control & FE_ALL;
    f->status = (uint16_t)((f->status & ~(STATUS_ES | STATUS_B)) | (pending ? STATUS_ES | STATUS_B : 0));
}

/* Sets exception flags; those of them that are not masked. */
static inline unsigned raise_flags(struct floating *f, unsigned flags)
{
    unsigned unmasked = flags & ~f->control & FE_ALL;
    f->status |= (uint16_t)(flags & FE_ALL);
    if (unmasked)
        f->status |= STATUS_ES | STATUS_B;
    return unmasked;
}

static inline void set_codes(struct floating *f, unsigned codes)
{
    f->status = (uint16_t)((f->status & ~STATUS_CC) | codes);
}

static inline void set_c1(struct floating *f, bool c1)
{
    f->status = (uint16_t)((f->status & ~STATUS_C1) | (c1 ? STATUS_C1 : 0));
}

/* Whether the invalid-operation exception is masked: then there is a masked response. */
static inline bool stack_fault(struct floating *f, bool overflow)
{
    f->status |= STATUS_SF;
    set_c1(f, overflow);
    return !raise_flags(f, FE_I);
}

static inline struct float_env x87_environment(const struct floating *f)
{
    static const uint8_t precisions[4] = {24, 64, 53, 64};
    return (struct float_env){
        .rounding = f->control >> 10 & 3, .precision = precisions[f->control >> 8 & 3], .masks = f->control & FE_ALL,
    };
}

/* Flags of an operation that were raised before it computed anything: unmasked, it did not happen. */
static inline bool prevented(const struct float_env *env)
{
    return env->flags & ~env->masks & (FE_I | FE_D | FE_Z);
}

/* Ends an operation that wrote (or would write) one register. True: it happened. */
static inline bool x87_conclude(struct floating *f, const struct float_env *env)
{
    if (prevented(env)) {
        raise_flags(f, env->flags & (FE_I | FE_D | FE_Z));
        set_c1(f, false);
        return false;
    }
    raise_flags(f, env->flags);
    set_c1(f, env->up);
    return true;
}

static inline void initialize(struct floating *f)
{
    f->control = INITIAL_CONTROL;
    f->status = f->opcode = f->cs = f->ds = 0;
    f->ip = f->dp = 0;
    f->top = f->valid = 0;
}

static inline uint16_t status_word(const struct floating *f)
{
    return (uint16_t)(f->status | f->top << 11);
}

/* --- x87.c ------------------------------------------------------------------------------------- */

/* Any x87 instruction that is not refused, in any state. */
enum ending x87_execute(struct vcpu *v, const struct operation *op);

/* What fnstenv tells of the last instruction; `offset`: of its memory operand. */
static inline void x87_remember(struct vcpu *v, const struct operation *op, uint32_t offset)
{
    struct floating *f = &v->floating;
    f->ip = op->eip;
    f->cs = segments_selector(&v->segments, X86_CS);
    f->opcode = (uint16_t)((op->opcode & 7) << 8 | op->modrm);
    if (op->memory) {
        f->dp = offset;
        f->ds = segments_selector(&v->segments, op->segment);
    }
}

/* --- x87_quick.c ------------------------------------------------------------------------------- */

/* The function that executes the usual cases of an instruction at once, and has x87_execute() do the others; or NULL. */
executor x87_quick(const struct operation *op);

/* --- x87_arithmetic.c -------------------------------------------------------------------------- */

/* ST0 `which` b, into ST(to); then perhaps pops. `missing`: an operand is in an empty register. */
void x87_arithmetic(struct floating *f, unsigned which, const struct number *b, bool missing, unsigned to, bool pops);

/* The condition codes are set also if an unmasked exception keeps the comparison from popping. */
void x87_compare(struct floating *f, const struct number *b, bool missing, bool signal, unsigned pops);

/* Likewise; C1 stays as it is. */
void x87_compare_to_eflags(struct vcpu *v, unsigned i, bool signal, bool pops);

/* --- x87_functions.c --------------------------------------------------------------------------- */

/* D9 E0 to D9 FF */
void x87_function(struct floating *f, uint8_t modrm);

/* --- x87_transfer.c ---------------------------------------------------------------------------- */

/* Loads, that is, pushes; `flags` are those of the conversion. */
void x87_load(struct floating *f, struct extended value, const struct float_env *env);

/* An operand of arithmetic or of a load: (s)ingle, (d)ouble, (w)ord, (l)ong or quadword. */
enum ending x87_load_operand(struct vcpu *v, uint32_t address, const char *kind, struct number *n);

/* Between memory and ST0. */
enum ending x87_transfer(struct vcpu *v, const struct operation *op, uint32_t address);

/* --- x87_state.c ------------------------------------------------------------------------------- */

/* Control and status word, environment, all registers: from and to memory. */
enum ending x87_state(struct vcpu *v, const struct operation *op, uint32_t address);

#pragma GCC visibility pop

#endif
