/* What servers that manage memory have in common: command line, allocator, counts, and the loop in which they serve. */
#ifndef PAGER_SERVICE_H
#define PAGER_SERVICE_H

#include "pma.h"

#include <l4/ipc.h>
#include <l4/pager.h>
#include <l4/string.h>

/** Lines that a server prints about one client, who could make up refusals without end. */
enum { SERVICE_LINES = 4 };

typedef struct {
	const char *name; /* for its lines */
	pma_t pma;
	unsigned requests, refusals;
	bool clear; /* zero each frame before a client gets it */
} service_t;

/** The server's own, with its name. */
extern service_t service;

/** Takes its options and then memory, until whoever started it orders the start (l4/pager.h); returns the answer to
 * that order. Ends the program if an option is wrong. */
l4_tag_t service_start(int argc, char **argv);

/** The answer to a request that is not granted. */
l4_tag_t service_refuse(int error);

/** The answer to L4_PAGER_STATISTICS. */
l4_tag_t service_statistics(l4_word_t in_tables);

/** Whether there may be one more line about a client that `lines` have been printed about; the last one says so. */
bool service_may_tell(unsigned client, unsigned *lines);

/** Where the server sees it. */
static inline l4_word_t service_address(pma_page_t frame)
{
	return frame << L4_PAGE_SHIFT;
}

/** A frame for a client, or PMA_NONE. */
static inline pma_page_t service_allocate(void)
{
	pma_page_t frame = pma_allocate(&service.pma, 1);

	if (frame != PMA_NONE && service.clear)
		memset((void *)service_address(frame), 0, L4_PAGE_BYTES);
	return frame;
}

/** Answers and waits for the next request. An answer that did not get through is not sent again; but then `undelivered`
 * is called, which finds it in the UTCB, and the reason in its member `error`. */
static inline l4_message_t service_next(l4_tag_t reply, void (*undelivered)(l4_tag_t reply))
{
	l4_message_t next = l4_reply_and_wait(reply, l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_NEVER));

	if (l4_tag_failed(next.tag))
		undelivered(reply);
	while (l4_tag_failed(next.tag))
		next = l4_wait(l4_forever());
	return next;
}

#endif
