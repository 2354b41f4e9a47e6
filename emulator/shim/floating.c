/* See floating.h: all registers out, and in again. */
#include "floating.h"

#include <stddef.h>
#include <string.h>

#include "fpu.h"
#include "native.h"
#include "vcpu.h"

_Static_assert(sizeof(struct fxsave_area) == 512, "FXSAVE area");

void floating_save(const struct vcpu *v, struct fxsave_area *area)
{
    const struct floating *f = &v->floating;
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
        memcpy(area->xmm[i], native_xmm(&v->native, i), 16);
    }
}

void floating_load(struct vcpu *v, const struct fxsave_area *area)
{
    struct floating *f = &v->floating;
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
        memcpy(native_xmm(&v->native, i), area->xmm[i], 16);
    }
    if (UNLIKELY(fpu_must_show(&v->fpu, &v->floating)))
        fpu_write_pending(v);
}
