/* The books: an owner for every page, first come, first served, for ever.
 *
 * They have two levels, like the processor's page tables. A block of 4 MiB with one owner is one word; a block whose
 * pages differ has a table with one word for each. Finding the owner of a page takes two loads; starting up and
 * giving away large pieces touches no table at all.
 *
 * Tables of blocks that differ from the beginning come from `first_tables`. For each other block of RAM a page is
 * set aside at the start, and touched when the block is first divided.
 *
 * Invariant: free_pages[block] counts the pages of the block that are FREE. */
#include "memory.h"

#include <l4/panic.h>
#include <l4/print.h>

enum {
	BLOCK_PAGES = 1024,
	BLOCKS = 1024,
	FIRST_TABLES = 32,
	ROOT_CLIENT = L4_ROOT_SIGMA0_LABEL >> 4,
};

/* An owner: client number << 4 | rights. Numbers below ROOT_CLIENT are no clients. */
enum { DEVICE = 0 << 4 | L4_RIGHT_R | L4_RIGHT_W, FREE = 1 << 4 | L4_MEMORY_RIGHTS, KERNEL = 2 << 4 };

typedef struct {
	l4_word_t owner;  /* of all pages, if there is no table */
	l4_word_t *pages; /* table of owners, or null */
} block_t;

static block_t blocks[BLOCKS];
static uint16_t free_pages[BLOCKS];
static l4_word_t first_tables[FIRST_TABLES][BLOCK_PAGES];
static unsigned first_tables_used;
static l4_word_t (*next_table)[BLOCK_PAGES]; /* set-aside pages; null while first_tables are used */
static unsigned lowest_free_block;           /* no block below has a free page */

static l4_word_t owner_of(l4_word_t page)
{
	const block_t *block = &blocks[page / BLOCK_PAGES];

	return block->pages == NULL ? block->owner : block->pages[page % BLOCK_PAGES];
}

static void divide(block_t *block)
{
	if (next_table != NULL)
		block->pages = *next_table++;
	else if (first_tables_used < FIRST_TABLES)
		block->pages = first_tables[first_tables_used++];
	else
		l4_panic("sigma0: memory descriptors divide more than %d blocks", FIRST_TABLES);
	for (unsigned i = 0; i < BLOCK_PAGES; i++)
		block->pages[i] = block->owner;
}

/** Makes `owner` the owner of `count` pages of one block. */
static void set_in_block(l4_word_t page, l4_word_t count, l4_word_t owner)
{
	block_t *block = &blocks[page / BLOCK_PAGES];
	uint16_t *free = &free_pages[page / BLOCK_PAGES];

	if (count == BLOCK_PAGES) {
		*block = (block_t){ .owner = owner };
		*free = owner == FREE ? BLOCK_PAGES : 0;
		return;
	}
	if (block->pages == NULL && block->owner == owner)
		return;
	if (block->pages == NULL)
		divide(block);
	for (l4_word_t *entry = &block->pages[page % BLOCK_PAGES]; count > 0; count--, entry++) {
		*free = (uint16_t)(*free + (owner == FREE) - (*entry == FREE));
		*entry = owner;
	}
}

static void set(l4_word_t page, l4_word_t count, l4_word_t owner)
{
	while (count > 0) {
		l4_word_t here = BLOCK_PAGES - page % BLOCK_PAGES;
		if (here > count)
			here = count;
		set_in_block(page, here, owner);
		page += here;
		count -= here;
	}
}

/* --- what there is ------------------------------------------------------------------------------------ */

/** The rights on memory that the boot loader filled. One that does not say leaves them at 0. */
static l4_word_t loaded_rights(l4_mem_desc_t desc)
{
	l4_word_t rights = l4_mem_subtype(desc) & L4_MEMORY_RIGHTS;

	return rights != 0 ? rights : L4_MEMORY_RIGHTS;
}

static void enter_descriptor(l4_mem_desc_t desc)
{
	l4_word_t first = l4_mem_start(desc) >> L4_PAGE_SHIFT;
	l4_word_t last = l4_mem_last(desc) >> L4_PAGE_SHIFT;
	l4_word_t owner = KERNEL;

	switch (l4_mem_type(desc)) {
	case L4_MEM_CONVENTIONAL: /* only whole pages are RAM to give away */
		first = (l4_mem_start(desc) + L4_PAGE_BYTES - 1) >> L4_PAGE_SHIFT;
		last = ((l4_mem_last(desc) + 1) >> L4_PAGE_SHIFT) - 1;
		owner = FREE;
		break;
	case L4_MEM_BOOTLOADER:
		owner = ROOT_CLIENT << 4 | loaded_rights(desc);
		break;
	case L4_MEM_INFO:
	case L4_MEM_ARCH:
	case L4_MEM_SHARED:
		owner = DEVICE;
		break;
	}
	if (last >= first)
		set(first, last - first + 1, owner);
}

/** Sets a page aside for each block that is all free, from the highest memory there is. */
static void set_tables_aside(void)
{
	l4_word_t wanted = 0, found = 0, page = BLOCKS * BLOCK_PAGES;

	for (unsigned i = 0; i < BLOCKS; i++)
		wanted += free_pages[i] == BLOCK_PAGES;
	while (page > 0 && found < wanted) {
		if (page % BLOCK_PAGES == 0 && free_pages[page / BLOCK_PAGES - 1] == 0) {
			page -= BLOCK_PAGES;
			found = 0;
		} else {
			found = owner_of(--page) == FREE ? found + 1 : 0;
		}
	}
	if (found == wanted) {
		set(page, wanted, KERNEL);
		next_table = (l4_word_t(*)[BLOCK_PAGES])(page << L4_PAGE_SHIFT);
	}
}

void memory_init(const l4_kip_t *kip)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		blocks[i].owner = DEVICE;
	for (unsigned i = 0; i < kip->mem_descs_count; i++) {
		l4_mem_desc_t desc = l4_kip_mem_descs(kip)[i];
		if (l4_mem_type(desc) != L4_MEM_UNUSED && !l4_mem_is_virtual(desc))
			enter_descriptor(desc);
	}
	set_tables_aside();
}

/* --- giving it away ----------------------------------------------------------------------------------- */

bool memory_claim(l4_word_t client, l4_word_t address, unsigned order, l4_word_t wanted, l4_word_t *rights)
{
	l4_word_t first = address >> L4_PAGE_SHIFT, count = 1u << (order - L4_PAGE_SHIFT);

	*rights = L4_MEMORY_RIGHTS;
	for (l4_word_t page = first; page < first + count; page++) {
		l4_word_t owner = owner_of(page);
		if (owner != FREE && owner >> 4 != client)
			return false;
		*rights &= owner;
	}
	if ((wanted & ~*rights) != 0)
		return false;
	for (l4_word_t page = first; page < first + count; page++)
		if (owner_of(page) == FREE)
			set(page, 1, client << 4 | L4_MEMORY_RIGHTS);
	return true;
}

/** The lowest aligned run of `count` free pages, in a block that has that many: then its first page, else 0. */
static l4_word_t find_in_block(unsigned block, l4_word_t count)
{
	l4_word_t first = block * BLOCK_PAGES;

	if (blocks[block].pages == NULL)
		return first;
	for (l4_word_t page = first; page < first + BLOCK_PAGES; page += count) {
		l4_word_t run = 0;
		while (run < count && owner_of(page + run) == FREE)
			run++;
		if (run == count)
			return page;
	}
	return 0;
}

static l4_word_t find_small(l4_word_t count)
{
	while (lowest_free_block < BLOCKS && free_pages[lowest_free_block] == 0)
		lowest_free_block++;
	for (unsigned block = lowest_free_block; block < BLOCKS; block++) {
		l4_word_t page = free_pages[block] >= count ? find_in_block(block, count) : 0;
		if (page != 0)
			return page;
	}
	return 0;
}

static l4_word_t find_blocks(unsigned count)
{
	for (unsigned block = 0; block < BLOCKS; block += count) {
		unsigned run = 0;
		while (run < count && free_pages[block + run] == BLOCK_PAGES)
			run++;
		if (run == count)
			return block * BLOCK_PAGES;
	}
	return 0;
}

bool memory_claim_any(l4_word_t client, unsigned order, l4_word_t *address)
{
	l4_word_t count = 1u << (order - L4_PAGE_SHIFT);
	l4_word_t page = count < BLOCK_PAGES ? find_small(count) : find_blocks(count / BLOCK_PAGES);

	*address = page << L4_PAGE_SHIFT;
	if (page != 0)
		set(page, count, client << 4 | L4_MEMORY_RIGHTS);
	return page != 0;
}

bool memory_is_device(l4_word_t address, unsigned order)
{
	l4_word_t first = address >> L4_PAGE_SHIFT, count = 1u << (order - L4_PAGE_SHIFT);

	for (l4_word_t page = first; page < first + count; page++)
		if (owner_of(page) != DEVICE)
			return false;
	return true;
}

void memory_dump(void)
{
	static const char *const names[ROOT_CLIENT] = { "device", "free", "kernel", "kernel" };
	l4_word_t start = 0, end = BLOCKS * BLOCK_PAGES;

	for (l4_word_t page = 1; page <= end; page++) {
		l4_word_t owner = owner_of(start);
		if (page < end && owner_of(page) == owner)
			continue;
		printf("sigma0: %08x-%08x ", start << L4_PAGE_SHIFT, (page << L4_PAGE_SHIFT) - 1);
		if (owner >> 4 < ROOT_CLIENT)
			printf("%s\n", names[owner >> 4]);
		else
			printf("client %u, rights %x\n", owner >> 4, owner & L4_MEMORY_RIGHTS);
		start = page;
	}
}
