#include "space.h"

#include "frames.h"

enum { ENTRIES = L4_PAGE_BYTES / sizeof(void *) };

static unsigned directory_index(l4_word_t address)
{
	return address >> L4_SUPERPAGE_SHIFT;
}

static unsigned table_index(l4_word_t address)
{
	return address >> L4_PAGE_SHIFT & (ENTRIES - 1);
}

void *space_find(const space_t *space, l4_word_t address)
{
	if (space->directory == NULL || space->directory[directory_index(address)] == NULL)
		return NULL;
	return space->directory[directory_index(address)][table_index(address)];
}

void *space_frame(space_t *space, l4_word_t address)
{
	if (space->directory == NULL && (space->directory = frame_take()) == NULL)
		return NULL;
	void ***table = &space->directory[directory_index(address)];
	if (*table == NULL && (*table = frame_take()) == NULL)
		return NULL;
	void **frame = &(*table)[table_index(address)];
	if (*frame == NULL)
		*frame = frame_take();
	return *frame;
}

static unsigned clear_table(void **table)
{
	unsigned pages = 0;

	for (unsigned i = 0; i < ENTRIES; i++) {
		if (table[i] != NULL) {
			frame_give_back(table[i]);
			pages++;
		}
	}
	frame_give_back(table);
	return pages;
}

unsigned space_clear(space_t *space)
{
	unsigned pages = 0;

	if (space->directory == NULL)
		return 0;
	for (unsigned i = 0; i < ENTRIES; i++)
		if (space->directory[i] != NULL)
			pages += clear_table(space->directory[i]);
	frame_give_back(space->directory);
	space->directory = NULL;
	return pages;
}
