/* A program that a root task loads, serves and buries. */
#ifndef START_CHILD_H
#define START_CHILD_H

#include "space.h"

#include <l4/bootinfo.h>
#include <l4/ipc.h>

typedef struct {
	const char *name;
	const void *image; /* the ELF file, in its boot module */
	l4_cap_t task, thread;
	l4_cap_t gate; /* to the root task: the program's pager, exception handler and parent */
	l4_word_t stack; /* its first ESP */
	space_t space;
	unsigned faults;
	bool running;
} child_t;

/** Loads the program in `module`; its messages will come with `label`. It does not run yet. Set `name` before. Returns
 * null, or what went wrong; then nothing of it is left. */
const char *child_create(child_t *child, const l4_module_t *module, l4_word_t label);

/** Passes a capability of the own task on, into slot `slot`. Returns 0 or a negative error. */
int child_give(child_t *child, l4_cap_t cap, l4_word_t slot);

/** Maps everything now that a program has without asking but its heap: what it is linked with, the kernel info page and
 * `stack_pages` of stack. Without this it comes on faults, page by page (child_fault). */
const char *child_map_all(child_t *child, unsigned stack_pages);

/** Lets it run. `pager`: a slot of its own table. Returns null, or what went wrong; then nothing of it is left. */
const char *child_run(child_t *child, unsigned cpu, int priority, l4_cap_t pager);

/** Answers the page fault whose message stands in the UTCB. */
l4_tag_t child_fault(child_t *child);

/** Prints why, from the exception message in the UTCB. `reporter`: the first word of the line. */
void child_report_exception(const child_t *child, const char *reporter);

/** Destroys the task and takes its memory back; returns how many fresh pages it had. */
unsigned child_end(child_t *child);

#endif
