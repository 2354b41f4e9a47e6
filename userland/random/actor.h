/* The threads of an episode: each does one thing when it is told to, and leaves what came of it to be looked at. All tasks
 * share the program's variables. */
#ifndef RANDOM_ACTOR_H
#define RANDOM_ACTOR_H

#include <l4/ipc.h>
#include <l4/task.h>
#include <l4/thread.h>

enum {
	ACTORS = 4,          /* two in each of two tasks */
	PROBERS = 2,         /* one in each, for looking at memory: the threads behind the actors */
	THREADS = ACTORS + PROBERS,
	TASKS = 2,
	ACT_BRS = 8,
	STACK_BYTES = 4096,
};

typedef enum { ACT_CALL, ACT_READ, ACT_WRITE, ACT_BREAK, ACT_PORT, ACT_TRAMPOLINE } act_kind_t;

/** What an actor shall do: a system call with these registers and this UTCB, or an access to `address`. */
typedef struct {
	act_kind_t kind;
	const char *name;
	bool quiet;               /* its answer holds times, or what differs from kernel to kernel */
	l4_word_t selector, tag, label, timeouts, address;
	l4_word_t mr[L4_UTCB_MR_WORDS], bdr, br[ACT_BRS];
} act_t;

/** `busy`: it was told to act and has not come to an end. */
typedef struct {
	act_t act;
	volatile bool busy, fresh; /* fresh: came to an end, and nobody has looked */
	volatile bool parked;      /* its handler has sent it away from what it did */
	volatile l4_word_t tag, label, error, value, mr[L4_UTCB_MR_WORDS];
} actor_t;

extern actor_t actors[THREADS];

/** The stack pointer of a thread of ours that starts anew with its number as argument. */
l4_word_t actor_stack(unsigned number);

/** Entries of threads; their argument is their number. */
void actor_act(void *number);
void actor_park(void *number); /* stops where it was */
void actor_probe(void *number);

#endif
