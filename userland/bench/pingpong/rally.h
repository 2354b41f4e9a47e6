/* The two sides of a ping-pong: the client sends, the server sends back. */
#ifndef PINGPONG_RALLY_H
#define PINGPONG_RALLY_H

#include <l4/types.h>

/** How a message gets over. */
typedef enum {
	RALLY_WORDS,   /* in message registers; they are filled once and travel to and fro; call and reply-and-wait */
	RALLY_SENDS,   /* likewise, but sending and waiting are two operations on either side */
	RALLY_PIECES,  /* a buffer, as many full sets of message registers as it takes, copied in and out */
	RALLY_MAPPING, /* a buffer whose page is mapped to the receiver, who copies it and unmaps the page */
	RALLY_KINDS,
} rally_kind_t;

enum {
	RALLY_MAX_SAMPLES = 16,
	RALLY_MAX_BYTES = L4_PAGE_BYTES,
	RALLY_DONE = 1, /* label of what the client tells its parent at the end */
};

/** Where each side finds the other in its capability table; its parent is in L4_BOOT_CAP_PAGER. */
enum { RALLY_CLIENT_SLOT = 0x10, RALLY_SERVER_SLOT = 0x11 };

/** One measurement: what it shall be, and what came out. Both sides see it. */
typedef struct {
	rally_kind_t kind;
	unsigned size;                          /* RALLY_WORDS, RALLY_SENDS: words, else bytes */
	unsigned warmup, rounds, samples;       /* messages there and back: before, in each sample; number of samples */
	uint64_t stamps[RALLY_MAX_SAMPLES + 1]; /* the client's cycle counter before the first and after each sample */
	bool damaged;                           /* an operation failed, or a message did not arrive as it was sent */
	unsigned received[2];                   /* by client and server, each counting for itself */
} __attribute__((aligned(256))) rally_t;

/* What the two threads run, with their rally_t as argument. The client reports to its parent when it is done. */
void rally_client(void *rally);
void rally_server(void *rally);

#endif
