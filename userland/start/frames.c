/* Memory is fetched in chunks, so that a page costs a message to sigma0 only now and then. */
#include "frames.h"

#include <l4/program.h>
#include <l4/sigma0.h>
#include <l4/string.h>

enum { CHUNK_ORDER = 20 };

/* A returned frame holds the address of the next one. */
typedef struct returned {
	struct returned *next;
} returned_t;

static returned_t *returned;
static l4_word_t chunk_next, chunk_end;
static unsigned in_use;

/** Takes what sigma0 has, at most 2^CHUNK_ORDER bytes at once. */
static bool fetch_chunk(void)
{
	for (unsigned order = CHUNK_ORDER; order >= L4_PAGE_SHIFT; order--) {
		if (l4_sigma0_any(l4_parent(), order, &chunk_next) == 0) {
			chunk_end = chunk_next + (1u << order);
			return true;
		}
	}
	chunk_next = chunk_end;
	return false;
}

void *frame_take(void)
{
	void *frame = returned;

	if (frame != NULL) {
		returned = returned->next;
	} else {
		if (chunk_next == chunk_end && !fetch_chunk())
			return NULL;
		frame = (void *)chunk_next;
		chunk_next += L4_PAGE_BYTES;
	}
	in_use++;
	return memset(frame, 0, L4_PAGE_BYTES);
}

void frame_give_back(void *frame)
{
	returned_t *entry = frame;

	entry->next = returned;
	returned = entry;
	in_use--;
}

unsigned frames_in_use(void)
{
	return in_use;
}
