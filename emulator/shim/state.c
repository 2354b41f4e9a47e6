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
    uint32_t suspended_eip, block_end, resuming /* bit 1: block_goes_on */;
    uint32_t cr3;
    uint32_t entries;  /* of the TLB, behind this: struct saved_slot */
    uint32_t entering;
};

struct saved_slot {
    uint32_t place;  /* page number and the flags above */
    uint32_t word;   /* of struct tlb_slot */
};

/* Adds a slot to `into`, if it is in force and there is room; 1 if it is in force. */
static uint32_t list_slot(const struct vcpu *v, const struct tlb_slot *slot, uint32_t place, struct saved_slot *into,
                          bool room)
{
    bool global = slot->stamp == (v->global_generation | GLOBAL_STAMP);
    if (slot->stamp != v->generation && !global)
        return 0;
    if (room)
        *into = (struct saved_slot){place | (global ? GLOBAL_ENTRY : 0), slot->word};
    return 1;
}

/* Calls nothing back: fills `into` as long as there is room, and returns how many entries there are. */
static uint32_t list_side(struct vcpu *v, bool fetch, struct saved_slot *into, uint32_t room)
{
    uint32_t count = 0, side = fetch ? FETCH_ENTRY : 0;
    for (uint32_t region = 0; region < 1024; region++) {
        if (!v->stamped[fetch][region])
            continue;
        uint32_t first = region << 10 | side;
        count += list_slot(v, &v->super_slots[fetch][region], first | SUPER_ENTRY, into + count, count < room);
        const struct tlb_slot *slots = v->slots[fetch] + (region << 10);
        for (uint32_t page = 0; page < 1024; page++)
            count += list_slot(v, &slots[page], first | page, into + count, count < room);
    }
    return count;
}

/* Saves into `size` bytes; returns how many it takes, which may be more. */
uint32_t state_save(struct vcpu *v, uint8_t *into, uint32_t size)
{
    struct saved_slot *entries = (struct saved_slot *)(into + sizeof(struct saved_vcpu));
    uint32_t left = size > sizeof(struct saved_vcpu) ? size - (uint32_t)sizeof(struct saved_vcpu) : 0;
    uint32_t room = left / sizeof *entries;
    uint32_t data = list_side(v, false, entries, room);
    uint32_t used = data < room ? data : room;
    uint32_t count = data + list_side(v, true, entries + used, room - used);
    struct saved_vcpu saved = {
        .clock = v->clock,
        .fpu_frame = v->fpu_frame != NULL && fpu_owned(v, v->fpu_frame) ? v->fpu_frame : NULL,
        .suspended_frame = v->suspended.frame,
        .suspended_eip = v->suspended.eip,
        .block_end = v->suspended.block_end,
        .resuming = v->suspended.resuming | (uint32_t)v->suspended.block_goes_on << 1,
        .entering = v->suspended.entering,
        .cr3 = v->cr3,
        .entries = count,
    };
    if (size >= sizeof saved)
        memcpy(into, &saved, sizeof saved);
    return (uint32_t)(sizeof saved + count * sizeof *entries);
}

static void load_tlb(struct vcpu *v, const struct saved_slot *entries, uint32_t count)
{
    tlb_flush(v, true);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = entries[i].place, page = place & (PAGES - 1);
        bool fetch = place & FETCH_ENTRY;
        uint32_t stamp = place & GLOBAL_ENTRY ? v->global_generation | GLOBAL_STAMP : v->generation;
        struct tlb_slot *slot = place & SUPER_ENTRY ? &v->super_slots[fetch][page >> 10] : &v->slots[fetch][page];
        *slot = (struct tlb_slot){stamp, entries[i].word};
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
    v->suspended.resuming = saved.resuming & 1;
    v->suspended.block_goes_on = saved.resuming >> 1 & 1;
    v->suspended.entering = saved.entering;
    v->watch_hits = 0;
    v->stop_requested = false;
    load_tlb(v, (const struct saved_slot *)(from + sizeof saved), saved.entries);
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
