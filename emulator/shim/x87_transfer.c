/* Numbers between memory and the x87. Ref: Intel SDM vol. 1, 8.3.3; vol. 2, FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP. */
#include "x87.h"

#include <string.h>

#include "floating.h"
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

/* --- stores ------------------------------------------------------------------------------------ */

/* What is to be stored, and whether it will be. */
struct store {
    uint8_t bytes[10], size;
    bool missing;            /* ST0 is empty: `bytes` are the masked response */
    unsigned preventing;     /* flags that prevent the store if they are not masked */
    struct float_env env;
};

static void put_word(struct store *s, uint64_t word, uint8_t size)
{
    memcpy(s->bytes, &word, size < 8 ? size : 8);
    s->size = size;
}

static void prepare_float(struct store *s, struct number n, bool is_double)
{
    if (s->missing) {
        put_word(s, is_double ? UINT64_C(0xfff8000000000000) : 0xffc00000, is_double ? 8 : 4);
        return;
    }
    n.denormal = false;  /* not reported by stores */
    n = number_convert(n, is_double ? &format_double : &format_single, &s->env);
    put_word(s, is_double ? pack_double(&n) : pack_single(&n), is_double ? 8 : 4);
    s->preventing = FE_I | FE_O | FE_U;
}

static void prepare_extended(struct store *s, struct extended value)
{
    if (s->missing)
        value = DEFAULT_NAN;
    put_word(s, value.m, 10);
    memcpy(s->bytes + 8, &value.se, 2);
}

static void prepare_integer(struct store *s, struct number n, unsigned bits, bool truncate)
{
    int64_t value = (int64_t)(UINT64_MAX << (bits - 1));
    if (!s->missing)
        value = number_to_integer(&n, bits, truncate ? ROUND_ZERO : (enum rounding)s->env.rounding, &s->env);
    put_word(s, (uint64_t)value, (uint8_t)(bits / 8));
    s->preventing = FE_I;
}

static void prepare_decimal(struct store *s, struct number n)
{
    static const uint8_t indefinite[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};
    const int64_t most = INT64_C(999999999999999999);
    int64_t value = s->missing ? 0 : number_to_integer(&n, 64, s->env.rounding, &s->env);
    s->size = 10;
    s->preventing = FE_I;
    if (value > most || value < -most) {
        s->env.flags = FE_I;
        s->env.up = false;
    }
    memcpy(s->bytes, indefinite, 10);
    if (s->missing || s->env.flags & FE_I)
        return;
    uint64_t rest = (uint64_t)(value < 0 ? -value : value);
    for (int i = 0; i < 9; i++, rest /= 100)
        s->bytes[i] = (uint8_t)((rest / 10 % 10) << 4 | rest % 10);
    s->bytes[9] = n.sign ? 0x80 : 0;
}

static void prepare(struct floating *f, const struct operation *op, struct store *s)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    struct number n = number_at(f, 0);
    *s = (struct store){.missing = is_empty(f, 0), .env = x87_environment(f)};
    switch (row << 3 | reg) {
    case 012: case 013: prepare_float(s, n, false); break;
    case 031: case 032: case 033: prepare_integer(s, n, 32, reg == 1); break;
    case 037: prepare_extended(s, *st(f, 0)); break;
    case 051: prepare_integer(s, n, 64, true); break;
    case 052: case 053: prepare_float(s, n, true); break;
    case 071: case 072: case 073: prepare_integer(s, n, 16, reg == 1); break;
    case 076: prepare_decimal(s, n); break;
    default: prepare_integer(s, n, 64, false); break;
    }
}

static bool is_store(const struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7;
    return op->opcode & 1 && !op->control && reg != 0 && reg != 4 && reg != 5;
}

static bool is_prevented(const struct floating *f, const struct store *s)
{
    return s->missing ? !(f->control & FE_I) : s->env.flags & ~s->env.masks & s->preventing;
}

bool x87_skips_operand(struct vcpu *v, const struct operation *op)
{
    struct store s;
    if (v->floating.is_amd || op->map != 0 || !op->memory || !is_store(op))
        return false;
    prepare(&v->floating, op, &s);
    return is_prevented(&v->floating, &s);
}

/*
 * Writes, then takes the flags and pops. Page faults come first: nothing has changed then. Prevented by an unmasked
 * exception, a store is not inexact (SDM vol. 1, 8.5.4, 8.5.5); AMD's processors still look whether it could be made.
 */
static enum ending store(struct vcpu *v, const struct operation *op, uint32_t address)
{
    struct floating *f = &v->floating;
    struct store s;
    unsigned reg = op->modrm >> 3 & 7;
    prepare(f, op, &s);
    bool prevented = is_prevented(f, &s);
    if (prevented && f->is_amd)
        TRY(operand_probe_write(v, address, s.size));
    if (!prevented)
        TRY(operand_write(v, address, s.bytes, s.size));
    if (s.missing) {
        stack_fault(f, false);
    } else {
        raise_flags(f, prevented ? s.env.flags & s.preventing : s.env.flags);
        set_c1(f, !prevented && s.env.up);
    }
    if (!prevented && reg != 2)
        pop(f);
    return DONE;
}

enum ending x87_transfer(struct vcpu *v, const struct operation *op, uint32_t address)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    if (is_store(op))
        return store(v, op, address);
    switch (row << 3 | reg) {
    case 010: return load_converted(v, address, "s");
    case 030: return load_converted(v, address, "l");
    case 035: return load_extended(v, address);
    case 050: return load_converted(v, address, "d");
    case 070: return load_converted(v, address, "w");
    case 074: return load_decimal(v, address);
    default: return load_converted(v, address, "q");
    }
}
