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


#include "vcpu.h"

struct fxsave {
    uint16_t control, status;
    uint8_t tags, reserved0;
    uint16_t opcode;
    uint32_t ip;
    uint16_t cs, reserved1;
    uint32_t dp;
    uint16_t ds, reserved2;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[8][16];
    uint8_t rest[224];
};
_Static_assert(sizeof(struct fxsave) == 512, "FXSAVE area");

#define MXCSR_MASK 0xffffu
#define INITIAL_CONTROL 0x37f
#define INITIAL_MXCSR 0x1f80

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

/* Writes the engine's registers into `area`. */
static void read_engine(struct vcpu *v, struct fxsave *area)
{
    uint16_t tags = 0;
    uint64_t pointer = 0;
    memset(area, 0, offsetof(struct fxsave, rest));
    engine_read(v, UC_X86_REG_FPCW, &area->control);
    engine_read(v, UC_X86_REG_FPSW, &area->status);
    engine_read(v, UC_X86_REG_FPTAG, &tags);
    for (int i = 0; i < 8; i++)
        area->tags |= (uint8_t)(((tags >> 2 * i & 3) != 3) << i);
    engine_read(v, UC_X86_REG_FOP, &area->opcode);
    engine_read(v, UC_X86_REG_FIP, &pointer);
    area->ip = (uint32_t)pointer;
    engine_read(v, UC_X86_REG_FCS, &area->cs);
    engine_read(v, UC_X86_REG_FDP, &pointer);
    area->dp = (uint32_t)pointer;
    engine_read(v, UC_X86_REG_FDS, &area->ds);
    area->mxcsr = engine_word(v, UC_X86_REG_MXCSR);
    area->mxcsr_mask = MXCSR_MASK;
    for (int i = 0; i < 8; i++) {
        engine_read(v, UC_X86_REG_ST0 + i, area->st[i]);
        engine_read(v, UC_X86_REG_XMM0 + i, area->xmm[i]);
    }
}

static void write_engine(struct vcpu *v, const struct fxsave *area)
{
    uint16_t tags = 0;
    uint64_t ip = area->ip, dp = area->dp;
    uint32_t mxcsr = area->mxcsr & MXCSR_MASK;
    for (int i = 0; i < 8; i++)
        tags |= (uint16_t)((area->tags >> i & 1 ? 0 : 3) << 2 * i);
    engine_write(v, UC_X86_REG_FPCW, &area->control);
    engine_write(v, UC_X86_REG_FPSW, &area->status);  /* before ST: it holds the top of the stack */
    engine_write(v, UC_X86_REG_FPTAG, &tags);
    engine_write(v, UC_X86_REG_FOP, &area->opcode);
    engine_write(v, UC_X86_REG_FIP, &ip);
    engine_write(v, UC_X86_REG_FCS, &area->cs);
    engine_write(v, UC_X86_REG_FDP, &dp);
    engine_write(v, UC_X86_REG_FDS, &area->ds);
    engine_write(v, UC_X86_REG_MXCSR, &mxcsr);
    for (int i = 0; i < 8; i++) {
        engine_write(v, UC_X86_REG_ST0 + i, area->st[i]);
        engine_write(v, UC_X86_REG_XMM0 + i, area->xmm[i]);
    }
}

/* Puts the live state back into the frame it belongs to, if any. The frame has it from then on. */
void fpu_save(struct vcpu *v)
{
    struct thread_frame *owner = v->fpu_frame;
    v->fpu_frame = NULL;
    if (owner == NULL || owner->fpu_core != v->core + 1)
        return;
    read_engine(v, (struct fxsave *)owner->fpu);
    owner->fpu_core = 0;
}

/* The running thread touched the x87/SSE registers without owning them: CR0.TS trapped. */
void fpu_switch(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    static const struct fxsave initial = {.control = INITIAL_CONTROL, .mxcsr = INITIAL_MXCSR};
    fpu_save(v);
    if (frame->fpu_core != 0 && frame->fpu_core <= v->machine->vcpu_count) {
        struct vcpu *other = v->machine->vcpus[frame->fpu_core - 1];
        if (other != v && fpu_owned(other, frame))
            fpu_save(other);
    }
    fpu_set_ts(v, false);
    write_engine(v, frame->fpu_valid ? (const struct fxsave *)frame->fpu : &initial);
    frame->fpu_valid = 1;
    frame->fpu_core = v->core + 1;
    v->fpu_frame = frame;
    v->fpu_switches++;
    v->clock += v->machine->costs[COST_FPU_SWITCH];
}

/* Makes this vCPU the owner of a frame's state, as it was when the frame was saved: costs nothing. */
void fpu_adopt(struct vcpu *v, struct thread_frame *frame)
{
    write_engine(v, (const struct fxsave *)frame->fpu);
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
        read_engine(v, (struct fxsave *)frame->fpu);
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
