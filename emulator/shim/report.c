/*
 * See report.h. Why the engine stopped, as the hardware would say it: vector, error code, EIP, the address of a
 * fault.
 *
 * Ref: Intel SDM vol. 3, 6.5 to 6.15 (exceptions), 4.7 (page faults).
 */
#include "report.h"

#include "blocks.h"
#include "books.h"
#include "coherence.h"
#include "debug.h"
#include "engine.h"
#include "fpu.h"
#include "hidden.h"
#include "operations.h"
#include "patch.h"
#include "run.h"
#include "step.h"
#include "vcpu.h"

/* The engine raises some exceptions by the first bytes of an instruction, without reading the others.
   If those are on a page that is not mapped, hardware reports that. */
static bool may_be_unfetched(const struct vcpu *v, uint32_t eip)
{
    return !step_is_on(&v->step) && (eip & ~PAGE_MASK) > PAGE_BYTES - INSN_MAX_BYTES;
}

void report_leave(struct vcpu *v, enum exit_reason reason)
{
    v->report.reason = reason;
    engine_leave(&v->engine);
}

void report_interrupt(uc_engine *uc, uint32_t vector, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    if (vector == VECTOR_NM && !engine_in_setup(&v->engine)) {
        uint32_t eip = engine_word(&v->engine, UC_X86_REG_EIP);
        books_settle(v, eip);
        if (may_be_unfetched(v, eip)) {
            report_leave(v, EXIT_STEP);
            return;
        }
        if (fpu_traps(&v->fpu))  /* else this block was translated before the shim switched, in an earlier instruction of it */
            fpu_switch(v);
        operations_forget(&v->operations);
        run_set_resuming(v, true);
        return;
    }
    v->report.vector = vector;
    report_leave(v, EXIT_INTERRUPT);
}

/* The software interrupt that just executed, if one did: EIP stands behind it. */
static bool software_interrupt(struct vcpu *v, const struct insn *stepped, struct insn *insn)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (stepped != NULL) {
        *insn = *stepped;
    } else {
        const struct block *block = books_block(&v->books);
        if (block == NULL || v->eip != block_end(block) || !(block->flags & INSN_SOFTWARE_INT))
            return false;
        uint32_t size = block_size(block) - block->last;
        decode_insn(blocks_bytes(v, block->eip + block->last, size, buffer), size, insn);
    }
    return (insn->flags & INSN_SOFTWARE_INT) && insn->int_vector == v->report.vector;
}

/* The exception of the instruction at v->eip; or the page fault that fetching it takes, if it does. */
static uint64_t exception_once_fetched(struct vcpu *v, uint32_t vector, uint32_t error_code)
{
    struct insn insn;
    uint32_t pfns[2];
    uint64_t outcome = may_be_unfetched(v, v->eip) ? step_peek(v, &insn, pfns) : GO_ON;
    return outcome == GO_ON ? exception(vector, error_code) : outcome;
}

/* Those that push one. */
static bool has_error_code(uint32_t vector)
{
    return (vector >= VECTOR_TS && vector <= VECTOR_PF) || vector == VECTOR_DF || vector == VECTOR_AC;
}

static uint64_t of_interrupt(struct vcpu *v, const struct insn *stepped)
{
    struct insn insn;
    uint32_t vector = v->report.vector;
    if (!software_interrupt(v, stepped, &insn)) {
        if (vector == VECTOR_DB) {  /* TF: the instruction, a block of its own, is done; EIP may be anywhere */
            books_close_block(&v->books);
            return exception(VECTOR_DB, 0);
        }
        books_settle(v, v->eip);
        uint32_t error_code = hidden_take_exception(&v->engine);
        if (vector == VECTOR_DF)
            engine_note_anomaly(v, "double fault");
        return exception_once_fetched(v, vector, has_error_code(vector) ? error_code : 0);
    }
    bool system_call = vector == v->machine->interface.system_call_vector;
    bool allowed = system_call || vector == VECTOR_BP || vector == VECTOR_OF;
    if (!allowed)
        v->eip -= insn.length;
    books_settle(v, v->eip);
    if (!allowed)
        return exception(VECTOR_GP, vector << 3 | 2);
    if (stepped != NULL)
        books_charge_insn(v, &insn);
    return system_call ? OUTCOME_SYSTEM_CALL : exception(vector, 0);
}

static uint64_t of_fault(struct vcpu *v, const struct insn *stepped)
{
    if (v->report.fault.fetch) {
        books_close_block(&v->books);  /* it ended; the next one was not found */
        if (((v->report.fault.address ^ v->eip) & PAGE_MASK) && stepped == NULL)
            return step(v, false);
        return page_fault(v->eip, false, true, v->report.fault.present);
    }
    books_settle(v, v->eip);
    uint32_t address = v->report.fault.exact ? v->report.fault.address : hidden_fault_address(&v->engine);
    bool write = v->report.fault.write, present = v->report.fault.present;
    if (!write && !v->report.fault.exact) {
        /* The engine reads first what the instruction will write; hardware asks for the write at once. */
        struct insn insn;
        uint32_t pfns[2];
        write = step_peek(v, &insn, pfns) == GO_ON && insn.flags & INSN_READ_WRITE;
    }
    return page_fault(address, write, false, present);
}

/* Code that writes to its own page may do so again. Each time, the engine translates what lies ahead
   anew, in milliseconds if that is long: then a few steps are cheaper. */
enum { LONG_BLOCK = 64 /* bytes */, STEPS_AFTER_OWN_WRITE = 16 };

/*
 * A store to an executed page frame. The instruction is executed alone, whether or not it lies there:
 * the block it is in may, and would make the page frame executed again every time.
 */
static uint64_t of_code_write(struct vcpu *v)
{
    struct insn insn;
    uint32_t pfns[2];
    const struct block *block = books_block(&v->books);
    uint32_t ahead = block != NULL ? block_end(block) - v->eip : 0, written = v->report.code_write_pfn;
    books_settle(v, v->eip);
    coherence_forget(v->machine, written);
    uint64_t outcome = step_peek(v, &insn, pfns);
    if (outcome != GO_ON)
        return outcome;
    bool own = pfns[0] == written || pfns[1] == written;
    if (own && (ahead > LONG_BLOCK || step_is_careful(&v->step)))
        step_carefully(&v->step, v->eip, STEPS_AFTER_OWN_WRITE);
    return step(v, own);
}

/* Whether the instruction at v->eip is the shim's. */
static bool is_ours(struct vcpu *v)
{
    struct insn insn;
    uint32_t pfns[2];
    return step_peek(v, &insn, pfns) == GO_ON && insn.ours && !(insn.flags & INSN_REFUSED);
}

uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped)
{
    switch (v->report.reason) {
    case EXIT_DEADLINE:
        return OUTCOME_DEADLINE;
    case EXIT_STOP:
        debug_suspend(v);
        return OUTCOME_HOST_STOP;
    case EXIT_STEP:
        books_close_block(&v->books);  /* between two blocks */
        return step(v, false);
    case EXIT_DEBUG:
        books_close_block(&v->books);
        return debug_step_block(v);
    case EXIT_INTERRUPT:
        return of_interrupt(v, stepped);
    case EXIT_PAGE_FAULT:
        if (err == UC_ERR_EXCEPTION)
            return of_fault(v, stepped);
        break;
    case EXIT_CODE_WRITE:
        if (err == UC_ERR_EXCEPTION)
            return of_code_write(v);
        break;
    case EXIT_WATCH:
        if (err == UC_ERR_EXCEPTION)
            return debug_watched_access(v);
        break;
    case EXIT_EXCEPTION:
        books_settle(v, v->eip);
        return report_as_exception(&v->report);
    case EXIT_PATCH:
        books_close_block(&v->books);
        patch_block(v);
        return GO_ON;
    default:
        break;
    }
    books_settle(v, v->eip);
    if (err == UC_ERR_INSN_INVALID)
        return is_ours(v) && stepped == NULL ? step(v, false) : exception_once_fetched(v, VECTOR_UD, 0);
    /* Whatever the engine choked on, the thread gets it as a general protection fault. */
    engine_note_anomaly(v, engine_error_name(err));
    (void)hidden_take_exception(&v->engine);
    return exception(VECTOR_GP, 0);
}
