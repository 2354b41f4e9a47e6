/* See operation.h. */
#include "operation.h"

#include <string.h>

#include "decode.h"
#include "floating.h"
#include "fpu.h"
#include "operand.h"
#include "vcpu.h"

static void sixteen_bit_address(struct operation *op)
{
    enum { BX = 3, BP = 5, SI = 6, DI = 7 };
    static const int8_t bases[8] = {BX, BX, BP, BP, SI, DI, BP, BX}, indexes[8] = {SI, DI, SI, DI, -1, -1, -1, -1};
    unsigned mod = op->modrm >> 6, rm = op->modrm & 7;
    op->base = mod == 0 && rm == 6 ? -1 : bases[rm];
    op->index = indexes[rm];
}

static int8_t no_esp(unsigned index)
{
    return index == 4 ? -1 : (int8_t)index;
}

static uint32_t read_displacement(const uint8_t *p, unsigned bytes)
{
    if (bytes == 1)
        return (uint32_t)(int8_t)p[0];
    if (bytes == 2)
        return (uint32_t)(int16_t)(p[0] | p[1] << 8);
    uint32_t word = 0;
    memcpy(&word, p, bytes);
    return word;
}

/* The bytes behind the ModRM byte; returns where the immediate is. */
static const uint8_t *decode_address(const uint8_t *p, struct operation *op, int override)
{
    unsigned mod = op->modrm >> 6, rm = op->modrm & 7, bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    op->base = op->index = -1;
    if (op->address16) {
        sixteen_bit_address(op);
        bytes = mod == 1 ? 1 : mod == 2 || op->base < 0 ? 2 : 0;
    } else if (rm == 4) {
        uint8_t sib = *p++;
        op->index = no_esp(sib >> 3 & 7);
        op->scale = sib >> 6;
        op->base = (sib & 7) == 5 && mod == 0 ? -1 : (int8_t)(sib & 7);
        bytes = op->base < 0 ? 4 : bytes;
    } else if (rm == 5 && mod == 0) {
        bytes = 4;
    } else {
        op->base = (int8_t)rm;
    }
    op->displacement = read_displacement(p, bytes);
    bool on_stack = op->base == 5 || (op->base == 4 && !op->address16);
    op->segment = (uint8_t)(override >= 0 ? override : on_stack ? X86_SS : X86_DS);
    return p + bytes;
}

/* --- integer instructions ---------------------------------------------------------------------- */

enum { CF = 1, PF = 4, ZF = 64, SF = 128, OF = 2048 };

/* test by F6/1 and F7/1, which the engine does not know (APM vol. 3, table A-6). */
static enum ending test(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->opcode == 0xf6 ? 1 : op->operand16 ? 2 : 4, value = 0, sign = 1u << (8 * size - 1);
    if (op->memory) {
        TRY(operand_read(v, operand_address(v, op), &value, size));
    } else if (size == 1) {
        unsigned number = op->modrm & 7;
        value = operand_general(v, number & 3) >> (number & 4 ? 8 : 0) & 0xff;
    } else {
        value = operand_general(v, op->modrm & 7) & (sign | (sign - 1));
    }
    value &= size == 1 ? op->immediate : op->wide_immediate;
    uint32_t flags = (value == 0 ? ZF : 0) | (value & sign ? SF : 0) | (__builtin_parity(value & 0xff) ? 0 : PF);
    operand_set_eflags(v, flags, CF | PF | ZF | SF | OF);
    return DONE;
}

/* lzcnt on a processor without it: the prefix means nothing, and it is bsr. */
static enum ending scan_reverse(struct vcpu *v, const struct operation *op)
{
    uint32_t value = 0, to = op->modrm >> 3 & 7;
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), &value, op->operand16 ? 2 : 4));
    else
        value = operand_general(v, op->modrm & 7) & (op->operand16 ? 0xffff : UINT32_MAX);
    if (value != 0) {
        uint32_t index = 31 - (uint32_t)__builtin_clz(value);
        operand_set_general(v, to, op->operand16 ? (operand_general(v, to) & 0xffff0000) | index : index);
    }
    operand_set_eflags(v, value == 0 ? ZF : 0, ZF);
    return DONE;
}

/* --- execution --------------------------------------------------------------------------------- */

/* Chooses the function that executes it. */
static void choose(struct operation *op)
{
    op->uses_fpu = true;
    if (op->map == 0 && (op->opcode == 0xf6 || op->opcode == 0xf7)) {
        op->execute = test;
        op->uses_fpu = false;
    } else if (op->map == 1 && op->opcode == 0xbd) {
        op->execute = scan_reverse;
        op->uses_fpu = false;
    } else if (op->map == 0) {
        op->execute = x87_execute;
        x87_classify(op);
    } else if (!sse_classify(op)) {
        op->execute = simd_execute;
    }
}

void operation_decode(const uint8_t *code, struct operation *op)
{
    int override = -1;
    bool f2 = false, f3 = false;
    const uint8_t *p = code;
    *op = (struct operation){.segment = X86_DS};
    for (;; p++) {
        switch (*p) {
        case 0x26: override = X86_ES; continue;
        case 0x2e: override = X86_CS; continue;
        case 0x36: override = X86_SS; continue;
        case 0x3e: override = X86_DS; continue;
        case 0x64: override = X86_FS; continue;
        case 0x65: override = X86_GS; continue;
        case 0x66: op->operand16 = true; continue;
        case 0x67: op->address16 = true; continue;
        case 0xf2: f2 = true; continue;
        case 0xf3: f3 = true; continue;
        default: break;
        }
        break;
    }
    op->prefix = op->operand16 ? 0x66 : f3 ? 0xf3 : f2 ? 0xf2 : 0;
    op->opcode = *p++;
    if (op->opcode == 0x0f) {
        op->map = 1;
        op->opcode = *p++;
    }
    if (op->map == 1 && op->opcode == 0x77) {
        choose(op);
        return;
    }
    op->modrm = *p++;
    op->memory = op->modrm < 0xc0;
    if (op->memory)
        p = decode_address(p, op, override);
    else if (override >= 0)
        op->segment = (uint8_t)override;  /* of maskmovq's implicit operand */
    op->immediate = *p;
    choose(op);
    if (op->map == 0 && op->opcode == 0xf7)
        memcpy(&op->wide_immediate, p, op->operand16 ? 2 : 4);
}

enum ending operation_execute(struct vcpu *v, const struct operation *op)
{
    if (UNLIKELY(fpu_traps(&v->fpu)) && op->uses_fpu)
        fpu_switch(v);
    return op->execute(v, op);
}
