/*
 * See operand.h. Guest memory with everything that goes with an access: TLB, page faults, stores to code, watchpoints.
 *
 * An access that runs over the end of its page is translated for both pages first, so it happens as a whole or not.
 */
#include "operand.h"

#include <string.h>

static enum ending left(struct vcpu *v, enum exit_reason reason)
{
    report_exit(&v->report, reason);
    return LEFT;
}

/* The bytes of a page from `address` on, ready for the access. */
static enum ending access_bytes(struct vcpu *v, uint32_t address, uint32_t size, bool write, uint8_t **bytes)
{
    struct machine *m = v->machine;
    struct mapping mapping;
    if (!mmu_access(v, address, write ? ACCESS_WRITE : ACCESS_READ, &mapping)) {
        report_fault_is_exact(&v->report);
        return LEFT;
    }
    if (UNLIKELY(ram_is_marked(&m->ram, mapping.pfn, PAGE_EXECUTED)) && write) {
        report_note_code_write(&v->report, mapping.pfn);
        if (engine_is_running(&v->engine))
            return left(v, EXIT_CODE_WRITE);
        coherence_forget(m, mapping.pfn);
    }
    if (UNLIKELY(watch_is_on(&v->watch)))
        watch_note_access(v, address, mapping.pfn, size);
    else if (UNLIKELY(ram_is_marked(&m->ram, mapping.pfn, PAGE_WATCHED)))
        return left(v, EXIT_WATCH);
    if (write)
        coherence_mark_dirty(&m->coherence, mapping.pfn);
    *bytes = ram_at(&m->ram, mapping.pfn, address & ~PAGE_MASK);
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

enum ending operand_probe_write(struct vcpu *v, uint32_t address, uint32_t size)
{
    struct span span;
    return access_span(v, address, size, true, &span);
}
