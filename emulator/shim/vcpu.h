/*
 * A vCPU: runs user code of one thread until something happens that the kernel must see. Plain C around one
 * Unicorn engine, called from Python through ctypes (vcpu.py, debugport.py); nothing calls back into Python.
 *
 * Each part has a struct in `struct vcpu`, one in `struct machine` for what the vCPUs of a machine share, or
 * both, and a header. Only the part's own file touches the members of its structs; others call what its header
 * has. A file includes the headers of the parts that it calls, so its includes say what it may touch (a test
 * holds both). In the order in which a run passes through them:
 *
 *   run          begins and ends a run; deadline; asked to stop from outside
 *   fpu          x87/SSE state: whose the vCPU has
 *   segments     segment registers, and the descriptors they come from
 *   engine       the Unicorn engine: registers, its TLB, its translations; nobody else calls the library
 *   books        every block charged as it is entered, what was not executed taken back; all counters
 *   blocks       decoded blocks of code, cached
 *   decode       instructions: length, cost class, properties; opcodes: the maps; requires: processor or shim;
 *                hazards: pages that would kill the engine
 *   mmu          page walker, modelled TLB, and from them the engine's TLB
 *   coherence    page frames: executed or writable, never both
 *   answers      rdtsc and cpuid
 *   operations   instructions that the shim executes itself, where blocks meet; one of them: operation, operand;
 *                the integer ones: integer
 *   floating     what most of them are: x87 (with transcendental), sse, simd, on numbers of softfloat;
 *                usual cases: x87_quick, sse_quick
 *   patch        copies of pages in which the engine passes them by
 *   features     what the processor has
 *   report       why the engine stopped, as the hardware would say it
 *   hidden       what the engine knows of that and its library does not tell; native: where it has registers
 *   step         one instruction at a time, where the engine cannot be trusted with a whole block
 *                limits: accesses beyond the end of a segment
 *   debug        stops at an instruction, behind few hooks
 *   breakpoints  where to stop
 *   watch        accesses of watched bytes found out
 *   state        what a vCPU remembers between runs, saved and restored
 *
 * and below them: machine (vCPUs made and freed), ram (guest memory by page frame), memory (the host's),
 * interface (what the L4 interface decides), thread_frame, outcome, x86.
 *
 * Functions that Python calls have no header. They are named by who calls them: vcpu_ by vcpu.py, debug_ and
 * state_ by debugport.py.
 */
#ifndef L4LAB_VCPU_H
#define L4LAB_VCPU_H

#include "books.h"
#include "coherence.h"
#include "debug.h"
#include "engine.h"
#include "floating.h"
#include "fpu.h"
#include "machine.h"
#include "mmu.h"
#include "native.h"
#include "operations.h"
#include "patch.h"
#include "report.h"
#include "run.h"
#include "segments.h"
#include "step.h"
#include "thread_frame.h"
#include "watch.h"

struct vcpu {
    /* The first three words are seen by vcpu.py through a memoryview: cheaper than arguments of a foreign call. */
    struct thread_frame *frame;  /* to run */
    int64_t deadline_cycles;
    struct books books;          /* its first word: the clock, in cycles */

    uint32_t eip;                /* while the engine does not run */
    uint32_t core;
    struct machine *machine;

    struct run run;
    struct step step;
    struct segments segments;
    struct fpu fpu;
    struct floating floating;
    struct native native;
    struct operations operations;
    struct patch patch;
    struct report report;
    struct engine engine;
    struct coherence coherence;
    struct debug debug;
    struct watch watch;
    struct mmu mmu;              /* large */
};

#endif
