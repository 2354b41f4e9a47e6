/* See opcodes.h. The maps are data; what does not fit into them is code in opcodes_refine(). */
#include "opcodes.h"

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

int opcodes_prefix(const struct decoding *s)
{
    return s->f3 ? 0xf3 : s->f2 ? 0xf2 : s->operand16 ? 0x66 : 0;
}

static void refine_one_byte(struct decoding *s)
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

static void refine_two_bytes(struct decoding *s)
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
        if (opcodes_prefix(s) == 0x66 || opcodes_prefix(s) == 0xf2)
            s->word = C(SSE) | M | REG | I16;  /* extrq, insertq: two byte immediates */
        break;
    case 0x7e:
        if (opcodes_prefix(s) == 0xf3)
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
        if (opcodes_prefix(s) > 0x66)
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

void opcodes_refine(struct decoding *s)
{
    if (s->map == 0)
        refine_one_byte(s);
    else if (s->map == 1)
        refine_two_bytes(s);
}

size_t opcodes_find(const uint8_t *p, size_t left, struct decoding *s)
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
