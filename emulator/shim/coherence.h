/*
 * A page frame is either executed or writable, never both, in all engines of a machine together: engines
 * cache translated code by physical page and do not see each other's stores. The exception, an instruction
 * that writes to the page it lies on, is executed alone (step.c).
 */
#ifndef L4LAB_COHERENCE_H
#define L4LAB_COHERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "ram.h"

struct machine;
struct vcpu;

#pragma GCC visibility push(hidden)

struct machine_coherence {
    uint16_t *writer;  /* [pfn] 1 + core whose engine may have a writable translation; or WRITER_* */
    uint32_t *token;   /* [pfn] names its present content as code; a new one after every change */
    uint8_t *dirty;    /* [pfn] user code could write there since state_take_dirty() */
    uint32_t tokens;   /* given out so far */
};

struct coherence {
    uint8_t *executed;  /* bit per pfn: this engine may hold translations of it */
    uint32_t *dropped;  /* pfns whose translations end with this run */
    uint32_t dropped_count, dropped_size;
};

static inline uint32_t coherence_token(const struct machine_coherence *c, uint32_t pfn)
{
    return c->token[pfn];
}

/* Somebody writes there who does not ask each time. */
static inline void coherence_mark_dirty(struct machine_coherence *c, uint32_t pfn)
{
    c->dirty[pfn] = 1;
}

/* Whether this engine may hold translations of what is there. */
static inline bool coherence_is_translated(const struct coherence *c, uint32_t pfn)
{
    return c->executed[pfn >> 3] >> (pfn & 7) & 1;
}

static inline bool coherence_has_drops(const struct coherence *c)
{
    return c->dropped_count > 0;
}

bool coherence_init_machine(struct machine_coherence *c, const struct ram *ram);
void coherence_free_machine(struct machine_coherence *c, const struct ram *ram);
bool coherence_init(struct coherence *c, const struct ram *ram);
void coherence_free(struct coherence *c, const struct ram *ram);

/* The engine is about to fetch from there: from now on nobody writes to it without asking. */
void coherence_execute(struct vcpu *v, uint32_t pfn);

/* The engine gets a writable translation of it. */
void coherence_write(struct vcpu *v, uint32_t pfn);

/* Drops every engine's translations of it. No engine may be inside a run. */
void coherence_forget(struct machine *m, uint32_t pfn);

/* Until its content changes, what is there is executed in single steps. */
void coherence_distrust(struct machine *m, uint32_t pfn);

/* At the end of a run: code in page frames that the kernel writes is read anew for the next. */
void coherence_drop(struct vcpu *v);

#pragma GCC visibility pop

#endif
