/* Segment registers, and the descriptors that they come from. */
#ifndef L4LAB_SEGMENTS_H
#define L4LAB_SEGMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "thread_frame.h"

struct vcpu;

#pragma GCC visibility push(hidden)

struct segments {
    uint16_t selectors[6];  /* that the engine has; index as X86_ES .. */
    uint32_t bases[6];
    uint32_t null;          /* 1 << X86_ES, ...: accesses there are refused */
    uint32_t read_only;     /* and writes there; CS always is */
    uint32_t limited;       /* those that have not all of 4 GiB: */
    uint32_t lowest[6], highest[6];  /* offsets of bytes that they have */
    uint32_t stack_mask;    /* of ESP, as SS says */
};

/* The segments that hold a null selector, as in the flags of instructions. */
static inline uint32_t segments_null(const struct segments *s)
{
    return s->null;
}

/* Those that cannot be written to; as in the `writes` of instructions. */
static inline uint32_t segments_read_only(const struct segments *s)
{
    return s->read_only;
}

/* Those where accesses beyond a limit are refused (limits.h). */
static inline uint32_t segments_limited(const struct segments *s)
{
    return s->limited;
}

/* What accesses of a block, as in its flags, are refused, or may be. */
static inline uint32_t segments_refused(const struct segments *s)
{
    return s->null | s->limited | s->read_only << WRITES_SHIFT;
}

/* Whether the stack has a limit, too, so that no block is free of such accesses. */
static inline bool segments_limit_stack(const struct segments *s)
{
    return s->limited >> X86_SS & 1;
}

static inline uint32_t segments_stack_mask(const struct segments *s)
{
    return s->stack_mask;
}

/* Whether the segment has all bytes of an access. */
static inline bool segments_have(const struct segments *s, unsigned segment, uint32_t offset, uint32_t size)
{
    return offset >= s->lowest[segment] && offset <= s->highest[segment] && size - 1 <= s->highest[segment] - offset;
}

/* Whether every block must be looked at. */
static inline bool segments_are_special(const struct segments *s)
{
    return s->null || s->limited || s->read_only & ~(1u << X86_CS);
}

static inline uint32_t segments_base(const struct segments *s, unsigned segment)
{
    return s->bases[segment];
}

static inline uint16_t segments_selector(const struct segments *s, unsigned segment)
{
    return s->selectors[segment];
}

/* The engine has just been started. */
void segments_reset(struct vcpu *v);

/* Before a run, from v->frame; and after it, into `frame`. */
void segments_load(struct vcpu *v);
void segments_store(const struct segments *s, struct thread_frame *frame);

/* After an instruction that may have loaded some. */
void segments_read(struct vcpu *v);

/* Whether a selector is of a descriptor that is there, but not present. */
bool segments_are_absent(const struct vcpu *v, uint16_t selector);

bool segments_code_is_flat(const struct vcpu *v);

/* Makes it flat again; returns the selector that was there. */
uint16_t segments_undo_code(struct vcpu *v);

#pragma GCC visibility pop

#endif
