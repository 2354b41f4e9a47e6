/* The instructions of a block that the shim executes: at its start one behind the other, and perhaps one at its end. */
#ifndef L4LAB_OPERATIONS_H
#define L4LAB_OPERATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "blocks.h"
#include "operation.h"

struct vcpu;

#pragma GCC visibility push(hidden)

struct machine_operations {
    struct operation_row *rows;  /* by place, as the block cache */
};

struct operations {
    const struct operation *pending;  /* ended the block just executed, and is executed before the next; or NULL */
    int64_t limit_before;             /* the books' limit is INT64_MIN while one is pending */
    bool stopped;                     /* one did not end well: EIP is `stopped_eip` */
    uint32_t stopped_eip;
};

bool operations_init(struct machine_operations *o);
void operations_free(struct machine_operations *o);

/* Whether the block just executed ends with one that has not been executed yet. */
static inline bool operations_are_pending(const struct operations *o)
{
    return o->pending != NULL;
}

static inline void operations_forget(struct operations *o)
{
    o->pending = NULL;
}

/* The engine is about to execute this block, and has charged it. It is left instead if one of them does not end well. */
void operations_begin(struct vcpu *v, const struct block *block);

/* The engine has executed the block up to the operation that ends it. False: that did not end well. */
bool operations_finish(struct vcpu *v);

/* The engine has stopped with `err`: what is left to do, and the same, or what it is to be taken for. */
uc_err operations_conclude(struct vcpu *v, uc_err err);

/* Whether one of them ends the block. */
bool operations_trail(struct vcpu *v, const struct block *block);

#pragma GCC visibility pop

#endif
