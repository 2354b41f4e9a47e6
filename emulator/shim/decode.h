/*
 * Lengths and cost classes of 32-bit x86 instructions.
 *
 * This is not a disassembler: it tells how long an instruction is, which cost class it belongs to,
 * how many times it reads and writes memory, and the few properties that the vCPU must know before
 * the engine executes it. Lengths agree with the engine for every instruction that executes; of one
 * that does not (#UD), only the fact matters that nothing beyond it runs.
 *
 * Ref: AMD64 Architecture Programmer's Manual vol. 3, appendix A (opcode maps);
 *      Intel SDM vol. 2, chapter 2 and appendix A.
 */
#ifndef L4LAB_DECODE_H
#define L4LAB_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86.h"

/*
 * The cost of an instruction is that of its class, plus COST_LOAD and COST_STORE for each time it
 * touches memory, plus COST_LOCKED if the access is locked. emulator/costs.py has one field for each.
 */
#define COST_CLASSES(X) \
    X(ALU, alu)                 /* moves, integer arithmetic, flags, anything not listed below */ \
    X(MUL, mul)                                                                                \
    X(DIV, div)                                                                                \
    X(BRANCH, branch)           /* jmp, jcc, loop */                                           \
    X(CALL, call)               /* call and ret, near */                                       \
    X(STRING, string)           /* one iteration of a string instruction */                    \
    X(X87, x87)                                                                                \
    X(X87_SLOW, x87_slow)       /* division, square root, transcendental, state, decimal */    \
    X(SSE, sse)                 /* MMX and SSE */                                              \
    X(SSE_SLOW, sse_slow)       /* division, square root */                                    \
    X(SEGMENT, segment)         /* loads a segment register; far call, jump and return */      \
    X(SERIAL, serial)           /* cpuid, rdtsc, fences, privileged instructions */            \
    X(TRAP, trap)               /* int n, int3, into */                                        \
    X(LOAD, load)               /* added for each read of memory */                            \
    X(STORE, store)             /* added for each write of memory */                           \
    X(LOCKED, locked)           /* added for a locked access */                                \
    X(TLB_MISS, tlb_miss)       /* added for each refill of the modelled TLB */                \
    X(FPU_SWITCH, fpu_switch)   /* added for each lazy switch of x87/SSE state */

enum cost_class {
#define X(upper, lower) COST_##upper,
    COST_CLASSES(X)
#undef X
    COST_CLASS_COUNT
};

enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS };

enum {
    /* Bits 0..5: the instruction has a memory operand in this segment (1 << X86_ES, ...). */
    INSN_SEGMENTS = 0x3f,
    INSN_REPEAT = 1 << 6,       /* string instruction under a rep prefix */
    INSN_ADDRESS16 = 1 << 7,    /* counts in CX, not ECX */
    INSN_LOADS_SEGMENT = 1 << 8,/* may change a segment register, CS included */
    INSN_REFUSED = 1 << 9,      /* the engine must not execute it: see enum refusal */
    INSN_READ_WRITE = 1 << 10,  /* reads its memory operand and then writes it back */
    INSN_ENDS_BLOCK = 1 << 11,  /* control does not (only) go to the next instruction */
    INSN_SOFTWARE_INT = 1 << 12,/* int n, int3, into */
    INSN_PUSHES_FLAGS = 1 << 13,
    INSN_POPS_FLAGS = 1 << 14,  /* popf; and iret, which also has INSN_LOADS_SEGMENT */
    INSN_LOADS_SS = 1 << 15,    /* mov ss, pop ss: no trap (TF) between it and the next instruction */
    INSN_PAUSE = 1 << 16,       /* the engine takes no trap behind it, even if TF is set */
    INSN_TRUNCATED = 1 << 17,   /* the bytes given end within it, or it is longer than 15 bytes */
    INSN_CROSSES_PAGE = 1 << 18,/* only in the flags of a block: it lies on two pages */
    INSN_BREAKPOINT = 1 << 19,  /* only in the flags of a block: there is a breakpoint in it */
    /* Bits 20..25: only in the flags of a block, see WRITES_SHIFT. */
    INSN_ALONE = 1 << 26,       /* the engine loses the flags of what it has executed in the same block before */
};

/* What x86 does in user mode with the instructions that the engine must not see. */
enum refusal { REFUSE_GP = 1, REFUSE_UD, REFUSE_DB };

#define INSN_MAX_BYTES 15
#define WRITES_SHIFT 20

struct insn {
    uint8_t length;
    uint8_t cost_class;
    uint8_t loads;
    uint8_t stores;
    uint8_t locked;
    uint8_t refusal;  /* enum refusal, if INSN_REFUSED */
    uint8_t int_vector;  /* of int n */
    uint8_t operand_bytes;  /* 2 or 4: the general operand size */
    uint8_t temporaries;  /* that the engine's translator holds until the end of the block */
    uint8_t ours;     /* the shim executes it: see operation.c */
    uint8_t writes;   /* 1 << X86_ES, ...: writes to memory in this segment */
    uint32_t flags;
    uint32_t requires;  /* of enum feature: #UD on a processor without */
};

/* What not every processor has. */
enum feature {
    FEATURE_TSC = 1 << 0, FEATURE_CX8 = 1 << 1, FEATURE_CMOV = 1 << 2, FEATURE_CLFLUSH = 1 << 3, FEATURE_MMX = 1 << 4,
    FEATURE_FXSR = 1 << 5, FEATURE_SSE = 1 << 6, FEATURE_SSE2 = 1 << 7, FEATURE_SSE3 = 1 << 8, FEATURE_POPCNT = 1 << 9,
    FEATURE_ABM = 1 << 10, FEATURE_SSE4A = 1 << 11, FEATURE_RDTSCP = 1 << 12,
    FEATURE_P6 = 1 << 13,       /* no bit of cpuid: the family says */
    FEATURE_NO_CPU = 1 << 14,   /* no processor that we model has it */
};

/* Decodes the instruction at `code`, of which `available` (at least 1) bytes may be read. */
void decode_insn(const uint8_t *code, size_t available, struct insn *insn);

/* What executing straight through `size` bytes at `code` costs. */
struct block_sum {
    uint32_t instructions;
    int64_t cost;    /* in the unit of `costs` */
    uint32_t flags;  /* of all instructions; what they write, from WRITES_SHIFT on */
    uint32_t requires;
    bool ours;       /* one of them is the shim's */
    uint32_t last;   /* offset of the last instruction */
};

void decode_block(const uint8_t *code, size_t size, const int64_t costs[COST_CLASS_COUNT], struct block_sum *sum);

/*
 * hazards.c: whether the engine must not be let loose on this page of code: translating some block in it could
 * kill the process. Two things do:
 *
 *   - a locked bt, bts, btr or btc of a register (which is #UD) makes the translator abort;
 *   - the translator has room for 512 temporaries per block and does not check. Some instructions
 *     never give theirs back, above all x87 (two each) and `into`: enough of them in a row overrun the array.
 *
 * Decoding starts at every offset, so it does not matter where blocks begin. Errs on the side of yes.
 */
int decode_is_hazardous(const uint8_t page[PAGE_BYTES]);

#endif
