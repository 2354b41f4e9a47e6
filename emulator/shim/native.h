/* Where the engine keeps the registers of its processor: the instructions that the shim executes work there. */
#ifndef L4LAB_NATIVE_H
#define L4LAB_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct vcpu;

#pragma GCC visibility push(hidden)

union xmm {
    uint8_t b[16];
    uint16_t w[8];
    uint32_t d[4];
    uint64_t q[2];
};

struct native {
    uint64_t *general;  /* the engine's general registers and, at NATIVE_EIP, EIP */
    uint8_t *xmm;
    size_t xmm_stride;
    uint32_t flags_known;  /* what says that the arithmetic flags lie in the word NATIVE_FLAGS, and not in operands */
};
/* Behind the general registers, as words of 64 bits. */
#define NATIVE_EIP 16
#define NATIVE_FLAGS 19
#define NATIVE_FLAGS_KIND 21

static inline uint32_t native_general(const struct native *n, unsigned number)
{
    return (uint32_t)n->general[number & 7];
}

static inline void native_set_general(const struct native *n, unsigned number, uint32_t value)
{
    n->general[number & 7] = value;
}

/* Within a run, where blocks meet: sets all of ARITHMETIC_FLAGS; the others of EFLAGS keep their values. */
static inline void native_set_flags(const struct native *n, uint32_t flags)
{
    n->general[NATIVE_FLAGS] = flags;
    memcpy(&n->general[NATIVE_FLAGS_KIND], &n->flags_known, sizeof n->flags_known);
}

static inline union xmm *native_xmm(const struct native *n, unsigned number)
{
    return (union xmm *)(n->xmm + (number & 7) * n->xmm_stride);
}

/* After the engine has run once, in setup. False: see vcpu_error(). */
bool native_find(struct vcpu *v);

#pragma GCC visibility pop

#endif
