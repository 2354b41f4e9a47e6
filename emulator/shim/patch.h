/* The engine's own copy of pages with instructions that the shim executes: see patch.c. */
#ifndef L4LAB_PATCH_H
#define L4LAB_PATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "decode.h"
#include "ram.h"

struct machine;
struct vcpu;

#pragma GCC visibility push(hidden)

struct machine_patch {
    uint8_t *shadow;   /* of RAM: copies of pages, for the engines to fetch from */
    uint8_t **claims;  /* [pfn] what each byte of its copy has been found to be; or NULL */
};

struct patch {
    uint32_t eip, size;  /* the block that patch_block() is about */
};

bool patch_init(struct machine_patch *p, const struct ram *ram);
void patch_free(struct machine_patch *p, const struct ram *ram);

static inline uint8_t *patch_shadow(const struct machine_patch *p)
{
    return p->shadow;
}

/* Whether the engine may execute this block as it is translated now; if not, it is noted for patch_block(). */
bool patch_is_ready(struct vcpu *v, uint32_t eip, uint32_t size);

/* Makes the block that was noted ready. No engine runs. */
void patch_block(struct vcpu *v);

/* Whether the replaced instruction that begins there ends the engine's block. */
bool patch_ends_block(const struct vcpu *v, uint32_t eip);

/* Before the engine executes one instruction alone: if the copy has others in its place, it is given up. */
void patch_check_step(struct vcpu *v, const struct insn *insn, const uint32_t pfns[2]);

/* What is there is no longer code. */
void patch_forget(struct machine *m, uint32_t pfn);

#pragma GCC visibility pop

#endif
