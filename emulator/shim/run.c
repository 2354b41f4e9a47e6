/*
 * See run.h. A run is
 *
 *   load()      registers, segments, address space and x87/SSE ownership from the thread's frame
 *   execute()   the engine, again and again, until the reason it stopped concerns the kernel
 *   store()     registers and counters back into the frame
 */
#define _DEFAULT_SOURCE  /* sigaction */
#define _DARWIN_C_SOURCE
#include "run.h"

#include <signal.h>

#include "books.h"
#include "coherence.h"
#include "debug.h"
#include "engine.h"
#include "fpu.h"
#include "mmu.h"
#include "operations.h"
#include "outcome.h"
#include "report.h"
#include "segments.h"
#include "step.h"
#include "vcpu.h"

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
        books_set_limit(&v->books, INT64_MIN);
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
    v->run.stop_requested = true;
    books_set_limit(&v->books, INT64_MIN);
}

bool run_is_to_stop(const struct run *r)
{
    return interrupted || r->stop_requested;
}

/* --- load and store ---------------------------------------------------------------------------- */

static void load(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    mmu_load_cr3(v, frame->cr3);
    engine_write_registers(&v->engine, frame->general, (frame->eflags & EFLAGS_USER) | EFLAGS_FIXED);
    segments_load(v);
    fpu_load(v);
    v->eip = frame->eip;
}

static void store(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    engine_read_registers(&v->engine, frame->general, &frame->eflags);
    frame->eip = v->eip;
    segments_store(&v->segments, frame);
    books_store(&v->books, frame);
}

/* --- run --------------------------------------------------------------------------------------- */

void run_set_limit(struct vcpu *v)
{
    int64_t look_from = debug_look_from(&v->debug);
    int64_t limit = look_from < v->run.deadline ? look_from : v->run.deadline;
    if (v->run.resuming || step_is_on(&v->step) || segments_are_special(&v->segments))
        limit = INT64_MIN;
    books_set_limit(&v->books, limit);
    if (UNLIKELY(run_is_to_stop(&v->run)))  /* it may have been asked for just before */
        books_set_limit(&v->books, INT64_MIN);
}

void run_set_resuming(struct vcpu *v, bool resuming)
{
    v->run.resuming = resuming;
    run_set_limit(v);
}

uc_err run_engine(struct vcpu *v, bool one_step)
{
    report_begin(&v->report);
    books_close_block(&v->books);
    operations_forget(&v->operations);
    uc_err err = engine_run(&v->engine, v->eip, one_step);
    v->eip = engine_word(&v->engine, UC_X86_REG_EIP);
    return operations_conclude(v, err);
}

static uint64_t execute(struct vcpu *v)
{
    uint64_t outcome = GO_ON;
    if (UNLIKELY(debug_is_active(&v->machine->debug)) && debug_stops_here(v, &outcome))
        return outcome;
    if (UNLIKELY(debug_is_in_block(&v->debug)))
        outcome = debug_step_block(v);
    else if (v->frame->eflags & EFLAGS_TF)
        outcome = step(v, false);
    while (outcome == GO_ON) {
        if (run_is_to_stop(&v->run)) {
            debug_suspend(v);
            return OUTCOME_HOST_STOP;
        }
        if (run_is_due(&v->run, books_clock(&v->books)))
            return OUTCOME_DEADLINE;
        bool entering = v->run.entering && !v->run.resuming;
        v->run.entering = false;
        if (step_goes_on_at(&v->step, v->eip)) {
            if (entering && books_clock(&v->books) >= v->run.deadline)
                return OUTCOME_DEADLINE;  /* the engine would not have begun that block either */
            step_count(&v->step);
            outcome = step(v, false);
        } else if (step_traps_next(&v->step)) {
            outcome = step(v, false);
        } else {
            step_forget_care(&v->step);
            outcome = report(v, run_engine(v, false), NULL);
        }
    }
    return outcome;
}

/* Runs v->frame until v->deadline_cycles. */
uint64_t vcpu_run(struct vcpu *v)
{
    if (!engine_is_started(&v->engine) && !engine_start(v))
        return OUTCOME_ENGINE_FAILURE;
    v->run.deadline = books_clock_at(&v->books, v->deadline_cycles);
    v->run.resuming = debug_resume(v);
    if (run_is_due(&v->run, books_clock(&v->books)))
        return OUTCOME_DEADLINE;
    books_open(&v->books);
    step_begin(&v->step);
    running = v;
    debug_begin(v);
    load(v);
    uint64_t outcome = execute(v);
    store(v);
    running = NULL;
    if (outcome == OUTCOME_HOST_STOP)
        run_forget_stop(&v->run);
    if (UNLIKELY(coherence_has_drops(&v->coherence)))
        coherence_drop(v);
    return outcome;
}
