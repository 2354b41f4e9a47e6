/* See coherence.h. */
#include "coherence.h"

#include <string.h>

#include "decode.h"
#include "engine.h"
#include "memory.h"
#include "patch.h"
#include "vcpu.h"

enum { WRITER_NONE = 0, WRITER_MANY = 0xffff };

static size_t executed_bytes(const struct ram *ram)
{
    return ram_pfn_count(ram) / 8 + 1;
}

bool coherence_init_machine(struct machine_coherence *c, const struct ram *ram)
{
    uint32_t count = ram_pfn_count(ram);
    c->writer = memory_reserve(count * sizeof *c->writer);
    c->token = memory_reserve(count * sizeof *c->token);
    c->dirty = memory_reserve(count);
    return c->writer && c->token && c->dirty;
}

void coherence_free_machine(struct machine_coherence *c, const struct ram *ram)
{
    uint32_t count = ram_pfn_count(ram);
    memory_release(c->writer, count * sizeof *c->writer);
    memory_release(c->token, count * sizeof *c->token);
    memory_release(c->dirty, count);
}

bool coherence_init(struct coherence *c, const struct ram *ram)
{
    c->executed = memory_reserve(executed_bytes(ram));
    return c->executed != NULL;
}

void coherence_free(struct coherence *c, const struct ram *ram)
{
    memory_release(c->executed, executed_bytes(ram));
    memory_delete(c->dropped, c->dropped_size * sizeof *c->dropped);
}

/* --- written ----------------------------------------------------------------------------------- */

void coherence_write(struct vcpu *v, uint32_t pfn)
{
    struct machine_coherence *c = &v->machine->coherence;
    uint16_t *writer = &c->writer[pfn], self = (uint16_t)(v->core + 1);
    if (*writer != self)
        *writer = *writer == WRITER_NONE ? self : WRITER_MANY;
    coherence_mark_dirty(c, pfn);
}

static void flush_writers(struct machine *m, uint32_t pfn)
{
    uint16_t writer = m->coherence.writer[pfn];
    m->coherence.writer[pfn] = WRITER_NONE;
    if (writer == WRITER_NONE)
        return;
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        if (writer == WRITER_MANY || writer == i + 1)
            engine_flush_tlb(&m->vcpus[i]->engine);
}

/* --- executed ---------------------------------------------------------------------------------- */

/* Never 0, and different for 2 ** 32 - 1 calls; scattered, because the block caches hash by it. */
static uint32_t new_token(struct machine_coherence *c)
{
    if (++c->tokens == 0)
        c->tokens = 1;
    return c->tokens * 0x9e3779b1u;
}

static void note_drop(struct coherence *c, uint32_t pfn)
{
    if (c->dropped_count == c->dropped_size) {
        uint32_t size = c->dropped_size ? 2 * c->dropped_size : 16;
        c->dropped = memory_grow(c->dropped, c->dropped_size * sizeof *c->dropped, size * sizeof *c->dropped);
        c->dropped_size = size;
    }
    c->dropped[c->dropped_count++] = pfn;
}

void coherence_execute(struct vcpu *v, uint32_t pfn)
{
    struct machine *m = v->machine;
    if (!ram_is_marked(&m->ram, pfn, PAGE_EXECUTED)) {
        bool hazardous = decode_is_hazardous(ram_at(&m->ram, pfn, 0));
        ram_mark(&m->ram, pfn, PAGE_EXECUTED | (hazardous ? PAGE_HAZARDOUS : 0), true);
        m->coherence.token[pfn] = new_token(&m->coherence);
        flush_writers(m, pfn);
    }
    if (!coherence_is_translated(&v->coherence, pfn)) {
        v->coherence.executed[pfn >> 3] |= (uint8_t)(1 << (pfn & 7));
        if (ram_is_marked(&m->ram, pfn, PAGE_KERNEL_WRITTEN))
            note_drop(&v->coherence, pfn);
    }
}

void coherence_forget(struct machine *m, uint32_t pfn)
{
    if (!ram_is_marked(&m->ram, pfn, PAGE_EXECUTED))
        return;
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (!coherence_is_translated(&v->coherence, pfn))
            continue;
        v->coherence.executed[pfn >> 3] &= (uint8_t)~(1 << (pfn & 7));
        engine_forget_code(&v->engine, (uint64_t)pfn * PAGE_BYTES, PAGE_BYTES, ram_is_marked(&m->ram, pfn, PAGE_SHADOWED));
        engine_must_flush(&v->engine);  /* it still may fetch from there without asking */
    }
    ram_mark(&m->ram, pfn, PAGE_EXECUTED | PAGE_HAZARDOUS, false);
    patch_forget(m, pfn);
}

void coherence_distrust(struct machine *m, uint32_t pfn)
{
    ram_mark(&m->ram, pfn, PAGE_HAZARDOUS, true);
}

void coherence_drop(struct vcpu *v)
{
    struct coherence *c = &v->coherence;
    while (c->dropped_count > 0)
        coherence_forget(v->machine, c->dropped[--c->dropped_count]);
}

/* --- for vcpu.py and debugport.py, between runs --------------------------------------------------- */

/* The host wrote these page frames, freed or reused them. */
void vcpu_forget_code(struct machine *m, uint32_t first, uint32_t count)
{
    for (uint32_t pfn = first; pfn - first < count && ram_has(&m->ram, pfn); pfn++)
        coherence_forget(m, pfn);
}

void vcpu_set_kernel_written(struct machine *m, uint32_t pfn, bool flag)
{
    if (!ram_has(&m->ram, pfn))
        return;
    coherence_forget(m, pfn);
    ram_mark(&m->ram, pfn, PAGE_KERNEL_WRITTEN, flag);
}

/*
 * Copies to `into`, a byte per page frame, which of them the engines may have written since the last call,
 * and starts anew: engines must ask again before they write.
 */
void state_take_dirty(struct machine *m, uint8_t *into)
{
    memcpy(into, m->coherence.dirty, ram_pfn_count(&m->ram));
    memset(m->coherence.dirty, 0, ram_pfn_count(&m->ram));
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        engine_must_flush(&m->vcpus[i]->engine);
}

/* A byte per page frame: 1 if the kernel writes it. */
void state_kernel_written(const struct machine *m, uint8_t *into)
{
    for (uint32_t pfn = 0; pfn < ram_pfn_count(&m->ram); pfn++)
        into[pfn] = ram_is_marked(&m->ram, pfn, PAGE_KERNEL_WRITTEN);
}
