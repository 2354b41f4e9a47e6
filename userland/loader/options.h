/* The loader's command line. */
#ifndef LOADER_OPTIONS_H
#define LOADER_OPTIONS_H

#include <l4/pager.h>

enum { OPTIONS_MAX_CPUS = L4_PAGER_MAX_CLIENTS }; /* one server may have to serve an application on each */

/** Who serves page faults. */
typedef struct {
	const char *name, *server;
	bool everywhere; /* a server on each processor, else on processor 0 */
} design_t;

typedef struct {
	const design_t *design;
	const char *each, *coordinator; /* null: no coordinator */
	unsigned cpus;
	l4_word_t region_pages; /* 0: all of it */
} options_t;

extern options_t options;

/** Reads it. `cpus`: how many processors there are, which is how many are used unless it says otherwise. Returns false
 * if something is wrong with it, and prints what. */
bool options_read(int argc, char **argv, unsigned cpus);

#endif
