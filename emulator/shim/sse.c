/*
 * SSE floating point: arithmetic, comparisons, conversions, with the exceptions of MXCSR.
 *
 * Ref: Intel SDM vol. 1, 10.2.3 (MXCSR), 11.5 (SIMD exceptions), appendix E.4 (what is raised in which order);
 * vol. 2, the instructions.
 */
#include "sse.h"

#include <string.h>

#include "floating.h"
#include "operand.h"
#include "softfloat.h"
#include "vcpu.h"

enum { ADD = 0x58, MULTIPLY = 0x59, SUBTRACT = 0x5c, MINIMUM = 0x5d, DIVIDE = 0x5e, MAXIMUM = 0x5f, SQUARE_ROOT = 0x51 };

static struct float_env environment(uint32_t mxcsr)
{
    return (struct float_env){
        .rounding = mxcsr >> 13 & 3, .precision = 64, .masks = mxcsr >> 7 & FE_ALL, .daz = mxcsr & MXCSR_DAZ,
        .ftz = mxcsr & MXCSR_FTZ, .sse = true,
    };
}

static struct number flushed(struct number n, const struct float_env *env)
{
    return n.denormal && env->daz ? (struct number){.sign = n.sign} : n;
}

static struct number from_single(uint32_t bits, const struct float_env *env)
{
    return flushed(unpack_single(bits), env);
}

static struct number from_double(uint64_t bits, const struct float_env *env)
{
    return flushed(unpack_double(bits), env);
}

/* The operation took place unless an exception is not masked: then its destination keeps its value. */
static enum ending conclude(struct vcpu *v, struct float_env *env)
{
    unsigned before = env->flags & (FE_I | FE_D | FE_Z), unmasked = before & ~env->masks;
    if (unmasked)
        env->flags = (uint8_t)before;  /* nothing was computed */
    v->floating.mxcsr |= env->flags;
    return env->flags & ~env->masks & FE_ALL ? raise_vector(v, VECTOR_XM) : DONE;
}

/* --- operands ---------------------------------------------------------------------------------- */

/* The source: an XMM register, or `size` bytes of memory. 16 bytes must be aligned. */
static enum ending source(struct vcpu *v, const struct operation *op, uint32_t size, union xmm *s)
{
    if (!op->memory) {
        *s = *operand_xmm(v, op->modrm & 7);
        return DONE;
    }
    uint32_t address = operand_address(v, op);
    if (size == 16 && address & 15)
        return raise_vector(v, VECTOR_GP);
    if (size == 16)
        return operand_read(v, address, s, 16);
    return size == 8 ? operand_read(v, address, s, 8) : operand_read(v, address, s, 4);
}

static union xmm *destination(struct vcpu *v, const struct operation *op)
{
    return operand_xmm(v, op->modrm >> 3 & 7);
}

static bool is_double(const struct operation *op)
{
    return op->prefix == 0x66 || op->prefix == 0xf2;
}

static bool is_scalar(const struct operation *op)
{
    return op->prefix >= 0xf2;
}

static uint32_t operand_size(const struct operation *op)
{
    return !is_scalar(op) ? 16 : is_double(op) ? 8 : 4;
}

/* --- arithmetic -------------------------------------------------------------------------------- */

static struct number compute(unsigned which, struct number a, struct number b, const struct format *format,
                             struct float_env *env)
{
    switch (which) {
    case ADD:
        return number_add(a, b, false, format->bits, format, env);
    case SUBTRACT:
        return number_add(a, b, true, format->bits, format, env);
    case MULTIPLY:
        return number_multiply(a, b, format->bits, format, env);
    case DIVIDE:
        return number_divide(a, b, format->bits, format, env);
    default:
        return number_sqrt(b, format->bits, format, env);
    }
}

static bool takes_first(unsigned which, const struct number *a, const struct number *b, struct float_env *env)
{
    enum ordering order = number_compare(a, b, true, env);
    return order == (which == MINIMUM ? LESS : GREATER);
}

/* Minimum and maximum give an operand as it is, but for DAZ; the second, if they do not differ or do not compare. */
static uint32_t single_result(unsigned which, uint32_t a, uint32_t b, struct float_env *env)
{
    struct number x = from_single(a, env), y = from_single(b, env);
    if (which == MINIMUM || which == MAXIMUM) {
        bool first = takes_first(which, &x, &y, env);
        struct number *n = first ? &x : &y;
        return n->class == ZERO ? (uint32_t)n->sign << 31 : first ? a : b;
    }
    struct number n = compute(which, x, y, &format_single, env);
    return pack_single(&n);
}

static uint64_t double_result(unsigned which, uint64_t a, uint64_t b, struct float_env *env)
{
    struct number x = from_double(a, env), y = from_double(b, env);
    if (which == MINIMUM || which == MAXIMUM) {
        bool first = takes_first(which, &x, &y, env);
        struct number *n = first ? &x : &y;
        return n->class == ZERO ? (uint64_t)n->sign << 63 : first ? a : b;
    }
    struct number n = compute(which, x, y, &format_double, env);
    return pack_double(&n);
}

/* Element i of the result: a `which` b. */
static void element(unsigned which, bool wide, const union xmm *a, unsigned ia, const union xmm *b, unsigned ib,
                    union xmm *result, unsigned i, struct float_env *env)
{
    if (wide)
        result->q[i] = double_result(which, a->q[ia], b->q[ib], env);
    else
        result->d[i] = single_result(which, a->d[ia], b->d[ib], env);
}

enum ending sse_arithmetic(struct vcpu *v, const struct operation *op)
{
    union xmm s, result, *d = destination(v, op);
    TRY(source(v, op, operand_size(op), &s));
    struct float_env env = environment(v->floating.mxcsr);
    bool wide = is_double(op);
    unsigned count = is_scalar(op) ? 1 : wide ? 2 : 4;
    for (unsigned i = 0; i < count; i++)
        element(op->opcode, wide, d, i, &s, i, &result, i, &env);
    if (env.flags)
        TRY(conclude(v, &env));
    for (unsigned i = 0; i < count; i++) {  /* in the pieces that were written: faster than as a whole */
        if (wide)
            d->q[i] = result.q[i];
        else
            d->d[i] = result.d[i];
    }
    return DONE;
}

/* haddps, haddpd, hsubps, hsubpd: neighbours; addsubps, addsubpd: even elements subtract. */
static enum ending pairwise(struct vcpu *v, const struct operation *op)
{
    union xmm s, result, *d = destination(v, op);
    TRY(source(v, op, 16, &s));
    struct float_env env = environment(v->floating.mxcsr);
    bool wide = op->prefix == 0x66;
    unsigned count = wide ? 2 : 4;
    for (unsigned i = 0; i < count; i++) {
        if (op->opcode == 0xd0) {
            element(i & 1 ? ADD : SUBTRACT, wide, d, i, &s, i, &result, i, &env);
        } else {
            const union xmm *from = i < count / 2 ? d : &s;
            unsigned first = 2 * i % count;
            element(op->opcode == 0x7c ? ADD : SUBTRACT, wide, from, first, from, first + 1, &result, i, &env);
        }
    }
    TRY(conclude(v, &env));
    *d = result;
    return DONE;
}

/* rcp and rsqrt. The manual allows a relative error of 1.5 * 2^-12; here it is that of rounding to nearest. No exceptions. */
static uint32_t approximation(bool root, uint32_t bits)
{
    struct float_env env = {.masks = FE_ALL, .sse = true, .daz = true, .ftz = true};
    struct number n = from_single(bits, &env), one = unpack_integer(1);
    if (root && !is_nan(&n) && n.class != ZERO && n.sign)
        n = invalid_operation(&env);
    else if (root && n.class == FINITE) {
        struct number square_root = number_sqrt(n, 64, &format_extended, &env);
        n = number_divide(one, square_root, 24, &format_single, &env);
    } else {
        n = number_divide(one, n, 24, &format_single, &env);
    }
    return pack_single(&n);
}

static enum ending approximate(struct vcpu *v, const struct operation *op)
{
    union xmm s, *d = destination(v, op);
    TRY(source(v, op, operand_size(op), &s));
    for (unsigned i = 0; i < (is_scalar(op) ? 1u : 4u); i++)
        d->d[i] = approximation(op->opcode == 0x52, s.d[i]);
    return DONE;
}

/* --- comparisons ------------------------------------------------------------------------------- */

static bool holds(unsigned predicate, const struct number *a, const struct number *b, struct float_env *env)
{
    enum { EQ, LT, LE, UNORD };
    unsigned base = predicate & 3;
    enum ordering order = number_compare(a, b, base == LT || base == LE, env);
    bool result = base == EQ ? order == EQUAL : base == LT ? order == LESS : base == LE ? order == LESS || order == EQUAL
                : order == UNORDERED;
    return result != (predicate >> 2 & 1);
}

enum ending sse_compare(struct vcpu *v, const struct operation *op)
{
    union xmm s, result, *d = destination(v, op);
    TRY(source(v, op, operand_size(op), &s));
    struct float_env env = environment(v->floating.mxcsr);
    bool wide = is_double(op);
    result = *d;
    for (unsigned i = 0; i < (is_scalar(op) ? 1u : wide ? 2u : 4u); i++) {
        if (wide) {
            struct number a = from_double(d->q[i], &env), b = from_double(s.q[i], &env);
            result.q[i] = holds(op->immediate & 7, &a, &b, &env) ? UINT64_MAX : 0;
        } else {
            struct number a = from_single(d->d[i], &env), b = from_single(s.d[i], &env);
            result.d[i] = holds(op->immediate & 7, &a, &b, &env) ? UINT32_MAX : 0;
        }
    }
    TRY(conclude(v, &env));
    *d = result;
    return DONE;
}

/* comiss, comisd; ucomiss, ucomisd (2e) do not signal for quiet NaNs. */
enum ending sse_compare_to_eflags(struct vcpu *v, const struct operation *op)
{
    static const uint32_t flags[] = {[LESS] = 1, [EQUAL] = 0x40, [GREATER] = 0, [UNORDERED] = 0x45};
    union xmm s, *d = destination(v, op);
    bool wide = op->prefix == 0x66;
    TRY(source(v, op, wide ? 8 : 4, &s));
    struct float_env env = environment(v->floating.mxcsr);
    struct number a = wide ? from_double(d->q[0], &env) : from_single(d->d[0], &env);
    struct number b = wide ? from_double(s.q[0], &env) : from_single(s.d[0], &env);
    enum ordering order = number_compare(&a, &b, op->opcode == 0x2f, &env);
    TRY(conclude(v, &env));
    operand_set_arithmetic_flags(v, flags[order]);
    return DONE;
}

/* --- conversions ------------------------------------------------------------------------------- */

static uint32_t to_int32(struct number n, bool truncate, struct float_env *env)
{
    return (uint32_t)number_to_integer(&n, 32, truncate ? ROUND_ZERO : (enum rounding)env->rounding, env);
}

static uint32_t integer_to_single(uint32_t value, struct float_env *env)
{
    struct number n = unpack_integer((int32_t)value);
    n = number_convert(n, &format_single, env);
    return pack_single(&n);
}

static uint64_t integer_to_double(uint32_t value)
{
    struct number n = unpack_integer((int32_t)value);
    return pack_double(&n);
}

static uint64_t single_to_double(uint32_t value, struct float_env *env)
{
    struct number n = from_single(value, env);
    n = number_convert(n, &format_double, env);
    return pack_double(&n);
}

static uint32_t double_to_single(uint64_t value, struct float_env *env)
{
    struct number n = from_double(value, env);
    n = number_convert(n, &format_single, env);
    return pack_single(&n);
}

/* cvtps2pd, cvtpd2ps, cvtss2sd, cvtsd2ss */
enum ending sse_convert_formats(struct vcpu *v, const struct operation *op)
{
    static const uint8_t sizes[4] = {8, 16, 4, 8};
    unsigned form = op->prefix == 0 ? 0 : op->prefix == 0x66 ? 1 : op->prefix == 0xf3 ? 2 : 3;
    union xmm s, *d = destination(v, op), result = *d;
    TRY(source(v, op, sizes[form], &s));
    struct float_env env = environment(v->floating.mxcsr);
    if (form == 3) {
        result.d[0] = double_to_single(s.q[0], &env);
    } else if (form == 1) {
        result.d[0] = double_to_single(s.q[0], &env);
        result.d[1] = double_to_single(s.q[1], &env);
        result.q[1] = 0;
    } else {
        result.q[0] = single_to_double(s.d[0], &env);
        if (form == 0)
            result.q[1] = single_to_double(s.d[1], &env);
    }
    TRY(conclude(v, &env));
    *d = result;
    return DONE;
}

/* 5b: cvtdq2ps, cvtps2dq (66), cvttps2dq (f3) */
static enum ending convert_four(struct vcpu *v, const struct operation *op)
{
    union xmm s, result;
    TRY(source(v, op, 16, &s));
    struct float_env env = environment(v->floating.mxcsr);
    for (unsigned i = 0; i < 4; i++)
        result.d[i] = op->prefix == 0 ? integer_to_single(s.d[i], &env)
                                      : to_int32(from_single(s.d[i], &env), op->prefix == 0xf3, &env);
    TRY(conclude(v, &env));
    *destination(v, op) = result;
    return DONE;
}

/* e6: cvttpd2dq (66), cvtdq2pd (f3), cvtpd2dq (f2) */
static enum ending convert_two(struct vcpu *v, const struct operation *op)
{
    union xmm s, result = {.q = {0, 0}};
    TRY(source(v, op, op->prefix == 0xf3 ? 8 : 16, &s));
    struct float_env env = environment(v->floating.mxcsr);
    for (unsigned i = 0; i < 2; i++) {
        if (op->prefix == 0xf3)
            result.q[i] = integer_to_double(s.d[i]);
        else
            result.d[i] = to_int32(from_double(s.q[i], &env), op->prefix == 0x66, &env);
    }
    TRY(conclude(v, &env));
    *destination(v, op) = result;
    return DONE;
}

/* 2a: cvtsi2ss, cvtsi2sd from a general register; cvtpi2ps, cvtpi2pd from an MMX register; or from memory. */
enum ending sse_convert_integers(struct vcpu *v, const struct operation *op)
{
    union xmm *d = destination(v, op), result = *d;
    bool mmx = !is_scalar(op), wide = is_double(op);
    uint32_t words[2] = {0, 0};
    if (mmx && !op->memory)
        TRY(x87_check_pending(v));
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), words, mmx ? 8 : 4));
    else if (mmx)
        memcpy(words, &v->floating.st[op->modrm & 7].m, 8);
    else
        words[0] = operand_general(v, op->modrm & 7);
    struct float_env env = environment(v->floating.mxcsr);
    for (unsigned i = 0; i < (mmx ? 2u : 1u); i++) {
        if (wide)
            result.q[i] = integer_to_double(words[i]);
        else
            result.d[i] = integer_to_single(words[i], &env);
    }
    if (mmx && !op->memory)  /* of memory, no MMX register takes part */
        simd_enter_mmx(v);
    TRY(conclude(v, &env));
    *d = result;
    return DONE;
}

/* 2c (truncating), 2d: to a general register, or to an MMX register. */
enum ending sse_convert_to_integers(struct vcpu *v, const struct operation *op)
{
    bool mmx = !is_scalar(op), wide = is_double(op), truncate = op->opcode == 0x2c;
    uint32_t words[2];
    union xmm s;
    if (mmx)
        TRY(x87_check_pending(v));
    TRY(source(v, op, op->prefix == 0x66 ? 16 : op->prefix == 0xf3 ? 4 : 8, &s));
    struct float_env env = environment(v->floating.mxcsr);
    for (unsigned i = 0; i < (mmx ? 2u : 1u); i++)
        words[i] = to_int32(wide ? from_double(s.q[i], &env) : from_single(s.d[i], &env), truncate, &env);
    if (mmx)
        simd_enter_mmx(v);
    TRY(conclude(v, &env));
    if (mmx) {
        memcpy(&v->floating.st[op->modrm >> 3 & 7].m, words, 8);
        v->floating.st[op->modrm >> 3 & 7].se = 0xffff;
    } else {
        operand_set_general(v, op->modrm >> 3 & 7, words[0]);
    }
    return DONE;
}

/* --- MXCSR ------------------------------------------------------------------------------------- */

static enum ending state(struct vcpu *v, const struct operation *op)
{
    uint32_t address, value;
    switch (op->modrm >> 3 & 7) {
    case 0:
        return fxsave(v, op);
    case 1:
        return fxrstor(v, op);
    case 2:
        address = operand_address(v, op);
        TRY(operand_read(v, address, &value, 4));
        if (value & ~(uint32_t)MXCSR_MASK)
            return raise_vector(v, VECTOR_GP);
        v->floating.mxcsr = value;
        return DONE;
    default:
        return operand_write(v, operand_address(v, op), &v->floating.mxcsr, 4);
    }
}

/* Sets what executes it; false: it is none of these. */
bool sse_classify(struct operation *op)
{
    executor quick = sse_quick(op);
    switch (op->opcode) {
    case 0x2a: op->execute = quick ? quick : sse_convert_integers; return true;
    case 0x2c: case 0x2d:
        op->waits = !is_scalar(op);  /* to an MMX register */
        op->execute = quick ? quick : sse_convert_to_integers;
        return true;
    case 0x2e: case 0x2f: op->execute = quick ? quick : sse_compare_to_eflags; return true;
    case 0x52: case 0x53: op->execute = approximate; return true;
    case 0x5a: op->execute = quick ? quick : sse_convert_formats; return true;
    case 0x5b: op->execute = convert_four; return true;
    case 0x51: case 0x58: case 0x59: case 0x5c: case 0x5d: case 0x5e: case 0x5f: op->execute = quick ? quick : sse_arithmetic; return true;
    case 0x7c: case 0x7d: case 0xd0: op->execute = pairwise; return true;
    case 0xae: op->execute = state; return true;
    case 0xc2: op->execute = quick ? quick : sse_compare; return true;
    case 0xe6: op->execute = convert_two; return true;
    default: return false;
    }
}
