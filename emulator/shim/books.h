/*
 * The books: instructions and cycles, exact wherever a run is left, and what else is counted. All charging
 * is done here, by the costs of the machine's profile.
 */
#ifndef L4LAB_BOOKS_H
#define L4LAB_BOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "blocks.h"
#include "decode.h"
#include "thread_frame.h"

struct vcpu;

#pragma GCC visibility push(hidden)

#define MILLICYCLES 1000

struct machine_books {
    int64_t costs[COST_CLASS_COUNT];  /* thousandths of a cycle */
    struct block *blocks;             /* of code that no debugger looks at */
};

struct books {
    int64_t start_cycles;      /* the core's clock when the run began, or between runs; vcpu.py reads and writes it */
    int64_t clock;             /* since then, in thousandths of a cycle; between runs what is less than a cycle */
    volatile int64_t limit;    /* at or above it, books_block_entered() takes the slow way */
    uint64_t instructions;     /* of this run, as are the next two counts */
    const struct block *block; /* charged, but perhaps not yet executed to its end; or NULL */
    struct block *blocks;      /* cache in use */
    uint64_t tlb_misses, fpu_switches;
};

static inline const int64_t *books_costs(const struct machine_books *b)
{
    return b->costs;
}

static inline struct block *books_own_blocks(const struct machine_books *b)
{
    return b->blocks;
}

static inline int64_t books_clock(const struct books *b)
{
    return b->clock;
}

/* What books_clock() is when the core's clock comes to `cycles`: a clock of 64 bits in thousandths would end
   after weeks. INT64_MAX where no run comes. */
static inline int64_t books_clock_at(const struct books *b, int64_t cycles)
{
    int64_t ahead = cycles > b->start_cycles ? cycles - b->start_cycles : 0;
    return ahead < INT64_MAX / MILLICYCLES ? ahead * MILLICYCLES : INT64_MAX;
}

static inline int64_t books_start_cycles(const struct books *b)
{
    return b->start_cycles;
}

static inline void books_set_start(struct books *b, int64_t cycles, int64_t clock)
{
    b->start_cycles = cycles;
    b->clock = clock;
}

static inline void books_set_limit(struct books *b, int64_t limit)
{
    b->limit = limit;
}

static inline int64_t books_limit(const struct books *b)
{
    return b->limit;
}

static inline uint64_t books_instructions(const struct books *b)
{
    return b->instructions;
}

static inline uint64_t books_fpu_switches(const struct books *b)
{
    return b->fpu_switches;
}

/* The block that is being executed, or NULL. */
static inline const struct block *books_block(const struct books *b)
{
    return b->block;
}

/* It has been executed to its end. */
static inline void books_close_block(struct books *b)
{
    b->block = NULL;
}

static inline struct block *books_blocks(const struct books *b)
{
    return b->blocks;
}

static inline void books_use_blocks(struct books *b, struct block *cache)
{
    b->blocks = cache;
}

bool books_init(struct machine_books *b, const int64_t costs[COST_CLASS_COUNT]);
void books_free(struct machine_books *b);

/* A run begins, and ends: what was counted is added to the frame's counters, whole cycles to the core's clock. */
void books_open(struct books *b);
void books_store(struct books *b, struct thread_frame *frame);

/* The engine calls it before every block of straight code. */
void books_block_entered(uc_engine *uc, uint64_t eip, uint32_t size, void *opaque);

/* The engine left the current block with `eip` as the next instruction: takes back what lies behind. */
void books_settle(struct vcpu *v, uint32_t eip);

void books_charge_insn(struct vcpu *v, const struct insn *insn);
void books_charge_tlb_miss(struct vcpu *v);
void books_charge_fpu_switch(struct vcpu *v);

/* The clock as of the instruction at EIP, in cycles. */
uint64_t books_cycles_now(struct vcpu *v);

#pragma GCC visibility pop

#endif
