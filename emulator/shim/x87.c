/*
 * The x87, all of it.
 *
 * Ref: Intel SDM vol. 1, chapter 8 (registers, stack, exceptions), 8.5 (exception conditions and masked responses);
 * vol. 2, the F* instructions.
 */
#include "floating.h"

#include <stddef.h>
#include <string.h>

#include "features.h"
#include "fpu.h"
#include "operand.h"
#include "segments.h"
#include "softfloat.h"
#include "transcendental.h"
#include "vcpu.h"

static struct extended *st(struct floating *f, unsigned i)
{
    return &f->st[(f->top + i) & 7];
}

static bool is_empty(const struct floating *f, unsigned i)
{
    return !(f->valid >> ((f->top + i) & 7) & 1);
}

static void put(struct floating *f, unsigned i, struct extended value)
{
    *st(f, i) = value;
    f->valid |= (uint8_t)(1 << ((f->top + i) & 7));
}

static void pop(struct floating *f)
{
    f->valid &= (uint8_t)~(1 << f->top);
    f->top = (f->top + 1) & 7;
}

static void push(struct floating *f, struct extended value)
{
    f->top = (f->top - 1) & 7;
    put(f, 0, value);
}

static struct number number_at(struct floating *f, unsigned i)
{
    return unpack_extended(*st(f, i));
}

static void summarize(struct floating *f)
{
    bool pending = f->status & ~f->control & FE_ALL;
    f->status = (uint16_t)((f->status & ~(STATUS_ES | STATUS_B)) | (pending ? STATUS_ES | STATUS_B : 0));
}

/* Sets exception flags; those of them that are not masked. */
static unsigned raise_flags(struct floating *f, unsigned flags)
{
    unsigned unmasked = flags & ~f->control & FE_ALL;
    f->status |= (uint16_t)(flags & FE_ALL);
    if (unmasked)
        f->status |= STATUS_ES | STATUS_B;
    return unmasked;
}

static void set_codes(struct floating *f, unsigned codes)
{
    f->status = (uint16_t)((f->status & ~STATUS_CC) | codes);
}

static void set_c1(struct floating *f, bool c1)
{
    f->status = (uint16_t)((f->status & ~STATUS_C1) | (c1 ? STATUS_C1 : 0));
}

/* Whether the invalid-operation exception is masked: then there is a masked response. */
static bool stack_fault(struct floating *f, bool overflow)
{
    f->status |= STATUS_SF;
    set_c1(f, overflow);
    return !raise_flags(f, FE_I);
}

static struct float_env environment(const struct floating *f)
{
    static const uint8_t precisions[4] = {24, 64, 53, 64};
    return (struct float_env){
        .rounding = f->control >> 10 & 3, .precision = precisions[f->control >> 8 & 3], .masks = f->control & FE_ALL,
    };
}

/* Flags of an operation that were raised before it computed anything: unmasked, it did not happen. */
static bool prevented(const struct float_env *env)
{
    return env->flags & ~env->masks & (FE_I | FE_D | FE_Z);
}

/* Ends an operation that wrote (or would write) one register. True: it happened. */
static bool conclude(struct floating *f, const struct float_env *env)
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

/* --- arithmetic -------------------------------------------------------------------------------- */

static struct number compute(unsigned which, const struct number *a, const struct number *b, struct float_env *env)
{
    switch (which) {
    case 0:
        return number_add(*a, *b, false, env->precision, &format_extended, env);
    case 1:
        return number_multiply(*a, *b, env->precision, &format_extended, env);
    case 4:
        return number_add(*a, *b, true, env->precision, &format_extended, env);
    case 5:
        return number_add(*b, *a, true, env->precision, &format_extended, env);
    case 6:
        return number_divide(*a, *b, env->precision, &format_extended, env);
    default:
        return number_divide(*b, *a, env->precision, &format_extended, env);
    }
}

/* ST0 `which` b, into ST(to); then perhaps pops. `missing`: an operand is in an empty register. */
static void arithmetic(struct floating *f, unsigned which, const struct number *b, bool missing, unsigned to, bool pops)
{
    struct extended result = DEFAULT_NAN;
    if (missing) {
        if (!stack_fault(f, false))
            return;
    } else {
        struct float_env env = environment(f);
        struct number a = number_at(f, 0), computed = compute(which, &a, b, &env);
        if (!conclude(f, &env))
            return;
        result = pack_extended(&computed);
    }
    put(f, to, result);
    if (pops)
        pop(f);
}

enum { COMPARE_SIGNALS = 1 };

static enum ordering ordering_of(struct floating *f, const struct number *b, bool missing, bool signal, bool *happened)
{
    if (missing) {
        *happened = stack_fault(f, false);
        return UNORDERED;
    }
    struct float_env env = environment(f);
    struct number a = number_at(f, 0);
    enum ordering order = number_compare(&a, b, signal, &env);
    set_c1(f, false);
    raise_flags(f, env.flags);
    *happened = !prevented(&env);
    return prevented(&env) && env.flags & FE_I ? UNORDERED : order;
}

/* The condition codes are set also if an unmasked exception keeps the comparison from popping. */
static void compare(struct floating *f, const struct number *b, bool missing, bool signal, unsigned pops)
{
    static const uint16_t codes[] = {
        [LESS] = STATUS_C0, [EQUAL] = STATUS_C3, [GREATER] = 0, [UNORDERED] = STATUS_C0 | STATUS_C2 | STATUS_C3,
    };
    bool happened;
    enum ordering order = ordering_of(f, b, missing, signal, &happened);
    f->status = (uint16_t)((f->status & ~(STATUS_C0 | STATUS_C2 | STATUS_C3)) | codes[order]);
    if (!happened)
        return;
    while (pops-- > 0)
        pop(f);
}

enum { CF = 1, PF = 4, AF = 16, ZF = 64, SF = 128, OF = 2048 };

/* Likewise; C1 stays as it is. */
static void compare_to_eflags(struct vcpu *v, unsigned i, bool signal, bool pops)
{
    static const uint32_t flags[] = {[LESS] = CF, [EQUAL] = ZF, [GREATER] = 0, [UNORDERED] = CF | PF | ZF};
    struct floating *f = &v->floating;
    struct number b = number_at(f, i);
    uint16_t c1 = f->status & STATUS_C1;
    bool happened, missing = is_empty(f, 0) || is_empty(f, i);
    enum ordering order = ordering_of(f, &b, missing, signal, &happened);
    if (!missing)
        f->status = (uint16_t)((f->status & ~STATUS_C1) | c1);
    operand_set_eflags(v, flags[order], CF | PF | AF | ZF | SF | OF);
    if (happened && pops)
        pop(f);
}

/* Loads, that is, pushes; `flags` are those of the conversion. */
static void load(struct floating *f, struct extended value, const struct float_env *env)
{
    if (!is_empty(f, 7)) {
        if (stack_fault(f, true))
            push(f, DEFAULT_NAN);
        return;
    }
    raise_flags(f, env->flags);
    set_c1(f, false);
    if (!(env->flags & ~env->masks & FE_I))  /* a denormal is loaded first, and then told */
        push(f, value);
}

static void load_constant(struct floating *f, unsigned which)
{
    struct float_env env = environment(f);
    struct number n = {.class = ZERO};
    if (which == 0)
        n = unpack_integer(1);
    else if (which < 6)
        n = transcendental_constant((enum constant)(which - 1), env.rounding);
    load(f, pack_extended(&n), &env);
}

/* --- one operand: D9 E0..FF -------------------------------------------------------------------- */

static void examine(struct floating *f)
{
    static const uint16_t codes[] = {
        [ZERO] = STATUS_C3, [FINITE] = STATUS_C2, [INFINITE] = STATUS_C2 | STATUS_C0, [QUIET] = STATUS_C0,
        [SIGNALLING] = STATUS_C0, [UNSUPPORTED] = 0,
    };
    struct number n = number_at(f, 0);
    unsigned sign = st(f, 0)->se & 0x8000 ? STATUS_C1 : 0;
    if (is_empty(f, 0))
        set_codes(f, STATUS_C3 | STATUS_C0 | sign);
    else
        set_codes(f, (n.denormal ? STATUS_C3 | STATUS_C2 : codes[n.class]) | sign);
}

/*
 * The remainder of a / b, exact; `nearest`: of the nearest quotient (fprem1), else of the truncated one. If the
 * exponents differ by 64 or more, a is only reduced by part of the way (SDM leaves how far to the processor, 32 to 63
 * bits: here 32 + D mod 32, as processors do).
 */
struct number x87_remainder(const struct number *a, const struct number *b, bool nearest, uint64_t *quotient, bool *partial,
                            struct float_env *env)
{
    *quotient = 0;
    *partial = false;
    env->up = false;
    if (is_nan(a) || is_nan(b))
        return choose_nan(a, b, env);
    if (a->class == INFINITE || b->class == ZERO)
        return invalid_operation(env);
    if (a->denormal || b->denormal)
        env->flags |= FE_D;
    if (a->class == ZERO || b->class == INFINITE)
        return a->class == ZERO ? *a : round_number(a->sign, a->e, a->m, 0, 64, &format_extended, env);
    int32_t distance = a->e - b->e;
    if (distance < -1)
        return round_number(a->sign, a->e, a->m, 0, 64, &format_extended, env);
    int32_t steps = distance;
    if (distance >= 64) {
        *partial = true;
        steps = 32 + distance % 32;
    }
    /* In units of b's last bit (shifted by what is left to do): rest < 2 b, so one bit of room. */
    uint128 rest = a->m, divisor = b->m;
    uint64_t q = 0;
    if (distance < 0)
        divisor <<= 1;  /* a is below b: units of a's last bit */
    for (int32_t i = 0; i <= (steps > 0 ? steps : 0); i++) {
        if (i > 0)
            rest <<= 1;
        q <<= 1;
        if (rest >= divisor) {
            rest -= divisor;
            q |= 1;
        }
    }
    bool sign = a->sign;
    if (nearest && !*partial && (2 * rest > divisor || (2 * rest == divisor && q & 1))) {
        rest = divisor - rest;
        sign = !sign;
        q++;
    }
    *quotient = q;
    if (rest == 0)
        return (struct number){.sign = a->sign};
    int32_t unit = distance < 0 ? a->e : b->e + (*partial ? distance - steps : 0);
    unsigned shift = rest >> 64 ? 0 : leading_zeros((uint64_t)rest);
    if (rest >> 64)
        return round_number(sign, unit + 1, (uint64_t)(rest >> 1), (uint64_t)rest << 63, 64, &format_extended, env);
    return round_number(sign, unit - (int32_t)shift, (uint64_t)rest << shift, 0, 64, &format_extended, env);
}

static void remainder_of(struct floating *f, bool nearest)
{
    f->status &= (uint16_t)~STATUS_C2;
    if (is_empty(f, 0) || is_empty(f, 1)) {
        if (stack_fault(f, false))
            put(f, 0, DEFAULT_NAN);
        return;
    }
    struct float_env env = environment(f);
    struct number a = number_at(f, 0), b = number_at(f, 1);
    uint64_t q;
    bool partial;
    struct number result = x87_remainder(&a, &b, nearest, &q, &partial, &env);
    if (!conclude(f, &env))
        return;
    if (is_nan(&result) || partial)
        set_codes(f, partial ? STATUS_C2 : f->status & (STATUS_C0 | STATUS_C3));
    else
        set_codes(f, (q & 1 ? STATUS_C1 : 0) | (q & 2 ? STATUS_C3 : 0) | (q & 4 ? STATUS_C0 : 0));
    put(f, 0, pack_extended(&result));
}

/* a * 2^truncated b */
static struct number scale(const struct number *a, const struct number *b, struct float_env *env)
{
    if (is_nan(a) || is_nan(b))
        return choose_nan(a, b, env);
    if (b->class == INFINITE) {
        if ((a->class == INFINITE && b->sign) || (a->class == ZERO && !b->sign))
            return invalid_operation(env);
        if (a->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = a->sign, .class = b->sign ? ZERO : INFINITE};
    }
    if (a->denormal || b->denormal)
        env->flags |= FE_D;
    if (a->class != FINITE)
        return *a;
    int32_t by = 0;
    if (b->class == FINITE && b->e >= 0)
        by = b->e > 16 ? 0x1ffff : (int32_t)(b->m >> (63 - b->e));
    return round_number(a->sign, b->sign ? a->e - by : a->e + by, a->m, 0, 64, &format_extended, env);
}

static void replace(struct floating *f, const struct number *result, const struct float_env *env)
{
    if (conclude(f, env))
        put(f, 0, pack_extended(result));
}

/* fxtract: the exponent stays, the significand is pushed. */
static void extract(struct floating *f)
{
    if (is_empty(f, 0) || !is_empty(f, 7)) {
        if (stack_fault(f, !is_empty(f, 0))) {
            put(f, 0, DEFAULT_NAN);
            push(f, DEFAULT_NAN);
        }
        return;
    }
    struct float_env env = environment(f);
    struct number a = number_at(f, 0), exponent = a, significand = a;
    if (is_nan(&a)) {
        exponent = significand = choose_nan(&a, &a, &env);
    } else if (a.class == ZERO) {
        env.flags |= FE_Z;
        exponent = (struct number){.sign = true, .class = INFINITE};
    } else if (a.class == INFINITE) {
        exponent.sign = false;
    } else {
        if (a.denormal)
            env.flags |= FE_D;
        exponent = unpack_integer(a.e);
        significand.e = 0;
    }
    if (!conclude(f, &env))
        return;
    put(f, 0, pack_extended(&exponent));
    push(f, pack_extended(&significand));
}

static void circular(struct floating *f, unsigned rm)
{
    enum { TANGENT = 2, SINE_COSINE = 3, SINE = 6 };
    bool pushes = rm == TANGENT || rm == SINE_COSINE;
    f->status &= (uint16_t)~STATUS_C2;
    if (is_empty(f, 0) || (pushes && !is_empty(f, 7))) {
        if (stack_fault(f, !is_empty(f, 0))) {
            put(f, 0, DEFAULT_NAN);
            if (pushes)
                push(f, DEFAULT_NAN);
        }
        return;
    }
    struct float_env env = environment(f);
    struct number x = number_at(f, 0), first = x, second = unpack_integer(1);
    if (is_nan(&x)) {
        first = second = choose_nan(&x, &x, &env);
    } else if (x.class == INFINITE) {
        first = second = invalid_operation(&env);
    } else if (x.class == ZERO) {
        first = rm == 7 ? second : x;
    } else if (x.e >= 63) {
        set_c1(f, false);
        f->status |= STATUS_C2;
        return;
    } else if (rm == SINE_COSINE) {
        struct float_env other = env;
        transcendental_circular(&x, &first, NULL, NULL, &env);
        transcendental_circular(&x, NULL, &second, NULL, &other);
        env.flags |= other.flags;
        env.up = other.up;
    } else {
        transcendental_circular(&x, rm == SINE ? &first : NULL, rm == 7 ? &first : NULL, rm == TANGENT ? &first : NULL, &env);
    }
    if (!conclude(f, &env))
        return;
    put(f, 0, pack_extended(&first));
    if (pushes)
        push(f, pack_extended(&second));
}

static struct number log2_times(const struct number *y, const struct number *x, struct float_env *env)
{
    if (is_nan(x) || is_nan(y))
        return choose_nan(x, y, env);
    if (x->sign && x->class != ZERO)
        return invalid_operation(env);
    if (x->class == ZERO) {
        if (y->class == ZERO)
            return invalid_operation(env);
        if (y->class != INFINITE)
            env->flags |= FE_Z;
        else if (y->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = !y->sign, .class = INFINITE};
    }
    bool one = x->class == FINITE && x->e == 0 && x->m == UINT64_C(1) << 63, below = x->class == FINITE && x->e < 0;
    if (y->class == INFINITE) {
        if (one)
            return invalid_operation(env);
        if (x->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = y->sign ^ below, .class = INFINITE};
    }
    if (x->class == INFINITE) {
        if (y->class == ZERO)
            return invalid_operation(env);
        if (y->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = y->sign, .class = INFINITE};
    }
    if (y->class == ZERO || one) {
        if (x->denormal || y->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = y->sign ^ (below && !one)};
    }
    return transcendental_log2(y, x, env);
}

static struct number log2_plus_one_times(const struct number *y, const struct number *x, struct float_env *env)
{
    if (is_nan(x) || is_nan(y))
        return choose_nan(x, y, env);
    if (x->class == INFINITE) {
        if (x->sign || y->class == ZERO)
            return invalid_operation(env);
        if (y->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = y->sign, .class = INFINITE};
    }
    if (y->class == INFINITE) {
        if (x->class == ZERO)
            return invalid_operation(env);
        if (x->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = y->sign ^ x->sign, .class = INFINITE};
    }
    if (x->class == ZERO || y->class == ZERO) {
        if (x->denormal || y->denormal)
            env->flags |= FE_D;
        return (struct number){.sign = x->sign ^ y->sign};
    }
    if (x->sign && x->e >= 0) {  /* -1 and less: the manual leaves the result open */
        env->flags |= FE_P | (y->denormal ? FE_D : 0);
        return *x;
    }
    if (x->e >= 0)  /* beyond what the manual defines */
        env->flags |= FE_P;
    return transcendental_log2_plus_one(y, x, env);
}

/* fyl2x, fpatan, fyl2xp1: the result replaces ST1, ST0 is popped. */
static void two_operands(struct floating *f, unsigned which)
{
    if (is_empty(f, 0) || is_empty(f, 1)) {
        if (stack_fault(f, false)) {
            put(f, 1, DEFAULT_NAN);
            pop(f);
        }
        return;
    }
    struct float_env env = environment(f);
    struct number x = number_at(f, 0), y = number_at(f, 1), result;
    if (which == 1)
        result = log2_times(&y, &x, &env);
    else if (which == 9)
        result = log2_plus_one_times(&y, &x, &env);
    else if (is_nan(&x) || is_nan(&y))
        result = choose_nan(&x, &y, &env);
    else
        result = transcendental_arc_tangent(&y, &x, &env);
    if (!conclude(f, &env))
        return;
    put(f, 1, pack_extended(&result));
    pop(f);
}

static void exponential(struct floating *f, struct number *a, struct float_env *env)
{
    struct number result = *a;
    if (is_nan(a))
        result = choose_nan(a, a, env);
    else if (a->class == INFINITE)
        result = a->sign ? (struct number){.m = UINT64_C(1) << 63, .sign = true, .class = FINITE} : *a;
    else if (a->class == FINITE)
        result = transcendental_exponential(a, env);
    replace(f, &result, env);
}

/* D9 E0 to D9 FF */
static void one_operand(struct floating *f, uint8_t modrm)
{
    unsigned which = modrm & 31;
    if (which >= 8 && which <= 14) {
        load_constant(f, which - 8);
        return;
    }
    switch (which) {
    case 0x05:
        examine(f);
        return;
    case 0x16: case 0x17:  /* fdecstp, fincstp */
        f->top = (f->top + (which == 0x17 ? 1 : 7)) & 7;
        set_c1(f, false);
        return;
    case 0x18: case 0x15:
        remainder_of(f, which == 0x15);
        return;
    case 0x14:
        extract(f);
        return;
    case 0x12: case 0x1b: case 0x1e: case 0x1f:
        circular(f, which & 7);
        return;
    case 0x11: case 0x13: case 0x19:
        two_operands(f, which & 15);
        return;
    default:
        break;
    }
    if (is_empty(f, 0) || (which == 0x1d && is_empty(f, 1))) {
        if (which == 0x04)
            compare(f, NULL, true, true, 0);
        else if (stack_fault(f, false))
            put(f, 0, DEFAULT_NAN);
        return;
    }
    struct float_env env = environment(f);
    struct number a = number_at(f, 0), b, result;
    switch (which) {
    case 0x00: case 0x01:  /* fchs, fabs: any bits */
        st(f, 0)->se = which == 0 ? st(f, 0)->se ^ 0x8000 : st(f, 0)->se & 0x7fff;
        set_c1(f, false);
        break;
    case 0x04:
        b = (struct number){.class = ZERO};
        compare(f, &b, false, true, 0);
        break;
    case 0x10:
        exponential(f, &a, &env);
        break;
    case 0x1a:
        result = number_sqrt(a, env.precision, &format_extended, &env);
        replace(f, &result, &env);
        break;
    case 0x1c:
        result = number_to_integral(&a, &env);
        replace(f, &result, &env);
        break;
    default:
        b = number_at(f, 1);
        result = scale(&a, &b, &env);
        replace(f, &result, &env);
        break;
    }
}

/* --- loads and stores -------------------------------------------------------------------------- */

static enum ending load_operand(struct vcpu *v, uint32_t address, const char *kind, struct number *n)
{
    uint16_t word;
    uint32_t doubleword;
    uint64_t quadword;
    switch (*kind) {
    case 's':
        TRY(operand_read(v, address, &doubleword, 4));
        *n = unpack_single(doubleword);
        break;
    case 'd':
        TRY(operand_read(v, address, &quadword, 8));
        *n = unpack_double(quadword);
        break;
    case 'w':
        TRY(operand_read(v, address, &word, 2));
        *n = unpack_integer((int16_t)word);
        break;
    case 'l':
        TRY(operand_read(v, address, &doubleword, 4));
        *n = unpack_integer((int32_t)doubleword);
        break;
    default:
        TRY(operand_read(v, address, &quadword, 8));
        *n = unpack_integer((int64_t)quadword);
        break;
    }
    return DONE;
}

static enum ending load_converted(struct vcpu *v, uint32_t address, const char *kind)
{
    struct floating *f = &v->floating;
    struct number n;
    TRY(load_operand(v, address, kind, &n));
    struct float_env env = environment(f);
    if (is_nan(&n))
        n = choose_nan(&n, &n, &env);
    else if (n.denormal)
        env.flags |= FE_D;
    load(f, pack_extended(&n), &env);
    return DONE;
}

static enum ending load_extended(struct vcpu *v, uint32_t address)
{
    struct extended value;
    uint8_t bytes[10];
    TRY(operand_read(v, address, bytes, 10));
    memcpy(&value.m, bytes, 8);
    memcpy(&value.se, bytes + 8, 2);
    struct float_env env = environment(&v->floating);
    load(&v->floating, value, &env);
    return DONE;
}

/* An unmasked exception prevents a store: AMD's processors still look whether it could be made, Intel's do not. */
static enum ending probe_prevented(struct vcpu *v, uint32_t address, uint32_t size)
{
    return v->floating.is_amd ? operand_probe_write(v, address, size) : DONE;
}

/*
 * Writes `size` bytes, then takes the flags and pops. Page faults come first: nothing has changed then. Prevented by an
 * unmasked exception, a store is not inexact (SDM vol. 1, 8.5.4, 8.5.5).
 */
static inline enum ending store(struct vcpu *v, uint32_t address, const void *bytes, uint32_t size, const struct float_env *env,
                         unsigned preventing, bool pops)
{
    struct floating *f = &v->floating;
    if (UNLIKELY(env->flags & ~env->masks & preventing)) {
        TRY(probe_prevented(v, address, size));
        raise_flags(f, env->flags & preventing);
        set_c1(f, false);
        return DONE;
    }
    TRY(operand_write(v, address, bytes, size));
    raise_flags(f, env->flags);
    set_c1(f, env->up);
    if (pops)
        pop(f);
    return DONE;
}

/* A store of an empty register: the masked response stores `bytes`. */
static enum ending store_missing(struct vcpu *v, uint32_t address, const void *bytes, uint32_t size, bool pops)
{
    struct floating *f = &v->floating;
    if (!(f->control & FE_I)) {
        TRY(probe_prevented(v, address, size));
        stack_fault(f, false);
        return DONE;
    }
    TRY(operand_write(v, address, bytes, size));
    stack_fault(f, false);
    if (pops)
        pop(f);
    return DONE;
}

static enum ending store_float(struct vcpu *v, uint32_t address, bool is_double, bool pops)
{
    struct floating *f = &v->floating;
    struct float_env env = environment(f);
    struct number n = number_at(f, 0);
    if (is_empty(f, 0)) {
        uint64_t bits = is_double ? UINT64_C(0xfff8000000000000) : 0xffc00000;
        return store_missing(v, address, &bits, is_double ? 8 : 4, pops);
    }
    n.denormal = false;  /* not reported by stores */
    n = number_convert(n, is_double ? &format_double : &format_single, &env);
    if (is_double) {
        uint64_t bits = pack_double(&n);
        return store(v, address, &bits, 8, &env, FE_I | FE_O | FE_U, pops);
    }
    uint32_t bits = pack_single(&n);
    return store(v, address, &bits, 4, &env, FE_I | FE_O | FE_U, pops);
}

static enum ending store_extended(struct vcpu *v, uint32_t address)
{
    struct floating *f = &v->floating;
    struct float_env env = environment(f);
    struct extended value = is_empty(f, 0) ? DEFAULT_NAN : *st(f, 0);
    uint8_t bytes[10];
    memcpy(bytes, &value.m, 8);
    memcpy(bytes + 8, &value.se, 2);
    if (is_empty(f, 0))
        return store_missing(v, address, bytes, 10, true);
    return store(v, address, bytes, 10, &env, 0, true);
}

static enum ending store_integer(struct vcpu *v, uint32_t address, unsigned bits, bool truncate, bool pops)
{
    struct floating *f = &v->floating;
    struct float_env env = environment(f);
    struct number n = number_at(f, 0);
    int64_t value = (int64_t)(UINT64_MAX << (bits - 1));
    if (is_empty(f, 0))
        return store_missing(v, address, &value, bits / 8, pops);
    value = number_to_integer(&n, bits, truncate ? ROUND_ZERO : (enum rounding)env.rounding, &env);
    return store(v, address, &value, bits / 8, &env, FE_I, pops);
}

static enum ending load_decimal(struct vcpu *v, uint32_t address)
{
    uint8_t bytes[10];
    int64_t value = 0;
    TRY(operand_read(v, address, bytes, 10));
    for (int i = 8; i >= 0; i--)
        value = value * 100 + (bytes[i] >> 4) * 10 + (bytes[i] & 15);
    struct number n = unpack_integer(value);
    n.sign = bytes[9] >> 7;
    struct float_env env = environment(&v->floating);
    load(&v->floating, pack_extended(&n), &env);
    return DONE;
}

static enum ending store_decimal(struct vcpu *v, uint32_t address)
{
    static const uint8_t indefinite[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};
    const int64_t most = INT64_C(999999999999999999);
    struct floating *f = &v->floating;
    struct float_env env = environment(f);
    struct number n = number_at(f, 0);
    uint8_t bytes[10];
    if (is_empty(f, 0))
        return store_missing(v, address, indefinite, 10, true);
    int64_t value = number_to_integer(&n, 64, env.rounding, &env);
    if (value > most || value < -most) {
        env.flags = FE_I;
        env.up = false;
    }
    memcpy(bytes, indefinite, 10);
    if (!(env.flags & FE_I)) {
        uint64_t rest = (uint64_t)(value < 0 ? -value : value);
        for (int i = 0; i < 9; i++, rest /= 100)
            bytes[i] = (uint8_t)((rest / 10 % 10) << 4 | rest % 10);
        bytes[9] = n.sign ? 0x80 : 0;
    }
    return store(v, address, bytes, 10, &env, FE_I, true);
}

/* --- state ------------------------------------------------------------------------------------- */

static void initialize(struct floating *f)
{
    f->control = INITIAL_CONTROL;
    f->status = f->opcode = f->cs = f->ds = 0;
    f->ip = f->dp = 0;
    f->top = f->valid = 0;
}

static uint16_t status_word(const struct floating *f)
{
    return (uint16_t)(f->status | f->top << 11);
}

static void set_status_word(struct floating *f, uint16_t word)
{
    f->top = word >> 11 & 7;
    f->status = word & 0xc7ff;
    summarize(f);
}

static uint16_t tag_word(const struct floating *f)
{
    uint16_t tags = 0;
    for (int i = 0; i < 8; i++) {
        struct number n = unpack_extended(f->st[i]);
        unsigned tag = !(f->valid >> i & 1) ? 3 : n.class == ZERO ? 1 : n.class == FINITE && !n.denormal ? 0 : 2;
        tags |= (uint16_t)(tag << 2 * i);
    }
    return tags;
}

static void set_tag_word(struct floating *f, uint16_t tags)
{
    f->valid = 0;
    for (int i = 0; i < 8; i++)
        f->valid |= (uint8_t)(((tags >> 2 * i & 3) != 3) << i);
}

/* The environment as fnstenv stores it: protected mode, 32 or 16 bits (SDM vol. 1, 8.1.10). Returns its bytes. */
static uint32_t environment_image(const struct floating *f, bool narrow, uint8_t *image)
{
    if (narrow) {
        uint16_t words[7] = {f->control, status_word(f), tag_word(f), (uint16_t)f->ip, f->cs, (uint16_t)f->dp, f->ds};
        memcpy(image, words, sizeof words);
        return sizeof words;
    }
    const uint32_t ones = 0xffff0000;
    uint32_t words[7] = {ones | f->control, ones | status_word(f), ones | tag_word(f), f->ip,
                         f->cs | (uint32_t)f->opcode << 16, f->dp, ones | f->ds};
    memcpy(image, words, sizeof words);
    return sizeof words;
}

static void load_environment(struct floating *f, bool narrow, const uint8_t *image)
{
    uint16_t half[14];
    memcpy(half, image, narrow ? 14 : 28);
    unsigned step = narrow ? 1 : 2;
    f->control = (half[0] & 0x1f7f) | 0x40;
    set_tag_word(f, half[2 * step]);
    f->ip = half[3 * step] | (narrow ? 0 : (uint32_t)half[7] << 16);
    f->cs = half[4 * step];
    f->opcode = narrow ? 0 : half[9] & 0x7ff;
    f->dp = half[5 * step] | (narrow ? 0 : (uint32_t)half[11] << 16);
    f->ds = half[6 * step];
    set_status_word(f, half[step]);
}

static enum ending store_environment(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[28];
    TRY(operand_write(v, address, image, environment_image(&v->floating, op->operand16, image)));
    v->floating.control |= FE_ALL;
    summarize(&v->floating);
    return DONE;
}

static enum ending restore_environment(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[28];
    TRY(operand_read(v, address, image, op->operand16 ? 14 : 28));
    load_environment(&v->floating, op->operand16, image);
    return DONE;
}

static enum ending save_all(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[108];
    struct floating *f = &v->floating;
    uint32_t size = environment_image(f, op->operand16, image);
    for (unsigned i = 0; i < 8; i++, size += 10) {
        memcpy(image + size, &st(f, i)->m, 8);
        memcpy(image + size + 8, &st(f, i)->se, 2);
    }
    TRY(operand_write(v, address, image, size));
    initialize(f);
    return DONE;
}

static enum ending restore_all(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[108];
    struct floating *f = &v->floating;
    uint32_t size = op->operand16 ? 14 : 28;
    TRY(operand_read(v, address, image, size + 80));
    load_environment(f, op->operand16, image);
    for (unsigned i = 0; i < 8; i++, size += 10) {
        memcpy(&st(f, i)->m, image + size, 8);
        memcpy(&st(f, i)->se, image + size + 8, 2);
    }
    return DONE;
}

/* AMD processors save the pointers to the last instruction only with an exception pending (APM vol. 2, 11.4.4). */
enum ending fxsave(struct vcpu *v, const struct operation *op)
{
    struct fxsave_area area;
    uint32_t address = operand_address(v, op);
    if (address & 15)
        return raise_vector(v, VECTOR_GP);
    TRY(operand_probe_write(v, address, sizeof area));
    floating_save(v, &area);
    if (features_are_amds(&v->machine->features) && !(v->floating.status & STATUS_ES)) {
        area.opcode = area.cs = area.ds = 0;
        area.ip = area.dp = 0;
    }
    return operand_write(v, address, &area, offsetof(struct fxsave_area, rest));
}

enum ending fxrstor(struct vcpu *v, const struct operation *op)
{
    struct fxsave_area area;
    uint32_t address = operand_address(v, op);
    if (address & 15)
        return raise_vector(v, VECTOR_GP);
    TRY(operand_read(v, address, &area, sizeof area));
    if (area.mxcsr & ~(uint32_t)MXCSR_MASK)
        return raise_vector(v, VECTOR_GP);
    floating_load(v, &area);
    summarize(&v->floating);
    if (UNLIKELY(fpu_must_show(&v->fpu, &v->floating)))
        fpu_write_pending(v);
    return DONE;
}

/* --- decoding ---------------------------------------------------------------------------------- */

static enum ending control_operand(struct vcpu *v, const struct operation *op, uint32_t address, unsigned which)
{
    struct floating *f = &v->floating;
    uint16_t word;
    switch (which) {
    case 4:
        return restore_environment(v, op, address);
    case 5:
        TRY(operand_read(v, address, &word, 2));
        f->control = (word & 0x1f7f) | 0x40;
        summarize(f);
        return DONE;
    case 6:
        return store_environment(v, op, address);
    default:
        return operand_write(v, address, &f->control, 2);
    }
}

static enum ending memory_form(struct vcpu *v, const struct operation *op, uint32_t address)
{
    static const char kinds[4] = {'s', 'l', 'd', 'w'};
    struct floating *f = &v->floating;
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    if (!(row & 1)) {
        struct number n;
        TRY(load_operand(v, address, &kinds[row >> 1], &n));
        if ((reg & 6) == 2)
            compare(f, &n, is_empty(f, 0), true, reg & 1);
        else
            arithmetic(f, reg, &n, is_empty(f, 0), 0, false);
        return DONE;
    }
    switch (row << 3 | reg) {
    case 010: return load_converted(v, address, "s");
    case 012: case 013: return store_float(v, address, false, reg & 1);
    case 014: case 015: case 016: case 017: return control_operand(v, op, address, reg);
    case 030: return load_converted(v, address, "l");
    case 031: return store_integer(v, address, 32, true, true);
    case 032: case 033: return store_integer(v, address, 32, false, reg & 1);
    case 035: return load_extended(v, address);
    case 037: return store_extended(v, address);
    case 050: return load_converted(v, address, "d");
    case 051: return store_integer(v, address, 64, true, true);
    case 052: case 053: return store_float(v, address, true, reg & 1);
    case 054: return restore_all(v, op, address);
    case 056: return save_all(v, op, address);
    case 057: {
        uint16_t word = status_word(f);
        return operand_write(v, address, &word, 2);
    }
    case 070: return load_converted(v, address, "w");
    case 071: return store_integer(v, address, 16, true, true);
    case 072: case 073: return store_integer(v, address, 16, false, reg & 1);
    case 074: return load_decimal(v, address);
    case 075: return load_converted(v, address, "q");
    case 076: return store_decimal(v, address);
    case 077: return store_integer(v, address, 64, false, true);
    default: return raise_vector(v, VECTOR_UD);
    }
}

static void exchange(struct floating *f, unsigned i)
{
    if (is_empty(f, 0) || is_empty(f, i)) {
        if (!stack_fault(f, false))
            return;
        if (is_empty(f, 0))
            put(f, 0, DEFAULT_NAN);
        if (is_empty(f, i))
            put(f, i, DEFAULT_NAN);
    } else {
        set_c1(f, false);
    }
    struct extended first = *st(f, 0);
    *st(f, 0) = *st(f, i);
    *st(f, i) = first;
}

static void load_register(struct floating *f, unsigned i)
{
    bool missing = is_empty(f, i);
    struct float_env env = environment(f);
    if (missing) {
        if (stack_fault(f, false))
            push(f, DEFAULT_NAN);
        return;
    }
    load(f, *st(f, i), &env);
}

static void store_register(struct floating *f, unsigned i, bool pops)
{
    struct extended value = *st(f, 0);
    if (is_empty(f, 0)) {
        if (!stack_fault(f, false))
            return;
        value = DEFAULT_NAN;
    } else {
        set_c1(f, false);
    }
    put(f, i, value);
    if (pops)
        pop(f);
}

/* fstpnouflow, D9 D8+i: of an empty register it is but a pop (APM vol. 3, table A-15). */
static void store_without_underflow(struct floating *f, unsigned i)
{
    if (!is_empty(f, 0))
        put(f, i, *st(f, 0));
    set_c1(f, false);
    pop(f);
}

static bool condition(struct vcpu *v, unsigned which)
{
    uint32_t flags = operand_eflags(v);
    static const uint32_t masks[4] = {CF, ZF, CF | ZF, PF};
    return (flags & masks[which]) != 0;
}

static void conditional_move(struct vcpu *v, unsigned i, bool moves)
{
    struct floating *f = &v->floating;
    if (is_empty(f, 0) || is_empty(f, i)) {
        if (stack_fault(f, false))
            put(f, 0, DEFAULT_NAN);
        return;
    }
    if (moves)
        *st(f, 0) = *st(f, i);
}

static enum ending register_form(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    unsigned reg = op->modrm >> 3 & 7, i = op->modrm & 7, row = op->opcode & 7;
    bool missing = is_empty(f, 0) || is_empty(f, i);
    struct number b = number_at(f, i);
    if (row == 0 || row == 4 || row == 6) {
        if ((reg & 6) == 2)
            compare(f, &b, missing, true, row == 6 ? 1 + (reg & 1) : reg & 1);
        else
            arithmetic(f, reg, &b, missing, row == 0 ? 0 : i, row == 6);
        return DONE;
    }
    switch (row << 3 | reg) {
    case 010: load_register(f, i); return DONE;
    case 011: case 051: case 071: exchange(f, i); return DONE;
    case 012: return DONE;  /* fnop */
    case 013: store_without_underflow(f, i); return DONE;
    case 053: case 072: case 073: store_register(f, i, true); return DONE;
    case 052: store_register(f, i, false); return DONE;
    case 014: case 015: case 016: case 017:
        one_operand(f, op->modrm);
        return DONE;
    case 020: case 021: case 022: case 023: conditional_move(v, i, condition(v, reg)); return DONE;
    case 030: case 031: case 032: case 033: conditional_move(v, i, !condition(v, reg)); return DONE;
    case 025: compare(f, &b, missing, false, 2); return DONE;
    case 034:
        if (i == 2)
            f->status &= 0x7f00;
        else if (i == 3)
            initialize(f);
        return DONE;
    case 035: compare_to_eflags(v, i, false, false); return DONE;
    case 036: compare_to_eflags(v, i, true, false); return DONE;
    case 075: compare_to_eflags(v, i, false, true); return DONE;
    case 076: compare_to_eflags(v, i, true, true); return DONE;
    case 050: case 070:
        f->valid &= (uint8_t)~(1 << ((f->top + i) & 7));
        set_c1(f, false);
        if (row == 7)
            pop(f);
        return DONE;
    case 054: case 055: compare(f, &b, missing, false, reg & 1); return DONE;
    case 074:
        operand_set_general(v, 0, (operand_general(v, 0) & 0xffff0000) | status_word(f));
        return DONE;
    default: return raise_vector(v, VECTOR_UD);
    }
}

enum ending x87_check_pending(struct vcpu *v)
{
    return v->floating.status & STATUS_ES ? raise_vector(v, VECTOR_MF) : DONE;
}

/* Whether there is no such instruction: #UD comes before what is pending (SDM vol. 3, table 6-2). */
static bool is_reserved(const struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7, low = op->modrm & 63;
    if (op->memory)
        return (row == 1 && reg == 1) || (row == 3 && (reg == 4 || reg == 6)) || (row == 5 && reg == 5);
    switch (row) {
    case 1: return (reg == 2 && low != 020) || low == 042 || low == 043 || low == 046 || low == 047 || low == 057;
    case 2: return reg >= 4 && low != 051;
    case 3: return (reg == 4 && low > 044) || reg == 7;
    case 5: return reg >= 6;
    case 6: return reg == 3 && low != 031;
    case 7: return (reg == 4 && low != 040) || reg == 7;
    default: return false;
    }
}

static enum ending refuse(struct vcpu *v, const struct operation *op)
{
    (void)op;
    return raise_vector(v, VECTOR_UD);
}

/* fnclex, fninit, fnstsw, fnstcw, fnstenv, fnsave and the like: they do not wait, and are not remembered. */
void x87_classify(struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    op->execute = is_reserved(op) ? refuse : x87_execute;
    if (op->memory) {
        op->control = (row == 1 && reg >= 4) || (row == 5 && (reg == 4 || reg >= 6));
        op->waits = !(op->control && reg >= 6);
    } else {
        op->control = (row == 3 && reg == 4) || (row == 7 && reg == 4);
        op->waits = !op->control;
    }
}

/* What comes before anything of a memory operand, its segment included (SDM vol. 3, table 6-2). */
enum ending x87_begin(struct vcpu *v, const struct operation *op)
{
    if (op->execute == refuse)
        return refuse(v, op);
    return op->waits ? x87_check_pending(v) : DONE;
}

enum ending x87_execute(struct vcpu *v, const struct operation *op)
{
    if (op->waits)
        TRY(x87_check_pending(v));
    struct floating *f = &v->floating;
    uint32_t address = op->memory ? operand_address(v, op) : 0;
    TRY(op->memory ? memory_form(v, op, address) : register_form(v, op));
    if (UNLIKELY(fpu_must_show(&v->fpu, &v->floating)))
        fpu_write_pending(v);
    if (!op->control) {
        f->ip = op->eip;
        f->cs = segments_selector(&v->segments, X86_CS);
        f->opcode = (uint16_t)((op->opcode & 7) << 8 | op->modrm);
        if (op->memory) {
            f->dp = operand_offset(v, op);
            f->ds = segments_selector(&v->segments, op->segment);
        }
    }
    return DONE;
}
