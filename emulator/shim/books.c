/*
 * See books.h.
 *
 * The engine calls books_block_entered() before every block of straight code. The whole block is charged
 * there, from a cache of decoded blocks. If the block is left before its end, books_settle() takes back what
 * lies at and behind EIP. Fills of the modelled TLB are charged when they happen.
 *
 * A `rep` string instruction counts as one instruction per iteration, and as one if it iterates zero
 * times. The engine enters its block once per iteration, and once more to find the count at zero; that
 * last entry is free.
 */
#include "books.h"

#include <string.h>

#include "debug.h"
#include "engine.h"
#include "mmu.h"
#include "operations.h"
#include "report.h"
#include "run.h"
#include "segments.h"
#include "step.h"
#include "vcpu.h"

static const char *const cost_names[] = {
#define X(upper, lower) #lower,
    COST_CLASSES(X)
#undef X
    NULL,
};

/* In the order of `costs`. */
const char *const *vcpu_cost_names(void)
{
    return cost_names;
}

bool books_init(struct machine_books *b, const int64_t costs[COST_CLASS_COUNT])
{
    memcpy(b->costs, costs, sizeof b->costs);
    b->blocks = blocks_new();
    return b->blocks != NULL;
}

void books_free(struct machine_books *b)
{
    blocks_free(b->blocks);
}

void books_open(struct books *b)
{
    b->instructions = b->tlb_misses = b->fpu_switches = 0;
}

void books_store(struct books *b, struct thread_frame *frame)
{
    int64_t cycles = b->clock / MILLICYCLES;
    frame->user_cycles += (uint64_t)cycles;
    books_set_start(b, b->start_cycles + cycles, b->clock % MILLICYCLES);
    frame->instructions += b->instructions;
    frame->tlb_misses += b->tlb_misses;
    frame->fpu_switches += b->fpu_switches;
}

/* --- taken back -------------------------------------------------------------------------------- */

/* What of the block being executed lies before `eip`. */
static void sum_before(struct vcpu *v, uint32_t eip, struct block_sum *sum)
{
    const struct block *block = v->books.block;
    uint32_t size = eip - block->eip, whole = block_size(block);
    if (size == 0) {
        *sum = (struct block_sum){0};
    } else if (size >= whole) {
        if (size > whole)
            engine_note_anomaly(v, "EIP is beyond the block");
        *sum = (struct block_sum){.instructions = block->instructions, .cost = block->cost};
    } else {
        blocks_sum(v, block->eip, size, sum);
        if (sum->flags & INSN_TRUNCATED)
            engine_note_anomaly(v, "EIP is not where an instruction starts");
    }
}

void books_settle(struct vcpu *v, uint32_t eip)
{
    const struct block *block = v->books.block;
    if (block == NULL)
        return;
    struct block_sum done;
    sum_before(v, eip, &done);
    v->books.instructions -= block->instructions - done.instructions;
    v->books.clock -= block->cost - done.cost;
    v->books.block = NULL;
}

uint64_t books_cycles_now(struct vcpu *v)
{
    int64_t now = v->books.clock;
    if (v->books.block != NULL) {
        struct block_sum done;
        sum_before(v, engine_word(&v->engine, UC_X86_REG_EIP), &done);
        now -= v->books.block->cost - done.cost;
    }
    return (uint64_t)(v->books.start_cycles + now / MILLICYCLES);
}

/* --- charged ----------------------------------------------------------------------------------- */

void books_charge_insn(struct vcpu *v, const struct insn *insn)
{
    const int64_t *costs = v->machine->books.costs;
    v->books.instructions++;
    v->books.clock += costs[insn->cost_class] + insn->loads * costs[COST_LOAD] + insn->stores * costs[COST_STORE]
                    + insn->locked * costs[COST_LOCKED];
}

void books_charge_tlb_miss(struct vcpu *v)
{
    v->books.tlb_misses++;
    v->books.clock += v->machine->books.costs[COST_TLB_MISS];
}

void books_charge_fpu_switch(struct vcpu *v)
{
    v->books.fpu_switches++;
    v->books.clock += v->machine->books.costs[COST_FPU_SWITCH];
}

static inline void charge_block(struct books *b, const struct block *block)
{
    b->block = block;
    b->instructions += block->instructions;
    b->clock += block->cost;
}

/* Where the rep instruction lies that the block just executed ended with; 0 if it did not. */
static uint32_t repeating_at(const struct block *block)
{
    return block != NULL && block->flags & INSN_REPEAT ? block->eip + block->last : 0;
}

static bool count_is_zero(struct vcpu *v, const struct block *block)
{
    uint32_t count = engine_word(&v->engine, UC_X86_REG_ECX);
    return (block->flags & INSN_ADDRESS16 ? count & 0xffff : count) == 0;
}

static void block_entered_slowly(struct vcpu *v, uint32_t eip, uint32_t size)
{
    struct books *b = &v->books;
    if (engine_in_setup(&v->engine))
        return;
    if (step_is_on(&v->step)) {
        if (step_ends_with_block(&v->step))
            report_leave(v, EXIT_STEP);
        return;
    }
    uint32_t repeating = repeating_at(b->block);  /* before blocks_find(), which may overwrite it */
    const struct block *block = blocks_find(v, b->blocks, eip, size);
    b->block = NULL;
    if (UNLIKELY(block == NULL)) {
        report_leave(v, EXIT_PATCH);
        return;
    }
    if (block->flags & INSN_REPEAT && block->last == 0 && repeating == eip && count_is_zero(v, block))
        return;  /* the last round of a rep instruction: it only leaves */
    if (run_is_to_stop(&v->run)) {
        debug_leave_before(v, block);
        report_leave(v, EXIT_STOP);
        return;
    }
    if (run_is_due(&v->run, b->clock)) {
        report_leave(v, EXIT_DEADLINE);
        return;
    }
    if (UNLIKELY(debug_is_active(&v->machine->debug)) && debug_wants_block(v, block)) {
        debug_leave_before(v, block);
        report_leave(v, EXIT_DEBUG);
        return;
    }
    if (run_is_resuming(&v->run))
        run_set_resuming(v, false);
    if (block->flags
            & (INSN_REFUSED | INSN_LOADS_SEGMENT | INSN_POPS_FLAGS | INSN_ALONE | segments_refused(&v->segments))
        || UNLIKELY(segments_limit_stack(&v->segments))) {
        report_leave(v, EXIT_STEP);
        return;
    }
    charge_block(b, block);
    if (block_has_operations(block))
        operations_begin(v, block);
}

/* A block that is not in its place in the cache, or that has instructions of the shim at its start or before it. */
static __attribute__((noinline)) void block_entered_otherwise(struct vcpu *v, uint32_t eip, uint32_t size)
{
    struct books *b = &v->books;
    uint32_t token = mmu_code(&v->mmu, eip)->token;
    const struct block *block = blocks_place(b->blocks, token, eip);
    bool goes_on = operations_are_pending(&v->operations);
    if (goes_on && !operations_finish(v))
        return;
    bool known = block->eip == eip && block->token == token && (block->size & ~BLOCK_HAS_OPERATIONS) == size;
    if (LIKELY(known && b->clock < b->limit)) {
        charge_block(b, block);
        if (block_has_operations(block))
            operations_begin(v, block);
        return;
    }
    if (goes_on)
        run_goes_on(&v->run);  /* the program's own block has not ended */
    block_entered_slowly(v, eip, size);
}

void books_block_entered(uc_engine *uc, uint64_t address, uint32_t size, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    struct books *b = &v->books;
    uint32_t eip = (uint32_t)address;
    uint32_t token = mmu_code(&v->mmu, eip)->token;
    const struct block *block = blocks_place(b->blocks, token, eip);
    if (LIKELY(block->eip == eip && block->token == token && block->size == (uint16_t)size && b->clock < b->limit))
        charge_block(b, block);
    else
        block_entered_otherwise(v, eip, size);
}
