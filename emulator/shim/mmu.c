/*
 * See mmu.h. What happens when the engine's own TLB has no entry:
 *
 * 1. walk() reads the two-level page tables in guest RAM as the hardware does for user mode, and
 *    sets accessed and dirty bits. The engine gets write permission only once the page is dirty, so
 *    that the first store comes here too.
 * 2. The engine's TLB has a geometry that depends on host time, and it is flushed for reasons of our
 *    own. So there is a TLB modelled on top, and the engine's is filled from that: translations that
 *    are in it stay in force, stale or not, until the kernel flushes or invalidates them; others are
 *    walked, counted and charged. It holds any number of pages, instructions and data apart. As on
 *    hardware, an access that a cached translation does not allow looks at the page tables again.
 * 3. mmu_fill() gives the engine no right that the page frame is not ready for: to execute or to write
 *    (coherence.h), or to access unseen what is watched (watch.h).
 *
 * Ref: Intel SDM vol. 3, 4.3 (32-bit paging), 4.6 (access rights), 4.8 (accessed and dirty flags), 4.10 (TLB).
 */
#include "mmu.h"

#include <string.h>

#include "books.h"
#include "coherence.h"
#include "engine.h"
#include "memory.h"
#include "ram.h"
#include "report.h"
#include "step.h"
#include "vcpu.h"
#include "watch.h"

enum { P = 1, RW = 2, US = 4, ACCESSED = 0x20, DIRTY = 0x40, PS = 0x80, G = 0x100 };

/* Each of the three, and of them data and instructions apart. */
#define SLOTS_BYTES (PAGES * sizeof(struct tlb_slot))
#define SUPER_SLOTS_BYTES (REGIONS * sizeof(struct tlb_slot))
#define STAMPED_BYTES REGIONS

bool mmu_init(struct mmu *mmu)
{
    mmu->generation = mmu->global_generation = 1;
    mmu->cr3 = UINT32_MAX;
    bool ok = true;
    for (int side = 0; side < 2; side++) {
        mmu->slots[side] = memory_reserve(SLOTS_BYTES);
        mmu->super_slots[side] = memory_reserve(SUPER_SLOTS_BYTES);
        mmu->stamped[side] = memory_reserve(STAMPED_BYTES);
        ok = ok && mmu->slots[side] && mmu->super_slots[side] && mmu->stamped[side];
    }
    return ok;
}

void mmu_free(struct mmu *mmu)
{
    for (int side = 0; side < 2; side++) {
        memory_release(mmu->slots[side], SLOTS_BYTES);
        memory_release(mmu->super_slots[side], SUPER_SLOTS_BYTES);
        memory_release(mmu->stamped[side], STAMPED_BYTES);
    }
}

/* --- page walker ------------------------------------------------------------------------------- */

enum walk_result { WALK_OK, WALK_NOT_PRESENT, WALK_DENIED };

static uint32_t *table_entry(const struct ram *ram, uint32_t table, uint32_t index)
{
    uint32_t pfn = table >> 12;
    return ram_has(ram, pfn) ? (uint32_t *)ram_at(ram, pfn, 0) + index : NULL;
}

/* A user-mode access that really happens: accessed and dirty bits are set. */
static enum walk_result walk(const struct ram *ram, uint32_t cr3, uint32_t address, enum access access,
                             struct mapping *m)
{
    uint32_t *pde = table_entry(ram, cr3, address >> 22);
    if (pde == NULL || !(*pde & P))
        return WALK_NOT_PRESENT;
    uint32_t *leaf = pde, rights = *pde;
    m->super = *pde & PS;
    if (!m->super) {
        leaf = table_entry(ram, *pde, address >> 12 & 0x3ff);
        if (leaf == NULL || !(*leaf & P))
            return WALK_NOT_PRESENT;
        rights &= *leaf;
        m->pfn = *leaf >> 12;
    } else {
        /* Bits 13..20 are address bits 32..39 (PSE-36): beyond any RAM we have. */
        m->pfn = *pde & 0x1fe000 ? NO_PFN : (*pde >> 22 << 10 | (address >> 12 & 0x3ff));
    }
    if (!(rights & US) || (access == ACCESS_WRITE && !(rights & RW)) || !ram_has(ram, m->pfn))
        return WALK_DENIED;
    if (!(*pde & ACCESSED))
        *pde |= ACCESSED;
    uint32_t bits = access == ACCESS_WRITE ? ACCESSED | DIRTY : ACCESSED;
    if ((*leaf & bits) != bits)
        *leaf |= bits;
    m->global = *leaf & G;
    m->writable = (rights & RW) && (*leaf & DIRTY);
    return WALK_OK;
}

/* --- modelled TLB ------------------------------------------------------------------------------ */

static bool is_current(const struct mmu *mmu, const struct tlb_slot *slot)
{
    return slot->stamp == mmu->generation || slot->stamp == (mmu->global_generation | GLOBAL_STAMP);
}

/* The translation in force for an address, or NULL. */
static struct tlb_slot *tlb_find(struct mmu *mmu, uint32_t address, bool fetch, struct mapping *m)
{
    struct tlb_slot *slot = &mmu->slots[fetch][address >> 12];
    m->super = false;
    if (!is_current(mmu, slot)) {
        slot = &mmu->super_slots[fetch][address >> 22];
        m->super = true;
        if (!is_current(mmu, slot))
            return NULL;
    }
    m->pfn = (slot->word >> 12) + (m->super ? address >> 12 & 0x3ff : 0);
    m->global = slot->stamp & GLOBAL_STAMP;
    m->writable = slot->word & SLOT_WRITABLE;
    return slot;
}

static void tlb_insert(struct mmu *mmu, uint32_t address, bool fetch, const struct mapping *m)
{
    struct tlb_slot *slot = m->super ? &mmu->super_slots[fetch][address >> 22] : &mmu->slots[fetch][address >> 12];
    uint32_t first = m->super ? m->pfn & ~0x3ffu : m->pfn;
    slot->stamp = m->global ? mmu->global_generation | GLOBAL_STAMP : mmu->generation;
    slot->word = first << 12 | (m->writable ? SLOT_WRITABLE : 0);
    mmu->stamped[fetch][address >> 22] = 1;
}

/* What an access that really happens is translated to, with everything that goes with it. */
static enum walk_result translate(struct vcpu *v, uint32_t address, enum access access, struct mapping *m)
{
    bool fetch = access == ACCESS_FETCH;
    struct tlb_slot *slot = tlb_find(&v->mmu, address, fetch, m);
    if (slot != NULL && (access != ACCESS_WRITE || m->writable))
        return WALK_OK;
    enum walk_result result = walk(&v->machine->ram, v->mmu.cr3, address, access, m);
    if (result != WALK_OK)
        return result;
    if (slot != NULL)
        slot->stamp = 0;  /* the new one may be of another size */
    else
        books_charge_tlb_miss(v);
    tlb_insert(&v->mmu, address, fetch, m);
    return WALK_OK;
}

static uint32_t next_generation(struct mmu *mmu, uint32_t generation)
{
    if (++generation < GLOBAL_STAMP)
        return generation;
    for (int side = 0; side < 2; side++) {  /* after 2 ** 31 flushes: forget every stamp ever made */
        memset(mmu->slots[side], 0, SLOTS_BYTES);
        memset(mmu->super_slots[side], 0, SUPER_SLOTS_BYTES);
    }
    return 1;
}

void mmu_flush(struct vcpu *v, bool global)
{
    struct mmu *mmu = &v->mmu;
    mmu->generation = next_generation(mmu, mmu->generation);
    if (global)
        mmu->global_generation = next_generation(mmu, mmu->global_generation);
    engine_must_flush(&v->engine);
}

void mmu_load_cr3(struct vcpu *v, uint32_t cr3)
{
    if (cr3 == v->mmu.cr3)
        return;
    v->mmu.cr3 = cr3;
    mmu_flush(v, false);
}

/* Forgets all translations but those of global pages. */
void vcpu_flush_tlb(struct vcpu *v)
{
    mmu_flush(v, false);
}

/* Forgets the translation of a page, global or not, of either size. */
void vcpu_invalidate_page(struct vcpu *v, uint32_t address)
{
    for (int side = 0; side < 2; side++) {
        v->mmu.slots[side][address >> 12].stamp = 0;
        v->mmu.super_slots[side][address >> 22].stamp = 0;
    }
    engine_must_flush(&v->engine);
}

/* --- the engine asks --------------------------------------------------------------------------- */

static enum access access_of(uc_mem_type type)
{
    return type == UC_MEM_FETCH ? ACCESS_FETCH : type == UC_MEM_WRITE ? ACCESS_WRITE : ACCESS_READ;
}

static bool refuse(struct vcpu *v, uint32_t address, enum access access, enum walk_result why)
{
    report_fault(&v->report, address, access == ACCESS_WRITE, access == ACCESS_FETCH, why == WALK_DENIED);
    return false;
}

bool mmu_access(struct vcpu *v, uint32_t address, enum access access, struct mapping *m)
{
    enum walk_result result = translate(v, address, access, m);
    return result == WALK_OK || refuse(v, address, access, result);
}

/* Whether the modelled TLB has the page on that side, too, and what it says there. */
static bool has_other_side(struct vcpu *v, uint32_t address, bool fetch, uint32_t pfn, struct mapping *other)
{
    return tlb_find(&v->mmu, address, fetch, other) != NULL && other->pfn == pfn;
}

/* What the engine may do with the page from now on without asking, after this access. It has one entry
   for data and instructions; each side's rights only if the modelled TLB has it there. */
static uint32_t grant(struct vcpu *v, uint32_t address, bool fetch, const struct mapping *m, bool shared)
{
    const struct machine *machine = v->machine;
    struct mapping other;
    bool executed = ram_is_marked(&machine->ram, m->pfn, PAGE_EXECUTED);
    bool careful = ram_is_marked(&machine->ram, m->pfn, PAGE_HAZARDOUS) && !step_is_on(&v->step);
    bool data = !fetch || has_other_side(v, address, false, m->pfn, &other);
    bool writable = fetch ? data && other.writable : m->writable;
    uint32_t allowed = data ? UC_PROT_READ : 0;
    if (writable && (!executed || shared)) {
        allowed |= UC_PROT_WRITE;
        coherence_write(v, m->pfn);
    }
    /* And to fetch only where this engine is known to hold translations. */
    bool shadowed = ram_is_marked(&machine->ram, m->pfn, PAGE_SHADOWED);
    if (fetch || (executed && !careful && !shadowed && coherence_is_translated(&v->coherence, m->pfn)
                  && has_other_side(v, address, true, m->pfn, &other)
                  && mmu_code(&v->mmu, address)->token == coherence_token(&machine->coherence, m->pfn)))
        allowed |= UC_PROT_EXEC;
    return allowed;
}

bool mmu_fill(uc_engine *uc, uint64_t address, uc_mem_type type, uc_tlb_entry *entry, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    enum access access = access_of(type);
    bool fetch = access == ACCESS_FETCH;
    uint32_t linear = (uint32_t)address;  /* an access that runs over 4 GiB goes on at 0 */
    if (engine_sees_physical(&v->engine, address, fetch, &entry->paddr)) {
        entry->perms = UC_PROT_ALL;
        return true;
    }
    if (engine_in_setup(&v->engine))
        return refuse(v, linear, access, WALK_NOT_PRESENT);
    struct mapping m;
    enum walk_result result = translate(v, linear, access, &m);
    if (result != WALK_OK)
        return refuse(v, linear, access, result);

    const struct machine *machine = v->machine;
    bool shared = step_shares(&v->step, m.pfn);
    if (access == ACCESS_WRITE && ram_is_marked(&machine->ram, m.pfn, PAGE_EXECUTED) && !shared) {
        report_code_write(&v->report, m.pfn);
        return false;
    }
    if (!fetch && !watch_allows(&v->watch, &machine->ram, linear, m.pfn)) {
        report_exit(&v->report, EXIT_WATCH);
        return false;
    }
    if (fetch) {
        coherence_execute(v, m.pfn);
        v->mmu.code[linear >> 12] = (struct code_page){coherence_token(&machine->coherence, m.pfn), m.pfn};
        if (ram_is_marked(&machine->ram, m.pfn, PAGE_HAZARDOUS) && !step_is_on(&v->step)) {
            report_exit(&v->report, EXIT_STEP);
            return false;
        }
        if (ram_is_marked(&machine->ram, m.pfn, PAGE_SHADOWED)) {
            entry->paddr = SHADOW_PHYSICAL + (uint64_t)m.pfn * PAGE_BYTES;
            entry->perms = UC_PROT_EXEC;
            return true;
        }
    }
    entry->paddr = (uint64_t)m.pfn * PAGE_BYTES;
    entry->perms = grant(v, linear, fetch, &m, shared);
    return true;
}

/* --- saved and restored ------------------------------------------------------------------------ */

#define GLOBAL_ENTRY 0x80000000u
#define SUPER_ENTRY 0x40000000u
#define FETCH_ENTRY 0x20000000u

/* Adds a slot to `into`, if it is in force and there is room; 1 if it is in force. */
static uint32_t save_slot(const struct mmu *mmu, const struct tlb_slot *slot, uint32_t place,
                          struct saved_translation *into, bool room)
{
    if (!is_current(mmu, slot))
        return 0;
    if (room)
        *into = (struct saved_translation){place | (slot->stamp & GLOBAL_STAMP ? GLOBAL_ENTRY : 0), slot->word};
    return 1;
}

static uint32_t save_side(const struct mmu *mmu, bool fetch, struct saved_translation *into, uint32_t room)
{
    uint32_t count = 0, side = fetch ? FETCH_ENTRY : 0;
    for (uint32_t region = 0; region < REGIONS; region++) {
        if (!mmu->stamped[fetch][region])
            continue;
        uint32_t first = region << 10 | side;
        count += save_slot(mmu, &mmu->super_slots[fetch][region], first | SUPER_ENTRY, into + count, count < room);
        const struct tlb_slot *slots = mmu->slots[fetch] + (region << 10);
        for (uint32_t page = 0; page < 1024; page++)
            count += save_slot(mmu, &slots[page], first | page, into + count, count < room);
    }
    return count;
}

uint32_t mmu_save(const struct mmu *mmu, struct saved_translation *into, uint32_t room)
{
    uint32_t data = save_side(mmu, false, into, room);
    uint32_t used = data < room ? data : room;
    return data + save_side(mmu, true, into + used, room - used);
}

void mmu_restore(struct vcpu *v, uint32_t cr3, const struct saved_translation *from, uint32_t count)
{
    struct mmu *mmu = &v->mmu;
    mmu->cr3 = cr3;
    mmu_flush(v, true);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = from[i].place, page = place & (PAGES - 1);
        bool fetch = place & FETCH_ENTRY;
        uint32_t stamp = place & GLOBAL_ENTRY ? mmu->global_generation | GLOBAL_STAMP : mmu->generation;
        struct tlb_slot *slot = place & SUPER_ENTRY ? &mmu->super_slots[fetch][page >> 10] : &mmu->slots[fetch][page];
        *slot = (struct tlb_slot){stamp, from[i].word};
        mmu->stamped[fetch][page >> 10] = 1;
    }
}
