/*
 * Integer SIMD: all of MMX, and those SSE instructions that move or combine 16 bytes of memory, which must be aligned.
 *
 * Ref: Intel SDM vol. 1, 9.5 and 9.6 (MMX and the x87 registers), 11.6.10.1 (alignment); vol. 2, the instructions.
 */
#include "floating.h"

#include <string.h>

#include "operand.h"
#include "segments.h"
#include "vcpu.h"

/* An MMX instruction makes all x87 registers valid and ST0 the first (SDM vol. 1, 9.5.1). */
void simd_enter_mmx(struct vcpu *v)
{
    v->floating.top = 0;
    v->floating.valid = 0xff;
}

static int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

#define EACH(member, count, expression)                        \
    for (unsigned i = 0; i < bytes / (16 / (count)); i++)      \
        d->member[i] = (__typeof__(d->member[i]))(expression); \
    return true
#define B(x) ((x).b[i])
#define SB(x) ((int8_t)(x)->b[i])
#define SW(x) ((int16_t)(x)->w[i])

/* Interleaves the low (or high) halves of *d and s. */
static void unpack(union xmm *d, const union xmm *s, unsigned bytes, unsigned width, bool high)
{
    union xmm result;
    unsigned half = bytes / 2, offset = high ? half : 0;
    for (unsigned i = 0; i < half; i += width) {
        memcpy(result.b + 2 * i, d->b + offset + i, width);
        memcpy(result.b + 2 * i + width, s->b + offset + i, width);
    }
    memcpy(d, &result, bytes);
}

static void pack(union xmm *d, const union xmm *s, unsigned bytes, uint8_t opcode)
{
    union xmm result;
    for (unsigned half = 0; half < 2; half++) {
        const union xmm *from = half ? s : d;
        if (opcode == 0x6b)
            for (unsigned i = 0; i < bytes / 4; i++)
                result.w[half * bytes / 4 + i] = (uint16_t)clamp((int32_t)from->d[i], -32768, 32767);
        else
            for (unsigned i = 0; i < bytes / 2; i++)
                result.b[half * bytes / 2 + i] =
                    (uint8_t)(opcode == 0x63 ? clamp((int16_t)from->w[i], -128, 127) : clamp((int16_t)from->w[i], 0, 255));
    }
    memcpy(d, &result, bytes);
}

/* The count is a whole quadword. */
static bool shift(union xmm *d, uint8_t opcode, unsigned bytes, uint64_t count)
{
    unsigned by = count > 255 ? 255 : (unsigned)count;
    switch (opcode) {
    case 0xd1: EACH(w, 8, by > 15 ? 0 : d->w[i] >> by);
    case 0xd2: EACH(d, 4, by > 31 ? 0 : d->d[i] >> by);
    case 0xd3: EACH(q, 2, by > 63 ? 0 : d->q[i] >> by);
    case 0xe1: EACH(w, 8, SW(d) >> (by > 15 ? 15 : by));
    case 0xe2: EACH(d, 4, (int32_t)d->d[i] >> (by > 31 ? 31 : by));
    case 0xf1: EACH(w, 8, by > 15 ? 0 : d->w[i] << by);
    case 0xf2: EACH(d, 4, by > 31 ? 0 : d->d[i] << by);
    case 0xf3: EACH(q, 2, by > 63 ? 0 : d->q[i] << by);
    default: return false;
    }
}

static void sum_of_differences(union xmm *d, const union xmm *s, unsigned bytes)
{
    for (unsigned q = 0; q < bytes / 8; q++) {
        uint64_t sum = 0;
        for (unsigned i = 8 * q; i < 8 * q + 8; i++)
            sum += d->b[i] > s->b[i] ? d->b[i] - s->b[i] : s->b[i] - d->b[i];
        d->q[q] = sum;
    }
}

/* d = d `opcode` s on `bytes` (8 or 16) bytes. False: no such operation. */
static inline __attribute__((always_inline)) bool combine(uint8_t opcode, union xmm *d, const union xmm *s, unsigned bytes)
{
    switch (opcode) {
    case 0x60: case 0x61: case 0x62: unpack(d, s, bytes, 1u << (opcode - 0x60), false); return true;
    case 0x68: case 0x69: case 0x6a: unpack(d, s, bytes, 1u << (opcode - 0x68), true); return true;
    case 0x6c: case 0x6d: unpack(d, s, bytes, 8, opcode == 0x6d); return true;
    case 0x63: case 0x67: case 0x6b: pack(d, s, bytes, opcode); return true;
    case 0x64: EACH(b, 16, SB(d) > SB(s) ? -1 : 0);
    case 0x65: EACH(w, 8, SW(d) > SW(s) ? -1 : 0);
    case 0x66: EACH(d, 4, (int32_t)d->d[i] > (int32_t)s->d[i] ? -1 : 0);
    case 0x74: EACH(b, 16, d->b[i] == s->b[i] ? -1 : 0);
    case 0x75: EACH(w, 8, d->w[i] == s->w[i] ? -1 : 0);
    case 0x76: EACH(d, 4, d->d[i] == s->d[i] ? -1 : 0);
    case 0xd1: case 0xd2: case 0xd3: case 0xe1: case 0xe2: case 0xf1: case 0xf2: case 0xf3:
        return shift(d, opcode, bytes, s->q[0]);
    case 0xd4: EACH(q, 2, d->q[i] + s->q[i]);
    case 0xd5: EACH(w, 8, SW(d) * SW(s));
    case 0xd8: EACH(b, 16, clamp(d->b[i] - s->b[i], 0, 255));
    case 0xd9: EACH(w, 8, clamp(d->w[i] - s->w[i], 0, 65535));
    case 0xda: EACH(b, 16, d->b[i] < s->b[i] ? d->b[i] : s->b[i]);
    case 0x54: case 0xdb: EACH(q, 2, d->q[i] & s->q[i]);
    case 0xdc: EACH(b, 16, clamp(d->b[i] + s->b[i], 0, 255));
    case 0xdd: EACH(w, 8, clamp(d->w[i] + s->w[i], 0, 65535));
    case 0xde: EACH(b, 16, d->b[i] > s->b[i] ? d->b[i] : s->b[i]);
    case 0x55: case 0xdf: EACH(q, 2, ~d->q[i] & s->q[i]);
    case 0xe0: EACH(b, 16, (d->b[i] + s->b[i] + 1) >> 1);
    case 0xe3: EACH(w, 8, (d->w[i] + s->w[i] + 1) >> 1);
    case 0xe4: EACH(w, 8, ((uint32_t)d->w[i] * s->w[i]) >> 16);
    case 0xe5: EACH(w, 8, (SW(d) * SW(s)) >> 16);
    case 0xe8: EACH(b, 16, clamp(SB(d) - SB(s), -128, 127));
    case 0xe9: EACH(w, 8, clamp(SW(d) - SW(s), -32768, 32767));
    case 0xea: EACH(w, 8, SW(d) < SW(s) ? d->w[i] : s->w[i]);
    case 0x56: case 0xeb: EACH(q, 2, d->q[i] | s->q[i]);
    case 0xec: EACH(b, 16, clamp(SB(d) + SB(s), -128, 127));
    case 0xed: EACH(w, 8, clamp(SW(d) + SW(s), -32768, 32767));
    case 0xee: EACH(w, 8, SW(d) > SW(s) ? d->w[i] : s->w[i]);
    case 0x57: case 0xef: EACH(q, 2, d->q[i] ^ s->q[i]);
    case 0xf4: EACH(q, 2, (uint64_t)(uint32_t)d->q[i] * (uint32_t)s->q[i]);
    case 0xf5:
        for (unsigned i = 0; i < bytes / 2; i += 2)
            d->d[i / 2] = (uint32_t)((int16_t)d->w[i] * (int16_t)s->w[i]) + (uint32_t)((int16_t)d->w[i + 1] * (int16_t)s->w[i + 1]);
        return true;
    case 0xf6: sum_of_differences(d, s, bytes); return true;
    case 0xf8: EACH(b, 16, d->b[i] - s->b[i]);
    case 0xf9: EACH(w, 8, d->w[i] - s->w[i]);
    case 0xfa: EACH(d, 4, d->d[i] - s->d[i]);
    case 0xfb: EACH(q, 2, d->q[i] - s->q[i]);
    case 0xfc: EACH(b, 16, d->b[i] + s->b[i]);
    case 0xfd: EACH(w, 8, d->w[i] + s->w[i]);
    case 0xfe: EACH(d, 4, d->d[i] + s->d[i]);
    default: return false;
    }
}

/* --- MMX --------------------------------------------------------------------------------------- */

static void mmx_get(struct vcpu *v, unsigned number, union xmm *value)
{
    *value = (union xmm){.q = {v->floating.st[number & 7].m, 0}};
}

/* A write sets the exponent, and sign, to ones. */
static void mmx_set(struct vcpu *v, unsigned number, uint64_t value)
{
    v->floating.st[number & 7] = (struct extended){value, 0xffff};
}

static bool is_mmx_store(const struct operation *op)
{
    return op->memory && (op->opcode == 0x7e || op->opcode == 0x7f || op->opcode == 0xe7) && simd_is_mmx(op);
}

/* On Intel's processors a store has set TOP even if it faults, and maskmovq has made the registers valid, too. */
void simd_begin(struct vcpu *v, const struct operation *op)
{
    if (v->floating.is_amd || op->map != 1)
        return;
    if (is_mmx_store(op))
        v->floating.top = 0;
    else if (op->opcode == 0xf7 && simd_is_mmx(op))
        simd_enter_mmx(v);
}

static enum ending mmx_store(struct vcpu *v, const struct operation *op)
{
    uint64_t value = v->floating.st[op->modrm >> 3 & 7].m;
    bool doubleword = op->opcode == 0x7e;
    if (op->memory)
        TRY(operand_write(v, operand_address(v, op), &value, doubleword ? 4 : 8));
    simd_enter_mmx(v);
    if (!op->memory) {
        if (doubleword)
            operand_set_general(v, op->modrm & 7, (uint32_t)value);
        else
            mmx_set(v, op->modrm, value);
    }
    return DONE;
}

/* 71, 72, 73: by an immediate count; the ModRM byte says which shift. */
static enum ending mmx_shift_immediate(struct vcpu *v, const struct operation *op)
{
    static const uint8_t opcodes[3][8] = {
        {0, 0, 0xd1, 0, 0xe1, 0, 0xf1, 0}, {0, 0, 0xd2, 0, 0xe2, 0, 0xf2, 0}, {0, 0, 0xd3, 0, 0, 0, 0xf3, 0},
    };
    uint8_t opcode = opcodes[op->opcode - 0x71][op->modrm >> 3 & 7];
    union xmm value;
    mmx_get(v, op->modrm, &value);
    if (op->memory || opcode == 0)
        return raise_vector(v, VECTOR_UD);
    shift(&value, opcode, 8, op->immediate);
    simd_enter_mmx(v);
    mmx_set(v, op->modrm, value.q[0]);
    return DONE;
}

/* Bytes of `value` whose byte in `mask` has its highest bit set, to DS:EDI; nothing if one of them faults. */
static enum ending store_masked(struct vcpu *v, const struct operation *op, const union xmm *value, const union xmm *mask,
                                unsigned bytes)
{
    union xmm old;
    uint32_t address = operand_general(v, 7), first = bytes, last = 0;
    if (op->address16)
        address &= 0xffff;
    address += segments_base(&v->segments, op->segment);
    for (unsigned i = 0; i < bytes; i++) {
        if (!(mask->b[i] & 0x80))
            continue;
        first = first < i ? first : i;
        last = i;
    }
    if (first == bytes)
        return DONE;
    TRY(operand_probe_write(v, address + first, last - first + 1));
    TRY(operand_read(v, address + first, old.b + first, last - first + 1));
    for (unsigned i = first; i <= last; i++)
        if (mask->b[i] & 0x80)
            old.b[i] = value->b[i];
    return operand_write(v, address + first, old.b + first, last - first + 1);
}

/* movd, movq and pinsrw, pextrw, pmovmskb, pshufw, maskmovq, and moves from and to XMM registers. */
static enum ending mmx_special(struct vcpu *v, const struct operation *op, bool *done)
{
    unsigned to = op->modrm >> 3 & 7, from = op->modrm & 7;
    union xmm value, mask;
    uint32_t word = 0;
    *done = true;
    mmx_get(v, from, &value);
    switch (op->opcode) {
    case 0x6e:
        if (op->memory)
            TRY(operand_read(v, operand_address(v, op), &word, 4));
        else
            word = operand_general(v, from);
        value.q[0] = word;
        break;
    case 0x70:
        if (op->memory)
            TRY(operand_read(v, operand_address(v, op), &value, 8));
        mask = value;
        for (unsigned i = 0; i < 4; i++)
            value.w[i] = mask.w[op->immediate >> 2 * i & 3];
        break;
    case 0x77:
        simd_enter_mmx(v);
        v->floating.valid = 0;
        return DONE;
    case 0xc4:
        if (op->memory)
            TRY(operand_read(v, operand_address(v, op), &word, 2));
        else
            word = operand_general(v, from);
        mmx_get(v, to, &value);
        value.w[op->immediate & 3] = (uint16_t)word;
        break;
    case 0xc5:
        simd_enter_mmx(v);
        operand_set_general(v, to, value.w[op->immediate & 3]);
        return DONE;
    case 0xd6:
        simd_enter_mmx(v);
        if (op->prefix == 0xf3) {  /* movq2dq */
            *operand_xmm(v, to) = value;
            return DONE;
        }
        value.q[0] = operand_xmm(v, from)->q[0];
        break;
    case 0xd7:
        for (unsigned i = 0; i < 8; i++)
            word |= (uint32_t)(value.b[i] >> 7) << i;
        simd_enter_mmx(v);
        operand_set_general(v, to, word);
        return DONE;
    case 0xf7:
        mask = value;
        mmx_get(v, to, &value);
        TRY(store_masked(v, op, &value, &mask, 8));
        simd_enter_mmx(v);
        return DONE;
    default:
        *done = false;
        return DONE;
    }
    simd_enter_mmx(v);
    mmx_set(v, to, value.q[0]);
    return DONE;
}

/* d `opcode` s in MMX registers, or with memory. */
static enum ending mmx_combine(struct vcpu *v, const struct operation *op)
{
    union xmm source, value;
    TRY(x87_check_pending(v));
    mmx_get(v, op->modrm, &source);
    bool half = op->opcode >= 0x60 && op->opcode <= 0x62;  /* these read only the low half from memory */
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), &source, half ? 4 : 8));
    mmx_get(v, op->modrm >> 3, &value);
    if (!combine(op->opcode, &value, &source, 8))
        return raise_vector(v, VECTOR_UD);
    simd_enter_mmx(v);
    mmx_set(v, op->modrm >> 3, value.q[0]);
    return DONE;
}

/* movq from memory or a register. */
static enum ending mmx_move(struct vcpu *v, const struct operation *op)
{
    uint64_t value = v->floating.st[op->modrm & 7].m;
    TRY(x87_check_pending(v));
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), &value, 8));
    simd_enter_mmx(v);
    mmx_set(v, op->modrm >> 3, value);
    return DONE;
}

static enum ending mmx_execute(struct vcpu *v, const struct operation *op)
{
    bool done;
    TRY(x87_check_pending(v));
    simd_begin(v, op);
    if (op->opcode == 0x7e || op->opcode == 0x7f || op->opcode == 0xe7)
        return mmx_store(v, op);
    if (op->opcode >= 0x71 && op->opcode <= 0x73)
        return mmx_shift_immediate(v, op);
    TRY(mmx_special(v, op, &done));
    return done ? DONE : mmx_combine(v, op);
}

/* --- 16 bytes of memory ------------------------------------------------------------------------ */

static void shuffle(const struct operation *op, union xmm *d, const union xmm *s)
{
    union xmm result = *s;
    uint8_t order = op->immediate;
    for (unsigned i = 0; i < 4; i++) {
        unsigned from = order >> 2 * i & 3;
        if (op->prefix == 0x66)
            result.d[i] = s->d[from];
        else if (op->prefix == 0xf2)
            result.w[i] = s->w[from];
        else
            result.w[4 + i] = s->w[4 + from];
    }
    *d = result;
}

static void shuffle_floats(const struct operation *op, union xmm *d, const union xmm *s)
{
    union xmm old = *d;
    uint8_t order = op->immediate;
    if (op->prefix == 0x66) {
        d->q[0] = old.q[order & 1];
        d->q[1] = s->q[order >> 1 & 1];
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        d->d[i] = (i < 2 ? &old : s)->d[order >> 2 * i & 3];
}

static enum ending wide_execute(struct vcpu *v, const struct operation *op)
{
    union xmm s, *d = operand_xmm(v, op->modrm >> 3 & 7);
    uint32_t address = operand_address(v, op);
    bool unaligned = op->opcode == 0x11 || (op->opcode == 0x7f && op->prefix == 0xf3);
    if (address & 15 && !unaligned)
        return raise_vector(v, VECTOR_GP);
    switch (op->opcode) {
    case 0x11: case 0x29: case 0x2b: case 0x7f: case 0xe7:
        return operand_write(v, address, d, 16);
    default:
        break;
    }
    TRY(operand_read(v, address, &s, 16));
    switch (op->opcode) {
    case 0x12: case 0x16:  /* movsldup, movshdup */
        for (unsigned i = 0; i < 4; i++)
            d->d[i] = s.d[op->opcode == 0x12 ? i & ~1u : i | 1];
        return DONE;
    case 0x14: case 0x15:
        unpack(d, &s, 16, op->prefix == 0x66 ? 8 : 4, op->opcode == 0x15);
        return DONE;
    case 0x28: case 0x6f:
        *d = s;
        return DONE;
    case 0x70:
        shuffle(op, d, &s);
        return DONE;
    case 0xc6:
        shuffle_floats(op, d, &s);
        return DONE;
    default:
        return combine(op->opcode, d, &s, 16) ? DONE : raise_vector(v, VECTOR_UD);
    }
}

/* Whether it is an instruction with an MMX register, of those that simd_execute() has. */
bool simd_is_mmx(const struct operation *op)
{
    bool floats = op->opcode < 0x60 || op->opcode == 0xc6;
    return !floats && (op->prefix == 0 || (op->opcode == 0xd6 && op->prefix != 0x66));
}

/* extrq, insertq: a field of the low half; what becomes of the high half is open (APM vol. 4). */
static enum ending bit_field(struct vcpu *v, const struct operation *op)
{
    bool inserts = op->prefix == 0xf2, immediate = op->opcode == 0x78;
    unsigned reg = op->modrm >> 3 & 7, rm = op->modrm & 7;
    union xmm *d = operand_xmm(v, inserts || !immediate ? reg : rm);
    const union xmm *s = operand_xmm(v, rm);
    unsigned length = immediate ? op->immediate : inserts ? s->b[8] : s->b[0];
    unsigned index = (immediate ? op->wide_immediate : inserts ? s->b[9] : s->b[1]) & 63;
    uint64_t mask = UINT64_MAX >> (-length & 63);
    if (inserts)
        d->q[0] = (d->q[0] & ~(mask << index)) | (s->q[0] & mask) << index;
    else
        d->q[0] = d->q[0] >> index & mask;
    d->q[1] = 0;
    return DONE;
}

/*
 * With F2 or F3, moves and shuffles that the engine would take for those with 66, were there that prefix, too: F2 and F3
 * are part of the opcode, and 66 then means nothing (SDM vol. 2, 2.1.2; APM vol. 3, 1.2.2).
 */
static enum ending move_prefixed(struct vcpu *v, const struct operation *op)
{
    bool stores = op->opcode == 0x11 || op->opcode == 0x2b || op->opcode == 0x7f || op->opcode == 0xd6;
    unsigned reg = op->modrm >> 3 & 7, rm = op->modrm & 7;
    uint32_t size = op->opcode == 0x7e || (op->prefix == 0xf2 && op->opcode != 0x70 && op->opcode != 0xf0) ? 8
                  : op->opcode < 0x30 && (op->opcode & ~5) != 0x12 ? 4 : 16;
    union xmm s, *d = operand_xmm(v, reg);
    if (op->memory && stores)
        return operand_write(v, operand_address(v, op), d, size);
    bool aligned = size == 16 && op->opcode != 0x6f && op->opcode != 0xf0;
    if (op->memory && aligned && operand_address(v, op) & 15)
        return raise_vector(v, VECTOR_GP);
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), &s, size));
    else
        s = *operand_xmm(v, stores ? reg : rm);
    if (stores)
        d = operand_xmm(v, rm);
    switch (op->opcode) {
    case 0x10: case 0x11:
        if (op->memory)
            *d = (union xmm){.q = {0, 0}};
        memcpy(d, &s, size);
        return DONE;
    case 0x12: case 0x16:
        for (unsigned i = 0; i < 4; i++)
            d->d[i] = s.d[op->prefix == 0xf2 ? i & 1 : op->opcode == 0x12 ? i & ~1u : i | 1];
        return DONE;
    case 0x70:
        shuffle(op, d, &s);
        return DONE;
    case 0x7e:
        *d = (union xmm){.q = {s.q[0], 0}};
        return DONE;
    case 0x6f: case 0x7f: case 0xf0:
        *d = s;
        return DONE;
    default:
        return raise_vector(v, VECTOR_UD);
    }
}

static enum ending store_masked_wide(struct vcpu *v, const struct operation *op)
{
    return store_masked(v, op, operand_xmm(v, op->modrm >> 3 & 7), operand_xmm(v, op->modrm & 7), 16);
}

/* Whether an MMX instruction of this opcode combines two operands, and is no special case. */
static bool combines(uint8_t opcode)
{
    return (opcode >= 0x60 && opcode <= 0x6b) || (opcode >= 0x74 && opcode <= 0x76)
        || (opcode >= 0xd1 && opcode != 0xd6 && opcode != 0xd7 && opcode != 0xe7 && opcode != 0xf7);
}

executor simd_executor(const struct operation *op)
{
    if (op->opcode == 0x78 || op->opcode == 0x79)
        return bit_field;
    if (op->operand16 && op->prefix >= 0xf2 && op->opcode != 0xd6)
        return move_prefixed;
    if (op->opcode == 0xf7 && op->prefix == 0x66)
        return store_masked_wide;
    if (!simd_is_mmx(op))
        return wide_execute;
    return op->opcode == 0x6f ? mmx_move : combines(op->opcode) ? mmx_combine : mmx_execute;
}
