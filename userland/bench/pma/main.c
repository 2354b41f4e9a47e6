/* The memory allocation benchmark of 000_1be4d2f6ae8bebbc.txt, section 5.1: one of its processes.
 *
 *     pma [pages=100] [tasks=100] [chunk=N]
 *
 * A task allocates so many pages, then touches the first byte of each, then frees them all. The three are timed apart
 * with the cycle counter. An allocation has `chunk` pages; by default as many as suits where the memory comes from. */
#include "group.h"
#include "memory.h"

#include <l4/panic.h>
#include <l4/print.h>
#include <l4/string.h>
#include <l4/tsc.h>

enum { MAX_CHUNKS = 16384, EXIT_USAGE = 2 };

static unsigned pages = 100, tasks = 100, chunk;
static l4_word_t chunks[MAX_CHUNKS];
static result_t result;

static void allocate(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		chunks[i] = memory_allocate(chunk);
}

static void touch(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		for (unsigned page = 0; page < chunk; page++)
			*(volatile char *)(chunks[i] + page * L4_PAGE_BYTES) = 1;
}

static void release(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (memory_free(chunks[i], chunk) < 0)
			result.errors++;
}

static void run_task(unsigned count)
{
	uint64_t start = l4_tsc();
	allocate(count);
	uint64_t allocated = l4_tsc();
	touch(count);
	uint64_t touched = l4_tsc();
	release(count);
	uint64_t end = l4_tsc();

	result.allocation += allocated - start;
	result.touch += touched - allocated;
	result.release += end - touched;
	result.end = end;
}

/** `key`=number. Returns whether it was that. */
static bool read_number(const char *argument, const char *key, unsigned *number)
{
	size_t length = strlen(key);

	if (strncmp(argument, key, length) != 0 || argument[length] != '=')
		return false;
	*number = (unsigned)l4_number(argument + length + 1, 0);
	return *number != 0;
}

int main(int argc, char **argv)
{
	chunk = memory_usual_chunk;
	for (int i = 1; i < argc; i++) {
		if (!read_number(argv[i], "pages", &pages) && !read_number(argv[i], "tasks", &tasks) &&
		    !read_number(argv[i], "chunk", &chunk)) {
			printf("%s: %s: expected pages=N, tasks=N or chunk=N\n", argv[0], argv[i]);
			return EXIT_USAGE;
		}
	}
	if (chunk == 0)
		chunk = pages;
	unsigned most = memory_most_chunks < MAX_CHUNKS ? memory_most_chunks : MAX_CHUNKS;
	if (pages % chunk != 0 || pages / chunk > most) {
		printf("%s: pages=%u must be a multiple of chunk=%u, %u times at most\n", argv[0], pages, chunk, most);
		return EXIT_USAGE;
	}
	memory_init();
	result.begin = group_start();
	for (unsigned i = 0; i < tasks; i++)
		run_task(pages / chunk);
	result.tasks = tasks;
	result.pages = tasks * pages;
	group_finish(&result);
	return 0;
}
