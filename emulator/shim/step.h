/* One instruction at a time, where the engine cannot be trusted with a whole block. */
#ifndef L4LAB_STEP_H
#define L4LAB_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "ram.h"

struct vcpu;

#pragma GCC visibility push(hidden)

struct step {
    bool on;                 /* the engine executes one instruction, charged by step() itself */
    uint8_t blocks;          /* if not 0: that instruction is a block; what is left until the next */
    uint32_t shared_pfns[2]; /* while it does: may be executed and written; or NO_PFN */
    uint32_t careful_page;   /* 1 + linear address of a page being stepped through; or 0 */
    uint32_t careful_steps;  /* that many more, unless it is left before */
    bool trap_next;          /* EFLAGS.TF has just been set: the next instruction is stepped */
};

static inline void step_init(struct step *s)
{
    s->shared_pfns[0] = s->shared_pfns[1] = NO_PFN;
}

static inline bool step_is_on(const struct step *s)
{
    return s->on;
}

/* Whether the instruction lies on that page, and may write to it. */
static inline bool step_shares(const struct step *s, uint32_t pfn)
{
    return pfn == s->shared_pfns[0] || pfn == s->shared_pfns[1];
}

/* At a block, while the engine steps: whether the instruction was the block before. */
static inline bool step_ends_with_block(struct step *s)
{
    return s->blocks > 0 && --s->blocks == 0;
}

static inline bool step_is_careful(const struct step *s)
{
    return s->careful_steps > 0;
}

static inline void step_forget_care(struct step *s)
{
    s->careful_page = s->careful_steps = 0;
}

/* A run begins. */
static inline void step_begin(struct step *s)
{
    step_forget_care(s);
    s->trap_next = false;
}

/* Goes on by single steps as long as EIP stays on this page, but not for more than so many. */
static inline void step_carefully(struct step *s, uint32_t eip, uint32_t steps)
{
    s->careful_page = (eip & PAGE_MASK) + 1;
    s->careful_steps = steps;
}

/* Whether it does. */
static inline bool step_goes_on_at(const struct step *s, uint32_t eip)
{
    return s->careful_page == (eip & PAGE_MASK) + 1 && s->careful_steps > 0;
}

/* One of them is taken. */
static inline void step_count(struct step *s)
{
    s->careful_steps--;
}

/* Whether the next instruction must not be left to the engine because of EFLAGS.TF. */
static inline bool step_traps_next(const struct step *s)
{
    return s->trap_next;
}

/*
 * Executes the instruction at v->eip alone. `shared`: it may write to the page it lies on.
 * GO_ON, or what the kernel must see.
 */
uint64_t step(struct vcpu *v, bool shared);

/* Fetches and decodes the instruction at v->eip without the engine. GO_ON, or the page fault of that. */
uint64_t step_peek(struct vcpu *v, struct insn *insn, uint32_t pfns[2]);

#pragma GCC visibility pop

#endif
