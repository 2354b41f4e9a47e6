/* Blocks of straight code, decoded and summed up, as last seen at some place: a cache of them. */
#ifndef L4LAB_BLOCKS_H
#define L4LAB_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* Found by (token, eip), see blocks_find(). */
struct block {
    uint32_t eip;
    uint32_t token;         /* of the page it starts on: names the page's content, see coherence.h */
    uint16_t size;          /* bytes; with the bits below, to keep books_block_entered() from taking it */
    uint16_t instructions;
    uint32_t second_token;  /* of the page it ends on, if that is another one; else 0 */
    int64_t cost;           /* thousandths of a cycle */
    uint32_t flags;         /* of decode.h */
    uint32_t last;          /* offset of the last instruction */
};
#define BLOCK_IS_SLOW 0x8000u
#define BLOCK_HAS_OPERATIONS 0x4000u /* instructions of the shim at its start, or one at its end: see operations.h */
#define BLOCK_SIZE_MASK 0x3fffu
#define BLOCK_CACHE_SIZE (1u << 14)

static inline uint32_t block_size(const struct block *block)
{
    return block->size & BLOCK_SIZE_MASK;
}

static inline uint32_t block_end(const struct block *block)
{
    return block->eip + block_size(block);
}

static inline bool block_has_operations(const struct block *block)
{
    return block->size & BLOCK_HAS_OPERATIONS;
}

/* Where in a cache a block is, if it is there. */
static inline struct block *blocks_place(struct block *cache, uint32_t token, uint32_t eip)
{
    return &cache[(eip ^ token) & (BLOCK_CACHE_SIZE - 1)];
}

struct block *blocks_new(void);  /* an empty cache, or NULL */
void blocks_forget(struct block *cache);
void blocks_free(struct block *cache);

/* The block at [eip, eip + size), decoded now if it is not the one in its place of the cache. NULL: the engine must
   not execute it as it is translated now (patch.h). */
const struct block *blocks_find(struct vcpu *v, struct block *cache, uint32_t eip, uint32_t size);

/* What the instructions in [eip, eip + size) come to. */
void blocks_sum(struct vcpu *v, uint32_t eip, uint32_t size, struct block_sum *sum);

/* The bytes of [eip, eip + size), as last fetched; gathered in `buffer` if they lie on two pages. */
const uint8_t *blocks_bytes(struct vcpu *v, uint32_t eip, uint32_t size, uint8_t *buffer);

#pragma GCC visibility pop

#endif
