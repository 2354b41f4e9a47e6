/*
 * What a vCPU remembers between runs, out and in again; and which frames may have been written.
 *
 * Registers are in the threads' frames and are loaded for every run. What is left is the clock, the
 * modelled TLB, who owns the x87/SSE registers, and a run suspended in the middle of a block. The
 * engine's own TLB and translations are not state: they can be dropped at any time.
 */
#include <string.h>

#include "vcpu.h"

#define GLOBAL_ENTRY 0x80000000u
#define SUPER_ENTRY 0x40000000u
#define FETCH_ENTRY 0x20000000u

struct saved_vcpu {
    int64_t clock;
    struct thread_frame *fpu_frame, *suspended_frame;
    uint32_t suspended_eip, block_end, resuming;
    uint32_t cr3;
    uint32_t entries;  /* of the TLB, behind this: flags and page number */
    uint32_t reserved;
};

/* Calls nothing back: fills `into` as long as there is room, and returns how many entries there are. */
static uint32_t list_side(struct vcpu *v, bool fetch, uint32_t *into, uint32_t room)
{
    uint32_t count = 0, global = v->global_generation | GLOBAL_STAMP, side = fetch ? FETCH_ENTRY : 0;
    for (uint32_t region = 0; region < 1024; region++) {
        if (!v->stamped[fetch][region])
            continue;
        uint32_t stamp = v->super_stamps[fetch][region];
        if (stamp == v->generation || stamp == global) {
            if (count < room)
                into[count] = region << 10 | SUPER_ENTRY | side | (stamp == global ? GLOBAL_ENTRY : 0);
            count++;
        }
        const uint32_t *stamps = v->stamps[fetch] + (region << 10);
        for (uint32_t page = 0; page < 1024; page++) {
            if (stamps[page] != v->generation && stamps[page] != global)
                continue;
            if (count < room)
                into[count] = region << 10 | page | side | (stamps[page] == global ? GLOBAL_ENTRY : 0);
            count++;
        }
    }
    return count;
}

/* Saves into `size` bytes; returns how many it takes, which may be more. */
uint32_t state_save(struct vcpu *v, uint8_t *into, uint32_t size)
{
    uint32_t *entries = (uint32_t *)(into + sizeof(struct saved_vcpu));
    uint32_t room = size > sizeof(struct saved_vcpu) ? (size - (uint32_t)sizeof(struct saved_vcpu)) / 4 : 0;
    uint32_t data = list_side(v, false, entries, room);
    uint32_t used = data < room ? data : room;
    uint32_t count = data + list_side(v, true, entries + used, room - used);
    struct saved_vcpu saved = {
        .clock = v->clock,
        .fpu_frame = v->fpu_frame != NULL && fpu_owned(v, v->fpu_frame) ? v->fpu_frame : NULL,
        .suspended_frame = v->suspended.frame,
        .suspended_eip = v->suspended.eip,
        .block_end = v->suspended.block_end,
        .resuming = v->suspended.resuming,
        .cr3 = v->cr3,
        .entries = count,
    };
    if (size >= sizeof saved)
        memcpy(into, &saved, sizeof saved);
    return (uint32_t)sizeof saved + count * 4;
}

static void load_tlb(struct vcpu *v, const uint32_t *entries, uint32_t count)
{
    tlb_flush(v, true);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page = entries[i] & (PAGES - 1);
        bool fetch = entries[i] & FETCH_ENTRY;
        uint32_t stamp = entries[i] & GLOBAL_ENTRY ? v->global_generation | GLOBAL_STAMP : v->generation;
        if (entries[i] & SUPER_ENTRY)
            v->super_stamps[fetch][page >> 10] = stamp;
        else
            v->stamps[fetch][page] = stamp;
        v->stamped[fetch][page >> 10] = 1;
    }
}

/* The frames that the state names must have their saved contents again. */
void state_load(struct vcpu *v, const uint8_t *from)
{
    struct saved_vcpu saved;
    memcpy(&saved, from, sizeof saved);
    v->clock = saved.clock;
    v->cr3 = saved.cr3;
    v->suspended.frame = saved.suspended_frame;
    v->suspended.eip = saved.suspended_eip;
    v->suspended.block_end = saved.block_end;
    v->suspended.resuming = saved.resuming;
    v->watch_hits = 0;
    v->stop_requested = false;
    load_tlb(v, (const uint32_t *)(from + sizeof saved), saved.entries);
    v->fpu_frame = NULL;
    if (saved.fpu_frame != NULL && v->uc != NULL)
        fpu_adopt(v, saved.fpu_frame);
}

/*
 * Copies to `into`, a byte per frame, which frames the engines may have written since the last call,
 * and starts anew: engines must ask again before they write.
 */
void state_take_dirty(struct machine *m, uint8_t *into)
{
    memcpy(into, m->frame_dirty, m->frames);
    memset(m->frame_dirty, 0, m->frames);
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        m->vcpus[i]->engine_flush = true;
}

/* A byte per frame: 1 if the kernel writes it. */
void state_kernel_written(const struct machine *m, uint8_t *into)
{
    for (uint32_t i = 0; i < m->frames; i++)
        into[i] = (m->frame_flags[i] & FRAME_KERNEL_WRITTEN) != 0;
}
