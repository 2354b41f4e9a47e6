/*
 * Binary floating point in integers: the same bits on every host, with the exceptions that x86 reports.
 *
 * All formats (single, double, double extended) are unpacked into one form, computed there exactly or with
 * a sticky bit, and rounded once. Nothing here depends on the host's floating point.
 *
 * Ref: Intel SDM vol. 1, 4.2 (formats), 4.8 (rounding, NaNs), 4.9 (exceptions), 8.3 and 8.5 (x87), 11.5 (SSE).
 */
#ifndef L4LAB_SOFTFLOAT_H
#define L4LAB_SOFTFLOAT_H

#include <stdbool.h>
#include <stdint.h>

__extension__ typedef unsigned __int128 uint128;
__extension__ typedef __int128 int128;

/* Exceptions: bits of the x87 status word and of MXCSR. */
enum { FE_I = 1, FE_D = 2, FE_Z = 4, FE_O = 8, FE_U = 16, FE_P = 32, FE_ALL = 63 };

/* Rounding, as the RC fields encode it. */
enum rounding { ROUND_NEAREST, ROUND_DOWN, ROUND_UP, ROUND_ZERO };

struct float_env {
    uint8_t rounding;  /* enum rounding */
    uint8_t precision; /* bits of an x87 result: 24, 53, 64 */
    uint8_t masks;     /* of FE_ALL: exceptions that are masked */
    bool daz, ftz;     /* SSE: denormal operands are zeros; tiny results are */
    bool sse;          /* which NaN of two, and what an unmasked underflow gives */
    uint8_t flags;     /* raised so far */
    bool up;           /* the last rounding went away from zero */
};

enum number_class { ZERO, FINITE, INFINITE, QUIET, SIGNALLING, UNSUPPORTED };

/* (-1)^sign * m / 2^63 * 2^e, if FINITE; bit 63 of m is set then. NaNs: m is the significand as in extended format. */
struct number {
    uint64_t m;
    int32_t e;
    bool sign;
    bool denormal;
    uint8_t class;  /* enum number_class */
};

struct extended {
    uint64_t m;
    uint16_t se;  /* sign and biased exponent */
};

#define DEFAULT_NAN ((struct extended){UINT64_C(0xc000000000000000), 0xffff})
#define EXTENDED_BIAS 16383

struct format {
    uint8_t bits;  /* of the significand, the leading one included */
    int32_t emin, emax;
};
static const struct format format_single = {24, -126, 127}, format_double = {53, -1022, 1023},
                           format_extended = {64, -16382, 16383};

static inline unsigned leading_zeros(uint64_t x)
{
    return x == 0 ? 64 : (unsigned)__builtin_clzll(x);
}

/* (high * 2^64 + low) >> by, what is shifted out collected in the lowest bit. */
static inline uint128 shift_right_sticky(uint128 x, unsigned by)
{
    if (by == 0)
        return x;
    if (by >= 128)
        return x != 0;
    return x >> by | ((x << (128 - by)) != 0);
}

/* a / b, both with bit 63 set, so shifted that the quotient has it too; and what lies below that, collected in its lowest
   bit. */
uint64_t divide_significands(uint64_t a, uint64_t b, uint64_t *below);

/* The same of the square root of m, or of 2 m. */
uint64_t root_of_significand(uint64_t m, bool twice, uint64_t *below);

uint128 divide_128_by_64(uint128 dividend, uint64_t divisor, uint64_t *remainder);

#define INTEGER_BIT (UINT64_C(1) << 63)
#define QUIET_BIT (UINT64_C(1) << 62)

static inline struct number normal_or_denormal(bool sign, int32_t e, uint64_t m, bool denormal)
{
    unsigned shift = leading_zeros(m);
    return (struct number){.m = m << shift, .e = e - (int32_t)shift, .sign = sign, .class = FINITE, .denormal = denormal};
}

static inline struct number special(bool sign, uint64_t fraction)
{
    struct number n = {.m = fraction | INTEGER_BIT, .sign = sign};
    n.class = fraction == 0 ? INFINITE : fraction & QUIET_BIT ? QUIET : SIGNALLING;
    return n;
}

static inline struct number unpack_single(uint32_t bits)
{
    bool sign = bits >> 31;
    int32_t e = bits >> 23 & 0xff;
    uint64_t fraction = (uint64_t)(bits & 0x7fffff) << 40;
    if (e == 0xff)
        return special(sign, fraction);
    if (e != 0)
        return (struct number){.m = fraction | INTEGER_BIT, .e = e - 127, .sign = sign, .class = FINITE};
    return fraction == 0 ? (struct number){.sign = sign} : normal_or_denormal(sign, -126, fraction, true);
}

static inline struct number unpack_double(uint64_t bits)
{
    bool sign = bits >> 63;
    int32_t e = bits >> 52 & 0x7ff;
    uint64_t fraction = (bits & UINT64_C(0xfffffffffffff)) << 11;
    if (e == 0x7ff)
        return special(sign, fraction);
    if (e != 0)
        return (struct number){.m = fraction | INTEGER_BIT, .e = e - 1023, .sign = sign, .class = FINITE};
    return fraction == 0 ? (struct number){.sign = sign} : normal_or_denormal(sign, -1022, fraction, true);
}

static inline struct number unpack_extended(struct extended x)
{
    bool sign = x.se >> 15;
    int32_t e = x.se & 0x7fff;
    if (e != 0 && !(x.m & INTEGER_BIT))
        return (struct number){.m = x.m, .sign = sign, .class = UNSUPPORTED};
    if (e == 0x7fff)
        return special(sign, x.m & ~INTEGER_BIT);
    if (e != 0)
        return (struct number){.m = x.m, .e = e - EXTENDED_BIAS, .sign = sign, .class = FINITE};
    return x.m == 0 ? (struct number){.sign = sign} : normal_or_denormal(sign, -16382, x.m, true);
}

static inline struct number unpack_integer(int64_t value)
{
    bool sign = value < 0;
    uint64_t magnitude = sign ? 0 - (uint64_t)value : (uint64_t)value;
    return magnitude == 0 ? (struct number){0} : normal_or_denormal(sign, 63, magnitude, false);
}

static inline uint32_t pack_single(const struct number *n)
{
    uint32_t sign = (uint32_t)n->sign << 31;
    switch (n->class) {
    case ZERO:
        return sign;
    case FINITE: {
        uint32_t fraction = (uint32_t)(n->m >> 40) & 0x7fffff;
        return sign | (n->m & INTEGER_BIT ? (uint32_t)(n->e + 127) << 23 : 0) | fraction;
    }
    case INFINITE:
        return sign | 0x7f800000;
    default:
        return sign | 0x7fc00000 | ((uint32_t)(n->m >> 40) & 0x3fffff);
    }
}

static inline uint64_t pack_double(const struct number *n)
{
    uint64_t sign = (uint64_t)n->sign << 63;
    switch (n->class) {
    case ZERO:
        return sign;
    case FINITE: {
        uint64_t fraction = n->m >> 11 & UINT64_C(0xfffffffffffff);
        return sign | (n->m & INTEGER_BIT ? (uint64_t)(n->e + 1023) << 52 : 0) | fraction;
    }
    case INFINITE:
        return sign | UINT64_C(0x7ff0000000000000);
    default:
        return sign | UINT64_C(0x7ff8000000000000) | (n->m >> 11 & UINT64_C(0x7ffffffffffff));
    }
}

static inline struct extended pack_extended(const struct number *n)
{
    uint16_t sign = (uint16_t)(n->sign << 15);
    switch (n->class) {
    case ZERO:
        return (struct extended){0, sign};
    case FINITE:
        return (struct extended){n->m, (uint16_t)(sign | (n->m & INTEGER_BIT ? n->e + EXTENDED_BIAS : 0))};
    case INFINITE:
        return (struct extended){INTEGER_BIT, (uint16_t)(sign | 0x7fff)};
    default:
        return (struct extended){n->m | INTEGER_BIT | QUIET_BIT, (uint16_t)(sign | 0x7fff)};
    }
}


/* A finite, infinite or NaN number in extended format; it must fit. */
struct extended pack_exact(const struct number *n);

/* sign, m (bit 63 set) and what follows it below, exponent: rounded to `format`. `bits`: of the significand, at most
   the format's; the exponent range is the format's. */
struct number round_in_general(bool sign, int32_t e, uint64_t m, uint64_t below, unsigned bits,
                               const struct format *format, struct float_env *env);

/* The same, with the usual case at once: to nearest, well within the format's range. */
static inline struct number round_number(bool sign, int32_t e, uint64_t m, uint64_t below, unsigned bits,
                                         const struct format *format, struct float_env *env)
{
    if (env->rounding != ROUND_NEAREST || e < format->emin || e >= format->emax)
        return round_in_general(sign, e, m, below, bits, format, env);
    uint64_t rest, unit, odd;  /* what is dropped, with its first bit as bit 63 */
    if (bits == 64) {
        rest = below;
        unit = 1;
        odd = m & 1;
    } else {
        rest = m << bits | (below != 0);
        unit = UINT64_C(1) << (64 - bits);
        odd = m & unit;
        m &= ~(unit - 1);
    }
    bool up = rest > INTEGER_BIT || (rest == INTEGER_BIT && odd);
    env->up = up;
    env->flags |= rest != 0 ? FE_P : 0;
    if (up) {
        m += unit;
        if (m == 0) {
            m = INTEGER_BIT;
            e++;
        }
    }
    return (struct number){.m = m, .e = e, .sign = sign, .class = FINITE};
}

/* NaN operands, denormals and invalid operands raise their flags; the results are rounded. */
struct number number_add(struct number a, struct number b, bool subtract, unsigned bits, const struct format *format,
                         struct float_env *env);
struct number number_multiply(struct number a, struct number b, unsigned bits, const struct format *format,
                              struct float_env *env);
struct number number_divide(struct number a, struct number b, unsigned bits, const struct format *format,
                            struct float_env *env);
struct number number_sqrt(struct number a, unsigned bits, const struct format *format, struct float_env *env);

/* The NaN that an operation with one or two of them gives; raises FE_I for signalling ones. */
struct number choose_nan(const struct number *a, const struct number *b, struct float_env *env);
struct number invalid_operation(struct float_env *env);

/* To another format, rounded. SNaNs become quiet and raise FE_I. */
struct number number_convert(struct number a, const struct format *format, struct float_env *env);

enum ordering { LESS, EQUAL, GREATER, UNORDERED };
/* Raises FE_I for signalling NaNs and unsupported operands, and if `signal`, for quiet ones. FE_D for denormals. */
enum ordering number_compare(const struct number *a, const struct number *b, bool signal, struct float_env *env);

/* To an integer of `bits` bits with the environment's rounding; out of range: FE_I and the integer indefinite. */
int64_t number_to_integer(const struct number *a, unsigned bits, enum rounding rounding, struct float_env *env);

/* The integral value next to it. */
struct number number_to_integral(const struct number *a, struct float_env *env);

static inline bool is_nan(const struct number *n)
{
    return n->class >= QUIET;
}

#endif
