/*
 * Translation of linear addresses: what happens when the engine's own TLB has no entry.
 *
 * 1. walk() reads the two-level page tables in guest RAM as the hardware does for user mode, and
 *    sets accessed and dirty bits. The engine gets write permission only once the page is dirty, so
 *    that the first store comes here too.
 * 2. The engine's TLB has a geometry that depends on host time, and it is flushed for reasons of our
 *    own. So there is a TLB modelled on top, and the engine's is filled from that: translations that
 *    are in it stay in force, stale or not, until the kernel flushes or invalidates them; others are
 *    walked, counted and charged. It holds any number of pages, instructions and data apart. As on
 *    hardware, an access that a cached translation does not allow looks at the page tables again.
 * 3. Engines cache translated code by physical page and do not see each other's stores. So a frame is
 *    either executed or writable, never both, in all engines together; passing from one to the other
 *    comes here (make_executable(), forget_frame()). The exception, an instruction that writes to the
 *    page it lies on, is executed alone by step() in vcpu.c.
 *
 * Ref: Intel SDM vol. 3, 4.3 (32-bit paging), 4.6 (access rights), 4.8 (accessed and dirty flags), 4.10 (TLB).
 */
#include <stdlib.h>
#include <string.h>

#include "vcpu.h"

enum { P = 1, RW = 2, US = 4, ACCESSED = 0x20, DIRTY = 0x40, PS = 0x80, G = 0x100 };

static uint32_t *table_entry(const struct machine *m, uint32_t table, uint32_t index)
{
    uint32_t frame = table >> 12;
    return frame < m->frames ? (uint32_t *)(m->ram + (size_t)frame * PAGE_BYTES) + index : NULL;
}

/* A user-mode access. `mark`: it really happens, so accessed and dirty bits are set. */
enum walk_result walk(const struct vcpu *v, uint32_t address, enum access access, bool mark, struct mapping *m)
{
    uint32_t *pde = table_entry(v->machine, v->cr3, address >> 22);
    if (pde == NULL || !(*pde & P))
        return WALK_NOT_PRESENT;
    uint32_t *leaf = pde, rights = *pde;
    m->super = *pde & PS;
    if (!m->super) {
        leaf = table_entry(v->machine, *pde, address >> 12 & 0x3ff);
        if (leaf == NULL || !(*leaf & P))
            return WALK_NOT_PRESENT;
        rights &= *leaf;
        m->frame = *leaf >> 12;
    } else {
        /* Bits 13..20 are address bits 32..39 (PSE-36): beyond any RAM we have. */
        m->frame = *pde & 0x1fe000 ? NO_FRAME : (*pde >> 22 << 10 | (address >> 12 & 0x3ff));
    }
    if (!(rights & US) || (access == ACCESS_WRITE && !(rights & RW)) || m->frame >= v->machine->frames)
        return WALK_DENIED;
    if (mark) {
        if (!(*pde & ACCESSED))
            *pde |= ACCESSED;
        uint32_t bits = access == ACCESS_WRITE ? ACCESSED | DIRTY : ACCESSED;
        if ((*leaf & bits) != bits)
            *leaf |= bits;
    }
    m->global = *leaf & G;
    m->writable = (rights & RW) && (*leaf & DIRTY);
    return WALK_OK;
}

/* --- modelled TLB ------------------------------------------------------------------------------ */

static bool is_current(const struct vcpu *v, const struct tlb_slot *slot)
{
    return slot->stamp == v->generation || slot->stamp == (v->global_generation | GLOBAL_STAMP);
}

/* The translation in force for an address, or NULL. */
static struct tlb_slot *tlb_find(struct vcpu *v, uint32_t address, bool fetch, struct mapping *m)
{
    struct tlb_slot *slot = &v->slots[fetch][address >> 12];
    m->super = false;
    if (!is_current(v, slot)) {
        slot = &v->super_slots[fetch][address >> 22];
        m->super = true;
        if (!is_current(v, slot))
            return NULL;
    }
    m->frame = (slot->word >> 12) + (m->super ? address >> 12 & 0x3ff : 0);
    m->global = slot->stamp & GLOBAL_STAMP;
    m->writable = slot->word & SLOT_WRITABLE;
    return slot;
}

static void tlb_insert(struct vcpu *v, uint32_t address, bool fetch, const struct mapping *m)
{
    struct tlb_slot *slot = m->super ? &v->super_slots[fetch][address >> 22] : &v->slots[fetch][address >> 12];
    uint32_t first = m->super ? m->frame & ~0x3ffu : m->frame;
    slot->stamp = m->global ? v->global_generation | GLOBAL_STAMP : v->generation;
    slot->word = first << 12 | (m->writable ? SLOT_WRITABLE : 0);
    v->stamped[fetch][address >> 22] = 1;
}

/* What an access that really happens is translated to, with everything that goes with it. */
static enum walk_result translate(struct vcpu *v, uint32_t address, enum access access, struct mapping *m)
{
    bool fetch = access == ACCESS_FETCH;
    struct tlb_slot *slot = tlb_find(v, address, fetch, m);
    if (slot != NULL && (access != ACCESS_WRITE || m->writable))
        return WALK_OK;
    enum walk_result result = walk(v, address, access, true, m);
    if (result != WALK_OK)
        return result;
    if (slot != NULL) {
        slot->stamp = 0;  /* the new one may be of another size */
    } else {
        v->tlb_misses++;
        v->clock += v->machine->costs[COST_TLB_MISS];
    }
    tlb_insert(v, address, fetch, m);
    return WALK_OK;
}

static uint32_t next_generation(struct vcpu *v, uint32_t generation)
{
    if (++generation < GLOBAL_STAMP)
        return generation;
    for (int side = 0; side < 2; side++) {  /* after 2 ** 31 flushes: forget every stamp ever made */
        memset(v->slots[side], 0, PAGES * sizeof *v->slots[side]);
        memset(v->super_slots[side], 0, 1024 * sizeof *v->super_slots[side]);
    }
    return 1;
}

void tlb_flush(struct vcpu *v, bool global)
{
    v->generation = next_generation(v, v->generation);
    if (global)
        v->global_generation = next_generation(v, v->global_generation);
    v->engine_flush = true;
}

void tlb_invalidate(struct vcpu *v, uint32_t address)
{
    for (int side = 0; side < 2; side++) {
        v->slots[side][address >> 12].stamp = 0;
        v->super_slots[side][address >> 22].stamp = 0;
    }
    v->engine_flush = true;
}

/* --- executed or writable ---------------------------------------------------------------------- */

static void flush_writers(struct machine *m, uint32_t frame)
{
    uint16_t writer = m->frame_writer[frame];
    m->frame_writer[frame] = WRITER_NONE;
    if (writer == WRITER_NONE)
        return;
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        if (writer == WRITER_MANY || writer == i + 1)
            engine_flush_tlb(m->vcpus[i]);
}

static void note_drop(struct vcpu *v, uint32_t frame)
{
    if (v->dropped_count == v->dropped_size) {
        uint32_t size = v->dropped_size ? 2 * v->dropped_size : 16;
        uint32_t *larger = realloc(v->dropped, size * sizeof *larger);
        if (larger == NULL)
            abort();
        v->dropped = larger;
        v->dropped_size = size;
    }
    v->dropped[v->dropped_count++] = frame;
}

/* Never 0, and different for 2 ** 32 - 1 calls; scattered, because block_entered() hashes by it. */
static uint32_t new_token(struct machine *m)
{
    if (++m->tokens == 0)
        m->tokens = 1;
    return m->tokens * 0x9e3779b1u;
}

static void make_executable(struct vcpu *v, uint32_t frame)
{
    struct machine *m = v->machine;
    if (!(m->frame_flags[frame] & FRAME_EXECUTED)) {
        bool hazardous = decode_is_hazardous(m->ram + (size_t)frame * PAGE_BYTES);
        m->frame_flags[frame] |= FRAME_EXECUTED | (hazardous ? FRAME_HAZARDOUS : 0);
        m->frame_token[frame] = new_token(m);
        flush_writers(m, frame);
    }
    uint8_t bit = (uint8_t)(1 << (frame & 7));
    if (!(v->executed[frame >> 3] & bit)) {
        v->executed[frame >> 3] |= bit;
        if (m->frame_flags[frame] & FRAME_KERNEL_WRITTEN)
            note_drop(v, frame);
    }
}

/* Drops every engine's translations of a frame. No engine may be inside uc_emu_start. */
void forget_frame(struct machine *m, uint32_t frame)
{
    if (!(m->frame_flags[frame] & FRAME_EXECUTED))
        return;
    uint8_t bit = (uint8_t)(1 << (frame & 7));
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (!(v->executed[frame >> 3] & bit))
            continue;
        v->executed[frame >> 3] &= (uint8_t)~bit;
        engine_forget_page(v, (uint64_t)frame * PAGE_BYTES);
        v->engine_flush = true;  /* it still may fetch from there without asking */
    }
    m->frame_flags[frame] &= (uint8_t)~(FRAME_EXECUTED | FRAME_HAZARDOUS | FRAME_SHADOWED);
    patch_forget(m, frame);
}

static void note_writer(struct vcpu *v, uint32_t frame)
{
    uint16_t *writer = &v->machine->frame_writer[frame], self = (uint16_t)(v->core + 1);
    if (*writer != self)
        *writer = *writer == WRITER_NONE ? self : WRITER_MANY;
}

/* --- the engine asks --------------------------------------------------------------------------- */

static enum access access_of(uc_mem_type type)
{
    return type == UC_MEM_FETCH ? ACCESS_FETCH : type == UC_MEM_WRITE ? ACCESS_WRITE : ACCESS_READ;
}

static bool refuse(struct vcpu *v, uint32_t address, enum access access, enum walk_result why)
{
    v->event = EVENT_PAGE_FAULT;
    v->fault_is_exact = false;
    v->fault.address = address;
    v->fault.write = access == ACCESS_WRITE;
    v->fault.fetch = access == ACCESS_FETCH;
    v->fault.present = why == WALK_DENIED;
    return false;
}

/* What the shim accesses itself on behalf of an instruction, booked as if the engine did. False, with
   v->fault set, if it faults. */
bool access_page(struct vcpu *v, uint32_t address, enum access access, struct mapping *m)
{
    enum walk_result result = translate(v, address, access, m);
    return result == WALK_OK || refuse(v, address, access, result);
}

bool tlb_fill(uc_engine *uc, uint64_t address, uc_mem_type type, uc_tlb_entry *entry, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    enum access access = access_of(type);
    uint32_t linear = (uint32_t)address;  /* an access that runs over 4 GiB goes on at 0 */
    if (v->forgetting && address - SHADOW_WINDOW <= UINT32_MAX) {
        entry->paddr = SHADOW_PHYSICAL + (linear & PAGE_MASK);
        entry->perms = UC_PROT_ALL;
        return true;
    }
    bool window = address - WINDOW <= UINT32_MAX && (access != ACCESS_FETCH || v->forgetting);
    if (window || (v->setup && (linear & PAGE_MASK) == PRIVATE_PHYSICAL)) {
        entry->paddr = linear & PAGE_MASK;
        entry->perms = UC_PROT_ALL;
        return true;
    }
    if (v->setup)
        return refuse(v, linear, access, WALK_NOT_PRESENT);
    struct mapping m, other;
    enum walk_result result = translate(v, linear, access, &m);
    if (result != WALK_OK)
        return refuse(v, linear, access, result);

    struct machine *machine = v->machine;
    bool shared = m.frame == v->shared_frames[0] || m.frame == v->shared_frames[1];
    if (access == ACCESS_WRITE && (machine->frame_flags[m.frame] & FRAME_EXECUTED) && !shared) {
        v->event = EVENT_CODE_WRITE;
        v->code_write_frame = m.frame;
        return false;
    }
    bool fetch = access == ACCESS_FETCH;
    if (UNLIKELY(machine->frame_flags[m.frame] & FRAME_WATCHED) && !fetch && !v->watching) {
        v->event = EVENT_WATCH;
        return false;
    }
    if (UNLIKELY(v->watching) && !fetch)
        debug_note_page(v, linear, m.frame);
    if (fetch) {
        make_executable(v, m.frame);
        v->code[linear >> 12] = (struct code_page){machine->frame_token[m.frame], m.frame};
    }
    bool careful = machine->frame_flags[m.frame] & FRAME_HAZARDOUS && !v->stepping;
    if (fetch && careful) {
        v->event = EVENT_STEP;
        return false;
    }
    bool shadowed = machine->frame_flags[m.frame] & FRAME_SHADOWED;
    if (fetch && shadowed && !careful) {
        entry->paddr = SHADOW_PHYSICAL + (uint64_t)m.frame * PAGE_BYTES;
        entry->perms = UC_PROT_EXEC;
        return true;
    }
    /* The engine has one entry for data and instructions; each side's rights only if it has them here. */
    bool executed = machine->frame_flags[m.frame] & FRAME_EXECUTED;
    bool data = !fetch || (tlb_find(v, linear, false, &other) != NULL && other.frame == m.frame);
    bool writable = fetch ? data && other.writable : m.writable;
    entry->paddr = (uint64_t)m.frame * PAGE_BYTES;
    entry->perms = data ? UC_PROT_READ : 0;
    if (writable && (!executed || shared)) {
        entry->perms |= UC_PROT_WRITE;
        note_writer(v, m.frame);
        machine->frame_dirty[m.frame] = 1;
    }
    /* And to fetch only where this engine is known to hold translations. */
    if (fetch || (executed && !careful && !shadowed && (v->executed[m.frame >> 3] >> (m.frame & 7) & 1)
                  && tlb_find(v, linear, true, &other) != NULL && other.frame == m.frame
                  && v->code[linear >> 12].token == machine->frame_token[m.frame]))
        entry->perms |= UC_PROT_EXEC;
    return true;
}
