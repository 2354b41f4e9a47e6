/* x87 and SSE state: whose the vCPU has, and when it is switched. */
#ifndef L4LAB_FPU_H
#define L4LAB_FPU_H

#include <stdbool.h>

#include "floating.h"
#include "thread_frame.h"

struct vcpu;

#pragma GCC visibility push(hidden)

struct fpu {
    struct thread_frame *frame;  /* whose state the vCPU has, if its fpu_core agrees */
    bool ts;                     /* CR0.TS as the engine has it */
    bool pending_shown;          /* the engine has the pending exception, or that there is none */
};

/* Whether x87/SSE instructions take vector 7 now. */
static inline bool fpu_traps(const struct fpu *f)
{
    return f->ts;
}

/* fwait is a single byte, too short to be replaced (patch.c): the engine executes it, and must know whether it traps. */
static inline bool fpu_must_show(const struct fpu *f, const struct floating *floating)
{
    return f->pending_shown != floating_is_pending(floating);
}

void fpu_write_pending(struct vcpu *v);

/* The engine has just been started. */
static inline void fpu_reset(struct fpu *f)
{
    f->ts = false;
}

/* Before a run of v->frame. */
void fpu_load(struct vcpu *v);

/* The running thread touched the x87/SSE registers without owning them: CR0.TS trapped. */
void fpu_switch(struct vcpu *v);

/* --- for state.c ------------------------------------------------------------------------------- */

/* The frame whose live state the vCPU has, or NULL. */
struct thread_frame *fpu_owner(const struct vcpu *v);

/* Makes this vCPU the owner of the state in a frame's area; NULL: of none. Costs nothing. */
void fpu_restore(struct vcpu *v, struct thread_frame *frame);

#pragma GCC visibility pop

#endif
