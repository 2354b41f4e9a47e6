/* What the shim answers in the engine's place: the core's clock, and who the processor is (cpuid.py). */
#ifndef L4LAB_ANSWERS_H
#define L4LAB_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#pragma GCC visibility push(hidden)

struct cpuid_leaf {
    uint32_t leaf, subleaf, eax, ebx, ecx, edx;  /* subleaf UINT32_MAX: any */
};
#define MAX_CPUID_LEAVES 64

struct machine_answers {
    struct cpuid_leaf leaves[MAX_CPUID_LEAVES];
    uint32_t count;
};

/* False: there are too many. */
bool answers_init(struct machine_answers *a, const struct cpuid_leaf *leaves, uint32_t count);

/* The first that is about `leaf`; one of zeros if there is none. */
const struct cpuid_leaf *answers_leaf(const struct machine_answers *a, uint32_t leaf);

/* Hooks for the instructions. */
int answers_rdtsc(uc_engine *uc, void *opaque);
int answers_rdtscp(uc_engine *uc, void *opaque);
int answers_cpuid(uc_engine *uc, void *opaque);

#pragma GCC visibility pop

#endif
