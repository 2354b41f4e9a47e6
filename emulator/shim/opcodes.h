/* The opcode maps: what an instruction's first bytes say, before its operands are looked at. For decode.c. */
#ifndef L4LAB_OPCODES_H
#define L4LAB_OPCODES_H

#include <stddef.h>
#include <stdint.h>

#include "decode.h"

#pragma GCC visibility push(hidden)

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

/* What is known of an instruction while it is decoded. */
struct decoding {
    uint32_t word;    /* the bits above, and the cost class << CLASS_SHIFT */
    int map;          /* 0: one byte, 1: 0f, 2: 0f 38, 3: 0f 3a */
    uint8_t opcode;
    uint8_t modrm;
    uint8_t second;   /* the byte after the opcode, or 0 */
    int operand16, address16, lock, f2, f3;
    int segment;      /* override, or -1 */
    int register_form;
};

/* Opcode bytes; returns how many, 0 if they are cut off. Sets word, map and opcode. */
size_t opcodes_find(const uint8_t *p, size_t left, struct decoding *s);

/* The prefix that is part of an SSE opcode, in the engine's order of preference; or 0. */
int opcodes_prefix(const struct decoding *s);

/* Once the ModRM byte is known: the opcodes that mean different things by it, or by a prefix. */
void opcodes_refine(struct decoding *s);

#pragma GCC visibility pop

#endif
