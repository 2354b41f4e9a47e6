/* See operation.h. */
#include "operation.h"

#include <string.h>

#include "decode.h"
#include "floating.h"
#include "fpu.h"
#include "integer.h"
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

/* --- execution --------------------------------------------------------------------------------- */

/* Chooses the function that executes it. */
static void choose(struct operation *op)
{
    if (integer_classify(op))
        return;
    op->uses_fpu = true;
    if (op->map == 0) {
        x87_classify(op);
    } else if (!sse_classify(op)) {
        op->execute = simd_executor(op);
        op->waits = simd_is_mmx(op);
    }
}

const uint8_t *operation_decode_opcode(const uint8_t *code, struct operation *op, int *override)
{
    bool f2 = false, f3 = false;
    const uint8_t *p = code;
    *op = (struct operation){.segment = X86_DS};
    *override = -1;
    for (;; p++) {
        switch (*p) {
        case 0x26: *override = X86_ES; continue;
        case 0x2e: *override = X86_CS; continue;
        case 0x36: *override = X86_SS; continue;
        case 0x3e: *override = X86_DS; continue;
        case 0x64: *override = X86_FS; continue;
        case 0x65: *override = X86_GS; continue;
        case 0x66: op->operand16 = true; continue;
        case 0x67: op->address16 = true; continue;
        case 0xf0: continue;
        case 0xf2: f2 = true; f3 = false; continue;
        case 0xf3: f3 = true; f2 = false; continue;
        default: break;
        }
        break;
    }
    if (*override >= 0)
        op->segment = (uint8_t)*override;  /* of an implicit operand */
    op->prefix = f3 ? 0xf3 : f2 ? 0xf2 : op->operand16 ? 0x66 : 0;
    op->opcode = *p++;
    if (op->opcode == 0x0f) {
        op->map = 1;
        op->opcode = *p++;
    }
    return p;
}

const uint8_t *operation_decode_modrm(const uint8_t *p, struct operation *op, int override)
{
    op->modrm = *p++;
    op->memory = op->modrm < 0xc0;
    return op->memory ? decode_address(p, op, override) : p;
}

void operation_decode(const uint8_t *code, struct operation *op)
{
    int override;
    const uint8_t *p = operation_decode_opcode(code, op, &override);
    bool alone = op->map == 1 ? op->opcode == 0x77 : op->opcode == 0x60 || op->opcode == 0x61;
    if (alone || (op->map == 0 && op->opcode == 0xc8)) {  /* no ModRM byte */
        if (!alone) {  /* enter */
            op->wide_immediate = (uint32_t)(p[0] | p[1] << 8);
            op->immediate = p[2];
        }
        choose(op);
        return;
    }
    p = operation_decode_modrm(p, op, override);
    op->immediate = *p;
    if (op->map == 1 && op->opcode == 0x78)
        op->wide_immediate = p[1];
    choose(op);
    if (op->map == 0 && op->opcode == 0xf7)
        memcpy(&op->wide_immediate, p, op->operand16 ? 2 : 4);
}

enum ending operation_begin(struct vcpu *v, const struct operation *op)
{
    if (!op->uses_fpu)
        return DONE;
    if (fpu_traps(&v->fpu))
        fpu_switch(v);
    TRY(x87_begin(v, op));
    simd_begin(v, op);
    return DONE;
}

bool operation_skips_operand(struct vcpu *v, const struct operation *op)
{
    return op->uses_fpu && x87_skips_operand(v, op);
}

enum ending operation_execute(struct vcpu *v, const struct operation *op)
{
    if (UNLIKELY(fpu_traps(&v->fpu)) && op->uses_fpu)
        fpu_switch(v);
    return op->execute(v, op);
}
