/* See softfloat.h. */
#include "softfloat.h"


/* By how much the exponent of an x87 result is moved when an overflow or underflow is not masked (SDM vol. 1, 8.5.4). */
#define EXPONENT_ADJUSTMENT 24576

/* dividend / divisor for a divisor with bit 63 set and a quotient below 2^64: two digits of 32 bits. */
static uint64_t divide_narrow(uint64_t high, uint64_t low, uint64_t divisor, uint64_t *remainder)
{
    const uint64_t digit = UINT64_C(1) << 32;
    uint64_t d1 = divisor >> 32, d0 = divisor & 0xffffffff, q[2];
    uint64_t parts[2] = {low >> 32, low & 0xffffffff};
    for (int i = 0; i < 2; i++) {
        uint64_t estimate = high / d1, rest = high - estimate * d1;
        while (estimate >= digit || estimate * d0 > (rest << 32 | parts[i])) {
            estimate--;
            rest += d1;
            if (rest >= digit)
                break;
        }
        high = (high << 32 | parts[i]) - estimate * divisor;
        q[i] = estimate;
    }
    *remainder = high;
    return q[0] << 32 | q[1];
}

uint64_t divide_significands(uint64_t a, uint64_t b, uint64_t *below)
{
    bool whole = a >= b;
    uint64_t remainder, quotient = divide_narrow(whole ? a >> 1 : a, whole ? a << 63 : 0, b, &remainder), twice = remainder << 1;
    /* Only whether it is half a unit, more, or less counts. */
    bool over_half = remainder >> 63 || twice >= b;
    *below = (uint64_t)over_half << 63 | (remainder != 0 && twice != b);
    return quotient;
}

/* The divisor has bit 63 set. */
uint128 divide_128_by_64(uint128 dividend, uint64_t divisor, uint64_t *remainder)
{
    uint64_t high = (uint64_t)(dividend >> 64), top = high >= divisor;
    if (top)
        high -= divisor;
    return (uint128)top << 64 | divide_narrow(high, (uint64_t)dividend, divisor, remainder);
}

/* --- formats ----------------------------------------------------------------------------------- */

/* Of a number just unpacked: a denormal is shifted back. */
struct extended pack_exact(const struct number *n)
{
    struct number copy = *n;
    if (n->class == FINITE && n->e < format_extended.emin) {
        copy.m >>= format_extended.emin - n->e;
        copy.e = format_extended.emin;
    }
    return pack_extended(&copy);
}

/* --- rounding ---------------------------------------------------------------------------------- */

static bool rounds_up(bool sign, bool odd, bool half, bool rest, enum rounding rounding)
{
    switch (rounding) {
    case ROUND_NEAREST:
        return half && (rest || odd);
    case ROUND_DOWN:
        return sign && (half || rest);
    case ROUND_UP:
        return !sign && (half || rest);
    default:
        return false;
    }
}

/* Rounds m.below to `bits` bits of m. Returns whether that was inexact; *carry: m became 2^64, and is 2^63 now. */
static bool round_significand(bool sign, uint64_t *m, uint64_t below, unsigned bits, enum rounding rounding, bool *up,
                              bool *carry)
{
    unsigned drop = 64 - bits;
    uint64_t unit = UINT64_C(1) << drop, dropped = *m & (unit - 1);
    bool half = drop ? dropped >> (drop - 1) : below >> 63;
    bool rest = drop ? (dropped & ((unit >> 1) - 1)) != 0 || below != 0 : (below << 1) != 0;
    bool kept_odd = (*m & unit) != 0;
    *m -= dropped;
    *carry = false;
    *up = rounds_up(sign, kept_odd, half, rest, rounding);
    if (*up) {
        *m += unit;
        if (*m == 0) {
            *m = INTEGER_BIT;
            *carry = true;
        }
    }
    return half || rest;
}

static struct number overflow(bool sign, unsigned bits, const struct format *format, struct float_env *env)
{
    bool to_infinity = env->rounding == ROUND_NEAREST || env->rounding == (sign ? ROUND_DOWN : ROUND_UP);
    env->flags |= FE_O | FE_P;
    env->up = to_infinity;
    if (to_infinity)
        return (struct number){.sign = sign, .class = INFINITE};
    return (struct number){.m = UINT64_MAX << (64 - bits), .e = format->emax, .sign = sign, .class = FINITE};
}

static struct number underflow(bool sign, int32_t e, uint64_t m, uint64_t below, unsigned bits,
                               const struct format *format, struct float_env *env)
{
    bool up, carry;
    if (env->ftz && env->masks & FE_U) {
        env->flags |= FE_U | FE_P;
        return (struct number){.sign = sign};
    }
    uint128 wide = shift_right_sticky((uint128)m << 64 | below, (unsigned)(format->emin - e));
    m = (uint64_t)(wide >> 64);
    bool inexact = round_significand(sign, &m, (uint64_t)wide, bits, env->rounding, &up, &carry);
    env->up = up;
    if (inexact)
        env->flags |= FE_P;
    if (inexact || !(env->masks & FE_U))
        env->flags |= FE_U;
    if (m == 0)
        return (struct number){.sign = sign};
    return (struct number){.m = m, .e = format->emin, .sign = sign, .class = FINITE};
}

struct number round_in_general(bool sign, int32_t e, uint64_t m, uint64_t below, unsigned bits, const struct format *format,
                           struct float_env *env)
{
    bool up, carry;
    uint64_t rounded = m;
    bool inexact = round_significand(sign, &rounded, below, bits, env->rounding, &up, &carry);
    int32_t exponent = e + carry;
    /* Not masked, an x87 register gets the result with another exponent; SSE gets none, but the same flags. */
    bool keeps_exponent = env->sse || format->bits == format_extended.bits;
    if (exponent < format->emin) {
        if (env->masks & FE_U || !keeps_exponent)
            return underflow(sign, e, m, below, bits, format, env);
        env->flags |= FE_U;
        exponent += EXPONENT_ADJUSTMENT;
        if (exponent < format->emin) {
            env->flags |= FE_P;
            env->up = false;
            return (struct number){.sign = sign};
        }
    } else if (exponent > format->emax) {
        if (env->masks & FE_O || !keeps_exponent)
            return overflow(sign, bits, format, env);
        env->flags |= FE_O;
        exponent -= EXPONENT_ADJUSTMENT;
        if (exponent > format->emax) {
            env->flags |= FE_P;
            env->up = true;
            return (struct number){.sign = sign, .class = INFINITE};
        }
    }
    env->up = up;
    if (inexact)
        env->flags |= FE_P;
    return (struct number){.m = rounded, .e = exponent, .sign = sign, .class = FINITE};
}

/* --- operands ---------------------------------------------------------------------------------- */

struct number invalid_operation(struct float_env *env)
{
    env->flags |= FE_I;
    return (struct number){.m = INTEGER_BIT | QUIET_BIT, .sign = true, .class = QUIET};
}

static struct number quieted(struct number n)
{
    n.m |= QUIET_BIT | INTEGER_BIT;
    n.class = QUIET;
    return n;
}

/* SDM vol. 1, table 4-7. */
struct number choose_nan(const struct number *a, const struct number *b, struct float_env *env)
{
    if (a->class == UNSUPPORTED || b->class == UNSUPPORTED)
        return invalid_operation(env);
    bool a_signals = a->class == SIGNALLING, b_signals = b->class == SIGNALLING;
    if (a_signals || b_signals)
        env->flags |= FE_I;
    if (!is_nan(b) || (env->sse && is_nan(a)))
        return quieted(*a);
    if (!is_nan(a))
        return quieted(*b);
    if (a_signals != b_signals)
        return a_signals ? *b : *a;
    uint64_t ma = a->m | QUIET_BIT, mb = b->m | QUIET_BIT;
    if (a_signals)
        ma = a->m, mb = b->m;
    if (ma != mb)
        return quieted(ma > mb ? *a : *b);
    return quieted(a->sign ? *b : *a);
}

/* Denormals, as far as they are ones: an operand with which the result is not settled before. */
static void note_denormals(struct number *a, struct number *b, struct float_env *env)
{
    if (a->denormal || b->denormal)
        env->flags |= FE_D;
}

static struct number signed_zero(bool sign)
{
    return (struct number){.sign = sign};
}

static struct number infinity(bool sign)
{
    return (struct number){.sign = sign, .class = INFINITE};
}

/* An operand as it is, in the precision of the operation. */
static struct number round_operand(const struct number *a, unsigned bits, const struct format *format,
                                   struct float_env *env)
{
    return round_number(a->sign, a->e, a->m, 0, bits, format, env);
}

struct number number_add(struct number a, struct number b, bool subtract, unsigned bits, const struct format *format,
                         struct float_env *env)
{
    env->up = false;
    if (is_nan(&a) || is_nan(&b))
        return choose_nan(&a, &b, env);
    b.sign ^= subtract;
    if (a.class == INFINITE && b.class == INFINITE && a.sign != b.sign)
        return invalid_operation(env);
    note_denormals(&a, &b, env);
    if (a.class == INFINITE)
        return infinity(a.sign);
    if (b.class == INFINITE)
        return infinity(b.sign);
    if (a.class == ZERO && b.class == ZERO)
        return signed_zero(a.sign == b.sign ? a.sign : env->rounding == ROUND_DOWN);
    if (a.class == ZERO)
        return round_operand(&b, bits, format, env);
    if (b.class == ZERO)
        return round_operand(&a, bits, format, env);
    if (a.e < b.e || (a.e == b.e && a.m < b.m)) {
        struct number swap = a;
        a = b;
        b = swap;
    }
    /* One bit of room for the carry. */
    uint128 large = (uint128)a.m << 63, small = shift_right_sticky((uint128)b.m << 63, (unsigned)(a.e - b.e));
    uint128 sum = a.sign == b.sign ? large + small : large - small;
    if (sum == 0)
        return signed_zero(env->rounding == ROUND_DOWN);
    uint64_t high = (uint64_t)(sum >> 64);
    unsigned shift = high != 0 ? leading_zeros(high) : 64 + leading_zeros((uint64_t)sum);
    sum <<= shift;
    return round_number(a.sign, a.e + 1 - (int32_t)shift, (uint64_t)(sum >> 64), (uint64_t)sum, bits, format, env);
}

struct number number_multiply(struct number a, struct number b, unsigned bits, const struct format *format,
                              struct float_env *env)
{
    env->up = false;
    if (is_nan(&a) || is_nan(&b))
        return choose_nan(&a, &b, env);
    bool sign = a.sign ^ b.sign;
    if ((a.class == INFINITE && b.class == ZERO) || (a.class == ZERO && b.class == INFINITE))
        return invalid_operation(env);
    note_denormals(&a, &b, env);
    if (a.class == INFINITE || b.class == INFINITE)
        return infinity(sign);
    if (a.class == ZERO || b.class == ZERO)
        return signed_zero(sign);
    uint128 product = (uint128)a.m * b.m;
    int32_t e = a.e + b.e + 1;
    if (!(product >> 127)) {
        product <<= 1;
        e--;
    }
    return round_number(sign, e, (uint64_t)(product >> 64), (uint64_t)product, bits, format, env);
}

struct number number_divide(struct number a, struct number b, unsigned bits, const struct format *format,
                            struct float_env *env)
{
    env->up = false;
    if (is_nan(&a) || is_nan(&b))
        return choose_nan(&a, &b, env);
    bool sign = a.sign ^ b.sign;
    if ((a.class == INFINITE && b.class == INFINITE) || (a.class == ZERO && b.class == ZERO))
        return invalid_operation(env);
    if (b.class == ZERO && a.class != INFINITE) {
        env->flags |= FE_Z;  /* a denormal dividend is not looked at */
        return infinity(sign);
    }
    note_denormals(&a, &b, env);
    if (a.class == INFINITE)
        return infinity(sign);
    if (a.class == ZERO || b.class == INFINITE)
        return signed_zero(sign);
    uint64_t below, quotient = divide_significands(a.m, b.m, &below);
    int32_t e = a.m >= b.m ? a.e - b.e : a.e - b.e - 1;
    return round_number(sign, e, quotient, below, bits, format, env);
}

/*
 * The integer square root of x, and what is left of x. x >= 2^126. The host's root is a guess, whatever its last bits; the
 * integers decide.
 */
static uint64_t square_root(uint128 x, uint128 *rest)
{
    double guess = __builtin_elementwise_sqrt((double)(uint64_t)(x >> 64)) * 0x1p32;
    uint64_t root = guess < 0x1p64 ? (uint64_t)guess : UINT64_MAX;
    for (int i = 0; i < 2; i++) {  /* Newton: each doubles the right bits, which are 50 at first */
        uint128 square = (uint128)root * root;
        bool above = square > x;
        uint128 error = above ? square - x : x - square;
        uint64_t by = (uint64_t)(error >> 32) / (root >> 31);  /* error / (2 root) */
        root = above ? root - by : by > UINT64_MAX - root ? UINT64_MAX : root + by;
    }
    uint128 square = (uint128)root * root;
    while (square > x) {
        root--;
        square -= 2 * (uint128)root + 1;
    }
    while (x - square > 2 * (uint128)root) {
        square += 2 * (uint128)root + 1;
        root++;
    }
    *rest = x - square;
    return root;
}

uint64_t root_of_significand(uint64_t m, bool twice, uint64_t *below)
{
    uint128 rest;
    uint64_t root = square_root((uint128)m << (twice ? 64 : 63), &rest);
    /* (root + 1/2)^2 = root^2 + root + 1/4: never met exactly */
    *below = (uint64_t)(rest > root) << 63 | (rest != 0);
    return root;
}

struct number number_sqrt(struct number a, unsigned bits, const struct format *format, struct float_env *env)
{
    env->up = false;
    if (is_nan(&a))
        return choose_nan(&a, &a, env);
    if (a.class == ZERO)
        return a;
    if (a.sign)
        return invalid_operation(env);
    if (a.class == INFINITE)
        return a;
    if (a.denormal)
        env->flags |= FE_D;
    uint64_t below, root = root_of_significand(a.m, a.e & 1, &below);
    return round_number(false, a.e >> 1, root, below, bits, format, env);
}

struct number number_convert(struct number a, const struct format *format, struct float_env *env)
{
    env->up = false;
    if (is_nan(&a))
        return choose_nan(&a, &a, env);
    if (a.class != FINITE)
        return a;
    if (a.denormal)
        env->flags |= FE_D;
    return round_operand(&a, format->bits, format, env);
}

enum ordering number_compare(const struct number *a, const struct number *b, bool signal, struct float_env *env)
{
    if (is_nan(a) || is_nan(b)) {
        if (signal || a->class > QUIET || b->class > QUIET)
            env->flags |= FE_I;
        return UNORDERED;
    }
    if (a->denormal || b->denormal)
        env->flags |= FE_D;
    if (a->class == ZERO && b->class == ZERO)
        return EQUAL;
    bool a_negative = a->sign && a->class != ZERO, b_negative = b->sign && b->class != ZERO;
    if (a_negative != b_negative)
        return a_negative ? LESS : GREATER;
    int larger;  /* by magnitude */
    if (a->class != b->class)
        larger = a->class > b->class ? 1 : -1;
    else if (a->class == INFINITE)
        larger = 0;
    else if (a->e != b->e)
        larger = a->e > b->e ? 1 : -1;
    else
        larger = a->m > b->m ? 1 : a->m < b->m ? -1 : 0;
    if (larger == 0)
        return EQUAL;
    return (larger > 0) != a_negative ? GREATER : LESS;
}

/* |a| rounded to an integer below 2^64; false if it is not below. */
static bool integer_magnitude(const struct number *a, enum rounding rounding, uint64_t *magnitude, bool *inexact, bool *up)
{
    *inexact = *up = false;
    if (a->e > 63)
        return false;
    uint128 wide = shift_right_sticky((uint128)a->m << 64, (unsigned)(63 - a->e));
    uint64_t whole = (uint64_t)(wide >> 64), below = (uint64_t)wide;
    *inexact = below != 0;
    *up = rounds_up(a->sign, whole & 1, below >> 63, (below << 1) != 0, rounding);
    *magnitude = whole + *up;
    return !(*up && *magnitude == 0);
}

int64_t number_to_integer(const struct number *a, unsigned bits, enum rounding rounding, struct float_env *env)
{
    const int64_t indefinite = (int64_t)(UINT64_MAX << (bits - 1));
    uint64_t magnitude = 0, most = UINT64_C(1) << (bits - 1);
    bool inexact = false, up = false;
    env->up = false;
    if (a->class == ZERO)
        return 0;
    if (a->class != FINITE || !integer_magnitude(a, rounding, &magnitude, &inexact, &up)
        || magnitude > most - !a->sign) {
        env->flags |= FE_I;
        return indefinite;
    }
    if (inexact)
        env->flags |= FE_P;
    env->up = up;
    return (int64_t)(a->sign ? 0 - magnitude : magnitude);
}

struct number number_to_integral(const struct number *a, struct float_env *env)
{
    uint64_t magnitude;
    bool inexact, up;
    env->up = false;
    if (is_nan(a))
        return choose_nan(a, a, env);
    if (a->class != FINITE)
        return *a;
    if (a->denormal)
        env->flags |= FE_D;
    if (a->e >= 63)
        return *a;
    integer_magnitude(a, env->rounding, &magnitude, &inexact, &up);
    if (inexact)
        env->flags |= FE_P;
    env->up = up;
    if (magnitude == 0)
        return signed_zero(a->sign);
    return normal_or_denormal(a->sign, 63, magnitude, false);
}
