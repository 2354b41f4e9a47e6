/*
 * What the instructions that the shim executes read and write. Registers lie in the engine's own memory (native.c).
 * Memory: here the usual case, a page in the modelled TLB of which nothing special is known; the rest in operand.c.
 */
#ifndef L4LAB_OPERAND_H
#define L4LAB_OPERAND_H

#include <string.h>

#include "vcpu.h"

static inline uint32_t operand_general(struct vcpu *v, unsigned number)
{
    return (uint32_t)v->general[number & 7];
}

static inline void operand_set_general(struct vcpu *v, unsigned number, uint32_t value)
{
    v->general[number & 7] = value;
}

static inline union xmm *operand_xmm(struct vcpu *v, unsigned number)
{
    return (union xmm *)(v->xmm + (number & 7) * v->xmm_stride);
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
    return operand_offset(v, op) + v->segment_bases[op->segment];
}

enum ending operand_read_in_general(struct vcpu *v, uint32_t address, void *into, uint32_t size);
enum ending operand_write_in_general(struct vcpu *v, uint32_t address, const void *from, uint32_t size);

/* The bytes of an access to one page, if nothing speaks against it; else NULL. */
static inline uint8_t *operand_bytes(struct vcpu *v, uint32_t address, uint32_t size, bool write)
{
    const struct tlb_slot *slot = &v->slots[0][address >> 12];
    const uint8_t refused = write ? FRAME_WATCHED | FRAME_EXECUTED : FRAME_WATCHED;
    uint32_t offset = address & ~PAGE_MASK, frame = slot->word >> 12;
    if (UNLIKELY(slot->stamp != v->generation || offset > PAGE_BYTES - size || (write && !(slot->word & SLOT_WRITABLE))))
        return NULL;
    struct machine *m = v->machine;
    if (UNLIKELY(m->frame_flags[frame] & refused || v->watching))
        return NULL;
    if (write)
        m->frame_dirty[frame] = 1;
    return m->ram + (size_t)frame * PAGE_BYTES + offset;
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

#endif
