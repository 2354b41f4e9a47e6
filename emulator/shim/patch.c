/*
 * See patch.h. The engine's own copy of pages with instructions that the shim executes.
 *
 * An engine fetches code from RAM, or, once a block with such an instruction has been met, from a copy of the page in
 * which each of them is replaced (operations.c). Data accesses always go to RAM, so no guest sees the copy. What a
 * page needs is found block by block, when a block is first entered (blocks_find()) and before it is charged: only then
 * is it known where instructions begin. A block that needs a change is left; the change is made while no engine runs.
 *
 * Each byte of a copy is claimed, by instructions that must be there as they are or by replaced ones. Code that jumps
 * into the middle of its own instructions can need both: its page is then executed from RAM, one instruction at a time,
 * and those of the shim never reach the engine.
 */
#include "patch.h"

#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "coherence.h"
#include "engine.h"
#include "features.h"
#include "memory.h"
#include "mmu.h"
#include "vcpu.h"

enum { CLAIMED = 1, REPLACED = 2 };

/* Bytes [at, at + size) of linear memory, which may lie on two pages, one after the other. */
struct place {
    uint32_t pfn, offset;
};

bool patch_init(struct machine_patch *p, const struct ram *ram)
{
    p->shadow = memory_reserve((size_t)ram_pfn_count(ram) * PAGE_BYTES);
    p->claims = memory_reserve(ram_pfn_count(ram) * sizeof *p->claims);
    return p->shadow && p->claims;
}

static void free_claims(struct machine_patch *p, uint32_t pfn)
{
    memory_delete(p->claims[pfn], PAGE_BYTES);
    p->claims[pfn] = NULL;
}

void patch_free(struct machine_patch *p, const struct ram *ram)
{
    for (uint32_t pfn = 0; p->claims != NULL && pfn < ram_pfn_count(ram); pfn++)
        free_claims(p, pfn);
    memory_release(p->claims, ram_pfn_count(ram) * sizeof *p->claims);
    memory_release(p->shadow, (size_t)ram_pfn_count(ram) * PAGE_BYTES);
}

static struct place place_of(const struct vcpu *v, uint32_t address)
{
    return (struct place){mmu_code(&v->mmu, address)->pfn, address & ~PAGE_MASK};
}

static uint8_t *claims_of(struct machine *m, uint32_t pfn)
{
    uint8_t **claims = &m->patch.claims[pfn];
    if (*claims == NULL && (*claims = memory_new(PAGE_BYTES)) == NULL)
        abort();
    return *claims;
}

static uint8_t *shadow_byte(const struct machine *m, struct place p)
{
    return m->patch.shadow + (size_t)p.pfn * PAGE_BYTES + p.offset;
}

enum { PREFIX = 0x3e, NOP = 0x90, JUMP = 0xeb };

/* The instruction that stands for one of `length` bytes, two at least: a jump to the next, or none. */
static void replacement(const struct insn *insn, bool follows, uint8_t *bytes)
{
    memset(bytes, PREFIX, insn->length);
    bytes[insn->length - 2] = follows ? PREFIX : JUMP;
    bytes[insn->length - 1] = follows ? NOP : 0;
}

bool patch_ends_block(const struct vcpu *v, uint32_t eip)
{
    uint8_t byte;
    do
        byte = *shadow_byte(v->machine, place_of(v, eip++));
    while (byte == PREFIX);
    return byte == JUMP;
}

enum need { NEED_NOTHING, NEED_CHANGE, NEED_STEPS };

static enum need need_native(struct vcpu *v, uint32_t eip, uint32_t length)
{
    struct machine *m = v->machine;
    for (uint32_t i = 0; i < length; i++) {
        struct place p = place_of(v, eip + i);
        uint8_t *claim = &claims_of(m, p.pfn)[p.offset];
        if (*claim == REPLACED)
            return NEED_STEPS;
        *claim = CLAIMED;
    }
    return NEED_NOTHING;
}

/* `follows`: another of them lies right before it. If it has been met without that one, it remains a jump. */
static enum need need_replaced(struct vcpu *v, uint32_t eip, const struct insn *insn, bool follows, bool change)
{
    struct machine *m = v->machine;
    uint8_t bytes[INSN_MAX_BYTES];
    enum need need = NEED_NOTHING;
    struct place first = place_of(v, eip);
    if (claims_of(m, first.pfn)[first.offset] == REPLACED)
        follows = !patch_ends_block(v, eip);
    replacement(insn, follows, bytes);
    for (uint32_t i = 0; i < insn->length; i++) {
        struct place p = place_of(v, eip + i);
        uint8_t *claim = &claims_of(m, p.pfn)[p.offset];
        if (*claim == CLAIMED || (*claim == REPLACED && *shadow_byte(m, p) != bytes[i]))
            return NEED_STEPS;
        if (*claim == REPLACED)
            continue;
        need = NEED_CHANGE;
        if (change) {
            *claim = REPLACED;
            *shadow_byte(m, p) = bytes[i];
        }
    }
    return need;
}

static enum need look_at(struct vcpu *v, uint32_t eip, uint32_t size, bool change)
{
    uint8_t buffer[2 * PAGE_BYTES];
    enum need need = NEED_NOTHING;
    bool follows = false;
    if (size > PAGE_BYTES)
        size = PAGE_BYTES;
    const uint8_t *code = blocks_bytes(v, eip, size, buffer);
    struct insn insn;
    for (uint32_t at = 0; at < size; at += insn.length) {
        features_decode(&v->machine->features, code + at, size - at, &insn);
        if (insn.flags & INSN_TRUNCATED)
            break;  /* the engine raised an exception (#NM, #UD) before it had read it all */
        bool ours = insn.ours && !(insn.flags & INSN_REFUSED);
        enum need one = ours ? need_replaced(v, eip + at, &insn, follows, change) : need_native(v, eip + at, insn.length);
        if (one > need)
            need = one;
        follows = ours;
    }
    return need;
}

bool patch_is_ready(struct vcpu *v, uint32_t eip, uint32_t size)
{
    if (look_at(v, eip, size, false) == NEED_NOTHING)
        return true;
    v->patch = (struct patch){eip, size};
    return false;
}

static void forget_in_engines(struct machine *m, uint32_t pfn, uint32_t offset, uint32_t size, bool flush)
{
    bool shadow = ram_is_marked(&m->ram, pfn, PAGE_SHADOWED);
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (!coherence_is_translated(&v->coherence, pfn))
            continue;
        engine_forget_code(&v->engine, (uint64_t)pfn * PAGE_BYTES + offset, size, shadow);
        if (flush)
            engine_must_flush(&v->engine);
    }
}

/* From here on engines fetch from the copy. */
static void begin_copy(struct machine *m, uint32_t pfn)
{
    if (ram_is_marked(&m->ram, pfn, PAGE_SHADOWED))
        return;
    memcpy(shadow_byte(m, (struct place){pfn, 0}), ram_at(&m->ram, pfn, 0), PAGE_BYTES);
    forget_in_engines(m, pfn, 0, PAGE_BYTES, true);
    ram_mark(&m->ram, pfn, PAGE_SHADOWED, true);
}

/* The page's code is executed from RAM, by single steps, until it changes. */
static void give_up_copy(struct machine *m, uint32_t pfn)
{
    forget_in_engines(m, pfn, 0, PAGE_BYTES, true);
    ram_mark(&m->ram, pfn, PAGE_SHADOWED, false);
    coherence_distrust(m, pfn);
}

static void drop_copies(struct vcpu *v, struct place first, struct place last)
{
    give_up_copy(v->machine, first.pfn);
    give_up_copy(v->machine, last.pfn);
}

void patch_block(struct vcpu *v)
{
    uint32_t eip = v->patch.eip, size = v->patch.size;
    struct place first = place_of(v, eip), last = place_of(v, eip + size - 1);
    if (look_at(v, eip, size, false) == NEED_STEPS) {
        drop_copies(v, first, last);
        return;
    }
    begin_copy(v->machine, first.pfn);
    begin_copy(v->machine, last.pfn);
    if (look_at(v, eip, size, true) == NEED_STEPS) {  /* it overlaps itself */
        drop_copies(v, first, last);
        return;
    }
    if (first.pfn == last.pfn && first.offset <= last.offset) {
        forget_in_engines(v->machine, first.pfn, first.offset, size, false);
    } else {
        forget_in_engines(v->machine, first.pfn, first.offset, PAGE_BYTES - first.offset, false);
        forget_in_engines(v->machine, last.pfn, 0, last.offset + 1, false);
    }
}

void patch_check_step(struct vcpu *v, const struct insn *insn, const uint32_t pfns[2])
{
    struct machine *m = v->machine;
    for (uint32_t i = 0; i < insn->length; i++) {
        uint32_t offset = (v->eip + i) & ~PAGE_MASK;
        struct place p = {pfns[offset < (v->eip & ~PAGE_MASK)], offset};
        if (ram_is_marked(&m->ram, p.pfn, PAGE_SHADOWED) && *shadow_byte(m, p) != *ram_at(&m->ram, p.pfn, offset))
            give_up_copy(m, p.pfn);
    }
}

void patch_forget(struct machine *m, uint32_t pfn)
{
    ram_mark(&m->ram, pfn, PAGE_SHADOWED, false);
    free_claims(&m->patch, pfn);
}
