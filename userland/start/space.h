/* Which frame a root task gave a program for which page, so that a second fault on it finds the same one. */
#ifndef START_SPACE_H
#define START_SPACE_H

#include <l4/types.h>

typedef struct {
	void ***directory; /* a frame with pointers to frames with pointers to frames; null while empty */
} space_t;

/** The frame behind `address`, or null. */
void *space_find(const space_t *space, l4_word_t address);

/** The frame behind `address`, a fresh zeroed one if there was none. Null when memory is out. */
void *space_frame(space_t *space, l4_word_t address);

/** Gives all frames back; returns how many pages the program had. */
unsigned space_clear(space_t *space);

#endif
