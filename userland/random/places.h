/* Where things are in the tasks of an episode: capabilities, memory, UTCBs. The same in all of them. */
#ifndef RANDOM_PLACES_H
#define RANDOM_PLACES_H

#include <l4/program.h>

enum {
	/* Capabilities that stay: what lies here is no target. */
	SLOT_OTHER_TASK = 8,
	SLOT_HANDLER = 0x10, /* of thread i at + i: pager and exception handler */
	/* Those that acts name, lose and overwrite. */
	SLOT_FIRST = 0x20,
	SLOT_THREADS = 0x20, /* of the actors */
	SLOT_GATES = 0x24,   /* to the actors */
	SLOT_IRQS = 0x28,
	SLOT_SEMAPHORES = 0x2a,
	SLOT_FACTORY = 0x2c,
	SLOT_FREE = 0x2d,
	SLOT_COUNT = 0x20,
	/* Labels of messages to the root task. */
	LABEL_STEP = 0x100,
	PROTO_PROBED = 0x51,
	/* Memory. */
	WINDOW_PAGES = 8,
	SUPERPAGES = 2,
	MEMORY = L4_HEAP_START,
	SUPER = L4_HEAP_START + 0x800000,
	KU_MEMORY = 0x50000000,
};

/** Page `index` of the window. */
static inline l4_word_t page_address(unsigned index)
{
	return MEMORY + index * L4_PAGE_BYTES;
}

/** Thread i's UTCB in its task, and behind them the blocks of trampolines. */
static inline l4_utcb_t *utcb_of(unsigned number)
{
	return (l4_utcb_t *)L4_UTCB_AREA + number;
}

static inline l4_word_t trampoline_address(unsigned number)
{
	return L4_UTCB_AREA + 0xc00 + number * 0x80;
}

/** What thread i sends its faults to. */
static inline l4_cap_t handler_cap(unsigned number)
{
	return l4_cap(SLOT_HANDLER + number);
}

#endif
