/*
 * Stopping user code at an instruction, for a debugger. The hot path knows few hooks of it: whether anybody
 * debugs, from which clock on it must see every block, and whether it wants to stop in a given one.
 */
#ifndef L4LAB_DEBUG_H
#define L4LAB_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

#include "blocks.h"
#include "thread_frame.h"

struct machine;
struct vcpu;

#pragma GCC visibility push(hidden)

/* What to stop for, beside breakpoints and watchpoints. */
struct machine_debug {
    bool active;                   /* without it, for nothing */
    struct thread_frame *counted;  /* stop when it has executed `instructions` in all; NULL: nobody is */
    uint64_t instructions;
    uint32_t range_first, range_size;  /* but not while EIP is in there */
    struct block *marked_blocks;   /* in place of the machine's: of spaces with breakpoints */
    struct block *range_blocks;    /* and of the thread that is kept to the range */
    uint32_t clocked;              /* stop core `clocked` at its first instruction at or after `clock_cycles` */
    int64_t clock_cycles;          /* INT64_MAX: never */
    struct thread_frame *passed;   /* breakpoints do not stop its instruction number `passed_at` */
    uint64_t passed_at;
};

/* A run that stopped in the middle of a block goes on as if it had not. */
struct suspended {
    struct thread_frame *frame;  /* NULL: none */
    uint32_t eip, block_end;
    bool resuming, entering;     /* as in run.h */
    bool block_goes_on;          /* as below */
};

struct debug {
    struct suspended suspended;
    uint32_t block_end;  /* of the block that is executed step by step; 0: none */
    bool block_goes_on;  /* it ends with an instruction of the shim: the next is no start of the program's own */
    int64_t look_from;   /* clock from which on debug_wants_block() must see every block */
};

bool debug_init_machine(struct machine_debug *d);
void debug_free_machine(struct machine_debug *d);
void debug_init(struct debug *d);

/* --- hooks ------------------------------------------------------------------------------------- */

static inline bool debug_is_active(const struct machine_debug *d)
{
    return d->active;
}

static inline int64_t debug_look_from(const struct debug *d)
{
    return d->look_from;
}

/* The engine is made to stop before this block: it may have to be executed step by step. */
void debug_leave_before(struct vcpu *v, const struct block *block);

static inline bool debug_is_in_block(const struct debug *d)
{
    return d->block_end != 0;
}

/* Before a run: whether it goes on in the middle of a block. Not if the debugger moved EIP. */
bool debug_resume(struct vcpu *v);

/* Then, if the run takes place. */
void debug_begin(struct vcpu *v);

/* Before an instruction that is executed next, whatever the deadline. */
bool debug_stops_here(struct vcpu *v, uint64_t *outcome);

/* Before a block that the engine is about to execute: whether it may have to stop inside. */
bool debug_wants_block(struct vcpu *v, const struct block *block);

/* When a block is put into a cache: whether debug_wants_block() must see it each time. */
bool debug_marks_block(const struct vcpu *v, const struct block *cache, uint32_t eip, uint32_t size);

/* Executes the block that was left to its end, or until it is left. GO_ON, or what the run returns. */
uint64_t debug_step_block(struct vcpu *v);

/* The instruction at v->eip wants to access a watched page frame. */
uint64_t debug_watched_access(struct vcpu *v);

/* The run is left where it is. */
void debug_suspend(struct vcpu *v);

/* --- for state.c ------------------------------------------------------------------------------- */

static inline const struct suspended *debug_suspended(const struct debug *d)
{
    return &d->suspended;
}

static inline void debug_restore(struct debug *d, const struct suspended *suspended)
{
    d->suspended = *suspended;
}

#pragma GCC visibility pop

#endif
