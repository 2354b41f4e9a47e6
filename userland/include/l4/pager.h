/* The protocol of servers that manage memory: what clients of a pager (userland/pager) ask it, and what whoever starts
 * such a server tells it. Page faults come to a pager as the kernel sends them (ABI 8).
 *
 * A request has the tag label L4_PROTO_PAGER and the operation in MR[0]; the answer's label is 0 or -errno. The label of
 * the gate says who asks: client number << 4; number 0 is whoever started the server, 1 to L4_PAGER_MAX_CLIENTS are its
 * clients. */
#ifndef L4_PAGER_H
#define L4_PAGER_H

#include <l4/ipc.h>

enum { L4_PROTO_PAGER = 0x4100, L4_PAGER_CLIENT_SHIFT = 4, L4_PAGER_MASTER = 0, L4_PAGER_MAX_CLIENTS = 64 };

/** Where a program finds the gate to the server of its processor, if it was started with one (userland/loader). */
enum { L4_PAGER_SLOT = 9 };

/** Where a client's memory is: what it touches there for the first time becomes a page of its own. */
#define L4_PAGER_HEAP_START 0x20000000u
#define L4_PAGER_HEAP_END 0xa0000000u

/** Memory at these addresses can be given to a server; it sees memory at its physical address. */
#define L4_PAGER_MEMORY_START 0x00400000u
#define L4_PAGER_MEMORY_END 0xa8000000u

enum {
	/** MR[1]: address. The page there goes back. -ENOENT: the client has none there; -EINVAL: no such address. */
	L4_PAGER_FREE,
	/** Master only, before L4_PAGER_START: an item with memory. -ENOMEM: in more pieces than it can remember. */
	L4_PAGER_MEMORY,
	/** Master only: no more memory follows, clients do. */
	L4_PAGER_START,
	/** Master only. MR[1]: client, which is gone. MR[0] of the answer: pages that it had not freed. */
	L4_PAGER_CLIENT_END,
	/** Master only. The answer is an l4_pager_statistics_t. */
	L4_PAGER_STATISTICS,
};

/** All numbers of pages but the last two; counted since the start but the first three. */
typedef struct {
	l4_word_t pages;     /* that it manages */
	l4_word_t in_use;    /* that clients have, or that hold its tables of who has what */
	l4_word_t in_tables; /* the second part of this */
	l4_word_t allocated, released;
	l4_word_t requests; /* served: faults and others */
	l4_word_t refusals; /* answered with an error */
} l4_pager_statistics_t;

enum { L4_PAGER_STATISTICS_WORDS = sizeof(l4_pager_statistics_t) / sizeof(l4_word_t) };

static inline int l4_pager_request(l4_cap_t pager, l4_word_t operation, l4_word_t argument)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = argument;
	return l4_request(pager, l4_tag(L4_PROTO_PAGER, 2, 0));
}

/** Gives the page at `address` back: frame, mapping and all. */
static inline int l4_pager_free(l4_cap_t pager, l4_word_t address)
{
	return l4_pager_request(pager, L4_PAGER_FREE, address);
}

#endif
