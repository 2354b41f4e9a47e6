/*
 * Guest memory. It belongs to whoever made the machine; here is where it lies, and a byte of marks for each
 * of its page frames. A page frame is named by its number, `pfn`; `frame` alone is a thread frame.
 */
#ifndef L4LAB_RAM_H
#define L4LAB_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"
#include "x86.h"

#define NO_PFN 0xffffffffu

/* Each is set and cleared by one part only. */
enum page_mark {
    PAGE_EXECUTED = 1,        /* coherence */
    PAGE_KERNEL_WRITTEN = 2,  /* coherence */
    PAGE_HAZARDOUS = 4,       /* coherence; see decode_is_hazardous() */
    PAGE_WATCHED = 8,         /* watch */
    PAGE_SHADOWED = 32,       /* patch: engines fetch from a copy */
    PAGE_MARKED_SPACE = 16,   /* breakpoints: a page directory whose space has breakpoints */
};

struct ram {
    uint8_t *bytes;
    uint8_t *marks;      /* [pfn_count] */
    uint32_t pfn_count;  /* the first pfn beyond */
};

static inline bool ram_has(const struct ram *r, uint32_t pfn)
{
    return pfn < r->pfn_count;
}

static inline uint32_t ram_pfn_count(const struct ram *r)
{
    return r->pfn_count;
}

static inline uint8_t *ram_at(const struct ram *r, uint32_t pfn, uint32_t offset)
{
    return r->bytes + (size_t)pfn * PAGE_BYTES + offset;
}

/* Whether it has one of the marks. */
static inline bool ram_is_marked(const struct ram *r, uint32_t pfn, uint32_t marks)
{
    return r->marks[pfn] & marks;
}

static inline void ram_mark(struct ram *r, uint32_t pfn, uint32_t marks, bool on)
{
    r->marks[pfn] = (uint8_t)(on ? r->marks[pfn] | marks : r->marks[pfn] & ~marks);
}

static inline bool ram_init(struct ram *r, uint8_t *bytes, uint64_t size_bytes)
{
    r->bytes = bytes;
    r->pfn_count = (uint32_t)(size_bytes / PAGE_BYTES);
    r->marks = memory_reserve(r->pfn_count);
    return r->marks != NULL;
}

static inline void ram_free(struct ram *r)
{
    memory_release(r->marks, r->pfn_count);
}

#endif
