/*
 * See operations.h.
 *
 * In the engine's copy of a page (patch.c) the first of a row of them is a jump to the next instruction, which ends the
 * engine's block, and the others do nothing. The engine asks the shim before each block: then the operation that ended
 * the one before is executed, and those with which this one begins. There, and only there, the engine has all
 * registers and flags in memory, believes nothing of them, and can be left exactly.
 */
#include "operations.h"

#include <stddef.h>
#include <string.h>

#include "books.h"
#include "decode.h"
#include "features.h"
#include "fpu.h"
#include "memory.h"
#include "patch.h"
#include "report.h"
#include "run.h"
#include "vcpu.h"

/* What distinguishes a block; as it begins. */
struct key {
    uint32_t eip, token;
    uint16_t bytes;  /* with its flags */
    uint16_t instructions;
    uint32_t second_token;
};
_Static_assert(sizeof(struct key) == 16 && offsetof(struct block, second_token) == offsetof(struct key, second_token),
               "how struct block begins");

/* Those of a block. */
struct operation_row {
    struct key key;
    struct operation *operations;
    const struct operation *trailing;  /* the one that ends the block; or NULL */
    uint16_t leading;                  /* how many it starts with */
    uint16_t count, size;
};

#define ROWS_BYTES (BLOCK_CACHE_SIZE * sizeof(struct operation_row))

bool operations_init(struct machine_operations *o)
{
    o->rows = memory_reserve(ROWS_BYTES);
    return o->rows != NULL;
}

void operations_free(struct machine_operations *o)
{
    for (uint32_t i = 0; o->rows != NULL && i < BLOCK_CACHE_SIZE; i++)
        memory_delete(o->rows[i].operations, o->rows[i].size * sizeof *o->rows[i].operations);
    memory_release(o->rows, ROWS_BYTES);
}

static struct operation *one_more(struct operation_row *row)
{
    if (row->count == row->size) {
        size_t bytes = row->size * sizeof *row->operations;
        row->size = (uint16_t)(row->size ? 2 * row->size : 4);
        row->operations = memory_grow(row->operations, bytes, row->size * sizeof *row->operations);
    }
    return &row->operations[row->count++];
}

static void fill(struct vcpu *v, const struct block *block, struct operation_row *row)
{
    uint8_t buffer[2 * PAGE_BYTES], code[INSN_MAX_BYTES + 1] = {0};
    uint32_t size = block_size(block);
    const uint8_t *bytes = blocks_bytes(v, block->eip, size, buffer);
    struct insn insn;
    bool leading = true;
    row->count = row->leading = 0;
    bool trailing = false;
    for (uint32_t at = 0; at < size; at += insn.length) {
        features_decode(&v->machine->features, bytes + at, size - at, &insn);
        bool is_ours = insn.ours && !(insn.flags & (INSN_TRUNCATED | INSN_REFUSED));
        trailing = is_ours && at + insn.length == size && patch_ends_block(v, block->eip + at);
        leading &= is_ours;
        if (!leading && !trailing)
            continue;
        struct operation *op = one_more(row);
        memcpy(code, bytes + at, insn.length);
        operation_decode(code, op);
        op->eip = block->eip + at;
        op->length = insn.length;
    }
    row->leading = row->count - trailing;
    row->trailing = trailing ? &row->operations[row->leading] : NULL;
}

static inline const struct operation_row *row_of(struct vcpu *v, const struct block *block)
{
    struct operation_row *row = &v->machine->operations.rows[(block->eip ^ block->token) & (BLOCK_CACHE_SIZE - 1)];
    if (LIKELY(memcmp(&row->key, block, sizeof row->key) == 0))
        return row;
    fill(v, block, row);
    memcpy(&row->key, block, sizeof row->key);
    return row;
}

bool operations_trail(struct vcpu *v, const struct block *block)
{
    return block_has_operations(block) && row_of(v, block)->trailing != NULL;
}

static inline bool execute(struct vcpu *v, const struct operation *op)
{
    enum ending ending = LIKELY(!fpu_traps(&v->fpu)) ? op->execute(v, op) : operation_execute(v, op);
    if (LIKELY(ending == DONE))
        return true;
    v->operations.stopped = true;
    v->operations.stopped_eip = op->eip;
    report_leave(v, ending == RAISED ? EXIT_EXCEPTION : report_reason(&v->report));
    return false;
}

void operations_begin(struct vcpu *v, const struct block *block)
{
    const struct operation_row *row = row_of(v, block);
    const struct operation *end = row->operations + row->leading;
    for (const struct operation *op = row->operations; op != end; op++)
        if (!execute(v, op))
            return;
    if (row->trailing != NULL) {
        v->operations.pending = row->trailing;
        v->operations.limit_before = books_limit(&v->books);
        books_set_limit(&v->books, INT64_MIN);
    }
}

bool operations_finish(struct vcpu *v)
{
    const struct operation *op = v->operations.pending;
    v->operations.pending = NULL;
    books_set_limit(&v->books, v->operations.limit_before);
    if (UNLIKELY(run_is_to_stop(&v->run)))  /* asked for meanwhile */
        books_set_limit(&v->books, INT64_MIN);
    return execute(v, op);
}

/* The engine was left in a block that ends with an operation, which is executed now if the block was done but the next
   could not begin (it is not mapped, say). */
static uc_err execute_pending(struct vcpu *v, uc_err err)
{
    const struct operation *op = v->operations.pending;
    v->operations.pending = NULL;
    run_set_limit(v);
    if (v->eip != op->eip + op->length)
        return err;
    enum ending ending = operation_execute(v, op);
    if (ending == DONE)
        return err;
    v->eip = op->eip;
    if (ending == RAISED)
        report_exit(&v->report, EXIT_EXCEPTION);
    return UC_ERR_EXCEPTION;
}

uc_err operations_conclude(struct vcpu *v, uc_err err)
{
    if (UNLIKELY(v->operations.stopped)) {
        v->operations.stopped = false;
        v->eip = v->operations.stopped_eip;
        return UC_ERR_EXCEPTION;
    }
    return UNLIKELY(v->operations.pending != NULL) ? execute_pending(v, err) : err;
}
