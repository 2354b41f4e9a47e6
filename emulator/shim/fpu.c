/*
 * x87 and SSE state: one set of registers per engine, switched when a thread that does not own it
 * first touches it (CR0.TS, vector 7), as Fiasco does on ia32.
 *
 * A frame's fpu_core says which vCPU has its live state (1 + core; 0: the frame's own area has it).
 * A vCPU remembers the last frame it loaded. Both must agree for the vCPU to be the owner, so a frame
 * can be taken back by clearing its fpu_core.
 *
 * Ref: Intel SDM vol. 1, 10.5.1 (FXSAVE area); vol. 3, 2.5 (CR0.TS), 13.4 (lazy saving).
 */
#include <string.h>

#include "operand.h"

bool fpu_owned(const struct vcpu *v, const struct thread_frame *frame)
{
    return v->fpu_frame == frame && frame->fpu_core == v->core + 1;
}

void fpu_set_ts(struct vcpu *v, bool ts)
{
    if (v->ts == ts)
        return;
    uint32_t cr0 = CR0_USER | (ts ? CR0_TS : 0);
    engine_write(v, UC_X86_REG_CR0, &cr0);
    v->ts = ts;
}

/* The registers as fxsave has them: those of the x87 by their place in the stack. */
void fpu_image(struct vcpu *v, struct fxsave_area *area)
{
    const struct fpu_state *f = &v->fpu;
    memset(area, 0, offsetof(struct fxsave_area, rest));
    area->control = f->control;
    area->status = (uint16_t)(f->status | f->top << 11);
    area->tags = f->valid;
    area->opcode = f->opcode;
    area->ip = f->ip;
    area->cs = f->cs;
    area->dp = f->dp;
    area->ds = f->ds;
    area->mxcsr = f->mxcsr;
    area->mxcsr_mask = MXCSR_MASK;
    for (unsigned i = 0; i < 8; i++) {
        const struct extended *st = &f->st[(f->top + i) & 7];
        memcpy(area->st[i], &st->m, 8);
        memcpy(area->st[i] + 8, &st->se, 2);
        memcpy(area->xmm[i], operand_xmm(v, i), 16);
    }
}

void fpu_write_pending(struct vcpu *v)
{
    uint16_t word = v->fpu.status & STATUS_ES;
    engine_write(v, UC_X86_REG_FPSW, &word);
    v->pending_shown = word != 0;
}

void fpu_load_image(struct vcpu *v, const struct fxsave_area *area)
{
    struct fpu_state *f = &v->fpu;
    f->control = (area->control & 0x1f7f) | 0x40;
    f->status = area->status & 0xc7ff;
    f->top = area->status >> 11 & 7;
    f->valid = area->tags;
    f->opcode = area->opcode & 0x7ff;
    f->ip = area->ip;
    f->cs = area->cs;
    f->dp = area->dp;
    f->ds = area->ds;
    f->mxcsr = area->mxcsr & MXCSR_MASK;
    for (unsigned i = 0; i < 8; i++) {
        struct extended *st = &f->st[(f->top + i) & 7];
        memcpy(&st->m, area->st[i], 8);
        memcpy(&st->se, area->st[i] + 8, 2);
        memcpy(operand_xmm(v, i), area->xmm[i], 16);
    }
    fpu_show_pending(v);
}

/* Puts the live state back into the frame it belongs to, if any. The frame has it from then on. */
void fpu_save(struct vcpu *v)
{
    struct thread_frame *owner = v->fpu_frame;
    v->fpu_frame = NULL;
    if (owner == NULL || owner->fpu_core != v->core + 1)
        return;
    fpu_image(v, (struct fxsave_area *)owner->fpu);
    owner->fpu_core = 0;
}

/* The running thread touched the x87/SSE registers without owning them: CR0.TS trapped. */
void fpu_switch(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    static const struct fxsave_area initial = {.control = INITIAL_CONTROL, .mxcsr = INITIAL_MXCSR};
    fpu_save(v);
    if (frame->fpu_core != 0 && frame->fpu_core <= v->machine->vcpu_count) {
        struct vcpu *other = v->machine->vcpus[frame->fpu_core - 1];
        if (other != v && fpu_owned(other, frame))
            fpu_save(other);
    }
    fpu_set_ts(v, false);
    fpu_load_image(v, frame->fpu_valid ? (const struct fxsave_area *)frame->fpu : &initial);
    frame->fpu_valid = 1;
    frame->fpu_core = v->core + 1;
    v->fpu_frame = frame;
    v->fpu_switches++;
    v->clock += v->machine->costs[COST_FPU_SWITCH];
}

/* Makes this vCPU the owner of a frame's state, as it was when the frame was saved: costs nothing. */
void fpu_adopt(struct vcpu *v, struct thread_frame *frame)
{
    fpu_load_image(v, (const struct fxsave_area *)frame->fpu);
    frame->fpu_core = v->core + 1;
    v->fpu_frame = frame;
}

/* Copies live state into the frame's area; it stays live. For reading a thread's state. */
void vcpu_sync_fpu(struct machine *m, struct thread_frame *frame)
{
    if (frame->fpu_core == 0 || frame->fpu_core > m->vcpu_count)
        return;
    struct vcpu *v = m->vcpus[frame->fpu_core - 1];
    if (fpu_owned(v, frame))
        fpu_image(v, (struct fxsave_area *)frame->fpu);
}

/* Makes the frame's area the only copy, without saving what is live. Before writing a thread's state. */
void vcpu_drop_fpu(struct machine *m, struct thread_frame *frame)
{
    if (frame->fpu_core != 0 && frame->fpu_core <= m->vcpu_count) {
        struct vcpu *v = m->vcpus[frame->fpu_core - 1];
        if (v->fpu_frame == frame)
            v->fpu_frame = NULL;
    }
    frame->fpu_core = 0;
}
