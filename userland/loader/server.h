/* A server that manages memory, as the loader sees it: a program of its own with the protocol of l4/pager.h. */
#ifndef LOADER_SERVER_H
#define LOADER_SERVER_H

#include "child.h"
#include "memory.h"

#include <l4/pager.h>

typedef struct {
	child_t child;
	char name[16];
	unsigned cpu;
	l4_cap_t control; /* a gate through which it knows its master */
	memory_share_t share;
	l4_word_t region_pages; /* given to it */
	unsigned client_count;
} server_t;

/** Loads it; it does not run yet. Returns null or what went wrong, as do the next two. */
const char *server_create(server_t *server, const l4_module_t *module, const char *name, l4_word_t label);

/** Starts it on its processor and hands it `pages` pages of its share of memory. */
const char *server_start(server_t *server, int priority, l4_word_t pages);

/** A gate to the server for a new client of it, whose number is returned in `number`, into the new slot `gate`. */
const char *server_new_client(server_t *server, l4_cap_t *gate, unsigned *number);

/** Tells it that a client is gone; returns how many pages that had not freed, or a negative error. */
int server_end_client(server_t *server, unsigned number);

/** Returns 0 or a negative error. */
int server_statistics(server_t *server, l4_pager_statistics_t *statistics);

#endif
