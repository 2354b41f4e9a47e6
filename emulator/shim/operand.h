/*
 * What the instructions that the shim executes read and write, for operation.c and floating.h. Registers lie in the engine's own memory (native.c).
 * Memory: here the usual case, a page in the modelled TLB of which nothing special is known; the rest in operand.c.
 */
#ifndef L4LAB_OPERAND_H
#define L4LAB_OPERAND_H

#include <string.h>

#include "coherence.h"
#include "engine.h"
#include "mmu.h"
#include "native.h"
#include "operation.h"
#include "ram.h"
#include "report.h"
#include "segments.h"
#include "vcpu.h"
#include "watch.h"

#pragma GCC visibility push(hidden)

static inline uint32_t operand_general(const struct vcpu *v, unsigned number)
{
    return native_general(&v->native, number);
}

static inline void operand_set_general(const struct vcpu *v, unsigned number, uint32_t value)
{
    native_set_general(&v->native, number, value);
}

static inline union xmm *operand_xmm(const struct vcpu *v, unsigned number)
{
    return native_xmm(&v->native, number);
}

/* An exception: what an operation ends with. */
static inline enum ending raise_vector(struct vcpu *v, uint32_t vector)
{
    report_raise(&v->report, vector);
    return RAISED;
}

static inline uint32_t operand_eflags(struct vcpu *v)
{
    return engine_word(&v->engine, UC_X86_REG_EFLAGS);
}

/* Sets those of `which` to `flags`. */
static inline void operand_set_eflags(struct vcpu *v, uint32_t flags, uint32_t which)
{
    uint32_t all = (operand_eflags(v) & ~which) | flags;
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &all);
}

/* Sets all of ARITHMETIC_FLAGS. Behind a run, the engine has them in two places. */
static inline void operand_set_arithmetic_flags(struct vcpu *v, uint32_t flags)
{
    if (LIKELY(engine_is_running(&v->engine)))
        native_set_flags(&v->native, flags);
    else
        operand_set_eflags(v, flags, ARITHMETIC_FLAGS);
}

static inline uint32_t operand_offset(struct vcpu *v, const struct operation *op)
{
    uint32_t offset = op->displacement;
    if (op->base >= 0)
        offset += operand_general(v, (unsigned)op->base);
    if (op->index >= 0)
        offset += operand_general(v, (unsigned)op->index) << op->scale;
    return op->address16 ? offset & 0xffff : offset;
}

static inline uint32_t operand_address(struct vcpu *v, const struct operation *op)
{
    return operand_offset(v, op) + segments_base(&v->segments, op->segment);
}

/* Nothing is written; only whether that would fault, and what a write entails. */
enum ending operand_probe_write(struct vcpu *v, uint32_t address, uint32_t size);

enum ending operand_read_in_general(struct vcpu *v, uint32_t address, void *into, uint32_t size);
enum ending operand_write_in_general(struct vcpu *v, uint32_t address, const void *from, uint32_t size);

/* The bytes of an access to one page, if nothing speaks against it; else NULL. */
static inline uint8_t *operand_bytes(struct vcpu *v, uint32_t address, uint32_t size, bool write)
{
    const uint32_t refused = write ? PAGE_WATCHED | PAGE_EXECUTED : PAGE_WATCHED;
    uint32_t offset = address & ~PAGE_MASK, pfn;
    if (UNLIKELY(!mmu_finds(&v->mmu, address, write, &pfn) || offset > PAGE_BYTES - size))
        return NULL;
    struct machine *m = v->machine;
    if (UNLIKELY(ram_is_marked(&m->ram, pfn, refused) || watch_is_on(&v->watch)))
        return NULL;
    if (write)
        coherence_mark_dirty(&m->coherence, pfn);
    return ram_at(&m->ram, pfn, offset);
}

static inline enum ending operand_read(struct vcpu *v, uint32_t address, void *into, uint32_t size)
{
    const uint8_t *bytes = operand_bytes(v, address, size, false);
    if (UNLIKELY(bytes == NULL))
        return operand_read_in_general(v, address, into, size);
    memcpy(into, bytes, size);
    return DONE;
}

static inline enum ending operand_write(struct vcpu *v, uint32_t address, const void *from, uint32_t size)
{
    uint8_t *bytes = operand_bytes(v, address, size, true);
    if (UNLIKELY(bytes == NULL))
        return operand_write_in_general(v, address, from, size);
    memcpy(bytes, from, size);
    return DONE;
}

#pragma GCC visibility pop

#endif
