/* Page frames: memory from sigma0, seen by the root task at its physical address. */
#ifndef START_FRAMES_H
#define START_FRAMES_H

#include <l4/types.h>

/** A zeroed page, or null when sigma0 has no more. */
void *frame_take(void);

/** Nobody else may have the page mapped any more. */
void frame_give_back(void *frame);

/** How many are taken and not given back. */
unsigned frames_in_use(void);

#endif
