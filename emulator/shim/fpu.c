/*
 * See fpu.h. x87 and SSE state: one set of registers per engine, switched when a thread that does not own it
 * first touches it (CR0.TS, vector 7), as Fiasco does on ia32.
 *
 * A frame's fpu_core says which vCPU has its live state (1 + core; 0: the frame's own area has it).
 * A vCPU remembers the last frame it loaded. Both must agree for the vCPU to be the owner, so a frame
 * can be taken back by clearing its fpu_core.
 *
 * Ref: Intel SDM vol. 1, 10.5.1 (FXSAVE area); vol. 3, 2.5 (CR0.TS), 13.4 (lazy saving).
 */
#include "fpu.h"

#include "books.h"
#include "engine.h"
#include "floating.h"
#include "vcpu.h"

static bool is_owned(const struct vcpu *v, const struct thread_frame *frame)
{
    return v->fpu.frame == frame && frame->fpu_core == v->core + 1;
}

static void set_ts(struct vcpu *v, bool ts)
{
    if (v->fpu.ts == ts)
        return;
    uint32_t cr0 = CR0_USER | (ts ? CR0_TS : 0);
    engine_write(&v->engine, UC_X86_REG_CR0, &cr0);
    v->fpu.ts = ts;
}

void fpu_load(struct vcpu *v)
{
    set_ts(v, !is_owned(v, v->frame));
}

void fpu_write_pending(struct vcpu *v)
{
    uint16_t word = floating_is_pending(&v->floating) ? STATUS_ES : 0;
    engine_write(&v->engine, UC_X86_REG_FPSW, &word);
    v->fpu.pending_shown = word != 0;
}

_Static_assert(sizeof(struct fxsave_area) == sizeof((struct thread_frame *)0)->fpu, "FXSAVE area");

static struct fxsave_area *area_of(struct thread_frame *frame)
{
    return (struct fxsave_area *)frame->fpu;
}

/* Puts the live state back into the frame it belongs to, if any. The frame has it from then on. */
static void save(struct vcpu *v)
{
    struct thread_frame *owner = v->fpu.frame;
    v->fpu.frame = NULL;
    if (owner == NULL || owner->fpu_core != v->core + 1)
        return;
    floating_save(v, area_of(owner));
    owner->fpu_core = 0;
}

void fpu_switch(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    static const struct fxsave_area initial = {.control = INITIAL_CONTROL, .mxcsr = INITIAL_MXCSR};
    save(v);
    if (frame->fpu_core != 0 && frame->fpu_core <= v->machine->vcpu_count) {
        struct vcpu *other = v->machine->vcpus[frame->fpu_core - 1];
        if (other != v && is_owned(other, frame))
            save(other);
    }
    set_ts(v, false);
    floating_load(v, frame->fpu_valid ? area_of(frame) : &initial);
    frame->fpu_valid = 1;
    frame->fpu_core = v->core + 1;
    v->fpu.frame = frame;
    books_charge_fpu_switch(v);
}

struct thread_frame *fpu_owner(const struct vcpu *v)
{
    return v->fpu.frame != NULL && is_owned(v, v->fpu.frame) ? v->fpu.frame : NULL;
}

void fpu_restore(struct vcpu *v, struct thread_frame *frame)
{
    v->fpu.frame = NULL;
    if (frame == NULL || !engine_is_started(&v->engine))
        return;
    floating_load(v, area_of(frame));
    frame->fpu_core = v->core + 1;
    v->fpu.frame = frame;
}

/* --- for vcpu.py, between runs ------------------------------------------------------------------ */

/* Copies live state into the frame's area; it stays live. For reading a thread's state. */
void vcpu_sync_fpu(struct machine *m, struct thread_frame *frame)
{
    if (frame->fpu_core == 0 || frame->fpu_core > m->vcpu_count)
        return;
    struct vcpu *v = m->vcpus[frame->fpu_core - 1];
    if (is_owned(v, frame))
        floating_save(v, area_of(frame));
}

/* Makes the frame's area the only copy, without saving what is live. Before writing a thread's state. */
void vcpu_drop_fpu(struct machine *m, struct thread_frame *frame)
{
    if (frame->fpu_core != 0 && frame->fpu_core <= m->vcpu_count) {
        struct vcpu *v = m->vcpus[frame->fpu_core - 1];
        if (v->fpu.frame == frame)
            v->fpu.frame = NULL;
    }
    frame->fpu_core = 0;
}
