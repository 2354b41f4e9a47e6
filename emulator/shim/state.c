/*
 * What a vCPU remembers between runs, out and in again, for snapshots (debugport.py).
 *
 * Registers are in the threads' frames and are loaded for every run. What is left is the clock, the
 * modelled TLB, who owns the x87/SSE registers, and a run suspended in the middle of a block. The
 * engine's own TLB and translations are not state: they can be dropped at any time.
 */
#include <string.h>

#include "books.h"
#include "debug.h"
#include "fpu.h"
#include "mmu.h"
#include "run.h"
#include "vcpu.h"
#include "watch.h"

struct saved_vcpu {
    int64_t clock_cycles, clock_rest;  /* the rest: thousandths of a cycle */
    struct thread_frame *fpu_owner, *suspended_frame;
    uint32_t suspended_eip, block_end, resuming, entering, block_goes_on;
    uint32_t cr3;
    uint32_t translations;  /* of the TLB, behind this: struct saved_translation */
    uint32_t zero;          /* where there would be padding */
};

/* Saves into `size` bytes; returns how many it takes, which may be more. */
uint32_t state_save(struct vcpu *v, uint8_t *into, uint32_t size)
{
    const struct suspended *suspended = debug_suspended(&v->debug);
    struct saved_vcpu saved = {
        .clock_cycles = books_start_cycles(&v->books), .clock_rest = books_clock(&v->books),
        .fpu_owner = fpu_owner(v),
        .suspended_frame = suspended->frame,
        .suspended_eip = suspended->eip,
        .block_end = suspended->block_end,
        .resuming = suspended->resuming,
        .entering = suspended->entering,
        .block_goes_on = suspended->block_goes_on,
        .cr3 = mmu_cr3(&v->mmu),
    };
    struct saved_translation *translations = (struct saved_translation *)(into + sizeof saved);
    uint32_t left = size > sizeof saved ? size - (uint32_t)sizeof saved : 0;
    saved.translations = mmu_save(&v->mmu, translations, left / sizeof *translations);
    if (size >= sizeof saved)
        memcpy(into, &saved, sizeof saved);
    return (uint32_t)(sizeof saved + saved.translations * sizeof *translations);
}

/* The frames that the state names must have their saved contents again. */
void state_load(struct vcpu *v, const uint8_t *from)
{
    struct saved_vcpu saved;
    memcpy(&saved, from, sizeof saved);
    const struct suspended suspended = {
        .frame = saved.suspended_frame, .eip = saved.suspended_eip, .block_end = saved.block_end,
        .resuming = saved.resuming, .entering = saved.entering, .block_goes_on = saved.block_goes_on,
    };
    books_set_start(&v->books, saved.clock_cycles, saved.clock_rest);
    debug_restore(&v->debug, &suspended);
    watch_forget_hits(&v->watch);
    run_forget_stop(&v->run);
    mmu_restore(v, saved.cr3, (const struct saved_translation *)(from + sizeof saved), saved.translations);
    fpu_restore(v, saved.fpu_owner);
}
