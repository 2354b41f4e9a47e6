/*
 * x87 instructions with their operands in ST0 and ST1: D9 E0 to D9 FF. Transcendentals are in transcendental.c.
 *
 * Ref: Intel SDM vol. 1, 8.3.7 to 8.3.10; vol. 2, the instructions (tables of special operands).
 */
#include "x87.h"

#include <stddef.h>

#include "softfloat.h"
#include "transcendental.h"

static void load_constant(struct floating *f, unsigned which)
{
    struct float_env env = x87_environment(f);
    struct number n = {.class = ZERO};
    if (which == 0)
        n = unpack_integer(1);
    else if (which < 6)
        n = transcendental_constant((enum constant)(which - 1), env.rounding);
    x87_load(f, pack_extended(&n), &env);
}

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
static struct number exact_remainder(const struct number *a, const struct number *b, bool nearest, uint64_t *quotient, bool *partial,
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
    struct float_env env = x87_environment(f);
    struct number a = number_at(f, 0), b = number_at(f, 1);
    uint64_t q;
    bool partial;
    struct number result = exact_remainder(&a, &b, nearest, &q, &partial, &env);
    if (!x87_conclude(f, &env))
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
    if (x87_conclude(f, env))
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
    struct float_env env = x87_environment(f);
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
    if (!x87_conclude(f, &env))
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
    struct float_env env = x87_environment(f);
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
    if (!x87_conclude(f, &env))
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
    struct float_env env = x87_environment(f);
    struct number x = number_at(f, 0), y = number_at(f, 1), result;
    if (which == 1)
        result = log2_times(&y, &x, &env);
    else if (which == 9)
        result = log2_plus_one_times(&y, &x, &env);
    else if (is_nan(&x) || is_nan(&y))
        result = choose_nan(&x, &y, &env);
    else
        result = transcendental_arc_tangent(&y, &x, &env);
    if (!x87_conclude(f, &env))
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

void x87_function(struct floating *f, uint8_t modrm)
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
            x87_compare(f, NULL, true, true, 0);
        else if (stack_fault(f, false))
            put(f, 0, DEFAULT_NAN);
        return;
    }
    struct float_env env = x87_environment(f);
    struct number a = number_at(f, 0), b, result;
    switch (which) {
    case 0x00: case 0x01:  /* fchs, fabs: any bits */
        st(f, 0)->se = which == 0 ? st(f, 0)->se ^ 0x8000 : st(f, 0)->se & 0x7fff;
        set_c1(f, false);
        break;
    case 0x04:
        b = (struct number){.class = ZERO};
        x87_compare(f, &b, false, true, 0);
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
