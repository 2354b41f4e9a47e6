/*
 * The usual cases of the commonest x87 instructions: rounding to nearest with 64 bits, everything masked, nothing pending;
 * operands and results normal or zero; memory at hand. Whatever is otherwise, x87_execute() does from the start, with
 * the same result: these are abbreviations, which decide nothing.
 *
 * Each function is made for one kind of operand, and chosen when the instruction is decoded.
 */
#include "x87.h"

#include <string.h>

#include "operand.h"
#include "segments.h"
#include "softfloat.h"
#include "transcendental.h"
#include "vcpu.h"

enum kind { SINGLE, DOUBLE, WORD, LONG, QUAD, EXTENDED, REGISTER };

static const uint8_t sizes[] = {[SINGLE] = 4, [DOUBLE] = 8, [WORD] = 2, [LONG] = 4, [QUAD] = 8, [EXTENDED] = 10};

#define INLINE static inline __attribute__((always_inline))
#define HALF (UINT64_C(1) << 63) /* of a unit, where what lies below it is a word */

enum { EXPONENT = 0x7fff, SIGN = 0x8000 };
enum { CONTROL_ROUNDING = 0xc00, CONTROL_USUAL = 0x300 | FE_ALL };

/* `any_rounding`: where rounding does not matter, or is looked at. */
INLINE bool is_usual(const struct floating *f, bool any_rounding)
{
    return (f->control & (CONTROL_USUAL | (any_rounding ? 0 : CONTROL_ROUNDING))) == CONTROL_USUAL
        && !(f->status & STATUS_ES);
}

INLINE bool is_normal(struct extended x)
{
    return x.m >> 63 && (uint16_t)((x.se & EXPONENT) - 1) < EXPONENT - 1;
}

INLINE bool is_zero(struct extended x)
{
    return x.m == 0 && !(x.se & EXPONENT);
}

/* `codes`: C1 and the flags to raise. */
INLINE void set_status(struct floating *f, unsigned codes)
{
    f->status = (uint16_t)((f->status & ~STATUS_C1) | codes);
}

/* --- arithmetic -------------------------------------------------------------------------------- */

INLINE bool goes_up(uint64_t m, uint64_t below)
{
    return below > HALF || (below == HALF && m & 1);
}

INLINE unsigned codes_of(uint64_t below, bool up)
{
    return (below != 0 ? FE_P : 0u) | (up ? STATUS_C1 : 0u);
}

/* Rounds x, of which the highest bit is set; `e` is biased. False: too large or too small. */
INLINE bool round_to_nearest(unsigned sign, int32_t e, uint128 x, struct extended *result, unsigned *codes)
{
    uint64_t m = (uint64_t)(x >> 64), below = (uint64_t)x;
    bool up = goes_up(m, below);
    m += up;
    if (UNLIKELY(up && m == 0)) {
        m = INTEGER_BIT;
        e++;
    }
    *result = (struct extended){m, (uint16_t)(sign | (unsigned)e)};
    *codes = codes_of(below, up);
    return e > 0 && e < EXPONENT - 1;
}

/* One of them is zero, the other zero or normal. */
static bool add_zero(struct extended a, struct extended b, struct extended *result)
{
    if (is_zero(a) && is_zero(b))
        *result = (struct extended){0, a.se & b.se};
    else if (is_zero(a) && is_normal(b))
        *result = b;
    else if (is_zero(b) && is_normal(a))
        *result = a;
    else
        return false;
    return true;
}

INLINE bool add(struct extended a, struct extended b, struct extended *result, unsigned *codes)
{
    if (UNLIKELY(!is_normal(a) || !is_normal(b))) {
        *codes = 0;
        return add_zero(a, b, result);
    }
    int32_t ea = a.se & EXPONENT, eb = b.se & EXPONENT;
    if (ea < eb || (ea == eb && a.m < b.m)) {
        struct extended swap = a;
        a = b;
        b = swap;
        int32_t e = ea;
        ea = eb;
        eb = e;
    }
    if (ea - eb > 63)
        return false;
    /* One bit of room for the carry; nothing is lost below. */
    uint128 large = (uint128)a.m << 63, small = ((uint128)b.m << 63) >> (ea - eb);
    uint128 sum = (a.se ^ b.se) & SIGN ? large - small : large + small;
    uint64_t high = (uint64_t)(sum >> 64);
    if (UNLIKELY(high == 0))
        return false;
    unsigned shift = leading_zeros(high);
    return round_to_nearest(a.se & SIGN, ea + 1 - (int32_t)shift, sum << shift, result, codes);
}

INLINE bool multiply(struct extended a, struct extended b, struct extended *result, unsigned *codes)
{
    unsigned sign = (a.se ^ b.se) & SIGN;
    if (UNLIKELY(!is_normal(a) || !is_normal(b))) {
        *result = (struct extended){0, (uint16_t)sign};
        *codes = 0;
        return (is_zero(a) && (is_zero(b) || is_normal(b))) || (is_zero(b) && is_normal(a));
    }
    uint128 product = (uint128)a.m * b.m;
    int32_t e = (a.se & EXPONENT) + (b.se & EXPONENT) - EXTENDED_BIAS + 1;
    if (!(product >> 127)) {
        product <<= 1;
        e--;
    }
    return round_to_nearest(sign, e, product, result, codes);
}

INLINE bool divide(struct extended a, struct extended b, struct extended *result, unsigned *codes)
{
    unsigned sign = (a.se ^ b.se) & SIGN;
    if (UNLIKELY(!is_normal(a) || !is_normal(b))) {
        *result = (struct extended){0, (uint16_t)sign};
        *codes = 0;
        return is_zero(a) && is_normal(b);
    }
    int32_t e = (a.se & EXPONENT) - (b.se & EXPONENT) + EXTENDED_BIAS;
    uint64_t below, quotient = divide_significands(a.m, b.m, &below);
    if (a.m < b.m)
        e--;
    return round_to_nearest(sign, e, (uint128)quotient << 64 | below, result, codes);
}

enum { ADD, MULTIPLY, SUBTRACT = 4, SUBTRACT_REVERSED, DIVIDE, DIVIDE_REVERSED };

INLINE struct extended negated(struct extended x)
{
    return (struct extended){x.m, x.se ^ SIGN};
}

INLINE bool compute(unsigned which, struct extended a, struct extended b, struct extended *result, unsigned *codes)
{
    switch (which) {
    case ADD:
        return add(a, b, result, codes);
    case MULTIPLY:
        return multiply(a, b, result, codes);
    case SUBTRACT:
        return add(a, negated(b), result, codes);
    case SUBTRACT_REVERSED:
        return add(b, negated(a), result, codes);
    case DIVIDE:
        return divide(a, b, result, codes);
    default:
        return divide(b, a, result, codes);
    }
}

/* --- operands ---------------------------------------------------------------------------------- */

INLINE bool widen_integer(int64_t value, struct extended *x)
{
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    *x = (struct extended){0, 0};
    if (LIKELY(value != 0)) {
        unsigned shift = leading_zeros(magnitude);
        *x = (struct extended){magnitude << shift, (uint16_t)((value < 0 ? SIGN : 0) | (EXTENDED_BIAS + 63 - (int)shift))};
    }
    return true;
}

INLINE bool widen_single(uint32_t bits, struct extended *x)
{
    unsigned e = bits >> 23 & 0xff, sign = bits >> 16 & SIGN;
    *x = (struct extended){INTEGER_BIT | (uint64_t)bits << 40, (uint16_t)(sign | (e + EXTENDED_BIAS - 127))};
    if (UNLIKELY(bits << 1 == 0))
        *x = (struct extended){0, (uint16_t)sign};
    return e - 1 < 0xfe || bits << 1 == 0;
}

INLINE bool widen_double(uint64_t bits, struct extended *x)
{
    unsigned e = bits >> 52 & 0x7ff, sign = bits >> 48 & SIGN;
    *x = (struct extended){INTEGER_BIT | bits << 11, (uint16_t)(sign | (e + EXTENDED_BIAS - 1023))};
    if (UNLIKELY(bits << 1 == 0))
        *x = (struct extended){0, (uint16_t)sign};
    return e - 1 < 0x7fe || bits << 1 == 0;
}

/* An operand of arithmetic or of a load. False: something is not as usual. */
INLINE bool source(struct vcpu *v, const struct operation *op, enum kind kind, struct extended *x, uint32_t *offset)
{
    struct floating *f = &v->floating;
    *offset = 0;
    if (kind == REGISTER) {
        *x = *st(f, op->modrm & 7);
        return !is_empty(f, op->modrm & 7);
    }
    *offset = operand_offset(v, op);
    const uint8_t *bytes = operand_bytes(v, *offset + segments_base(&v->segments, op->segment), sizes[kind], false);
    if (UNLIKELY(bytes == NULL))
        return false;
    int16_t word;
    int32_t doubleword;
    int64_t quadword;
    switch (kind) {
    case SINGLE:
        memcpy(&doubleword, bytes, 4);
        return widen_single((uint32_t)doubleword, x);
    case DOUBLE:
        memcpy(&quadword, bytes, 8);
        return widen_double((uint64_t)quadword, x);
    case WORD:
        memcpy(&word, bytes, 2);
        return widen_integer(word, x);
    case LONG:
        memcpy(&doubleword, bytes, 4);
        return widen_integer(doubleword, x);
    case QUAD:
        memcpy(&quadword, bytes, 8);
        return widen_integer(quadword, x);
    default:
        memcpy(&x->m, bytes, 8);
        memcpy(&x->se, bytes + 8, 2);
        return true;
    }
}

/* --- instructions ------------------------------------------------------------------------------ */

INLINE enum ending load(struct vcpu *v, const struct operation *op, enum kind kind)
{
    struct floating *f = &v->floating;
    struct extended x;
    uint32_t offset;
    if (UNLIKELY(!is_usual(f, true) || !is_empty(f, 7) || !source(v, op, kind, &x, &offset)))
        return x87_execute(v, op);
    push(f, x);
    set_status(f, 0);
    x87_remember(v, op, offset);
    return DONE;
}

static enum ending load_constant(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    unsigned which = op->modrm & 7;
    struct number n = {.class = ZERO};
    if (UNLIKELY(!is_usual(f, false) || !is_empty(f, 7)))
        return x87_execute(v, op);
    if (which == 0)
        n = (struct number){.m = INTEGER_BIT, .class = FINITE};
    else if (which < 6)
        n = transcendental_constant((enum constant)(which - 1), ROUND_NEAREST);
    push(f, pack_extended(&n));
    set_status(f, 0);
    x87_remember(v, op, 0);
    return DONE;
}

INLINE enum ending arithmetic(struct vcpu *v, const struct operation *op, unsigned which, enum kind kind, bool to_other, bool pops)
{
    struct floating *f = &v->floating;
    struct extended b, result;
    uint32_t offset;
    unsigned codes;
    if (UNLIKELY(!is_usual(f, false) || is_empty(f, 0) || !source(v, op, kind, &b, &offset)
                 || !compute(which, *st(f, 0), b, &result, &codes)))
        return x87_execute(v, op);
    *st(f, to_other ? op->modrm & 7 : 0) = result;
    if (pops)
        pop(f);
    set_status(f, codes);
    x87_remember(v, op, offset);
    return DONE;
}

/* Below, equal and above as integers: zeros of either sign are equal. */
INLINE int128 rank(struct extended x)
{
    int128 magnitude = (int128)((uint128)(x.se & EXPONENT) << 64 | x.m);
    return x.se & SIGN ? -magnitude : magnitude;
}

INLINE enum ending compare(struct vcpu *v, const struct operation *op, enum kind kind, unsigned pops)
{
    struct floating *f = &v->floating;
    struct extended a = *st(f, 0), b;
    uint32_t offset;
    if (UNLIKELY(!is_usual(f, true) || is_empty(f, 0) || !source(v, op, kind, &b, &offset)))
        return x87_execute(v, op);
    if (UNLIKELY(!(is_normal(a) || is_zero(a)) || !(is_normal(b) || is_zero(b))))
        return x87_execute(v, op);
    unsigned code = rank(a) < rank(b) ? STATUS_C0 : rank(a) == rank(b) ? STATUS_C3 : 0;
    f->status = (uint16_t)((f->status & ~STATUS_CC) | code);
    for (unsigned i = 0; i < pops; i++)
        pop(f);
    x87_remember(v, op, offset);
    return DONE;
}

/* fcomi and its kin, which leave C1 as it is. */
INLINE enum ending compare_to_eflags(struct vcpu *v, const struct operation *op, bool pops)
{
    struct floating *f = &v->floating;
    struct extended a = *st(f, 0), b = *st(f, op->modrm & 7);
    if (UNLIKELY(!is_usual(f, true) || is_empty(f, 0) || is_empty(f, op->modrm & 7)))
        return x87_execute(v, op);
    if (UNLIKELY(!(is_normal(a) || is_zero(a)) || !(is_normal(b) || is_zero(b))))
        return x87_execute(v, op);
    operand_set_arithmetic_flags(v, rank(a) < rank(b) ? CF : rank(a) == rank(b) ? ZF : 0);
    if (pops)
        pop(f);
    x87_remember(v, op, 0);
    return DONE;
}

/* In the format's bits, `bits` of the significand and `bias` of the exponent. False: not normal there, or nearly not. */
INLINE bool narrow(struct extended x, unsigned bits, int32_t bias, uint64_t *result, unsigned *codes)
{
    unsigned width = bits == 53 ? 64 : 32;
    uint64_t sign = (uint64_t)(x.se >> 15) << (width - 1);
    int32_t e = (x.se & EXPONENT) - EXTENDED_BIAS + bias;
    if (UNLIKELY(is_zero(x))) {
        *result = sign;
        *codes = 0;
        return true;
    }
    uint64_t fraction = x.m >> (64 - bits), below = x.m << bits;
    bool up = goes_up(fraction, below);
    fraction &= (UINT64_C(1) << (bits - 1)) - 1;
    *result = sign | (((uint64_t)(uint32_t)e << (bits - 1)) + fraction + up);  /* a carry goes into the exponent */
    *codes = codes_of(below, up);
    return x.m >> 63 && e > 0 && e < 2 * bias;
}

/* The integer of `bits` bits. False: it is none, or far from one. */
INLINE bool to_integer(struct extended x, unsigned bits, unsigned rounding, uint64_t *result, unsigned *codes)
{
    int32_t shift = EXTENDED_BIAS + 63 - (x.se & EXPONENT);
    bool sign = x.se & SIGN, up;
    if (UNLIKELY(is_zero(x))) {
        *result = *codes = 0;
        return true;
    }
    if (UNLIKELY(!(x.m >> 63) || shift <= 0))
        return false;
    uint64_t whole = shift < 64 ? x.m >> shift : 0, below = shift < 64 ? x.m << (64 - shift) : shift == 64 ? x.m : 1;
    switch (rounding) {
    case ROUND_NEAREST: up = goes_up(whole, below); break;
    case ROUND_DOWN: up = sign && below != 0; break;
    case ROUND_UP: up = !sign && below != 0; break;
    default: up = false; break;
    }
    whole += up;
    *result = sign ? 0 - whole : whole;
    *codes = codes_of(below, up);
    return whole < UINT64_C(1) << (bits - 1);
}

INLINE enum ending store(struct vcpu *v, const struct operation *op, enum kind kind, bool truncates, bool pops)
{
    struct floating *f = &v->floating;
    struct extended x = *st(f, 0);
    uint64_t word;
    unsigned codes = 0;
    bool is_integer = kind == WORD || kind == LONG || kind == QUAD, usual = is_usual(f, kind >= WORD) && !is_empty(f, 0);
    if (is_integer)
        usual = usual && to_integer(x, 8u * sizes[kind], truncates ? ROUND_ZERO : f->control >> 10 & 3, &word, &codes);
    else if (kind == SINGLE || kind == DOUBLE)
        usual = usual && (kind == SINGLE ? narrow(x, 24, 127, &word, &codes) : narrow(x, 53, 1023, &word, &codes));
    if (UNLIKELY(!usual))
        return x87_execute(v, op);
    uint32_t offset = operand_offset(v, op);
    uint8_t *bytes = operand_bytes(v, offset + segments_base(&v->segments, op->segment), sizes[kind], true);
    if (UNLIKELY(bytes == NULL))
        return x87_execute(v, op);
    if (kind == EXTENDED) {
        memcpy(bytes, &x.m, 8);
        memcpy(bytes + 8, &x.se, 2);
    } else {
        memcpy(bytes, &word, sizes[kind]);
    }
    if (pops)
        pop(f);
    set_status(f, codes);
    x87_remember(v, op, offset);
    return DONE;
}

INLINE enum ending store_register(struct vcpu *v, const struct operation *op, bool pops)
{
    struct floating *f = &v->floating;
    if (UNLIKELY(!is_usual(f, true) || is_empty(f, 0)))
        return x87_execute(v, op);
    put(f, op->modrm & 7, *st(f, 0));
    if (pops)
        pop(f);
    set_status(f, 0);
    x87_remember(v, op, 0);
    return DONE;
}

static enum ending exchange(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    struct extended *a = st(f, 0), *b = st(f, op->modrm & 7), swap = *a;
    if (UNLIKELY(!is_usual(f, true) || is_empty(f, 0) || is_empty(f, op->modrm & 7)))
        return x87_execute(v, op);
    *a = *b;
    *b = swap;
    set_status(f, 0);
    x87_remember(v, op, 0);
    return DONE;
}

/* fchs, fabs */
static enum ending set_sign(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    struct extended *a = st(f, 0);
    if (UNLIKELY(!is_usual(f, true) || is_empty(f, 0)))
        return x87_execute(v, op);
    a->se = op->modrm & 1 ? a->se & EXPONENT : a->se ^ SIGN;
    set_status(f, 0);
    x87_remember(v, op, 0);
    return DONE;
}

static enum ending square_root(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    struct extended a = *st(f, 0), result;
    unsigned codes;
    if (UNLIKELY(!is_usual(f, false) || is_empty(f, 0) || a.se & SIGN || !is_normal(a)))
        return x87_execute(v, op);
    int32_t e = a.se - EXTENDED_BIAS;
    uint64_t below, root = root_of_significand(a.m, e & 1, &below);
    round_to_nearest(0, (e >> 1) + EXTENDED_BIAS, (uint128)root << 64 | below, &result, &codes);
    *st(f, 0) = result;
    set_status(f, codes);
    x87_remember(v, op, 0);
    return DONE;
}

/* --- the choice -------------------------------------------------------------------------------- */

#define INSTRUCTION(name, call)                                                \
    static enum ending name(struct vcpu *v, const struct operation *op)       \
    {                                                                          \
        return call;                                                           \
    }
#define ARITHMETIC(name, kind, to_other, pops)                                                          \
    INSTRUCTION(add_##name, arithmetic(v, op, ADD, kind, to_other, pops))                               \
    INSTRUCTION(multiply_##name, arithmetic(v, op, MULTIPLY, kind, to_other, pops))                     \
    INSTRUCTION(subtract_##name, arithmetic(v, op, SUBTRACT, kind, to_other, pops))                     \
    INSTRUCTION(subtract_reversed_##name, arithmetic(v, op, SUBTRACT_REVERSED, kind, to_other, pops))   \
    INSTRUCTION(divide_##name, arithmetic(v, op, DIVIDE, kind, to_other, pops))                         \
    INSTRUCTION(divide_reversed_##name, arithmetic(v, op, DIVIDE_REVERSED, kind, to_other, pops))

ARITHMETIC(single, SINGLE, false, false)
ARITHMETIC(double, DOUBLE, false, false)
ARITHMETIC(word, WORD, false, false)
ARITHMETIC(long, LONG, false, false)
ARITHMETIC(register, REGISTER, false, false)
ARITHMETIC(to_other, REGISTER, true, false)
ARITHMETIC(and_pop, REGISTER, true, true)
INSTRUCTION(compare_single, compare(v, op, SINGLE, op->modrm >> 3 & 1))
INSTRUCTION(compare_double, compare(v, op, DOUBLE, op->modrm >> 3 & 1))
INSTRUCTION(compare_word, compare(v, op, WORD, op->modrm >> 3 & 1))
INSTRUCTION(compare_long, compare(v, op, LONG, op->modrm >> 3 & 1))
INSTRUCTION(compare_register, compare(v, op, REGISTER, op->modrm >> 3 & 1))
INSTRUCTION(compare_and_pop_both, compare(v, op, REGISTER, 2))
INSTRUCTION(compare_flags, compare_to_eflags(v, op, false))
INSTRUCTION(compare_flags_and_pop, compare_to_eflags(v, op, true))
INSTRUCTION(load_single, load(v, op, SINGLE))
INSTRUCTION(load_double, load(v, op, DOUBLE))
INSTRUCTION(load_word, load(v, op, WORD))
INSTRUCTION(load_long, load(v, op, LONG))
INSTRUCTION(load_quad, load(v, op, QUAD))
INSTRUCTION(load_extended, load(v, op, EXTENDED))
INSTRUCTION(load_register, load(v, op, REGISTER))
INSTRUCTION(store_single, store(v, op, SINGLE, false, op->modrm >> 3 & 1))
INSTRUCTION(store_double, store(v, op, DOUBLE, false, op->modrm >> 3 & 1))
INSTRUCTION(store_word, store(v, op, WORD, false, op->modrm >> 3 & 1))
INSTRUCTION(store_long, store(v, op, LONG, false, op->modrm >> 3 & 1))
INSTRUCTION(store_quad, store(v, op, QUAD, false, true))
INSTRUCTION(store_extended, store(v, op, EXTENDED, false, true))
INSTRUCTION(truncate_word, store(v, op, WORD, true, true))
INSTRUCTION(truncate_long, store(v, op, LONG, true, true))
INSTRUCTION(truncate_quad, store(v, op, QUAD, true, true))
INSTRUCTION(copy, store_register(v, op, false))
INSTRUCTION(copy_and_pop, store_register(v, op, true))

#define ROW(name, compare) \
    {add_##name, multiply_##name, compare, compare, subtract_##name, subtract_reversed_##name, divide_##name, divide_reversed_##name}

/* By opcode and the reg field. */
static const executor with_memory[8][8] = {
    ROW(single, compare_single),
    {load_single, NULL, store_single, store_single},
    ROW(long, compare_long),
    {load_long, truncate_long, store_long, store_long, NULL, load_extended, NULL, store_extended},
    ROW(double, compare_double),
    {load_double, truncate_quad, store_double, store_double},
    ROW(word, compare_word),
    {load_word, truncate_word, store_word, store_word, NULL, load_quad, NULL, store_quad},
};
static const executor with_register[8][8] = {
    ROW(register, compare_register),
    {load_register, exchange},
    {NULL},
    {NULL, NULL, NULL, NULL, NULL, compare_flags, compare_flags},
    ROW(to_other, compare_register),
    {NULL, exchange, copy, copy_and_pop, compare_register, compare_register},
    ROW(and_pop, NULL),
    {NULL, exchange, copy_and_pop, copy_and_pop, NULL, compare_flags_and_pop, compare_flags_and_pop},
};

executor x87_quick(const struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    if (op->memory)
        return with_memory[row][reg];
    if (row == 1 && (op->modrm & ~1) == 0xe0)
        return set_sign;
    if (row == 1 && op->modrm == 0xfa)
        return square_root;
    if (row == 1 && reg == 5 && op->modrm != 0xef)
        return load_constant;
    if ((row == 6 && op->modrm == 0xd9) || (row == 2 && op->modrm == 0xe9))  /* fcompp, fucompp */
        return compare_and_pop_both;
    return with_register[row][reg];
}
