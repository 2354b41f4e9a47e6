/*
 * A vCPU: runs user code of one thread until something happens that the kernel must see.
 *
 * Plain C around one Unicorn engine, called from Python through ctypes (vcpu.py). Nothing below calls
 * back into Python. A run is
 *
 *   load()      registers, segments, address space and x87/SSE ownership from the thread's frame
 *   execute()   uc_emu_start, again and again, until the reason it stopped concerns the kernel
 *   store()     registers and counters back into the frame
 *
 * Its parts, in the order in which a run passes through them:
 *
 *   segments.c   segment registers from the frame, and the descriptors they come from
 *   books.c      every block charged as it is entered; what was not executed taken back
 *   pager.c      TLB and page tables      fpu.c   x87/SSE state      answers.c   rdtsc and cpuid
 *   operation.c  instructions that the shim executes itself, where blocks meet: x87.c with transcendental.c,
 *                sse.c, simd.c, on numbers of softfloat.c and operands of operand.c; patch.c has the engine pass them by
 *   features.c   what the processor has   native.c where the engine keeps registers
 *   report.c     why the engine stopped
 *   step.c       one instruction at a time, where the engine cannot be trusted with a whole block
 *   debug.c      stops at an instruction  state.c what a vCPU remembers between runs
 *   machine.c    what vcpu.py calls between runs
 *
 * Ref: Intel SDM vol. 3, 6.5 to 6.15 (exceptions); Fiasco.OC ia32 for the selectors (kernel/frame.py).
 */
#define _DEFAULT_SOURCE  /* sigaction */
#define _DARWIN_C_SOURCE
#include "vcpu.h"

#include <signal.h>

/* --- asked to stop from outside ---------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;
static struct vcpu *volatile running;
static struct sigaction replaced;

static void on_signal(int number)
{
    if (interrupted && replaced.sa_handler != SIG_IGN && replaced.sa_handler != SIG_DFL) {
        replaced.sa_handler(number);  /* asked twice: whoever was there before us decides */
        return;
    }
    interrupted = 1;
    struct vcpu *v = running;
    if (v != NULL)
        v->limit = INT64_MIN;
}

int vcpu_catch_interrupts(int number)
{
    struct sigaction action = {.sa_handler = on_signal};
    interrupted = 0;
    return sigaction(number, &action, &replaced);
}

void vcpu_release_interrupts(int number)
{
    sigaction(number, &replaced, NULL);
    interrupted = 0;
}

int vcpu_interrupted(void)
{
    return interrupted;
}

void vcpu_stop(struct vcpu *v)
{
    v->stop_requested = true;
    v->limit = INT64_MIN;
}

/* Whether the person at the keyboard, or somebody else, wants this run to end. */
bool stop_wanted(const struct vcpu *v)
{
    return interrupted || v->stop_requested;
}

/* --- load and store ---------------------------------------------------------------------------- */

int general_registers[10] = {
    UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX, UC_X86_REG_ESP, UC_X86_REG_EBP,
    UC_X86_REG_ESI, UC_X86_REG_EDI, UC_X86_REG_EFLAGS, UC_X86_REG_EIP,
};

static void load(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    uint32_t *general = frame->general;
    uint32_t eflags = (frame->eflags & EFLAGS_USER) | EFLAGS_FIXED;
    void *const values[9] = {
        &general[0], &general[1], &general[2], &general[3], &general[4], &general[5], &general[6], &general[7], &eflags,
    };
    if (frame->cr3 != v->cr3) {
        v->cr3 = frame->cr3;
        tlb_flush(v, false);
    }
    engine.uc_reg_write_batch(v->uc, general_registers, values, 9);
    load_segments(v);
    fpu_set_ts(v, !fpu_owned(v, frame));
    v->eip = frame->eip;
}

static void store(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    uint32_t *general = frame->general;
    void *values[9] = {
        &general[0], &general[1], &general[2], &general[3], &general[4],
        &general[5], &general[6], &general[7], &frame->eflags,
    };
    engine.uc_reg_read_batch(v->uc, general_registers, values, 9);
    frame->eip = v->eip;
    for (int i = 0; i < 6; i++)
        *frame_segment(frame, i) = v->segments[i];
    frame->instructions += v->instructions;
    frame->tlb_misses += v->tlb_misses;
    frame->fpu_switches += v->fpu_switches;
}

/* --- run --------------------------------------------------------------------------------------- */

void set_limit(struct vcpu *v)
{
    int64_t limit = v->look_from < v->deadline ? v->look_from : v->deadline;
    v->limit = v->resuming || v->stepping || v->null_segments || v->read_only_segments & ~(1u << X86_CS) ? INT64_MIN : limit;
    if (UNLIKELY(interrupted || v->stop_requested))  /* it may have been asked for just before */
        v->limit = INT64_MIN;
}

/* The engine was left in a block that ends with an operation, which is executed now if the block was done but the next
   could not begin (it is not mapped, say). */
static uc_err execute_pending(struct vcpu *v, uc_err err)
{
    const struct operation *op = v->pending;
    v->pending = NULL;
    set_limit(v);
    if (v->eip != op->eip + op->length)
        return err;
    enum ending ending = operation_execute(v, op);
    if (ending == DONE)
        return err;
    v->eip = op->eip;
    if (ending == RAISED)
        v->event = EVENT_EXCEPTION;
    return UC_ERR_EXCEPTION;
}

uc_err run_engine(struct vcpu *v)
{
    if (v->engine_flush || (v->free_flush && !v->stepping)) {
        engine_flush_tlb(v);
        v->engine_flush = v->free_flush = false;
    }
    v->event = EVENT_NONE;
    v->block = NULL;
    v->pending = NULL;
    v->in_engine = true;
    uc_err err = engine.uc_emu_start(v->uc, v->eip, 0, 0, 0);
    v->in_engine = false;
    v->eip = engine_word(v, UC_X86_REG_EIP);
    if (UNLIKELY(v->stopped_at_operation)) {
        v->stopped_at_operation = false;
        v->eip = v->stopped_eip;
        return UC_ERR_EXCEPTION;
    }
    return UNLIKELY(v->pending != NULL) ? execute_pending(v, err) : err;
}

static uint64_t execute(struct vcpu *v)
{
    uint64_t outcome = GO_ON;
    if (UNLIKELY(v->machine->debug.active) && debug_stops_here(v, &outcome))
        return outcome;
    if (UNLIKELY(v->block_end))
        outcome = debug_step_block(v);
    else if (v->frame->eflags & EFLAGS_TF)
        outcome = step(v, false);
    while (outcome == GO_ON) {
        if (stop_wanted(v)) {
            debug_suspend(v);
            return OUTCOME_HOST_STOP;
        }
        if (!v->resuming && !v->entering && v->clock >= v->deadline)
            return OUTCOME_DEADLINE;
        bool entering = v->entering && !v->resuming;
        v->entering = false;
        if (v->careful_page == (v->eip & PAGE_MASK) + 1 && v->careful_steps > 0) {
            if (entering && v->clock >= v->deadline)
                return OUTCOME_DEADLINE;  /* the engine would not have begun that block either */
            v->careful_steps--;
            outcome = step(v, false);
        } else if (v->trap_next) {
            outcome = step(v, false);
        } else {
            v->careful_page = v->careful_steps = 0;
            outcome = report(v, run_engine(v), NULL);
        }
    }
    return outcome;
}

static void drop_kernel_written(struct vcpu *v)
{
    while (v->dropped_count > 0)
        forget_frame(v->machine, v->dropped[--v->dropped_count]);
}

/* Runs v->frame until v->deadline_cycles. */
uint64_t vcpu_run(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    if (v->uc == NULL && !engine_start(v))
        return OUTCOME_ENGINE_FAILURE;
    bool soon = v->deadline_cycles < INT64_MAX / MILLICYCLES;
    v->deadline = soon ? v->deadline_cycles * MILLICYCLES : INT64_MAX;
    v->resuming = debug_resume(v);
    if (v->clock >= v->deadline && !v->resuming && !v->entering)
        return OUTCOME_DEADLINE;
    int64_t start = v->clock;
    v->instructions = v->tlb_misses = v->fpu_switches = 0;
    v->careful_page = v->careful_steps = 0;
    v->trap_next = false;
    running = v;
    debug_choose_blocks(v);
    debug_look_ahead(v);
    load(v);
    uint64_t outcome = execute(v);
    store(v);
    running = NULL;
    if (outcome == OUTCOME_HOST_STOP)
        v->stop_requested = false;
    frame->user_cycles += (uint64_t)(v->clock / MILLICYCLES - start / MILLICYCLES);
    if (UNLIKELY(v->dropped_count))
        drop_kernel_written(v);
    return outcome;
}
