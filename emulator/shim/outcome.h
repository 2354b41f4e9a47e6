/* What a run returns to vcpu.py, which decodes it, and what the parts of a run return to each other. */
#ifndef L4LAB_OUTCOME_H
#define L4LAB_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

/* In bits 0..7; the rest depends on it. */
enum outcome {
    OUTCOME_DEADLINE,
    OUTCOME_SYSTEM_CALL,
    OUTCOME_PAGE_FAULT,  /* bit 8 write, 9 fetch, 10 present; 32..63 address */
    OUTCOME_EXCEPTION,   /* 8..15 vector; 32..63 error code */
    OUTCOME_HOST_STOP,
    OUTCOME_ENGINE_FAILURE,
    OUTCOME_DEBUG_STOP,  /* bits 8..15: enum debug_reason; 32..63: number of the watchpoint */
};

enum debug_reason { DEBUG_COUNT, DEBUG_CLOCK, DEBUG_BREAKPOINT, DEBUG_WATCHPOINT };

/* What the parts of a run return if it has not ended. */
#define GO_ON UINT64_MAX

static inline uint64_t exception(uint32_t vector, uint32_t error_code)
{
    return OUTCOME_EXCEPTION | vector << 8 | (uint64_t)error_code << 32;
}

static inline uint64_t page_fault(uint32_t address, bool write, bool fetch, bool present)
{
    return OUTCOME_PAGE_FAULT | (uint64_t)write << 8 | (uint64_t)fetch << 9 | (uint64_t)present << 10
         | (uint64_t)address << 32;
}

static inline uint64_t debug_stop(enum debug_reason reason, uint32_t detail)
{
    return OUTCOME_DEBUG_STOP | (uint64_t)reason << 8 | (uint64_t)detail << 32;
}

#endif
