/* Processes that start together: each tells the coordinator that it is ready and learns when to start; each hands in its
 * result and is let go when the last one has. So none of them starts or ends while another is measuring. */
#ifndef PMA_GROUP_H
#define PMA_GROUP_H

#include <l4/types.h>

/** Where a process has the gate to the coordinator; its label is the process's number << 4. */
enum { GROUP_SLOT = 11, GROUP_LABEL_SHIFT = 4 };

/** Requests: tag label GROUP_PROTO, MR[0] one of these. The answer to GROUP_READY has the time to start at in two words,
 * low one first; behind GROUP_RESULT in the request stands a result_t. */
enum { GROUP_PROTO = 0x4200, GROUP_READY = 0, GROUP_RESULT = 1 };

/** What a process measured. Times are cycles of its processor, summed over all tasks. */
typedef struct {
	uint64_t begin, end; /* when its first task began and its last one ended */
	uint64_t allocation, touch, release;
	uint32_t tasks, pages; /* in all; pages of all tasks */
	uint32_t errors;       /* frees that were refused */
	uint32_t reserved;
} result_t;

enum { RESULT_WORDS = sizeof(result_t) / sizeof(l4_word_t) };

/** Returns when all processes are ready, at the same time on all processors: that on the own cycle counter. */
uint64_t group_start(void);

/** Returns when all processes have handed in their results. */
void group_finish(const result_t *result);

#endif
