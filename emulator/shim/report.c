/*
 * Why the engine stopped, as the hardware would say it: vector, error code, EIP, the address of a fault.
 *
 * Ref: Intel SDM vol. 3, 6.5 to 6.15 (exceptions), 4.7 (page faults).
 */
#include "vcpu.h"

/* The engine raises some exceptions by the first bytes of an instruction, without reading the others.
   If those are on a page that is not mapped, hardware reports that. */
static bool may_be_unfetched(const struct vcpu *v, uint32_t eip)
{
    return !v->stepping && (eip & ~PAGE_MASK) > PAGE_BYTES - INSN_MAX_BYTES;
}

void interrupt_taken(uc_engine *uc, uint32_t vector, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    if (vector == VECTOR_NM && !v->setup) {
        uint32_t eip = engine_word(v, UC_X86_REG_EIP);
        settle(v, eip);
        if (may_be_unfetched(v, eip)) {
            leave(v, EVENT_STEP);
            return;
        }
        if (v->ts)  /* else this block was translated before the shim switched, in an earlier instruction of it */
            fpu_switch(v);
        v->pending = NULL;
        expect_resume(v);
        return;
    }
    v->vector = vector;
    leave(v, EVENT_INTERRUPT);
}

/* The software interrupt that just executed, if one did: EIP stands behind it. */
static bool software_interrupt(struct vcpu *v, const struct insn *stepped, struct insn *insn)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (stepped != NULL) {
        *insn = *stepped;
    } else {
        const struct block *block = v->block;
        uint32_t end = block == NULL ? 0 : block->size & BLOCK_SIZE_MASK;
        if (block == NULL || v->eip != block->eip + end || !(block->flags & INSN_SOFTWARE_INT))
            return false;
        decode_insn(fetched_bytes(v, block->eip + block->last, end - block->last, buffer), end - block->last, insn);
    }
    return (insn->flags & INSN_SOFTWARE_INT) && insn->int_vector == v->vector;
}

/* The exception of the instruction at v->eip; or the page fault that fetching it takes, if it does. */
static uint64_t exception_once_fetched(struct vcpu *v, uint32_t vector, uint32_t error_code)
{
    struct insn insn;
    uint32_t frames[2];
    uint64_t outcome = may_be_unfetched(v, v->eip) ? peek(v, &insn, frames) : GO_ON;
    return outcome == GO_ON ? exception(vector, error_code) : outcome;
}

static uint64_t report_interrupt(struct vcpu *v, const struct insn *stepped)
{
    struct insn insn;
    uint32_t error_code = 0;
    if (!software_interrupt(v, stepped, &insn)) {
        if (v->vector == VECTOR_DB) {  /* TF: the instruction, a block of its own, is done; EIP may be anywhere */
            v->block = NULL;
            return exception(VECTOR_DB, 0);
        }
        settle(v, v->eip);
        engine_scrub(v, &error_code);
        bool has_code = (v->vector >= 10 && v->vector <= 14) || v->vector == 8 || v->vector == 17;
        if (v->vector == 8)
            note_anomaly(v, "double fault");
        return exception_once_fetched(v, v->vector, has_code ? error_code : 0);
    }
    bool allowed = v->vector == VECTOR_SYSTEM_CALL || v->vector == VECTOR_BP || v->vector == VECTOR_OF;
    if (!allowed)
        v->eip -= insn.length;
    settle(v, v->eip);
    if (!allowed)
        return exception(VECTOR_GP, v->vector << 3 | 2);
    if (stepped != NULL) {
        v->instructions++;
        v->clock += insn_cost(v, &insn);
    }
    return v->vector == VECTOR_SYSTEM_CALL ? OUTCOME_SYSTEM_CALL : exception(v->vector, 0);
}

static uint64_t report_fault(struct vcpu *v, const struct insn *stepped)
{
    if (v->fault.fetch) {
        v->block = NULL;  /* it ended; the next one was not found */
        if (((v->fault.address ^ v->eip) & PAGE_MASK) && stepped == NULL)
            return step(v, false);
        return page_fault(v->eip, false, true, v->fault.present);
    }
    settle(v, v->eip);
    uint32_t address = v->fault_is_exact ? v->fault.address : engine_fault_address(v);
    bool write = v->fault.write, present = v->fault.present;
    if (!write) {
        /* The engine reads first what the instruction will write; hardware asks for the write at once. */
        struct insn insn;
        uint32_t frames[2];
        write = peek(v, &insn, frames) == GO_ON && insn.flags & INSN_READ_WRITE;
    }
    return page_fault(address, write, false, present);
}

/* Code that writes to its own page may do so again. Each time, the engine translates what lies ahead
   anew, in milliseconds if that is long: then a few steps are cheaper. */
enum { LONG_BLOCK = 64 /* bytes */, STEPS_AFTER_OWN_WRITE = 16 };

/*
 * A store to an executed frame. The instruction is executed alone, whether or not it lies on that
 * frame: the block it is in may reach there, and would make the frame executed again every time.
 */
static uint64_t report_code_write(struct vcpu *v)
{
    struct insn insn;
    uint32_t frames[2];
    uint32_t ahead = v->block != NULL ? v->block->eip + (v->block->size & BLOCK_SIZE_MASK) - v->eip : 0;
    settle(v, v->eip);
    forget_frame(v->machine, v->code_write_frame);
    uint64_t outcome = peek(v, &insn, frames);
    if (outcome != GO_ON)
        return outcome;
    bool own = frames[0] == v->code_write_frame || frames[1] == v->code_write_frame;
    if (own && (ahead > LONG_BLOCK || v->careful_steps > 0))
        step_carefully(v, v->eip, STEPS_AFTER_OWN_WRITE);
    return step(v, own);
}

uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped)
{
    switch (v->event) {
    case EVENT_DEADLINE:
        return OUTCOME_DEADLINE;
    case EVENT_STOP:
        debug_suspend(v);
        return OUTCOME_HOST_STOP;
    case EVENT_STEP:
        v->block = NULL;  /* between two blocks */
        return step(v, false);
    case EVENT_DEBUG:
        v->block = NULL;
        return debug_step_block(v);
    case EVENT_INTERRUPT:
        return report_interrupt(v, stepped);
    case EVENT_PAGE_FAULT:
        if (err == UC_ERR_EXCEPTION)
            return report_fault(v, stepped);
        break;
    case EVENT_CODE_WRITE:
        if (err == UC_ERR_EXCEPTION)
            return report_code_write(v);
        break;
    case EVENT_WATCH:
        if (err == UC_ERR_EXCEPTION)
            return debug_watched_access(v);
        break;
    case EVENT_EXCEPTION:
        settle(v, v->eip);
        return exception(v->vector, 0);
    case EVENT_PATCH:
        v->block = NULL;
        patch_block(v);
        return GO_ON;
    default:
        break;
    }
    settle(v, v->eip);
    if (err == UC_ERR_INSN_INVALID) {
        struct insn insn;
        uint32_t frames[2];
        bool ours = peek(v, &insn, frames) == GO_ON && insn.ours && !(insn.flags & INSN_REFUSED);
        return ours && stepped == NULL ? step(v, false) : exception_once_fetched(v, VECTOR_UD, 0);
    }
    /* Whatever the engine choked on, the thread gets it as a general protection fault. */
    note_anomaly(v, engine.uc_strerror(err));
    uint32_t unused;
    engine_scrub(v, &unused);
    return exception(VECTOR_GP, 0);
}
