/*
 * The usual cases of the commonest SSE instructions: rounding to nearest, everything masked, operands and results normal
 * or zero; memory at hand. Whatever is otherwise, the functions of sse.c do from the start, with the same result: these
 * are abbreviations, which decide nothing.
 *
 * The numbers are the host's. Its addition, subtraction, multiplication, division and conversions are correctly rounded by
 * IEEE 754 (4.3, 5.4), to nearest, so here they have no choice; what the host raises, and what it does with NaNs, denormals
 * and tiny results, is not asked. Whether a result is inexact is found exactly, unless that has been raised before.
 */
#include "sse.h"

#include <string.h>

#include "operand.h"
#include "vcpu.h"

#define INLINE static inline __attribute__((always_inline))

enum { ADD, MULTIPLY, SUBTRACT, DIVIDE, MINIMUM, MAXIMUM, SQUARE_ROOT };

/* Formats differ in widths only; so all is written once, for F: d(ouble) and s(ingle). */
#define FORMATS(X) X(d, double, uint64_t, 52, 0x7ff) X(s, float, uint32_t, 23, 0xff)

#define FORMAT(F, number, word, width, top)                                                                            \
    INLINE number number_##F(word bits)                                                                                \
    {                                                                                                                  \
        number x;                                                                                                      \
        memcpy(&x, &bits, sizeof x);                                                                                   \
        return x;                                                                                                      \
    }                                                                                                                  \
    INLINE word bits_##F(number x)                                                                                     \
    {                                                                                                                  \
        word bits;                                                                                                     \
        memcpy(&bits, &x, sizeof bits);                                                                                \
        return bits;                                                                                                   \
    }                                                                                                                  \
    INLINE unsigned exponent_##F(word bits)                                                                            \
    {                                                                                                                  \
        return (unsigned)(bits >> width) & top;                                                                        \
    }                                                                                                                  \
    INLINE bool is_zero_##F(word bits)                                                                                 \
    {                                                                                                                  \
        return (word)(bits << 1) == 0;                                                                                 \
    }                                                                                                                  \
    INLINE bool is_denormal_##F(word bits)                                                                             \
    {                                                                                                                  \
        return exponent_##F(bits) == 0 && !is_zero_##F(bits);                                                          \
    }                                                                                                                  \
    /* Neither infinite nor tiny, nor next to either. */                                                               \
    INLINE bool is_safe_##F(word bits)                                                                                 \
    {                                                                                                                  \
        return exponent_##F(bits) - 2 < top - 3u;                                                                      \
    }                                                                                                                  \
    INLINE word significand_##F(word bits)                                                                             \
    {                                                                                                                  \
        return (bits & (((word)1 << width) - 1)) | (word)1 << width;                                                   \
    }                                                                                                                  \
    /* What x + y lost by rounding to z (Knuth, TAOCP vol. 2, 4.2.2, theorem B), where none of that can be tiny. */    \
    INLINE bool sum_is_exact_##F(word a, word b, number z)                                                             \
    {                                                                                                                  \
        number x = number_##F(a), y = number_##F(b);                                                                   \
        if (is_zero_##F(a) || is_zero_##F(b))                                                                          \
            return true;                                                                                               \
        if (exponent_##F(a) < width + 2 || exponent_##F(b) < width + 2)                                                \
            return false;                                                                                              \
        number y_part = z - x, x_part = z - y_part;                                                                    \
        number y_lost = y - y_part, x_lost = x - x_part;                                                               \
        return y_lost == 0 && x_lost == 0;                                                                             \
    }                                                                                                                  \
    /* Whether the quotient z is known to be exact: z * b == a, as integers. */                                        \
    INLINE bool quotient_is_exact_##F(word a, word b, word z)                                                          \
    {                                                                                                                  \
        uint128 product = (uint128)significand_##F(z) * significand_##F(b), dividend = significand_##F(a);             \
        return product == dividend << width || product == dividend << (width + 1);                                     \
    }                                                                                                                  \
    INLINE bool product_is_exact_##F(word a, word b)                                                                   \
    {                                                                                                                  \
        return __builtin_ctzll(significand_##F(a)) + __builtin_ctzll(significand_##F(b)) > width;                      \
    }                                                                                                                  \
    INLINE bool root_is_exact_##F(word z, word b)                                                                      \
    {                                                                                                                  \
        uint128 square = (uint128)significand_##F(z) * significand_##F(z), b_whole = significand_##F(b);               \
        return square == b_whole << width || square == b_whole << (width + 1);                                         \
    }                                                                                                                  \
    /* False: not usual. `any`: inexact results need not be told. */                                                   \
    INLINE bool compute_##F(unsigned which, word a, word b, bool any, word *result)                                    \
    {                                                                                                                  \
        number x = number_##F(a), y = number_##F(b), z;                                                                \
        if (UNLIKELY((which != SQUARE_ROOT && is_denormal_##F(a)) || is_denormal_##F(b)))                              \
            return false;                                                                                              \
        if (which == MINIMUM || which == MAXIMUM) {                                                                    \
            *result = (which == MINIMUM ? x < y : x > y) ? a : b;                                                      \
            return x == x && y == y;                                                                                   \
        }                                                                                                              \
        switch (which) {                                                                                               \
        case ADD: z = x + y; break;                                                                                    \
        case SUBTRACT: z = x - y; break;                                                                               \
        case MULTIPLY: z = x * y; break;                                                                               \
        case SQUARE_ROOT: z = __builtin_elementwise_sqrt(y); break;                                                    \
        default: z = x / y; break;                                                                                     \
        }                                                                                                              \
        *result = bits_##F(z);                                                                                         \
        if (UNLIKELY(!is_safe_##F(*result)))  /* a sum of such operands is zero only if it is exact */                 \
            return is_zero_##F(*result) && (which == ADD || which == SUBTRACT || is_zero_##F(b)                        \
                                            || (which != SQUARE_ROOT && is_zero_##F(a)));                                 \
        if (LIKELY(any))                                                                                               \
            return true;                                                                                               \
        switch (which) {                                                                                               \
        case ADD: return sum_is_exact_##F(a, b, z);                                                                    \
        case SUBTRACT: return sum_is_exact_##F(a, bits_##F(-y), z);                                                    \
        case MULTIPLY: return product_is_exact_##F(a, b);                                                              \
        case SQUARE_ROOT: return root_is_exact_##F(*result, b);                                                        \
        default: return quotient_is_exact_##F(a, b, *result);                                                          \
        }                                                                                                              \
    }
FORMATS(FORMAT)

/* `*any`: the flag that tells of inexact results is set already. */
INLINE bool is_usual(const struct vcpu *v, bool *any)
{
    enum { ROUNDING = 3 << 13, MASKS = FE_ALL << 7 };
    uint32_t mxcsr = v->floating.mxcsr;
    *any = mxcsr & FE_P;
    return (mxcsr & (ROUNDING | MASKS)) == MASKS;
}

/* --- operands ---------------------------------------------------------------------------------- */

/* The source's bytes, or NULL if they are not had at once. */
INLINE const void *source(struct vcpu *v, const struct operation *op, uint32_t size, bool memory)
{
    if (!memory)
        return operand_xmm(v, op->modrm & 7);
    uint32_t address = operand_address(v, op);
    if (size == 16 && UNLIKELY(address & 15))
        return NULL;
    return operand_bytes(v, address, size, false);
}

INLINE union xmm *destination(struct vcpu *v, const struct operation *op)
{
    return operand_xmm(v, op->modrm >> 3 & 7);
}

INLINE uint64_t read_64(const void *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

INLINE uint32_t read_32(const void *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* --- instructions ------------------------------------------------------------------------------ */

INLINE enum ending arithmetic(struct vcpu *v, const struct operation *op, unsigned which, bool wide, unsigned count,
                              bool memory)
{
    union xmm *d = destination(v, op), result;
    const uint8_t *s = source(v, op, count * (wide ? 8 : 4), memory);
    bool any, usual = is_usual(v, &any) && s != NULL;
    for (unsigned i = 0; i < count && usual; i++)
        usual = wide ? compute_d(which, d->q[i], read_64(s + 8 * i), any, &result.q[i])
                     : compute_s(which, d->d[i], read_32(s + 4 * i), any, &result.d[i]);
    if (UNLIKELY(!usual))
        return sse_arithmetic(v, op);
    for (unsigned i = 0; i < count; i++) {  /* in the pieces that will be read: faster than as a whole */
        if (wide)
            d->q[i] = result.q[i];
        else
            d->d[i] = result.d[i];
    }
    return DONE;
}

/* Two numbers that compare; true, with `less` and `equal` of them. */
INLINE bool are_comparable(bool wide, const uint8_t *a, const uint8_t *b, bool *less, bool *equal)
{
    if (wide ? is_denormal_d(read_64(a)) || is_denormal_d(read_64(b)) : is_denormal_s(read_32(a)) || is_denormal_s(read_32(b)))
        return false;
    double x = wide ? number_d(read_64(a)) : (double)number_s(read_32(a));
    double y = wide ? number_d(read_64(b)) : (double)number_s(read_32(b));
    *less = x < y;
    *equal = x == y;
    return *less || *equal || x > y;
}

INLINE enum ending compare_to_eflags(struct vcpu *v, const struct operation *op, bool wide, bool memory)
{
    const uint8_t *s = source(v, op, wide ? 8 : 4, memory);
    bool any, less, equal;
    if (UNLIKELY(!is_usual(v, &any) || s == NULL || !are_comparable(wide, destination(v, op)->b, s, &less, &equal)))
        return sse_compare_to_eflags(v, op);
    operand_set_arithmetic_flags(v, less ? CF : equal ? ZF : 0);
    return DONE;
}

INLINE enum ending compare(struct vcpu *v, const struct operation *op, bool wide, unsigned count, bool memory)
{
    enum { EQ, LT, LE };
    union xmm *d = destination(v, op), result;
    unsigned size = wide ? 8 : 4, base = op->immediate & 3;
    const uint8_t *s = source(v, op, count * size, memory);
    bool any, usual = is_usual(v, &any) && s != NULL;
    for (unsigned i = 0; i < count && usual; i++) {
        bool less, equal;
        usual = are_comparable(wide, d->b + size * i, s + size * i, &less, &equal);
        bool holds = base == EQ ? equal : base == LT ? less : base == LE ? less || equal : false;
        uint64_t mask = holds != (op->immediate >> 2 & 1) ? UINT64_MAX : 0;
        if (wide)
            result.q[i] = mask;
        else
            result.d[i] = (uint32_t)mask;
    }
    if (UNLIKELY(!usual))
        return sse_compare(v, op);
    memcpy(d, &result, count * size);
    return DONE;
}

INLINE enum ending integer_to_float(struct vcpu *v, const struct operation *op, bool wide, bool memory)
{
    union xmm *d = destination(v, op);
    const void *s = memory ? source(v, op, 4, true) : NULL;
    bool any, usual = is_usual(v, &any) && !(memory && s == NULL);
    if (UNLIKELY(!usual))
        return sse_convert_integers(v, op);
    int32_t value = (int32_t)(memory ? read_32(s) : operand_general(v, op->modrm & 7));
    float single = (float)value;
    if (UNLIKELY(!wide && !any && (double)single != (double)value))
        return sse_convert_integers(v, op);
    if (wide)
        d->q[0] = bits_d((double)value);
    else
        d->d[0] = bits_s(single);
    return DONE;
}

INLINE enum ending float_to_integer(struct vcpu *v, const struct operation *op, bool wide, bool memory)
{
    const double magic = 0x1.8p52;  /* added to what is below 2^31, rounds it to an integer */
    const void *s = source(v, op, wide ? 8 : 4, memory);
    bool any, usual = is_usual(v, &any) && s != NULL;
    if (UNLIKELY(!usual || (wide ? is_denormal_d(read_64(s)) : is_denormal_s(read_32(s)))))
        return sse_convert_to_integers(v, op);
    double x = wide ? number_d(read_64(s)) : (double)number_s(read_32(s));
    if (UNLIKELY(!(x > -2147483647.0 && x < 2147483647.0)))
        return sse_convert_to_integers(v, op);
    double moved = x + magic;
    int32_t value = op->opcode == 0x2c ? (int32_t)x : (int32_t)(moved - magic);
    if (UNLIKELY(!any && (double)value != x))
        return sse_convert_to_integers(v, op);
    operand_set_general(v, op->modrm >> 3 & 7, (uint32_t)value);
    return DONE;
}

INLINE enum ending narrow(struct vcpu *v, const struct operation *op, bool memory)
{
    const void *s = source(v, op, 8, memory);
    bool any, usual = is_usual(v, &any) && s != NULL;
    if (UNLIKELY(!usual))
        return sse_convert_formats(v, op);
    uint64_t bits = read_64(s);
    float single = (float)number_d(bits);
    bool exact = (double)single == number_d(bits);
    if (UNLIKELY(!(is_zero_d(bits) || (is_safe_s(bits_s(single)) && (any || exact)))))
        return sse_convert_formats(v, op);
    destination(v, op)->d[0] = bits_s(single);
    return DONE;
}

INLINE enum ending widen(struct vcpu *v, const struct operation *op, bool memory)
{
    const void *s = source(v, op, 4, memory);
    bool any, usual = is_usual(v, &any) && s != NULL;
    if (UNLIKELY(!usual))
        return sse_convert_formats(v, op);
    uint32_t bits = read_32(s);
    if (UNLIKELY(!(is_zero_s(bits) || is_safe_s(bits))))
        return sse_convert_formats(v, op);
    destination(v, op)->q[0] = bits_d((double)number_s(bits));
    return DONE;
}

/* --- the choice -------------------------------------------------------------------------------- */

#define INSTRUCTION(name, call)                                          \
    static enum ending name(struct vcpu *v, const struct operation *op) \
    {                                                                    \
        return call;                                                     \
    }
#define BOTH(name, function, ...)                                      \
    INSTRUCTION(name##_register, function(v, op, __VA_ARGS__ false))   \
    INSTRUCTION(name##_memory, function(v, op, __VA_ARGS__ true))
#define ARITHMETIC(name, which)                       \
    BOTH(name##_ss, arithmetic, which, false, 1,)     \
    BOTH(name##_sd, arithmetic, which, true, 1,)      \
    BOTH(name##_ps, arithmetic, which, false, 4,)     \
    BOTH(name##_pd, arithmetic, which, true, 2,)

ARITHMETIC(add, ADD)
ARITHMETIC(multiply, MULTIPLY)
ARITHMETIC(subtract, SUBTRACT)
ARITHMETIC(minimum, MINIMUM)
ARITHMETIC(divide, DIVIDE)
ARITHMETIC(maximum, MAXIMUM)
ARITHMETIC(square_root, SQUARE_ROOT)
BOTH(compare_ss, compare, false, 1,)
BOTH(compare_sd, compare, true, 1,)
BOTH(compare_ps, compare, false, 4,)
BOTH(compare_pd, compare, true, 2,)
BOTH(compare_single, compare_to_eflags, false,)
BOTH(compare_double, compare_to_eflags, true,)
BOTH(integer_to_single, integer_to_float, false,)
BOTH(integer_to_double, integer_to_float, true,)
BOTH(single_to_integer, float_to_integer, false,)
BOTH(double_to_integer, float_to_integer, true,)
BOTH(double_to_single, narrow)
BOTH(single_to_double, widen)

#define FORMS(name)                                                         \
    {                                                                       \
        {name##_ps_register, name##_ps_memory}, {name##_pd_register, name##_pd_memory}, \
        {name##_ss_register, name##_ss_memory}, {name##_sd_register, name##_sd_memory}, \
    }
#define PAIR(name) {name##_register, name##_memory}

executor sse_quick(const struct operation *op)
{
    /* By opcode, prefix (none, 66, f3, f2), and whether there is a memory operand. */
    static const executor arithmetics[8][4][2] = {
        FORMS(add), FORMS(multiply), {{NULL}}, {{NULL}}, FORMS(subtract), FORMS(minimum), FORMS(divide), FORMS(maximum),
    };
    static const executor roots[4][2] = FORMS(square_root), comparisons[4][2] = FORMS(compare);
    static const executor to_eflags[4][2] = {PAIR(compare_single), PAIR(compare_double)};
    static const executor from_integers[4][2] = {{NULL}, {NULL}, PAIR(integer_to_single), PAIR(integer_to_double)};
    static const executor to_integers[4][2] = {{NULL}, {NULL}, PAIR(single_to_integer), PAIR(double_to_integer)};
    static const executor formats[4][2] = {{NULL}, {NULL}, PAIR(single_to_double), PAIR(double_to_single)};
    unsigned form = op->prefix == 0 ? 0 : op->prefix == 0x66 ? 1 : op->prefix == 0xf3 ? 2 : 3;
    switch (op->opcode) {
    case 0x2a:
        return from_integers[form][op->memory];
    case 0x2c: case 0x2d:
        return to_integers[form][op->memory];
    case 0x2e: case 0x2f:
        return to_eflags[form][op->memory];
    case 0x51:
        return roots[form][op->memory];
    case 0xc2:
        return comparisons[form][op->memory];
    case 0x5a:
        return formats[form][op->memory];
    default:
        return op->opcode >= 0x58 && op->opcode <= 0x5f ? arithmetics[op->opcode - 0x58][form][op->memory] : NULL;
    }
}
