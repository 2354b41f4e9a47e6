/*
 * The books: instructions and cycles, exact wherever a run is left.
 *
 * The engine calls block_entered() before every block of straight code. The whole block is charged
 * there, from a cache of decoded blocks. If the block is left before its end, settle() takes back what
 * lies at and behind EIP. Fills of the modelled TLB are charged when they happen.
 *
 * A `rep` string instruction counts as one instruction per iteration, and as one if it iterates zero
 * times. The engine enters its block once per iteration, and once more to find the count at zero; that
 * last entry is free.
 *
 * Deadline: the core stops at the first block that would start at or after it. Blocks that only exist
 * because the shim itself left the engine (resuming) do not count as a start, so the stopping place
 * depends on the program alone.
 */
#include <stdio.h>
#include <string.h>

#include "vcpu.h"

_Static_assert(sizeof(struct block) == 32, "two blocks per cache line");

/* The engine did what it should not. Guests go on; tests expect this never to happen. */
void note_anomaly(struct vcpu *v, const char *what)
{
    v->anomalies++;
    const struct block *block = v->block;
    snprintf(v->error, sizeof v->error, "%s at EIP %#x (event %d, vector %u, block %#x + %#x)", what, v->eip, v->event,
             v->vector, block ? block->eip : 0, block ? block->size : 0);
}

static struct block *block_place(struct vcpu *v, uint32_t token, uint32_t eip)
{
    return &v->blocks[(eip ^ token) & (BLOCK_CACHE_SIZE - 1)];
}

/* The bytes of [eip, eip + size), as last fetched; gathered in `buffer` if they lie on two pages. */
const uint8_t *fetched_bytes(struct vcpu *v, uint32_t eip, uint32_t size, uint8_t *buffer)
{
    uint8_t *ram = v->machine->ram;
    uint32_t offset = eip & ~PAGE_MASK;
    const uint8_t *first = ram + (size_t)v->code[eip >> 12].frame * PAGE_BYTES + offset;
    if (offset + size <= PAGE_BYTES)
        return first;
    uint32_t part = PAGE_BYTES - offset;
    uint32_t second = (eip + part) >> 12;
    memcpy(buffer, first, part);
    memcpy(buffer + part, ram + (size_t)v->code[second].frame * PAGE_BYTES, size - part);
    return buffer;
}

static void sum_block(struct vcpu *v, uint32_t eip, uint32_t size, struct block_sum *sum)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (size > PAGE_BYTES)
        size = PAGE_BYTES;
    decode_block(fetched_bytes(v, eip, size, buffer), size, v->machine->costs, sum);
    uint32_t missing = sum->requires & ~v->machine->features;
    if (missing & ~(uint32_t)FEATURE_ABM)
        sum->flags |= INSN_REFUSED;
}

/* The cached block at [eip, eip + size), decoded now if it is not the one in its place. NULL: the engine must not execute
   it as it is translated now (patch.c). */
static const struct block *find_block(struct vcpu *v, uint32_t eip, uint32_t size)
{
    uint32_t token = v->code[eip >> 12].token;
    bool crosses = (eip & ~PAGE_MASK) + size > PAGE_BYTES;
    uint32_t second = crosses ? v->code[(eip + size - 1) >> 12].token : 0;
    struct block *block = block_place(v, token, eip);
    if (block->eip == eip && block->token == token && (block->size & BLOCK_SIZE_MASK) == size
        && block->second_token == second)
        return block;
    struct block_sum sum;
    sum_block(v, eip, size, &sum);
    if (!patch_block_is_ready(v, eip, size)) {
        v->patch_eip = eip;
        v->patch_size = size;
        return NULL;
    }
    bool operations = sum.ours || sum.requires & ~v->machine->features & FEATURE_ABM;
    uint32_t flags = sum.flags | (crosses ? INSN_CROSSES_PAGE : 0);
    if (UNLIKELY(v->blocks != v->machine->blocks) && debug_marks_block(v, eip, size))
        flags |= INSN_BREAKPOINT;
    *block = (struct block){
        .eip = eip, .token = token,
        .size = (uint16_t)(size | (flags & SLOW_FLAGS ? BLOCK_IS_SLOW : 0) | (operations ? BLOCK_HAS_OPERATIONS : 0)),
        .instructions = (uint16_t)sum.instructions, .second_token = second, .cost = sum.cost,
        .flags = flags, .last = sum.last,
    };
    return block;
}

/* What of the block being executed lies before `eip`. */
static void sum_before(struct vcpu *v, uint32_t eip, struct block_sum *sum)
{
    const struct block *block = v->block;
    uint32_t size = eip - block->eip, whole = block->size & BLOCK_SIZE_MASK;
    if (size == 0) {
        *sum = (struct block_sum){0};
    } else if (size >= whole) {
        if (size > whole)
            note_anomaly(v, "EIP is beyond the block");
        *sum = (struct block_sum){.instructions = block->instructions, .cost = block->cost};
    } else {
        sum_block(v, block->eip, size, sum);
        if (sum->flags & INSN_TRUNCATED)
            note_anomaly(v, "EIP is not where an instruction starts");
    }
}

/* The engine left the current block with `eip` as the next instruction. */
void settle(struct vcpu *v, uint32_t eip)
{
    if (v->block == NULL)
        return;
    struct block_sum done;
    sum_before(v, eip, &done);
    v->instructions -= v->block->instructions - done.instructions;
    v->clock -= v->block->cost - done.cost;
    v->block = NULL;
}

int64_t insn_cost(const struct vcpu *v, const struct insn *insn)
{
    const int64_t *costs = v->machine->costs;
    return costs[insn->cost_class] + insn->loads * costs[COST_LOAD] + insn->stores * costs[COST_STORE]
         + insn->locked * costs[COST_LOCKED];
}

/* The clock as of the instruction at EIP, in cycles. */
uint64_t clock_now(struct vcpu *v)
{
    int64_t now = v->clock;
    if (v->block != NULL) {
        struct block_sum done;
        sum_before(v, engine_word(v, UC_X86_REG_EIP), &done);
        now -= v->block->cost - done.cost;
    }
    return (uint64_t)(now / MILLICYCLES);
}

/* --- blocks ------------------------------------------------------------------------------------ */

void leave(struct vcpu *v, enum event event)
{
    v->event = event;
    engine.uc_emu_stop(v->uc);
}

/* The next block goes on where the shim, not the program, stopped. */
void expect_resume(struct vcpu *v)
{
    v->resuming = true;
    set_limit(v);
}

/* Where the rep instruction lies that the block just executed ended with; 0 if it did not. */
static uint32_t repeating_at(const struct block *block)
{
    return block != NULL && block->flags & INSN_REPEAT ? block->eip + block->last : 0;
}

static bool count_is_zero(struct vcpu *v, const struct block *block)
{
    uint32_t count = engine_word(v, UC_X86_REG_ECX);
    return (block->flags & INSN_ADDRESS16 ? count & 0xffff : count) == 0;
}

static inline void charge(struct vcpu *v, const struct block *block)
{
    v->block = block;
    v->instructions += block->instructions;
    v->clock += block->cost;
}

static void block_entered_slowly(struct vcpu *v, uint32_t eip, uint32_t size)
{
    if (v->setup)
        return;
    if (v->stepping) {
        if (v->step_blocks > 0 && --v->step_blocks == 0)
            leave(v, EVENT_STEP);
        return;
    }
    uint32_t repeating = repeating_at(v->block);  /* before find_block(), which may overwrite it */
    const struct block *block = find_block(v, eip, size);
    v->block = NULL;
    if (UNLIKELY(block == NULL)) {
        leave(v, EVENT_PATCH);
        return;
    }
    if (block->flags & INSN_REPEAT && block->last == 0 && repeating == eip && count_is_zero(v, block))
        return;  /* the last round of a rep instruction: it only leaves */
    if (stop_wanted(v)) {
        v->block_end = eip + size;
        v->block_goes_on = block->size & BLOCK_HAS_OPERATIONS && operations_of(v, block)->trails;
        leave(v, EVENT_STOP);
        return;
    }
    if (v->clock >= v->deadline && !v->resuming) {
        leave(v, EVENT_DEADLINE);
        return;
    }
    if (UNLIKELY(v->machine->debug.active) && debug_wants_block(v, block)) {
        v->block_end = eip + size;
        v->block_goes_on = block->size & BLOCK_HAS_OPERATIONS && operations_of(v, block)->trails;
        leave(v, EVENT_DEBUG);
        return;
    }
    if (v->resuming) {
        v->resuming = false;
        set_limit(v);
    }
    if (block->flags & (INSN_REFUSED | INSN_LOADS_SEGMENT | INSN_POPS_FLAGS | v->null_segments | v->read_only_segments << WRITES_SHIFT)) {
        leave(v, EVENT_STEP);
        return;
    }
    charge(v, block);
    if (block->size & BLOCK_HAS_OPERATIONS)
        operations_begin(v, block);
}

/* A block that is not in its place in the cache, or that has instructions of the shim at its start or before it. */
static __attribute__((noinline)) void block_entered_otherwise(struct vcpu *v, uint32_t eip, uint32_t size)
{
    uint32_t token = v->code[eip >> 12].token;
    const struct block *block = block_place(v, token, eip);
    bool goes_on = v->pending != NULL;
    if (goes_on && !operations_finish(v))
        return;
    bool known = block->eip == eip && block->token == token && (block->size & ~BLOCK_HAS_OPERATIONS) == size;
    if (LIKELY(known && v->clock < v->limit)) {
        charge(v, block);
        if (block->size & BLOCK_HAS_OPERATIONS)
            operations_begin(v, block);
        return;
    }
    if (goes_on)
        v->resuming = true;  /* the program's own block has not ended */
    block_entered_slowly(v, eip, size);
}

void block_entered(uc_engine *uc, uint64_t address, uint32_t size, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint32_t eip = (uint32_t)address;
    uint32_t token = v->code[eip >> 12].token;
    const struct block *block = block_place(v, token, eip);
    if (LIKELY(block->eip == eip && block->token == token && block->size == (uint16_t)size && v->clock < v->limit))
        charge(v, block);
    else
        block_entered_otherwise(v, eip, size);
}
