/*
 * What the instructions that the shim executes read and write: registers in the engine's own memory, guest memory
 * with everything that goes with an access: TLB, page faults, stores to code, watchpoints.
 *
 * An access that runs over the end of its page is translated for both pages first, so it happens as a whole or not.
 */
#include <string.h>

#include "operand.h"

enum ending raise_vector(struct vcpu *v, uint32_t vector)
{
    v->vector = vector;
    return RAISED;
}

uint32_t operand_eflags(struct vcpu *v)
{
    return engine_word(v, UC_X86_REG_EFLAGS);
}

void operand_set_eflags(struct vcpu *v, uint32_t flags, uint32_t which)
{
    uint32_t all = (engine_word(v, UC_X86_REG_EFLAGS) & ~which) | flags;
    engine_write(v, UC_X86_REG_EFLAGS, &all);
}

static enum ending left(struct vcpu *v, enum event event)
{
    v->event = event;
    return LEFT;
}

/* The bytes of a page from `address` on, ready for the access. */
static enum ending access_bytes(struct vcpu *v, uint32_t address, uint32_t size, bool write, uint8_t **bytes)
{
    struct machine *m = v->machine;
    struct mapping mapping;
    if (!access_page(v, address, write ? ACCESS_WRITE : ACCESS_READ, &mapping)) {
        v->fault_is_exact = true;
        return LEFT;
    }
    uint8_t flags = m->frame_flags[mapping.frame];
    if (UNLIKELY(flags & FRAME_EXECUTED) && write) {
        v->code_write_frame = mapping.frame;
        if (v->in_engine)
            return left(v, EVENT_CODE_WRITE);
        forget_frame(m, mapping.frame);
    }
    if (UNLIKELY(flags & FRAME_WATCHED) && !v->watching)
        return left(v, EVENT_WATCH);
    if (UNLIKELY(v->watching))
        debug_note_access(v, address, mapping.frame, size);
    if (write)
        m->frame_dirty[mapping.frame] = 1;
    *bytes = m->ram + (size_t)mapping.frame * PAGE_BYTES + (address & ~PAGE_MASK);
    return DONE;
}

struct span {
    uint8_t *first, *second;
    uint32_t first_size;
};

static enum ending access_span(struct vcpu *v, uint32_t address, uint32_t size, bool write, struct span *span)
{
    uint32_t here = PAGE_BYTES - (address & ~PAGE_MASK);
    span->first_size = size < here ? size : here;
    TRY(access_bytes(v, address, span->first_size, write, &span->first));
    if (LIKELY(size <= here))
        return DONE;
    return access_bytes(v, address + here, size - here, write, &span->second);
}

enum ending operand_read_in_general(struct vcpu *v, uint32_t address, void *into, uint32_t size)
{
    struct span span;
    TRY(access_span(v, address, size, false, &span));
    memcpy(into, span.first, span.first_size);
    if (UNLIKELY(span.first_size < size))
        memcpy((uint8_t *)into + span.first_size, span.second, size - span.first_size);
    return DONE;
}

enum ending operand_write_in_general(struct vcpu *v, uint32_t address, const void *from, uint32_t size)
{
    struct span span;
    TRY(access_span(v, address, size, true, &span));
    memcpy(span.first, from, span.first_size);
    if (UNLIKELY(span.first_size < size))
        memcpy(span.second, (const uint8_t *)from + span.first_size, size - span.first_size);
    return DONE;
}

/* Nothing is written; only whether that would fault, and what a write entails. */
enum ending operand_probe_write(struct vcpu *v, uint32_t address, uint32_t size)
{
    struct span span;
    return access_span(v, address, size, true, &span);
}
