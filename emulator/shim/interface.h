/*
 * What the L4 interface, and not the processor, decides about user mode. vcpu.py gives these numbers when a
 * machine is made, from the kernel's own constants, by the names below. Nothing changes them afterwards, so
 * every part may read them.
 */
#ifndef L4LAB_INTERFACE_H
#define L4LAB_INTERFACE_H

#include <stdint.h>

#define INTERFACE_FIELDS(X)                                                                          \
    X(system_call_vector)    /* of the software interrupt that enters the kernel */                  \
    X(code_selector)         /* of the flat code segment, the only one that user code may run in */  \
    X(data_selector)         /* of the flat data segment */                                          \
    X(utcb_selector)         /* of the data segment that begins at the frame's utcb_base */          \
    X(first_thread_selector) /* of the first of the thread's own descriptors */                      \
    X(thread_entries)        /* how many these are; THREAD_ENTRIES at most */

struct interface {
#define X(name) uint32_t name;
    INTERFACE_FIELDS(X)
#undef X
};

#endif
