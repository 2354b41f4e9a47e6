/* Why the engine stopped, and what that is to the kernel. */
#ifndef L4LAB_REPORT_H
#define L4LAB_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "decode.h"
#include "outcome.h"
#include "ram.h"

struct vcpu;

#pragma GCC visibility push(hidden)

enum exit_reason {
    EXIT_NONE,
    EXIT_DEADLINE,
    EXIT_STOP,         /* asked for from outside */
    EXIT_PAGE_FAULT,
    EXIT_CODE_WRITE,   /* a store to a page frame that has been executed */
    EXIT_INTERRUPT,    /* the engine reports a vector */
    EXIT_STEP,         /* the next instruction needs a look before the engine may have it */
    EXIT_DEBUG,        /* the debugger wants to stop in the next block */
    EXIT_WATCH,        /* an access to a page frame with a watchpoint */
    EXIT_EXCEPTION,    /* an instruction of the shim raised the vector */
    EXIT_PATCH,        /* the next block must be translated anew, from a changed copy of its page */
};

struct report {
    enum exit_reason reason;
    uint32_t vector;           /* of the last EXIT_INTERRUPT or EXIT_EXCEPTION */
    struct {
        uint32_t address;      /* of the page only, unless it is `exact` */
        bool write, fetch, present, exact;
    } fault;                   /* of the last EXIT_PAGE_FAULT */
    uint32_t code_write_pfn;   /* of the last store to code; or NO_PFN */
};

/* The engine is about to run. */
static inline void report_begin(struct report *r)
{
    r->reason = EXIT_NONE;
}

/* From the hooks, which then make the engine stop. */
static inline void report_exit(struct report *r, enum exit_reason reason)
{
    r->reason = reason;
}

static inline void report_fault(struct report *r, uint32_t address, bool write, bool fetch, bool present)
{
    r->reason = EXIT_PAGE_FAULT;
    r->fault.address = address;
    r->fault.write = write;
    r->fault.fetch = fetch;
    r->fault.present = present;
    r->fault.exact = false;
}

/* The address just reported is that of the byte. */
static inline void report_fault_is_exact(struct report *r)
{
    r->fault.exact = true;
}

/* An instruction of the shim raises an exception. */
static inline void report_raise(struct report *r, uint32_t vector)
{
    r->vector = vector;
}

static inline void report_note_code_write(struct report *r, uint32_t pfn)
{
    r->code_write_pfn = pfn;
}

static inline void report_code_write(struct report *r, uint32_t pfn)
{
    r->reason = EXIT_CODE_WRITE;
    report_note_code_write(r, pfn);
}

static inline enum exit_reason report_reason(const struct report *r)
{
    return r->reason;
}

/* Of the interrupt that the engine stopped for; -1 if it was something else. */
static inline int report_vector(const struct report *r)
{
    return r->reason == EXIT_INTERRUPT ? (int)r->vector : -1;
}

/* The fault as the kernel gets it. */
static inline uint64_t report_as_page_fault(const struct report *r)
{
    return page_fault(r->fault.address, r->fault.write, r->fault.fetch, r->fault.present);
}

/* What was raised, likewise. */
static inline uint64_t report_as_exception(const struct report *r)
{
    return exception(r->vector, 0);
}

/* Whether there was a code write since it was last forgotten. */
static inline bool report_saw_code_write(const struct report *r)
{
    return r->code_write_pfn != NO_PFN;
}

static inline void report_forget_code_write(struct report *r)
{
    r->code_write_pfn = NO_PFN;
}

/* From a hook that cannot refuse: the engine goes no further. */
void report_leave(struct vcpu *v, enum exit_reason reason);

/* The hook for interrupts and exceptions. */
void report_interrupt(uc_engine *uc, uint32_t vector, void *opaque);

/* After a run of the engine that ended with `err`: goes on with it, or what the kernel must see. `stepped`: the
   instruction that it was to execute alone, or NULL. */
uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped);

#pragma GCC visibility pop

#endif
