/* What all vCPUs of a machine share. Made and freed by vcpu.py. */
#ifndef L4LAB_MACHINE_H
#define L4LAB_MACHINE_H

#include <stdint.h>

#include "answers.h"
#include "books.h"
#include "breakpoints.h"
#include "coherence.h"
#include "debug.h"
#include "features.h"
#include "interface.h"
#include "operations.h"
#include "patch.h"
#include "ram.h"
#include "watch.h"

struct vcpu;

#define MAX_VCPUS 1024

struct machine {
    struct interface interface;
    struct ram ram;
    struct machine_books books;
    struct machine_answers answers;
    struct machine_features features;
    struct machine_patch patch;
    struct machine_operations operations;
    struct machine_coherence coherence;
    struct machine_debug debug;
    struct machine_breakpoints breakpoints;
    struct machine_watch watch;
    struct vcpu *vcpus[MAX_VCPUS];  /* by core */
    uint32_t vcpu_count;
};

#endif
