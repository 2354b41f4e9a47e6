/* A program that the root task loads, serves and buries. */
#ifndef ROOT_CHILD_H
#define ROOT_CHILD_H

#include "space.h"

#include <l4/bootinfo.h>
#include <l4/ipc.h>

typedef struct {
	const char *name;
	const void *image; /* the ELF file, in its boot module */
	l4_cap_t task, thread;
	l4_cap_t gate; /* to the root task: the program's pager, exception handler and parent */
	space_t space;
	unsigned faults;
	bool running;
} child_t;

/** Loads the program in `module` and starts it; its messages will come with `label`. Returns null, or what went
 * wrong; then nothing of it is left. */
const char *child_start(child_t *child, const l4_module_t *module, l4_word_t label, unsigned cpu, int priority);

/** Answers the page fault whose message stands in the UTCB. */
l4_tag_t child_fault(child_t *child);

/** Prints why, from the exception message in the UTCB. */
void child_report_exception(const child_t *child);

/** Destroys the task and takes its memory back; returns how many fresh pages it had. */
unsigned child_end(child_t *child);

#endif
