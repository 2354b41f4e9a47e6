/* See blocks.h. */
#include "blocks.h"

#include <string.h>

#include "books.h"
#include "debug.h"
#include "features.h"
#include "memory.h"
#include "mmu.h"
#include "patch.h"
#include "ram.h"
#include "vcpu.h"

_Static_assert(sizeof(struct block) == 32, "two blocks per cache line");

#define CACHE_BYTES (BLOCK_CACHE_SIZE * sizeof(struct block))

/* What in a block books_block_entered() cannot deal with. */
#define SLOW_FLAGS (INSN_REPEAT | INSN_CROSSES_PAGE | INSN_REFUSED | INSN_LOADS_SEGMENT | INSN_BREAKPOINT \
                    | INSN_POPS_FLAGS | INSN_ALONE | 1u << (WRITES_SHIFT + X86_CS))

struct block *blocks_new(void)
{
    return memory_reserve(CACHE_BYTES);
}

void blocks_forget(struct block *cache)
{
    memset(cache, 0, CACHE_BYTES);
}

void blocks_free(struct block *cache)
{
    memory_release(cache, CACHE_BYTES);
}

const uint8_t *blocks_bytes(struct vcpu *v, uint32_t eip, uint32_t size, uint8_t *buffer)
{
    const struct ram *ram = &v->machine->ram;
    uint32_t offset = eip & ~PAGE_MASK;
    const uint8_t *first = ram_at(ram, mmu_code(&v->mmu, eip)->pfn, offset);
    if (offset + size <= PAGE_BYTES)
        return first;
    uint32_t part = PAGE_BYTES - offset;
    memcpy(buffer, first, part);
    memcpy(buffer + part, ram_at(ram, mmu_code(&v->mmu, eip + part)->pfn, 0), size - part);
    return buffer;
}

void blocks_sum(struct vcpu *v, uint32_t eip, uint32_t size, struct block_sum *sum)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (size > PAGE_BYTES)
        size = PAGE_BYTES;
    decode_block(blocks_bytes(v, eip, size, buffer), size, books_costs(&v->machine->books), sum);
    if (features_refuse(&v->machine->features, sum->requires))
        sum->flags |= INSN_REFUSED;
}

const struct block *blocks_find(struct vcpu *v, struct block *cache, uint32_t eip, uint32_t size)
{
    uint32_t token = mmu_code(&v->mmu, eip)->token;
    bool crosses = (eip & ~PAGE_MASK) + size > PAGE_BYTES;
    uint32_t second = crosses ? mmu_code(&v->mmu, eip + size - 1)->token : 0;
    struct block *block = blocks_place(cache, token, eip);
    if (block->eip == eip && block->token == token && block_size(block) == size && block->second_token == second)
        return block;
    struct block_sum sum;
    blocks_sum(v, eip, size, &sum);
    if (!patch_is_ready(v, eip, size))
        return NULL;
    bool operations = sum.ours || features_make_ours(&v->machine->features, sum.requires);
    uint32_t flags = sum.flags | (crosses ? INSN_CROSSES_PAGE : 0);
    if (debug_marks_block(v, cache, eip, size))
        flags |= INSN_BREAKPOINT;
    *block = (struct block){
        .eip = eip, .token = token,
        .size = (uint16_t)(size | (flags & SLOW_FLAGS ? BLOCK_IS_SLOW : 0) | (operations ? BLOCK_HAS_OPERATIONS : 0)),
        .instructions = (uint16_t)sum.instructions, .second_token = second, .cost = sum.cost,
        .flags = flags, .last = sum.last,
    };
    return block;
}
