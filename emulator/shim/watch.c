/*
 * See watch.h. Writes are found by comparing the bytes before and after, so that only changes count; reads by
 * having the engine report every access of the instruction.
 */
#include "watch.h"

#include <string.h>

#include "engine.h"
#include "vcpu.h"

static uint32_t watched_bytes(const struct watchpoint *p)
{
    return p->last - p->first + 1;
}

static const uint8_t *watched_at(const struct machine *m, const struct watchpoint *p)
{
    return ram_at(&m->ram, p->first / PAGE_BYTES, p->first & ~PAGE_MASK);
}

/* --- reads ------------------------------------------------------------------------------------- */

static void hit(struct vcpu *v, uint32_t physical)
{
    const struct machine_watch *all = &v->machine->watch;
    for (uint32_t n = 0; n < all->count; n++)
        if (all->points[n].kinds & WATCH_READ && all->points[n].first <= physical && physical <= all->points[n].last)
            v->watch.hits |= 1u << n;
}

/* The engine tells the physical address of the first byte; an access that runs over the end of its page goes on
   in another page frame. */
static void access_seen(uc_engine *uc, uc_mem_type type, uint64_t address, int size, int64_t value, void *opaque)
{
    (void)uc;
    (void)type;
    (void)value;
    struct vcpu *v = opaque;
    uint32_t first = (uint32_t)address, here = PAGE_BYTES - (first & ~PAGE_MASK);
    for (uint32_t i = 0; i < (uint32_t)size && i < here; i++)
        hit(v, first + i);
    if ((uint32_t)size > here && (uint32_t)size - here > v->watch.crossed_bytes)
        v->watch.crossed_bytes = (uint32_t)size - here;
}

/* What lay behind the end of a page: now that the instruction is done, its pages are known. */
static void hit_crossed(struct vcpu *v)
{
    const struct watch *w = &v->watch;
    for (uint32_t i = 0; w->crossed_bytes > 0 && i < w->touched_count; i++)
        for (uint32_t j = 0; j < w->touched_count; j++)
            if (w->touched[j].page == w->touched[i].page + 1)
                for (uint32_t byte = 0; byte < w->crossed_bytes; byte++)
                    hit(v, w->touched[j].pfn * PAGE_BYTES + byte);
}

void watch_note_access(struct vcpu *v, uint32_t address, uint32_t pfn, uint32_t size)
{
    watch_note_page(&v->watch, address, pfn);
    for (uint32_t i = 0; i < size; i++)
        hit(v, pfn * PAGE_BYTES + (address & ~PAGE_MASK) + i);
}

static bool watches_reads(const struct machine_watch *all)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (all->points[i].kinds & WATCH_READ)
            return true;
    return false;
}

/* --- around an instruction --------------------------------------------------------------------- */

void watch_begin(struct vcpu *v, struct watch_look *look)
{
    const struct machine_watch *all = &v->machine->watch;
    look->accesses = watches_reads(all) ? engine_hook_accesses(v, access_seen) : 0;
    for (uint32_t i = 0; i < all->count; i++)
        memcpy(look->before[i], watched_at(v->machine, &all->points[i]), watched_bytes(&all->points[i]));
    v->watch.on = true;
    v->watch.hits = v->watch.touched_count = v->watch.crossed_bytes = 0;
    engine_must_flush(&v->engine);  /* so that it asks for every page */
}

void watch_end(struct vcpu *v, const struct watch_look *look)
{
    const struct machine_watch *all = &v->machine->watch;
    v->watch.on = false;
    engine_must_flush(&v->engine);  /* it may access those page frames without asking now */
    if (look->accesses != 0) {
        engine_unhook_accesses(&v->engine, look->accesses);
        hit_crossed(v);
    }
    for (uint32_t i = 0; i < all->count; i++) {
        const struct watchpoint *p = &all->points[i];
        if (p->kinds & WATCH_WRITE && memcmp(look->before[i], watched_at(v->machine, p), watched_bytes(p)) != 0)
            v->watch.hits |= 1u << i;
    }
}

/* --- for debugport.py, between runs --------------------------------------------------------------- */

static void mark_watched(struct machine *m, bool watched)
{
    for (uint32_t i = 0; i < m->watch.count; i++)
        ram_mark(&m->ram, m->watch.points[i].first / PAGE_BYTES, PAGE_WATCHED, watched);
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        engine_must_flush(&m->vcpus[i]->engine);
}

/* Replaces all watchpoints: triples of first byte, size and kinds. Each lies in one page frame. */
bool debug_set_watchpoints(struct machine *m, const uint32_t *triples, uint32_t count)
{
    if (count > MAX_WATCHPOINTS)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t first = triples[3 * i], size = triples[3 * i + 1];
        if (size == 0 || size > MAX_WATCHED_BYTES || !ram_has(&m->ram, first / PAGE_BYTES)
            || (first & ~PAGE_MASK) + size > PAGE_BYTES)
            return false;
    }
    mark_watched(m, false);
    for (uint32_t i = 0; i < count; i++)
        m->watch.points[i] =
            (struct watchpoint){triples[3 * i], triples[3 * i] + triples[3 * i + 1] - 1, triples[3 * i + 2]};
    m->watch.count = count;
    mark_watched(m, true);
    return true;
}
