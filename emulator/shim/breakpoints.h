/* Where to stop: addresses, in one address space or in all. */
#ifndef L4LAB_BREAKPOINTS_H
#define L4LAB_BREAKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "ram.h"

#pragma GCC visibility push(hidden)

#define EVERY_SPACE 0 /* as cr3 */

struct breakpoint {
    uint32_t address, cr3;
};

struct machine_breakpoints {
    struct breakpoint *all;  /* by address */
    uint32_t count;
    bool everywhere;         /* there are some of every address space */
};

/* Whether there is one at an address from `first` to `last`, of this address space or of all. */
bool breakpoints_between(const struct machine_breakpoints *b, uint32_t first, uint32_t last, uint32_t cr3);

/* Whether there is one in these bytes, whatever the address space. */
bool breakpoints_in(const struct machine_breakpoints *b, uint32_t first, uint32_t bytes);

/* Whether the address space has some. */
bool breakpoints_of(const struct machine_breakpoints *b, const struct ram *ram, uint32_t cr3);

/* Replaces all: pairs of address and page directory. False: no memory, nothing has changed. */
bool breakpoints_set(struct machine_breakpoints *b, struct ram *ram, const uint32_t *pairs, uint32_t count);

void breakpoints_free(struct machine_breakpoints *b);

#pragma GCC visibility pop

#endif
