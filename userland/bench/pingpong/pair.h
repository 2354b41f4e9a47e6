/* Two threads that send each other messages, in one address space or in two. */
#ifndef PINGPONG_PAIR_H
#define PINGPONG_PAIR_H

#include "rally.h"

enum { PAIR_LABEL_SHIFT = 4, PAIR_MAX = 64 };

typedef struct {
	bool apart;       /* in two address spaces */
	unsigned cpus[2]; /* of client and server */
	rally_t *rally;
	/* What pair_start makes. */
	l4_cap_t tasks[2], threads[2]; /* client's and server's; of tasks only the first unless `apart` */
	l4_cap_t gate;                 /* to the main thread: pager, exception handler and parent of both */
} pair_t;

/** Must have been called before the first pair starts; there are never more than `pairs` at a time. */
void pair_prepare(unsigned pairs);

/** Starts pair number `index`. Its messages to the main thread carry the label index << PAIR_LABEL_SHIFT, and the two
 * bits of rights. */
void pair_start(pair_t *pair, unsigned index);

/** Destroys the threads and tasks. */
void pair_end(pair_t *pair);

#endif
