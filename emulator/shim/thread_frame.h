/* The thread frame of kernel/frame.py: one thread's registers and counters. A test compares the offsets. */
#ifndef L4LAB_THREAD_FRAME_H
#define L4LAB_THREAD_FRAME_H

#include <stdint.h>

#define THREAD_ENTRIES 4 /* of the descriptor table: the thread's own */

struct thread_frame {
    uint32_t general[8];  /* in the order the instruction set encodes them */
    uint32_t eip, eflags;
    uint32_t cs, ss, ds, es, fs, gs;
    uint32_t utcb_base, cr3;
    uint32_t gdt[2 * THREAD_ENTRIES];
    uint32_t fpu_core, fpu_valid;
    uint32_t reserved[4];
    uint64_t instructions, user_cycles, tlb_misses, fpu_switches;
    uint32_t reserved_for_kernel[24];
    uint8_t fpu[512];
};

#endif
