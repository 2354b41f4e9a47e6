/* See requires.h. Ref: AMD64 Architecture Programmer's Manual vol. 3, appendix D (instructions and CPUID flags). */
#include "requires.h"

/* What the bits of cpuid must promise: of the second opcode map. */
static uint32_t sse_feature(const struct decoding *s)
{
    int prefix = opcodes_prefix(s);
    switch (s->opcode) {
    case 0x12: case 0x16:
        return prefix >= 0xf2 ? FEATURE_SSE3 : prefix ? FEATURE_SSE2 : FEATURE_SSE;
    case 0x2b:
        return prefix >= 0xf2 ? FEATURE_SSE4A : prefix ? FEATURE_SSE2 : FEATURE_SSE;
    case 0x78: case 0x79:
        return FEATURE_SSE4A;
    case 0x7c: case 0x7d: case 0xd0: case 0xf0:
        return FEATURE_SSE3;
    case 0x2a: case 0x2c: case 0x2d:
        return prefix == 0 || prefix == 0xf3 ? FEATURE_SSE : FEATURE_SSE2;
    case 0x5a: case 0x5b: case 0x6c: case 0x6d: case 0xc3: case 0xd4: case 0xd6: case 0xe6: case 0xf4: case 0xfb:
        return FEATURE_SSE2;
    case 0x70: case 0xc4: case 0xc5: case 0xd7: case 0xda: case 0xde: case 0xe0: case 0xe3: case 0xe4: case 0xe7:
    case 0xea: case 0xee: case 0xf6: case 0xf7:
        return prefix ? FEATURE_SSE2 : FEATURE_SSE;
    default:
        break;
    }
    if (s->opcode >= 0x60 && s->opcode != 0xc2 && s->opcode != 0xc6)
        return prefix ? FEATURE_SSE2 : FEATURE_MMX;
    return prefix == 0 || prefix == 0xf3 ? FEATURE_SSE : FEATURE_SSE2;
}

static int is_simd(const struct decoding *s)
{
    uint8_t o = s->opcode;
    return (o >= 0x10 && o <= 0x17) || (o >= 0x28 && o <= 0x2f) || (o >= 0x50 && o <= 0x7f) || o == 0xc2
        || (o >= 0xc3 && o <= 0xc6) || (o >= 0xd0 && o < 0xff);
}

static uint32_t state_feature(const struct decoding *s)
{
    static const uint32_t memory[8] = {FEATURE_FXSR, FEATURE_FXSR, FEATURE_SSE, FEATURE_SSE, FEATURE_NO_CPU,
                                       FEATURE_NO_CPU, FEATURE_NO_CPU, FEATURE_CLFLUSH};
    uint8_t reg = s->modrm >> 3 & 7;
    if (!s->register_form)
        return opcodes_prefix(s) == 0 ? memory[reg] : FEATURE_NO_CPU;
    return reg == 7 ? FEATURE_SSE : reg >= 5 ? FEATURE_SSE2 : FEATURE_NO_CPU;
}

uint32_t requires_features(const struct decoding *s)
{
    uint8_t o = s->opcode, reg = s->modrm >> 3 & 7;
    if (s->map == 0) {
        int moves = (o == 0xda || o == 0xdb) && s->modrm >= 0xc0 && reg < 4;
        int compares = (o == 0xdb || o == 0xdf) && s->modrm >= 0xe8 && s->modrm < 0xf8;
        int truncates = (o == 0xdb || o == 0xdd || o == 0xdf) && s->modrm < 0xc0 && reg == 1;
        return moves || compares ? FEATURE_CMOV : truncates ? FEATURE_SSE3 : 0;
    }
    if (s->map != 1)
        return FEATURE_NO_CPU;
    if (is_simd(s))
        return sse_feature(s);
    if (o >= 0x40 && o <= 0x4f)
        return FEATURE_CMOV;
    switch (o) {
    case 0x01: return !s->register_form || reg >= 4 ? (s->modrm == 0xf9 ? FEATURE_RDTSCP : 0) : FEATURE_NO_CPU;
    case 0x0d: case 0x0e: case 0x0f: return FEATURE_NO_CPU;
    case 0x18: return FEATURE_SSE;
    case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f: case 0x33: return FEATURE_P6;
    case 0x31: return FEATURE_TSC;
    case 0xae: return state_feature(s);
    case 0xb8: return s->f3 ? FEATURE_POPCNT : 0;
    case 0xbd: return s->f3 ? FEATURE_ABM : 0;
    case 0xc7: return reg == 1 ? FEATURE_CX8 : 0;
    default: return 0;
    }
}

/* Which of the SSE and MMX instructions the shim executes: arithmetic, MMX, and operands of 16 bytes in memory. */
static int ours_simd(const struct decoding *s)
{
    int prefix = opcodes_prefix(s), memory = !s->register_form, packed = prefix == 0 || prefix == 0x66;
    uint8_t o = s->opcode;
    if (s->operand16 && prefix >= 0xf2)  /* where the engine goes by the wrong one */
        return 1;
    switch (o) {
    case 0x78: case 0x79: return 1;
    case 0x11: case 0x14: case 0x15: case 0x28: case 0x29: case 0x2b:
    case 0x54: case 0x55: case 0x56: case 0x57: case 0xc6:
        return memory && packed;
    case 0x12: case 0x16: return memory && prefix == 0xf3;
    case 0x2e: case 0x2f: return packed;
    case 0x52: case 0x53: return prefix == 0 || prefix == 0xf3;
    case 0x5b: return prefix != 0xf2;
    case 0x2a: case 0x2c: case 0x2d: case 0x51: case 0x58: case 0x59: case 0x5a:
    case 0x5c: case 0x5d: case 0x5e: case 0x5f: case 0xc2:
        return 1;
    case 0x6c: case 0x6d: return memory && prefix == 0x66;
    case 0x6e: case 0x71: case 0x72: case 0x73: case 0x77: case 0x7e: case 0xc4: case 0xc5: case 0xd7:
        return prefix == 0;
    case 0x70: return prefix == 0 || memory;
    case 0x7c: case 0x7d: case 0xd0: return prefix == 0x66 || prefix == 0xf2;
    case 0x7f: return prefix == 0 || (memory && prefix != 0xf2);
    case 0xd6: return prefix >= 0xf2 && !memory;
    case 0xe6: return prefix != 0;
    case 0xe7: return memory && packed;
    case 0xf7: return !memory && packed;
    case 0xf0: return 0;
    default: break;
    }
    int whole = (o >= 0x60 && o <= 0x6b) || o == 0x6f || (o >= 0x74 && o <= 0x76) || (o >= 0xd1 && o < 0xff);
    return whole && (prefix == 0 || (memory && prefix == 0x66));
}

int requires_shim(const struct decoding *s)
{
    uint8_t reg = s->modrm >> 3 & 7;
    if (s->map == 0) {
        int test = (s->opcode == 0xf6 || s->opcode == 0xf7) && (reg == 1 || (reg == 3 && s->lock));
        int shifts = s->opcode == 0xc0 || s->opcode == 0xc1 || (s->opcode >= 0xd0 && s->opcode <= 0xd3);
        int rotates = shifts && (reg == 2 || reg == 3) && !s->register_form;
        int frames = s->opcode == 0x60 || s->opcode == 0x61 || s->opcode == 0xc8;
        return test || rotates || frames || s->opcode == 0x63 || (s->opcode >= 0xd8 && s->opcode <= 0xdf);
    }
    if (s->map != 1)
        return 0;
    if (s->opcode == 0x18)
        return s->register_form;
    if ((s->opcode & 0xf0) == 0x90)  /* setcc */
        return !s->register_form;
    if (s->opcode == 0xc7)
        return reg == 1 && !s->register_form;
    if (s->opcode == 0xae)
        return !s->register_form && (reg <= 3 || reg == 7) && opcodes_prefix(s) == 0;
    return is_simd(s) && ours_simd(s);
}
