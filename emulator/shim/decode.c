/* See decode.h. The opcode maps are data; what does not fit into them is code in refine(). */
#include "decode.h"

/* How an opcode goes on after its last opcode byte, and what it does. One word per opcode. */
enum {
    M = 1 << 0,        /* has a ModRM byte */
    REG = 1 << 1,      /* the ModRM byte names registers whatever its mod field says */
    R = 1 << 2,        /* reads its memory operand */
    W = 1 << 3,        /* writes its memory operand */
    RW = R | W,
    I8 = 1 << 4,       /* immediate: one byte */
    I16 = 1 << 5,      /* two bytes */
    IZ = 1 << 6,       /* two or four bytes, by operand size */
    IA = 1 << 7,       /* two or four bytes, by address size: a memory operand at an absolute address */
    POP = 1 << 8,      /* reads the stack once */
    PUSH = 1 << 9,     /* writes the stack once */
    SEG = 1 << 10,     /* may change a segment register */
    END = 1 << 11,     /* ends a block */
    STR = 1 << 12,     /* string instruction: R reads the source at (E)SI, W writes ES:(E)DI */
    NO = 1 << 13,      /* refused in user mode with #GP(0) */
    CLASS_SHIFT = 16,
};
#define C(name) (COST_##name << CLASS_SHIFT)
#define A C(ALU)
#define B C(BRANCH)
#define V (C(SSE) | M | R)

#define ARITHMETIC A | M | RW, A | M | RW, A | M | R, A | M | R, A | I8, A | IZ
#define X8(x) x, x, x, x, x, x, x, x
#define X16(x) X8(x), X8(x)

static const uint32_t one_byte[256] = {
    /* 00 */ ARITHMETIC, A | PUSH, C(SEGMENT) | SEG | POP, ARITHMETIC, A | PUSH, 0 /* 0f: second map */,
    /* 10 */ ARITHMETIC, A | PUSH, C(SEGMENT) | SEG | POP, ARITHMETIC, A | PUSH, C(SEGMENT) | SEG | POP,
    /* 20 */ ARITHMETIC, 0, A, ARITHMETIC, 0, A,
    /* 30 */ ARITHMETIC, 0, A, A | M | R, A | M | R, A | M | R, A | M | R, A | I8, A | IZ, 0, A,
    /* 40 */ X16(A),
    /* 50 */ X8(A | PUSH), X8(A | POP),
    /* 60 */ A, A, A | M | R, A | M | RW, 0, 0, 0, 0,
    /* 68 */ A | IZ | PUSH, C(MUL) | M | R | IZ, A | I8 | PUSH, C(MUL) | M | R | I8,
             A | NO, A | NO, A | NO, A | NO,
    /* 70 */ X16(B | I8 | END),
    /* 80 */ A | M | RW | I8, A | M | RW | IZ, A | M | RW | I8, A | M | RW | I8,
             A | M | R, A | M | R, A | M | RW, A | M | RW,
    /* 88 */ A | M | W, A | M | W, A | M | R, A | M | R,
             A | M | W, A | M, C(SEGMENT) | M | R | SEG, A | M | W | POP,
    /* 90 */ X8(A), A, A, C(SEGMENT) | IZ | I16 | SEG | END, C(X87), A | PUSH, A | POP, A, A,
    /* a0 */ A | IA | R, A | IA | R, A | IA | W, A | IA | W,
             C(STRING) | STR | R | W, C(STRING) | STR | R | W, C(STRING) | STR | R, C(STRING) | STR | R,
    /* a8 */ A | I8, A | IZ, C(STRING) | STR | W, C(STRING) | STR | W,
             C(STRING) | STR | R, C(STRING) | STR | R, C(STRING) | STR | R, C(STRING) | STR | R,
    /* b0 */ X8(A | I8), X8(A | IZ),
    /* c0 */ A | M | RW | I8, A | M | RW | I8, C(CALL) | I16 | POP | END, C(CALL) | POP | END,
             C(SEGMENT) | M | R | SEG, C(SEGMENT) | M | R | SEG, A | M | W | I8, A | M | W | IZ,
    /* c8 */ A | I16 | I8 | PUSH, A | POP, C(SEGMENT) | I16 | POP | SEG | END, C(SEGMENT) | POP | SEG | END,
             C(TRAP) | END, C(TRAP) | I8 | END, C(TRAP), C(SEGMENT) | POP | SEG | END,
    /* d0 */ A | M | RW, A | M | RW, A | M | RW, A | M | RW, C(DIV) | I8, C(MUL) | I8, A, A | R,
    /* d8 */ X8(C(X87) | M),
    /* e0 */ B | I8 | END, B | I8 | END, B | I8 | END, B | I8 | END, A | I8 | NO, A | I8 | NO, A | I8 | NO, A | I8 | NO,
    /* e8 */ C(CALL) | IZ | PUSH | END, B | IZ | END, C(SEGMENT) | IZ | I16 | SEG | END, B | I8 | END,
             A | NO, A | NO, A | NO, A | NO,
    /* f0 */ 0, A | END, 0, 0, C(SERIAL) | END, A, A | M | RW, A | M | RW,
    /* f8 */ A, A, C(SERIAL), C(SERIAL), A, A, A | M | RW, A | M | RW,
};

static const uint32_t two_bytes[256] = {
    /* 00 */ C(SEGMENT) | M | R, C(SERIAL) | M | W, C(SEGMENT) | M | R, C(SEGMENT) | M | R,
             A, C(SERIAL) | NO | END, C(SERIAL), C(SERIAL) | NO | END,
    /* 08 */ C(SERIAL), C(SERIAL), A | END, A | END, A, A | M, C(SSE), V | I8,
    /* 10 */ V, C(SSE) | M | W, V, C(SSE) | M | W, V, V, V, C(SSE) | M | W,
    /* 18 */ X8(A | M),
    /* 20 */ C(SERIAL) | M | REG, C(SERIAL) | M | REG, C(SERIAL) | M | REG, C(SERIAL) | M | REG, A, A, A, A,
    /* 28 */ V, C(SSE) | M | W, V, C(SSE) | M | W, V, V, V, V,
    /* 30 */ C(SERIAL), C(SERIAL), C(SERIAL), C(SERIAL) | NO, C(SERIAL) | NO | END, C(SERIAL) | NO | END, A, A,
    /* 38 */ A, A, A, A, A, A, A, A,
    /* 40 */ X16(A | M | R),
    /* 50 */ C(SSE) | M | REG, C(SSE_SLOW) | M | R, V, V, V, V, V, V, V, V, V, V, V, V, C(SSE_SLOW) | M | R, V,
    /* 60 */ X16(V),
    /* 70 */ V | I8, C(SSE) | M | REG | I8, C(SSE) | M | REG | I8, C(SSE) | M | REG | I8, V, V, V, C(SSE),
    /* 78 */ V, V, V, V, V, V, C(SSE) | M | W, C(SSE) | M | W,
    /* 80 */ X16(B | IZ | END),
    /* 90 */ X16(A | M | W),
    /* a0 */ A | PUSH, C(SEGMENT) | POP | SEG, C(SERIAL), A | M | R, A | M | RW | I8, A | M | RW, A, A,
    /* a8 */ A | PUSH, C(SEGMENT) | POP | SEG, C(SERIAL) | END, A | M | RW, A | M | RW | I8, A | M | RW, C(SERIAL) | M, C(MUL) | M | R,
    /* b0 */ A | M | RW, A | M | RW, C(SEGMENT) | M | R | SEG, A | M | RW,
             C(SEGMENT) | M | R | SEG, C(SEGMENT) | M | R | SEG, A | M | R, A | M | R,
    /* b8 */ A | M | R, A | M | END, A | M | RW | I8, A | M | RW, A | M | R, A | M | R, A | M | R, A | M | R,
    /* c0 */ A | M | RW, A | M | RW, V | I8, A | M | W, V | I8, V | I8, V | I8, A | M | RW,
    /* c8 */ X8(A),
    /* d0 */ V, V, V, V, V, V, C(SSE) | M | W, V, X8(V),
    /* e0 */ V, V, V, V, V, V, V, C(SSE) | M | W, X8(V),
    /* f0 */ V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, A | END,
};

struct state {
    uint32_t word;
    int map;          /* 0: one byte, 1: 0f, 2: 0f 38, 3: 0f 3a */
    uint8_t opcode;
    uint8_t modrm;
    uint8_t second;   /* the byte after the opcode, or 0 */
    int operand16, address16, lock, f2, f3;
    int segment;      /* override, or -1 */
    int register_form;
};

/* x87: D8..DF by opcode and the reg field of a memory operand: read, written, or neither. */
static uint32_t x87_word(uint8_t opcode, uint8_t modrm)
{
    static const char access[8][9] = {  /* n: 28 bytes and more of state */
        "rrrrrrrr", "r.wwnrnw", "rrrrrrrr", "rwww.r.w", "rrrrrrrr", "rwwwn.nw", "rrrrrrrr", "rwwwnrnw",
    };
    uint8_t reg = modrm >> 3 & 7;
    if (modrm >= 0xc0) {
        int slow = (opcode == 0xd9 && modrm >= 0xf0) || (opcode == 0xd8 && reg >= 6)
                || ((opcode == 0xdc || opcode == 0xde) && reg >= 6);
        return (slow ? C(X87_SLOW) : C(X87)) | M;
    }
    switch (access[opcode & 7][reg]) {
    case 'r': {
        int divides = !(opcode & 1) && reg >= 6;
        return (divides ? C(X87_SLOW) : C(X87)) | M | R;
    }
    case 'w':
        return C(X87) | M | W;
    case 'n':
        return C(X87_SLOW) | M | (reg == 4 ? R : W);
    default:
        return C(X87) | M;
    }
}

/* The prefix that is part of an SSE opcode, in the engine's order of preference; or 0. */
static int mandatory_prefix(const struct state *s)
{
    return s->operand16 ? 0x66 : s->f3 ? 0xf3 : s->f2 ? 0xf2 : 0;
}

/* The opcodes that mean different things by their ModRM byte or prefix. */
static void refine_one_byte(struct state *s)
{
    uint8_t reg = s->modrm >> 3 & 7;
    switch (s->opcode) {
    case 0x8f:
        if (reg != 0)
            s->word = A | M | NO | END;  /* XOP: not there */
        break;
    case 0x80: case 0x81: case 0x82: case 0x83:
        if (reg == 7)
            s->word &= ~(uint32_t)W;  /* cmp */
        break;
    case 0xf6: case 0xf7:
        if (reg <= 1)  /* test */
            s->word = A | M | R | (s->opcode == 0xf6 ? I8 : IZ);
        else if (reg >= 4)
            s->word = (reg >= 6 ? C(DIV) : C(MUL)) | M | R;
        break;
    case 0xff:
        switch (reg) {
        case 2: s->word = C(CALL) | M | R | PUSH | END; break;
        case 3: s->word = C(SEGMENT) | M | R | PUSH | SEG | END; break;
        case 4: s->word = B | M | R | END; break;
        case 5: s->word = C(SEGMENT) | M | R | SEG | END; break;
        case 6: s->word = A | M | R | PUSH; break;
        case 7: s->word = A | M | END; break;
        default: break;
        }
        break;
    case 0xd8: case 0xd9: case 0xda: case 0xdb: case 0xdc: case 0xdd: case 0xde: case 0xdf:
        s->word = x87_word(s->opcode, s->modrm);
        break;
    default:
        break;
    }
}

static void refine_two_bytes(struct state *s)
{
    uint8_t reg = s->modrm >> 3 & 7;
    switch (s->opcode) {
    case 0x00:
        if (reg <= 1)
            s->word = C(SEGMENT) | M | W;  /* sldt, str */
        break;
    case 0x01:
        if (s->register_form)
            s->word = C(SERIAL) | M;
        else if (reg == 2 || reg == 3 || reg == 6)
            s->word = C(SERIAL) | M | R;
        else if (reg == 7)
            s->word = C(SERIAL) | M;  /* invlpg */
        break;
    case 0x12: case 0x16: case 0x2a: case 0x2c: case 0x2d: case 0x2e: case 0x2f:
        break;
    case 0x78:
        if (mandatory_prefix(s) == 0x66 || mandatory_prefix(s) == 0xf2)
            s->word = C(SSE) | M | REG | I16;  /* extrq, insertq: two byte immediates */
        break;
    case 0x7e:
        if (mandatory_prefix(s) == 0xf3)
            s->word = V;  /* movq xmm, m64 */
        break;
    case 0xae:
        if (s->register_form)
            s->word = C(SERIAL) | M;  /* fences */
        else
            s->word = reg == 0 ? C(X87_SLOW) | M | W : reg == 1 ? C(X87_SLOW) | M | R
                : reg == 2 ? C(SSE) | M | R : reg == 3 ? C(SSE) | M | W : C(SERIAL) | M;
        break;
    case 0xba:
        if (reg == 4)
            s->word = A | M | R | I8;  /* bt */
        break;
    case 0xd6:
        if (mandatory_prefix(s) > 0x66)
            s->word = C(SSE) | M | REG;  /* movdq2q, movq2dq */
        break;
    case 0xc7:
        if (reg != 1)
            s->word = C(SERIAL) | M | REG | NO;  /* rdrand, rdseed, vm*: not there */
        break;
    default:
        break;
    }
}

/* What the bits of cpuid must promise: of the second opcode map. */
static uint32_t sse_feature(const struct state *s)
{
    int prefix = mandatory_prefix(s);
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

static int is_simd(const struct state *s)
{
    uint8_t o = s->opcode;
    return (o >= 0x10 && o <= 0x17) || (o >= 0x28 && o <= 0x2f) || (o >= 0x50 && o <= 0x7f) || o == 0xc2
        || (o >= 0xc3 && o <= 0xc6) || (o >= 0xd0 && o < 0xff);
}

static uint32_t state_feature(const struct state *s)
{
    static const uint32_t memory[8] = {FEATURE_FXSR, FEATURE_FXSR, FEATURE_SSE, FEATURE_SSE, FEATURE_NO_CPU,
                                       FEATURE_NO_CPU, FEATURE_NO_CPU, FEATURE_CLFLUSH};
    uint8_t reg = s->modrm >> 3 & 7;
    if (!s->register_form)
        return memory[reg];
    return reg == 7 ? FEATURE_SSE : reg >= 5 ? FEATURE_SSE2 : FEATURE_NO_CPU;
}

static uint32_t required_feature(const struct state *s)
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
static int ours_simd(const struct state *s)
{
    int prefix = mandatory_prefix(s), memory = !s->register_form, packed = prefix == 0 || prefix == 0x66;
    uint8_t o = s->opcode;
    switch (o) {
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

static int ours(const struct state *s)
{
    uint8_t reg = s->modrm >> 3 & 7;
    if (s->map == 0) {
        int test = (s->opcode == 0xf6 || s->opcode == 0xf7) && reg == 1;
        return test || (s->opcode >= 0xd8 && s->opcode <= 0xdf);
    }
    if (s->map != 1)
        return 0;
    if (s->opcode == 0xae)
        return !s->register_form && reg <= 3 && mandatory_prefix(s) == 0;
    return is_simd(s) && ours_simd(s);
}

/* The segments that the instruction writes to, pushes apart: those go to SS, which can be written. */
static uint8_t written_segments(const struct state *s, uint32_t flags)
{
    if (s->map == 1 && s->opcode == 0xf7 && s->register_form)  /* maskmovq */
        return (uint8_t)(1 << (s->segment >= 0 ? s->segment : X86_DS));
    if (!(s->word & W))
        return 0;
    return (uint8_t)(s->word & STR ? 1 << X86_ES : flags & INSN_SEGMENTS);
}

static size_t modrm_bytes(const struct state *s, const uint8_t *p, size_t left)
{
    uint8_t mod = s->modrm >> 6, rm = s->modrm & 7;
    if (mod == 3 || (s->word & REG))
        return 0;
    if (s->address16)
        return mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    size_t bytes = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    if (rm == 4) {
        bytes++;
        if (mod == 0 && left > 0 && (p[0] & 7) == 5)
            bytes += 4;
    }
    return bytes;
}

/* The segment that a ModRM memory operand is in: SS if its base is (E)SP or (E)BP, else DS. */
static int operand_segment(const struct state *s, const uint8_t *p, size_t left)
{
    uint8_t mod = s->modrm >> 6, rm = s->modrm & 7;
    if (s->segment >= 0)
        return s->segment;
    if (s->address16)
        return rm == 2 || rm == 3 || (rm == 6 && mod != 0) ? X86_SS : X86_DS;
    if (rm == 4) {
        uint8_t base = left > 0 ? p[0] & 7 : 0;
        return base == 4 || (base == 5 && mod != 0) ? X86_SS : X86_DS;
    }
    return rm == 5 && mod != 0 ? X86_SS : X86_DS;
}

static size_t prefixes(const uint8_t *code, size_t available, struct state *s)
{
    size_t at = 0;
    for (; at < available; at++) {
        switch (code[at]) {
        case 0x26: s->segment = X86_ES; break;
        case 0x2e: s->segment = X86_CS; break;
        case 0x36: s->segment = X86_SS; break;
        case 0x3e: s->segment = X86_DS; break;
        case 0x64: s->segment = X86_FS; break;
        case 0x65: s->segment = X86_GS; break;
        case 0x66: s->operand16 = 1; break;
        case 0x67: s->address16 = 1; break;
        case 0xf0: s->lock = 1; break;
        case 0xf2: s->f2 = 1; break;
        case 0xf3: s->f3 = 1; break;
        default: return at;
        }
    }
    return at;
}

static void truncated(size_t available, struct insn *insn)
{
    insn->length = (uint8_t)(available < INSN_MAX_BYTES ? available : INSN_MAX_BYTES);
    insn->flags |= INSN_TRUNCATED;
}

/* Opcode bytes; returns how many, 0 if they are cut off. */
static size_t opcode(const uint8_t *p, size_t left, struct state *s)
{
    if (left == 0)
        return 0;
    s->opcode = p[0];
    s->word = one_byte[p[0]];
    if (p[0] != 0x0f) {
        if ((p[0] == 0xc4 || p[0] == 0xc5) && left > 1 && p[1] >= 0xc0) {  /* VEX: no AVX here, so #UD */
            s->word = A | NO | END;
            return p[0] == 0xc4 ? 4 : 3;
        }
        return 1;
    }
    if (left < 2)
        return 0;
    s->map = 1;
    s->opcode = p[1];
    s->word = two_bytes[p[1]];
    if (p[1] != 0x38 && p[1] != 0x3a)
        return 2;
    if (left < 3)
        return 0;
    s->map = p[1] == 0x38 ? 2 : 3;
    s->opcode = p[2];
    s->word = s->map == 3 ? V | I8 : V;
    if (s->map == 2 && (p[2] == 0xf0 || p[2] == 0xf1))  /* movbe, crc32 */
        s->word = A | M | (s->f2 || p[2] == 0xf0 ? R : W);
    if (s->map == 3 && p[2] >= 0x14 && p[2] <= 0x17)  /* pextr: to memory */
        s->word = C(SSE) | M | W | I8;
    return 3;
}

static size_t immediate_bytes(const struct state *s)
{
    return (s->word & I8 ? 1 : 0) + (s->word & I16 ? 2 : 0) + (s->word & IZ ? (s->operand16 ? 2 : 4) : 0)
         + (s->word & IA ? (s->address16 ? 2 : 4) : 0);
}

/* Accesses to memory that no bit of the word tells. */
static void implicit_accesses(const struct state *s, struct insn *insn)
{
    if (s->word & POP)
        insn->loads++;
    if (s->word & PUSH)
        insn->stores++;
    if (s->map != 0)
        return;
    switch (s->opcode) {
    case 0x60: insn->stores = 8; break;           /* pusha */
    case 0x61: insn->loads = 8; break;            /* popa */
    case 0x62: case 0xc4: case 0xc5: insn->loads = 2; break;  /* bound, les, lds */
    case 0x9a: insn->stores = 2; break;           /* far call */
    case 0xca: case 0xcb: insn->loads = 2; break; /* far return */
    case 0xcf: insn->loads = 3; break;            /* iret */
    case 0xa6: case 0xa7: insn->loads = 2; break; /* cmps */
    default: break;
    }
}

/* Whether the instruction, which reads and writes memory, may have a lock prefix. */
static int may_be_locked(const struct state *s)
{
    if (s->map == 0)
        return s->opcode < 0x40 || (s->opcode >= 0x80 && s->opcode <= 0x87) || s->opcode >= 0xf6;
    return s->map == 1 && s->opcode >= 0xab && s->opcode != 0xac && s->opcode != 0xad;
}

static void set_flags(const struct state *s, struct insn *insn)
{
    if (s->word & SEG)
        insn->flags |= INSN_LOADS_SEGMENT;
    if (s->word & END)
        insn->flags |= INSN_ENDS_BLOCK;
    if (s->address16)
        insn->flags |= INSN_ADDRESS16;
    if (s->word & NO) {
        insn->flags |= INSN_REFUSED;
        /* syscall with EFER.SCE clear and sysret are #UD; so is what no processor here has, sysenter among it. */
        int undefined = s->map == 1 ? s->opcode == 0x05 || s->opcode == 0x07 || (s->opcode & 0xfe) == 0x34 || s->opcode >= 0xa0
                                    : s->opcode == 0x8f || s->opcode == 0xc4 || s->opcode == 0xc5;
        insn->refusal = undefined ? REFUSE_UD : REFUSE_GP;
    }
    int monitors = s->map == 1 && s->opcode == 0x01 && s->register_form && (s->modrm == 0xc8 || s->modrm == 0xc9);
    if (monitors || (s->lock && !(insn->flags & INSN_READ_WRITE && may_be_locked(s)))) {
        insn->flags |= INSN_REFUSED;  /* monitor and mwait are not for user mode */
        insn->refusal = REFUSE_UD;
    }
    if (s->map != 0)
        return;
    switch (s->opcode) {
    case 0x17:
        insn->flags |= INSN_LOADS_SS;
        break;
    case 0x8e:
        if ((s->modrm >> 3 & 7) == X86_SS)
            insn->flags |= INSN_LOADS_SS;
        break;
    case 0x90:
        if (s->f3)
            insn->flags |= INSN_PAUSE | INSN_ENDS_BLOCK;
        break;
    case 0x9c: insn->flags |= INSN_PUSHES_FLAGS; break;
    case 0x9d: case 0xcf: insn->flags |= INSN_POPS_FLAGS; break;
    case 0xcd: insn->int_vector = s->second; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xcc: insn->int_vector = 3; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xce: insn->int_vector = 4; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xf1: insn->flags |= INSN_REFUSED; insn->refusal = REFUSE_DB; break;  /* icebp */
    default: break;
    }
}

static uint8_t temporaries(const struct state *s)
{
    if (s->map == 0 && s->opcode >= 0xd8 && s->opcode <= 0xdf)
        return 2;
    if (s->map != 0 && (s->word & I16))
        return 2;
    if (s->map != 0 && (s->word & I8))
        return 1;
    return s->word & SEG || (s->map == 0 && (s->opcode == 0xd4 || s->opcode == 0xd5));
}

void decode_insn(const uint8_t *code, size_t available, struct insn *insn)
{
    struct state s = {.segment = -1};
    *insn = (struct insn){0};
    if (available > INSN_MAX_BYTES)
        available = INSN_MAX_BYTES;
    size_t at = prefixes(code, available, &s);
    size_t bytes = opcode(code + at, available - at, &s);
    if (bytes == 0) {
        truncated(available, insn);
        return;
    }
    at += bytes;
    s.second = at < available ? code[at] : 0;
    if (s.word & M) {
        if (at >= available) {
            truncated(available, insn);
            return;
        }
        s.modrm = code[at++];
        s.register_form = s.modrm >= 0xc0;
        if (s.map == 0)
            refine_one_byte(&s);
        else if (s.map == 1)
            refine_two_bytes(&s);
        if (!s.register_form && !(s.word & REG)) {
            size_t left = available > at ? available - at : 0;
            insn->flags |= 1u << operand_segment(&s, code + at, left);
            if (!(s.word & RW))
                insn->flags &= ~(uint32_t)INSN_SEGMENTS;  /* lea, prefetch, nop: an address, no access */
            at += modrm_bytes(&s, code + at, left);
        }
    }
    at += immediate_bytes(&s);
    if (at > available) {
        truncated(available, insn);
        return;
    }
    insn->length = (uint8_t)at;
    insn->operand_bytes = s.operand16 ? 2 : 4;
    insn->temporaries = temporaries(&s);
    insn->cost_class = (uint8_t)(s.word >> CLASS_SHIFT);
    if (s.word & STR) {
        /* cmps, scas, movs and stos use ES:(E)DI; movs, cmps and lods use the overridable source. */
        int uses_di = s.opcode != 0xac && s.opcode != 0xad;
        int uses_si = s.opcode != 0xaa && s.opcode != 0xab && s.opcode != 0xae && s.opcode != 0xaf;
        insn->flags |= (uint32_t)uses_di << X86_ES;
        if (uses_si)
            insn->flags |= 1u << (s.segment >= 0 ? s.segment : X86_DS);
        if (s.f2 || s.f3)
            insn->flags |= INSN_REPEAT | INSN_ENDS_BLOCK;
    } else if ((s.word & IA) || (s.map == 0 && s.opcode == 0xd7)) {  /* moffs, xlat */
        insn->flags |= 1u << (s.segment >= 0 ? s.segment : X86_DS);
    }
    if (!s.register_form || !(s.word & M)) {
        insn->loads = (s.word & R) != 0;
        insn->stores = (s.word & W) != 0;
        if ((s.word & RW) == RW && !(s.word & STR)) {
            insn->flags |= INSN_READ_WRITE;
            insn->locked = s.lock || (s.map == 0 && (s.opcode == 0x86 || s.opcode == 0x87));
        }
    }
    implicit_accesses(&s, insn);
    set_flags(&s, insn);
    insn->requires = required_feature(&s);
    insn->ours = (uint8_t)ours(&s);
    insn->writes = written_segments(&s, insn->flags);
}

void decode_block(const uint8_t *code, size_t size, const int64_t costs[COST_CLASS_COUNT], struct block_sum *sum)
{
    struct insn insn;
    int64_t cost = 0;
    *sum = (struct block_sum){0};
    for (size_t at = 0; at < size; at += insn.length) {
        decode_insn(code + at, size - at, &insn);
        sum->instructions++;
        sum->last = (uint32_t)at;
        sum->flags |= insn.flags | (uint32_t)insn.writes << WRITES_SHIFT;
        sum->requires |= insn.requires;
        sum->ours |= insn.ours;
        cost += costs[insn.cost_class] + insn.loads * costs[COST_LOAD] + insn.stores * costs[COST_STORE]
              + insn.locked * costs[COST_LOCKED];
    }
    sum->cost = cost;
}
