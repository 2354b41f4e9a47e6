/* Numbers between memory and the x87. Ref: Intel SDM vol. 1, 8.3.3; vol. 2, FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP. */
#include "x87.h"

#include <string.h>

#include "operand.h"
#include "softfloat.h"
#include "vcpu.h"

void x87_load(struct floating *f, struct extended value, const struct float_env *env)
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

enum ending x87_load_operand(struct vcpu *v, uint32_t address, const char *kind, struct number *n)
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
    TRY(x87_load_operand(v, address, kind, &n));
    struct float_env env = x87_environment(f);
    if (is_nan(&n))
        n = choose_nan(&n, &n, &env);
    else if (n.denormal)
        env.flags |= FE_D;
    x87_load(f, pack_extended(&n), &env);
    return DONE;
}

static enum ending load_extended(struct vcpu *v, uint32_t address)
{
    struct extended value;
    uint8_t bytes[10];
    TRY(operand_read(v, address, bytes, 10));
    memcpy(&value.m, bytes, 8);
    memcpy(&value.se, bytes + 8, 2);
    struct float_env env = x87_environment(&v->floating);
    x87_load(&v->floating, value, &env);
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
    struct float_env env = x87_environment(f);
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
    struct float_env env = x87_environment(f);
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
    struct float_env env = x87_environment(f);
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
    struct float_env env = x87_environment(&v->floating);
    x87_load(&v->floating, pack_extended(&n), &env);
    return DONE;
}

static enum ending store_decimal(struct vcpu *v, uint32_t address)
{
    static const uint8_t indefinite[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};
    const int64_t most = INT64_C(999999999999999999);
    struct floating *f = &v->floating;
    struct float_env env = x87_environment(f);
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

enum ending x87_transfer(struct vcpu *v, const struct operation *op, uint32_t address)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    switch (row << 3 | reg) {
    case 010: return load_converted(v, address, "s");
    case 012: case 013: return store_float(v, address, false, reg & 1);
    case 030: return load_converted(v, address, "l");
    case 031: return store_integer(v, address, 32, true, true);
    case 032: case 033: return store_integer(v, address, 32, false, reg & 1);
    case 035: return load_extended(v, address);
    case 037: return store_extended(v, address);
    case 050: return load_converted(v, address, "d");
    case 051: return store_integer(v, address, 64, true, true);
    case 052: case 053: return store_float(v, address, true, reg & 1);
    case 070: return load_converted(v, address, "w");
    case 071: return store_integer(v, address, 16, true, true);
    case 072: case 073: return store_integer(v, address, 16, false, reg & 1);
    case 074: return load_decimal(v, address);
    case 075: return load_converted(v, address, "q");
    case 076: return store_decimal(v, address);
    default: return store_integer(v, address, 64, false, true);
    }
}
