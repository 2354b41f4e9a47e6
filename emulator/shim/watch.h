/*
 * Watchpoints: bytes of guest memory whose accesses are found out. A watched page frame stays out of the
 * engine's TLB, so that every access to it comes to mmu_fill(); the instruction is then executed alone,
 * between watch_begin() and watch_end() (debug.c).
 */
#ifndef L4LAB_WATCH_H
#define L4LAB_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "ram.h"

struct vcpu;

#pragma GCC visibility push(hidden)

enum watch_kind { WATCH_WRITE = 1, WATCH_READ = 2 };

struct watchpoint {
    uint32_t first, last;  /* physical bytes, in one page frame */
    uint32_t kinds;        /* enum watch_kind */
};
#define MAX_WATCHPOINTS 16
#define MAX_WATCHED_BYTES 64
#define MAX_TOUCHED_PAGES 8 /* two for each of the operands that an instruction can have */

struct machine_watch {
    struct watchpoint points[MAX_WATCHPOINTS];
    uint32_t count;
};

struct watch {
    bool on;        /* the instruction being executed may access watched page frames */
    uint32_t hits;  /* bit per watchpoint: accessed by that instruction */
    struct {
        uint32_t page, pfn;
    } touched[MAX_TOUCHED_PAGES];  /* by that instruction */
    uint32_t touched_count;
    uint32_t crossed_bytes;  /* behind the end of a page, of an access that crossed it; 0: none did */
};

/* Between watch_begin() and watch_end(). */
struct watch_look {
    uint8_t before[MAX_WATCHPOINTS][MAX_WATCHED_BYTES];
    uc_hook accesses;  /* 0: reads are of no interest */
};

static inline void watch_note_page(struct watch *w, uint32_t address, uint32_t pfn)
{
    if (w->touched_count < MAX_TOUCHED_PAGES) {
        w->touched[w->touched_count].page = address >> 12;
        w->touched[w->touched_count++].pfn = pfn;
    }
}

/* Whether the engine may have this page for data. */
static inline bool watch_allows(struct watch *w, const struct ram *ram, uint32_t address, uint32_t pfn)
{
    if (UNLIKELY(w->on))
        watch_note_page(w, address, pfn);
    else if (UNLIKELY(ram_is_marked(ram, pfn, PAGE_WATCHED)))
        return false;
    return true;
}

static inline bool watch_is_on(const struct watch *w)
{
    return w->on;
}

/* Bit per watchpoint, of the last instruction that was watched. */
static inline uint32_t watch_hits(const struct watch *w)
{
    return w->hits;
}

static inline void watch_forget_hits(struct watch *w)
{
    w->hits = 0;
}

/* An instruction of the shim accesses bytes of a page while it is on. */
void watch_note_access(struct vcpu *v, uint32_t address, uint32_t pfn, uint32_t size);

/* The instruction that is executed next may access watched page frames. */
void watch_begin(struct vcpu *v, struct watch_look *look);

/* It has been executed: watch_hits() is what it touched. */
void watch_end(struct vcpu *v, const struct watch_look *look);

#pragma GCC visibility pop

#endif
