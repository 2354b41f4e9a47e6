/*
 * The run that is going on: registers from the thread's frame and back into it, and when it has to end.
 *
 * Deadline: the core stops at the first block that would start at or after it. Blocks that only exist
 * because the shim itself left the engine (resuming) do not count as a start, so the stopping place
 * depends on the program alone.
 */
#ifndef L4LAB_RUN_H
#define L4LAB_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

struct vcpu;

#pragma GCC visibility push(hidden)

struct run {
    int64_t deadline;  /* as the clock */
    bool resuming;     /* the next block continues one that was left: no deadline there */
    bool entering;     /* the engine is about to enter a block: no deadline before it has fetched that */
    volatile bool stop_requested;
};

static inline bool run_is_resuming(const struct run *r)
{
    return r->resuming;
}

/* The next block goes on where the shim, not the program, stopped; the limit stays. */
static inline void run_goes_on(struct run *r)
{
    r->resuming = true;
}

static inline bool run_is_entering(const struct run *r)
{
    return r->entering;
}

static inline void run_set_entering(struct run *r, bool entering)
{
    r->entering = entering;
}

/* Whether it has to end before the block that is next. */
static inline bool run_is_due(const struct run *r, int64_t clock)
{
    return clock >= r->deadline && !r->resuming && !r->entering;
}

static inline void run_forget_stop(struct run *r)
{
    r->stop_requested = false;
}

/* Whether the person at the keyboard, or somebody else, wants it to end. */
bool run_is_to_stop(const struct run *r);

/* Whether the next block goes on where the shim, not the program, stopped. */
void run_set_resuming(struct vcpu *v, bool resuming);

/* After anything has changed that books_block_entered() has to look at: how far it may go without. */
void run_set_limit(struct vcpu *v);

/* Lets the engine go on from v->eip until it stops. */
uc_err run_engine(struct vcpu *v, bool one_step);

#pragma GCC visibility pop

#endif
