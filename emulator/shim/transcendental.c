/*
 * The transcendental functions of the x87, in integers: 128 bits of significand, rounded once to 64.
 *
 * Argument reduction. Sine, cosine and tangent reduce modulo pi/2 with the pi that x87 hardware has, of 66 fraction
 * bits (SDM vol. 1, 8.3.8): the remainder is exact, and arguments near multiples of pi give what that pi gives.
 * The others reduce by table: atan((t - c) / (1 + t c)) = atan(t) - atan(c) with c the multiple of 1/32 next to t;
 * log2(m) = log2(m b / 64) - log2(b / 64) with b / 64 next to 1 / m. What is left is summed as a series: sine, cosine
 * and exponential by Taylor, arc tangent and logarithm (as 2 artanh(r / (2 + r))) by their odd series.
 *
 * Errors: each step loses a few units of 2^-127, the sum of a logarithm's parts of 2^-110; together well below 2^-100
 * of the result, before it is rounded.
 */
#include "transcendental.h"

#include <stddef.h>

#define WIDE(high, low) ((uint128)(UINT64_C(high)) << 64 | UINT64_C(low))
#define ONE ((uint128)1 << 127)  /* fixed point: 127 bits behind the point */

/* m / 2^127 * 2^e; bit 127 of m is set, but for zero. */
struct wide {
    uint128 m;
    int32_t e;
};

#define LN2 WIDE(0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af)
#define LOG2_E WIDE(0xb8aa3b295c17f0bb, 0xbe87fed0691d3e89)
#define PI WIDE(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)

/* atan(k / 32), fixed point */
static const uint128 arc_tangents[33] = {
    WIDE(0x0000000000000000, 0x0000000000000000),
    WIDE(0x03ffaab7752ec495, 0x09de75ddb76a3188),
    WIDE(0x07fd56edcb3f7a71, 0xb6593c96e071706b),
    WIDE(0x0bf70c1301788746, 0x093567e784cf8367),
    WIDE(0x0feadd4d5617b6e3, 0x2c897989f3e888ef),
    WIDE(0x13d6eee8c6626c58, 0x68ec33a4a06c1fd1),
    WIDE(0x17b97b4bce5b0226, 0x8f6169f103938e91),
    WIDE(0x1b90d7529260a204, 0x5ec434b8396aa5e0),
    WIDE(0x1f5b75f92c80dd62, 0xadb8f3debef442fd),
    WIDE(0x2317eb4617e2f04c, 0x3291d22c6fe20a63),
    WIDE(0x26c4ee6e0fd7979a, 0x716aed26349ebcca),
    WIDE(0x2a615b32a39a93b6, 0xa66dfddefdf67a30),
    WIDE(0x2dec3283c9bde11c, 0xe2a8c848b73f9121),
    WIDE(0x31649a7294364adb, 0x685d1ba47d428a37),
    WIDE(0x34c9dd879847f96d, 0x909f257a40079c4e),
    WIDE(0x381b69929d93df19, 0xf18c7b659e632e01),
    WIDE(0x3b58ce0ac3769ed1, 0x5bf9117b2f0ea341),
    WIDE(0x3e81ba16a8282f97, 0x19b48f1f57723b31),
    WIDE(0x4195fa536cc33f15, 0x25b504e5b0d28ae0),
    WIDE(0x4495766fef4aa3da, 0x84a23c7e2395a57e),
    WIDE(0x47802eaf7bfacfcd, 0xae41af0b32e21ba4),
    WIDE(0x4a563964c238c37b, 0x0c6279c9fbc5197c),
    WIDE(0x4d17c07338deed10, 0x21137c711027f9de),
    WIDE(0x4fc4fee27a5bd0f6, 0x7c5a4932278380f0),
    WIDE(0x525e3e8c9a7b8492, 0x0cd43f9522bed64f),
    WIDE(0x54e3d5ee24187ae4, 0x48b5425adf3c99fb),
    WIDE(0x5756261c5a6c6040, 0x0a392f179f290385),
    WIDE(0x59b598e48f821b48, 0xac80a0ba22317c9d),
    WIDE(0x5c029f15e118cf39, 0xe596d2a90852221f),
    WIDE(0x5e3daef574c57940, 0x6a0898037407d948),
    WIDE(0x606742dc56293320, 0x44eeb16237497d12),
    WIDE(0x627fd7fd5fc7deaa, 0x465a1e885e4f0111),
    WIDE(0x6487ed5110b4611a, 0x62633145c06e0e69),
};

/* |log2(b / 64)| for b from FIRST_LOGARITHM, fixed point */
enum { FIRST_LOGARITHM = 42 };
static const uint128 logarithms[] = {
    WIDE(0x4dc88aedc1d1ee96, 0x9a95f528f2c754f4),
    WIDE(0x497028118efabeb7, 0xd7220e04ebb0e2a4),
    WIDE(0x4531583f9a2be203, 0x8283ccdf555594a0),
    WIDE(0x410af52e69f26263, 0xcd9cfff75e149b95),
    WIDE(0x3cfbebfca715669d, 0xf6a2b59276887aac),
    WIDE(0x39033b85a8bfc871, 0x2bb1588cc9e47f8e),
    WIDE(0x351ff2e30214bc30, 0x2ffa76fafcba2917),
    WIDE(0x315130157f7a64cc, 0xd536fc5bec1a57b9),
    WIDE(0x2d961ed0cb91d406, 0xdb502402c94092cd),
    WIDE(0x29edf7659d8b30f1, 0xc9d0b5ca5a8e7bb6),
    WIDE(0x2657fdc6e1dcd0cb, 0x4492f1bc6b3e5771),
    WIDE(0x22d380a6c7e2b0e4, 0x6a1f00babcdb8b0a),
    WIDE(0x1f5fd8a9063e3490, 0x8fef64f0f62e7b46),
    WIDE(0x1bfc67a7fff4cc06, 0xf02bdee0b9f5de07),
    WIDE(0x18a8980abfbd3266, 0x6a9b7e2df60d2bdc),
    WIDE(0x1563dc29ffacb20c, 0x8720de5377caf325),
    WIDE(0x122dadc2ab3496d2, 0xd23af3271ce44c70),
    WIDE(0x0f058d74797eab32, 0x59d2c6d9213f3f84),
    WIDE(0x0beb024b67dda633, 0x9da288fc615a727e),
    WIDE(0x08dd9953002a4e86, 0x631514aef39ce630),
    WIDE(0x05dce53276563557, 0x7970e03f821c75d6),
    WIDE(0x02e87dd0c3e6aac6, 0xca906c23ef817e0b),
    WIDE(0x0000000000000000, 0x0000000000000000),
    WIDE(0x02dcf2d0b85a4531, 0x4dc4fc4230215f29),
    WIDE(0x05aeb4dd63bf61cc, 0x4d81bc25adf04248),
    WIDE(0x08759c4fd14fcd59, 0xe7ba5d5ccc90b833),
    WIDE(0x0b31fb7d64898b3e, 0x6629c130a22bad62),
    WIDE(0x0de4212056d5dd31, 0xd962d3728cbd5c3d),
    WIDE(0x108c588cda79e396, 0x27bc6fd0a5528abd),
    WIDE(0x132ae9e278ae1a1f, 0x51f2c075a74ba64e),
    WIDE(0x15c01a39fbd6879f, 0xa00b120a068badd1),
    WIDE(0x184c2bd02f03b2fd, 0xd2248ee763a9570f),
    WIDE(0x1acf5e2db4ec93ef, 0xe11ecbc0183634b5),
    WIDE(0x1d49ee4c32596fc8, 0xf4b565023a05441c),
    WIDE(0x1fbc16b902680a23, 0xa8d998a784ef35f2),
    WIDE(0x22260fb5a616eb96, 0x12e0b4f2b49d3f83),
    WIDE(0x24880f561c0e7304, 0x8b72974898077f78),
    WIDE(0x26e2499d499bd9b3, 0x2266d92c0fdc8c37),
    WIDE(0x2934f0979a3715fc, 0x9257edfe9b5fb69a),
    WIDE(0x2b803473f7ad0f3f, 0x401624140d175ba2),
    WIDE(0x2dc4439b3a19bcaf, 0x1aa41689ee078886),
    WIDE(0x30014ac62c38a865, 0x5d6c13e9bef5911b),
    WIDE(0x323775123e2e1169, 0x656a0ad70d38ab0c),
    WIDE(0x3466ec14fec0a13a, 0xf881af2f3d8b63fc),
    WIDE(0x368fd7ee71054148, 0x28ddf1fb144f1d5c),
};

/* (a * b) >> 127; the product must be below 2^255. */
static uint128 times(uint128 a, uint128 b)
{
    uint64_t a1 = (uint64_t)(a >> 64), a0 = (uint64_t)a, b1 = (uint64_t)(b >> 64), b0 = (uint64_t)b;
    uint128 low = (uint128)a0 * b0, middle = (uint128)a1 * b0, other = (uint128)a0 * b1, high = (uint128)a1 * b1;
    uint128 carry = (low >> 64) + (uint64_t)middle + (uint64_t)other;
    high += (middle >> 64) + (other >> 64) + (carry >> 64);
    return high << 1 | ((uint64_t)carry >> 63);
}

/* (high * 2^64 + low) / b for high < b and bit 127 of b set: one digit of 64 bits of a quotient (Knuth, TAOCP vol. 2, 4.3.1). */
static uint64_t quotient_digit(uint128 high, uint64_t low, uint128 b, uint128 *rest)
{
    uint64_t b1 = (uint64_t)(b >> 64), b0 = (uint64_t)b, digit = UINT64_MAX, unused;
    if ((uint64_t)(high >> 64) < b1)
        digit = (uint64_t)divide_128_by_64(high, b1, &unused);
    uint128 left = high - (uint128)digit * b1;
    while (left >> 64 == 0 && (uint128)digit * b0 > (left << 64 | low)) {
        digit--;
        left += b1;
    }
    *rest = (left << 64 | low) - (uint128)digit * b0;
    return digit;
}

/* a * 2^127 / b for a < b, bit 127 of b set. */
static uint128 divide_wide(uint128 a, uint128 b)
{
    uint128 rest;
    uint64_t high = quotient_digit(a >> 1, (uint64_t)a << 63, b, &rest);
    return (uint128)high << 64 | quotient_digit(rest, 0, b, &rest);
}

static unsigned wide_zeros(uint128 x)
{
    uint64_t high = (uint64_t)(x >> 64);
    return high != 0 ? leading_zeros(high) : 64 + leading_zeros((uint64_t)x);
}

static struct wide normalize(uint128 m, int32_t e)
{
    unsigned shift = wide_zeros(m);
    return m == 0 ? (struct wide){0, 0} : (struct wide){m << shift, e - (int32_t)shift};
}

/* As fixed point; it must be below 2. */
static uint128 fixed(struct wide x)
{
    return x.e <= -128 ? 0 : x.m >> -x.e;
}

static struct wide wide_times(struct wide a, struct wide b)
{
    return normalize(times(a.m >> 1, b.m), a.e + b.e + 1);
}

static struct wide wide_of(const struct number *n)
{
    return (struct wide){(uint128)n->m << 64, n->e};
}

static struct wide wide_quotient(struct wide a, struct wide b)
{
    return normalize(divide_wide(a.m >> 1, b.m), a.e - b.e + 1);
}

/* The results are irrational, so what follows the 128 bits is never zero. */
static struct number rounded(bool sign, struct wide x, struct float_env *env)
{
    return round_number(sign, x.e, (uint64_t)(x.m >> 64), (uint64_t)x.m | 1, 64, &format_extended, env);
}

static void note_denormal(const struct number *x, struct float_env *env)
{
    if (x->denormal)
        env->flags |= FE_D;
}

/* --- 2^x - 1 ----------------------------------------------------------------------------------- */

enum { EXPONENTIAL_TERMS = 32, CIRCULAR_TERMS = 15, ODD_TERMS = 12 };

/* 1 / n and 1 / (n (n + 1)), fixed point: what the series divide by. */
#define RECIPROCAL(n) (ONE / (n))
#define RECIPROCAL_OF_PAIR(n) (ONE / ((n) * ((n) + 1)))
#define FOUR(X, n) X(n), X((n) + 1), X((n) + 2), X((n) + 3)
#define ALL(X) FOUR(X, 1), FOUR(X, 5), FOUR(X, 9), FOUR(X, 13), FOUR(X, 17), FOUR(X, 21), FOUR(X, 25), FOUR(X, 29)
static const uint128 reciprocals[33] = {0, ALL(RECIPROCAL)}, pair_reciprocals[33] = {0, ALL(RECIPROCAL_OF_PAIR)};

struct number transcendental_exponential(const struct number *x, struct float_env *env)
{
    env->up = false;
    note_denormal(x, env);
    if (x->e > 0 || (x->e == 0 && x->m != UINT64_C(1) << 63)) {  /* the manual leaves the result open */
        env->flags |= FE_P;
        return *x;
    }
    if (x->e == 0) {  /* 1 or -1/2 */
        struct number result = *x;
        result.e = x->sign ? -1 : 0;
        return result;
    }
    struct wide y = wide_times(wide_of(x), (struct wide){LN2, -1});
    uint128 step = fixed(y), sum = ONE;
    for (uint32_t k = EXPONENTIAL_TERMS; k >= 2; k--) {
        uint128 term = times(times(step, sum), reciprocals[k]);
        sum = x->sign ? ONE - term : ONE + term;
    }
    return rounded(x->sign, wide_times(y, normalize(sum, 0)), env);
}

/* --- logarithms -------------------------------------------------------------------------------- */

/* s + s^3/3 + s^5/5 ..., or with alternating signs, for s up to 1/32. */
static struct wide odd_series(struct wide s, bool alternate)
{
    uint128 square = fixed(wide_times(s, s)), sum = reciprocals[2 * ODD_TERMS + 1];
    for (int k = ODD_TERMS - 1; k >= 0; k--) {
        uint128 term = times(square, sum), whole = reciprocals[2 * k + 1];
        sum = alternate ? whole - term : whole + term;
    }
    return wide_times(s, normalize(sum, 0));
}

/* |log2(1 + r)|, or of 1 - r, for r up to 1/32; precise relative to r. */
static struct wide log2_near_one(struct wide r, bool negative)
{
    uint128 half = fixed(r) >> 1, divisor = negative ? ONE - half : ONE + half;
    struct wide s = wide_quotient((struct wide){r.m, r.e - 1}, normalize(divisor, 0));  /* r / (2 + r) */
    struct wide artanh = odd_series(s, false);
    artanh.e++;
    return wide_times(artanh, (struct wide){LOG2_E, 0});
}

__extension__ typedef __int128 int128;
enum { SUM_BITS = 110 };  /* behind the point, for sums of parts of a logarithm */

/* log2 of m / 2^127 * 2^e and its sign; never called for 1. */
static struct wide log2_of(uint128 m, int32_t e, bool *negative)
{
    if (m >> 126 == 3) {  /* 1.5 and more: 0.75 and more of the next power */
        m >>= 1;
        e++;
    }
    uint32_t in_64ths = (uint32_t)(m >> 121), b = (8192 + in_64ths) / (2 * in_64ths + 1);
    if (in_64ths == 63)
        b = 64;  /* just below 1: nothing must cancel */
    uint128 product = (m >> 6) * b;
    bool below = product < ONE;
    struct wide r = normalize(below ? ONE - product : product - ONE, 0), rest = {0, 0};
    if (r.m != 0)
        rest = log2_near_one(r, below);
    if (e == 0 && b == 64) {
        *negative = below;
        return rest;
    }
    int128 sum = (int128)e * ((int128)1 << SUM_BITS);
    int128 part = (int128)(fixed(rest) >> (127 - SUM_BITS)), constant = (int128)(logarithms[b - FIRST_LOGARITHM] >> (127 - SUM_BITS));
    sum += (below ? -part : part) + (b > 64 ? -constant : constant);
    *negative = sum < 0;
    return normalize((uint128)(sum < 0 ? -sum : sum), 127 - SUM_BITS);
}

struct number transcendental_log2(const struct number *y, const struct number *x, struct float_env *env)
{
    bool negative;
    env->up = false;
    if (x->m == UINT64_C(1) << 63) {  /* a power of two: exact */
        struct number power = unpack_integer(x->e);
        note_denormal(x, env);
        return number_multiply(*y, power, 64, &format_extended, env);
    }
    note_denormal(x, env);
    note_denormal(y, env);
    struct wide log2 = log2_of((uint128)x->m << 64, x->e, &negative);
    return rounded(y->sign ^ negative, wide_times(log2, wide_of(y)), env);
}

struct number transcendental_log2_plus_one(const struct number *y, const struct number *x, struct float_env *env)
{
    bool negative = x->sign;
    struct wide r = wide_of(x), log2;
    env->up = false;
    note_denormal(x, env);
    note_denormal(y, env);
    if (x->e < -7) {
        log2 = log2_near_one(r, negative);
    } else {
        struct wide sum;
        if (x->e >= 0) {  /* the sum's exponent is that of x, or one more */
            uint128 one = x->e < 127 ? ONE >> x->e : 0;
            sum = negative ? normalize(r.m - one, x->e) : normalize((r.m >> 1) + (one >> 1), x->e + 1);
        } else {
            sum = normalize(negative ? ONE - fixed(r) : ONE + fixed(r), 0);
        }
        if (sum.m == ONE) {  /* 1 + x is a power of two */
            struct number power = unpack_integer(sum.e);
            return number_multiply(*y, power, 64, &format_extended, env);
        }
        log2 = log2_of(sum.m, sum.e, &negative);
    }
    return rounded(y->sign ^ negative, wide_times(log2, wide_of(y)), env);
}

/* --- arc tangent ------------------------------------------------------------------------------- */

/* atan(a / b) for 0 < a <= b. */
static struct wide arc_tangent_of_quotient(struct wide a, struct wide b)
{
    if (a.e == b.e && a.m == b.m)
        return (struct wide){PI, -1};
    struct wide t = wide_quotient(a, b);
    if (t.e < -70) {  /* t - t^3/3: less than t by less than its 128 bits tell */
        t.m--;
        return t;
    }
    uint128 value = fixed(t);
    uint32_t k = (uint32_t)((value + (ONE >> 6)) >> 122);
    if (k == 0)
        return odd_series(t, true);
    uint128 c = (uint128)k << 122;
    bool below = value < c;
    uint128 divisor = ONE + times(value, c);
    struct wide r = normalize(divide_wide(below ? c - value : value - c, divisor), 0);
    uint128 rest = r.m == 0 ? 0 : fixed(odd_series(r, true));
    return normalize(below ? arc_tangents[k] - rest : arc_tangents[k] + rest, 0);
}

/* quarters * pi/4 */
static struct wide quarters_of_pi(uint32_t quarters)
{
    return quarters == 3 ? normalize((PI >> 2) * 3, 1) : (struct wide){PI, quarters == 4 ? 1 : quarters == 2 ? 0 : -1};
}

struct number transcendental_arc_tangent(const struct number *y, const struct number *x, struct float_env *env)
{
    env->up = false;
    note_denormal(x, env);
    note_denormal(y, env);
    bool y_infinite = y->class == INFINITE, x_infinite = x->class == INFINITE;
    if (y_infinite || x_infinite || y->class == ZERO || x->class == ZERO) {
        bool steep = y_infinite || (x->class == ZERO && y->class != ZERO);
        if (!steep && !x->sign)
            return (struct number){.sign = y->sign};
        uint32_t quarters = !steep ? 4 : !x_infinite ? 2 : x->sign ? 3 : 1;
        return rounded(y->sign, quarters_of_pi(quarters), env);
    }
    struct wide a = wide_of(y), b = wide_of(x), angle;
    bool steep = a.e > b.e || (a.e == b.e && a.m > b.m);
    angle = steep ? arc_tangent_of_quotient(b, a) : arc_tangent_of_quotient(a, b);
    if (steep || x->sign) {
        /* 125 bits behind the point: pi/2 or pi, plus or minus the angle. */
        uint128 turn = steep ? PI >> 2 : PI >> 1, part = fixed(angle) >> 2;
        bool minus = steep != x->sign;
        angle = normalize(minus ? turn - part : turn + part, 2);
    }
    return rounded(y->sign, angle, env);
}

/* --- sine, cosine, tangent --------------------------------------------------------------------- */

/* x = q * pi/2 + r, |r| <= pi/4; q modulo 4. */
static struct wide reduce(const struct number *x, uint32_t *q, bool *negative)
{
    /* pi/2 and x as multiples of 2^-67. */
    const uint128 half_pi = (uint128)0xc << 64 | UINT64_C(0x90fdaa22168c234c);
    *q = 0;
    *negative = false;
    if (x->e < -4)
        return wide_of(x);
    uint128 rest = 0;
    if (x->e + 4 <= 64) {
        /* Half pi without its lowest bits gives a quotient that is too large by one at most. */
        uint64_t unused;
        rest = (uint128)x->m << (x->e + 4);
        uint64_t quotient = (uint64_t)divide_128_by_64(rest >> 4, (uint64_t)(half_pi >> 4), &unused);
        quotient -= (uint128)quotient * half_pi > rest;
        rest -= quotient * half_pi;
        *q = quotient & 3;
    } else {  /* x = m * 2^(e + 4) has up to 130 bits: bit by bit */
        for (int32_t bit = x->e + 67; bit >= 0; bit--) {
            int32_t place = bit - (x->e + 4);
            rest = rest << 1 | (place >= 0 ? x->m >> place & 1 : 0);
            *q <<= 1;
            if (rest >= half_pi) {
                rest -= half_pi;
                *q |= 1;
            }
        }
    }
    if (rest > half_pi >> 1) {
        rest = half_pi - rest;
        *negative = true;
        ++*q;
    }
    *q &= 3;
    return normalize(rest, 127 - 67);
}

/* 1 - s/(k (k+1)) (1 - s/((k+2) (k+3)) (...)), below 1 whatever s is. */
static uint128 alternating_series(uint128 square, int first)
{
    uint128 sum = ONE;
    for (int k = first + 2 * CIRCULAR_TERMS; k >= first; k -= 2) {
        uint128 term = times(times(square, sum), pair_reciprocals[k]);
        sum = ONE - (term != 0 ? term : 1);
    }
    return sum;
}

void transcendental_circular(const struct number *x, struct number *sine, struct number *cosine, struct number *tangent,
                             struct float_env *env)
{
    uint32_t q;
    bool negative;
    env->up = false;
    note_denormal(x, env);
    struct wide r = reduce(x, &q, &negative);
    uint128 square = fixed(wide_times(r, r));
    bool odd = q & 1, s_sign = negative ^ (q >= 2), c_sign = q == 1 || q == 2;
    struct wide s = {0, 0}, c = {0, 0};
    if (tangent != NULL || (odd ? cosine : sine) != NULL)
        s = wide_times(r, normalize(alternating_series(square, 2), 0));
    if (tangent != NULL || (odd ? sine : cosine) != NULL)
        c = normalize(alternating_series(square, 1), 0);
    if (tangent != NULL) {
        struct wide t = odd ? wide_quotient(c, s) : r.e < -40 ? r : wide_quotient(s, c);
        *tangent = rounded(x->sign ^ negative ^ odd, t, env);
    }
    if (sine != NULL)
        *sine = odd ? rounded(x->sign ^ (q >= 2), c, env) : rounded(x->sign ^ s_sign, s, env);
    if (cosine != NULL)
        *cosine = odd ? rounded((q == 1) ^ negative, s, env) : rounded(c_sign, c, env);
}

/* --- constants --------------------------------------------------------------------------------- */

static struct number constant(enum constant which, enum rounding rounding)
{
    static const struct {
        uint128 m;
        int32_t e;
    } values[] = {
        {WIDE(0xd49a784bcd1b8afe, 0x492bf6ff4dafdb4d), 1}, {LOG2_E, 0}, {PI, 1}, {WIDE(0x9a209a84fbcff798, 0x8f8959ac0b7c9178), -2}, {LN2, -1},
    };
    struct float_env env = {.rounding = (uint8_t)rounding, .precision = 64, .masks = FE_ALL};
    return rounded(false, (struct wide){values[which].m, values[which].e}, &env);
}

struct number transcendental_constant(enum constant which, enum rounding rounding)
{
    static struct number known[5][4];
    struct number *n = &known[which][rounding];
    if (n->class == ZERO)
        *n = constant(which, rounding);
    return *n;
}
