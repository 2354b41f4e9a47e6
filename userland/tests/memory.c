/* Memory: map, grant, unmap, rights, sizes, access flags (ABI 7). */
#include "conf.h"

enum {
	WINDOW = L4_HEAP_START, /* nothing is there, and sigma0 has nothing for it */
	OTHER = L4_HEAP_START + 0x800000,
	RW = L4_RIGHT_R | L4_RIGHT_W,
	RWX = L4_MEMORY_RIGHTS,
	PROTECTION_WRITE = L4_FAULT_PRESENT | L4_FAULT_WRITE,
};

static l4_cap_t self(void)
{
	return l4_own_task();
}

/** The own task's prober; everything the windows hold goes with the test. */
static l4_cap_t prober(void)
{
	return conf_prober((l4_cap_t){ 0 });
}

static int map(l4_cap_t task, l4_word_t from, l4_word_t to, unsigned order, l4_word_t rights)
{
	return l4_task_map(task, self(), l4_map_item(l4_memory_fpage(from, order, rights), to));
}

static int unmap(l4_cap_t task, l4_word_t address, unsigned order, l4_word_t rights, l4_word_t mask)
{
	return l4_task_unmap(task, l4_memory_fpage(address, order, rights), mask);
}

/** A page with a word in it. */
static l4_word_t page_with(l4_word_t word)
{
	l4_word_t *page = conf_memory(L4_PAGE_SHIFT);

	*page = word;
	return (l4_word_t)page;
}

TEST(MEM0001, "a page mapped to a second address is the same memory", "task.map:OK")
{
	l4_word_t page = page_with(0x11), value;
	l4_cap_t p = prober();

	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK(conf_read(p, WINDOW, &value));
	CHECK_EQ(value, 0x11);
	CHECK(conf_write(p, WINDOW, 0x12));
	CHECK_EQ(*(volatile l4_word_t *)page, 0x12);
}

TEST(MEM0002, "without the W right a page is read, and writing it is a protection fault", "task.map:OK")
{
	l4_word_t page = page_with(0x21);
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 12, L4_RIGHT_R), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(!conf_write(p, WINDOW, 0x22));
	CHECK_EQ(conf_last_fault(), WINDOW | PROTECTION_WRITE);
	CHECK_EQ(*(volatile l4_word_t *)page, 0x21);
}

TEST(MEM0003, "a right that a mapping lacks cannot be passed on", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page_with(0x31), WINDOW, 12, L4_RIGHT_R), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK(conf_read(p, OTHER, NULL));
	CHECK(!conf_write(p, OTHER, 0x32));
}

TEST(MEM0004, "mapping the same page again adds rights", "task.map:OK")
{
	l4_word_t page = page_with(0x41);
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 12, L4_RIGHT_R), 0);
	CHECK(!conf_write(p, WINDOW, 0x42));
	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK(conf_write(p, WINDOW, 0x42));
	CHECK_EQ(map(self(), page, WINDOW, 12, L4_RIGHT_R), 0);
	CHECK(conf_write(p, WINDOW, 0x43));
}

TEST(MEM0005, "unmapping takes what was mapped on, and with the self bit the page itself", "task.unmap:OK")
{
	l4_word_t page = page_with(0x51);
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(unmap(self(), WINDOW, 12, RWX, 0), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(!conf_read(p, OTHER, NULL));
	CHECK_EQ(unmap(self(), WINDOW, 12, RWX, L4_UNMAP_SELF), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK_EQ(*(volatile l4_word_t *)page, 0x51);
}

TEST(MEM0006, "unmapping reaches through all generations and tasks", "task.unmap:OK")
{
	l4_word_t page = page_with(0x61);
	l4_cap_t task = conf_task();
	l4_cap_t p = conf_prober(task);

	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(map(task, WINDOW, WINDOW, 12, RW), 0);
	CHECK_EQ(l4_task_map(task, task, l4_map_item(l4_memory_fpage(WINDOW, 12, RW), OTHER)), 0);
	CHECK(conf_write(p, OTHER, 0x62));
	CHECK_EQ(*(volatile l4_word_t *)page, 0x62);
	CHECK_EQ(unmap(self(), page, 12, RWX, 0), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK(!conf_read(p, OTHER, NULL));
	CHECK_EQ(*(volatile l4_word_t *)page, 0x62);
}

TEST(MEM0007, "unmapping only the W right leaves pages to be read", "task.unmap:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page_with(0x71), WINDOW, 12, RW), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(unmap(self(), WINDOW, 12, L4_RIGHT_W, 0), 0);
	CHECK(conf_write(p, WINDOW, 0x72));
	CHECK(conf_read(p, OTHER, NULL));
	CHECK(!conf_write(p, OTHER, 0x73));
	CHECK_EQ(conf_last_fault(), OTHER | PROTECTION_WRITE);
	CHECK_EQ(unmap(self(), WINDOW, 12, L4_RIGHT_W, L4_UNMAP_SELF), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK(!conf_write(p, WINDOW, 0x74));
}

TEST(MEM0008, "mapping another page over one replaces it and what came from it", "task.map:OK")
{
	l4_word_t first = page_with(0x81), second = page_with(0x82), value;
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), first, WINDOW, 12, RW), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK_EQ(map(self(), second, WINDOW, 12, RW), 0);
	CHECK(conf_read(p, WINDOW, &value));
	CHECK_EQ(value, 0x82);
	CHECK(!conf_read(p, OTHER, NULL));
}

TEST(MEM0009, "a granted page leaves its old address, and still hangs on where it came from", "task.map:OK")
{
	l4_word_t page = page_with(0x91), value;
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(l4_task_map(self(), self(), l4_grant_item(l4_memory_fpage(WINDOW, 12, RW), OTHER)), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK(conf_read(p, OTHER, &value));
	CHECK_EQ(value, 0x91);
	CHECK_EQ(unmap(self(), page, 12, RWX, 0), 0);
	CHECK(!conf_read(p, OTHER, NULL));
}

TEST(MEM0010, "flexpages smaller than a page map and unmap nothing, without an error", "task.map:OK task.unmap:OK")
{
	l4_word_t page = page_with(0xa1);
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 11, RW), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(unmap(self(), WINDOW, 11, RWX, L4_UNMAP_SELF), 0);
	CHECK(conf_read(p, WINDOW, NULL));
}

TEST(MEM0011, "mapping what is not there is no error and maps nothing", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK(!conf_read(p, OTHER, NULL));
	CHECK_EQ(unmap(self(), WINDOW, 12, RWX, L4_UNMAP_SELF), 0);
}

TEST(MEM0012, "a flexpage of several pages maps and unmaps all of them that are there", "task.map:OK task.unmap:OK")
{
	l4_word_t *pages = conf_memory(14), value;
	l4_cap_t p = prober();

	for (l4_word_t i = 0; i < 4; i++)
		pages[i * 1024] = 0xc0 + i;
	CHECK_EQ(map(self(), (l4_word_t)pages, WINDOW, 14, RW), 0);
	CHECK_EQ(unmap(self(), WINDOW + 0x1000, 12, RWX, L4_UNMAP_SELF), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 14, RW), 0);
	for (l4_word_t i = 0; i < 4; i++) {
		CHECK_EQ(conf_read(p, OTHER + i * 0x1000, &value), i != 1);
		CHECK(i == 1 || value == 0xc0 + i);
	}
	CHECK_EQ(unmap(self(), WINDOW, 14, RWX, L4_UNMAP_SELF), 0);
	for (l4_word_t i = 0; i < 4; i++)
		CHECK(!conf_read(p, OTHER + i * 0x1000, NULL));
}

/** A page that nobody has touched yet. */
static l4_word_t untouched_page(void)
{
	l4_word_t address = 0;

	CHECK_EQ(l4_sigma0_any(l4_parent(), L4_PAGE_SHIFT, &address), 0);
	return address;
}

/** The access flags of WINDOW, which is gone then. */
static l4_word_t take_access(void)
{
	CHECK_EQ(unmap(self(), WINDOW, 12, RWX, L4_UNMAP_SELF), 0);
	return l4_task_unmapped_access();
}

TEST(MEM0013, "unmapping tells whether a page was read and whether it was written", "task.unmap:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), untouched_page(), WINDOW, 12, RW), 0);
	CHECK_EQ(take_access(), 0);
	CHECK_EQ(map(self(), untouched_page(), WINDOW, 12, RW), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK_EQ(take_access(), L4_ACCESS_REFERENCED);
	CHECK_EQ(map(self(), untouched_page(), WINDOW, 12, RW), 0);
	CHECK(conf_write(p, WINDOW, 0xd3));
	CHECK_EQ(take_access(), L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY);
}

TEST(MEM0015, "a mapping starts with the access flags of the one it comes from", "task.map:OK task.unmap:OK")
{
	l4_word_t page = untouched_page();

	(void)*(volatile l4_word_t *)page;
	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(take_access(), L4_ACCESS_REFERENCED);
	*(volatile l4_word_t *)page = 1;
	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(take_access(), L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY);
}

TEST(MEM0016, "unmapping from others tells their accesses, and the own page remembers them", "task.unmap:OK")
{
	l4_word_t page = untouched_page();
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page, WINDOW, 12, RW), 0);
	CHECK_EQ(map(self(), WINDOW, OTHER, 12, RW), 0);
	CHECK(conf_write(p, OTHER, 1));
	CHECK_EQ(unmap(self(), WINDOW, 12, RWX, 0), 0);
	CHECK_EQ(l4_task_unmapped_access(), L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY);
	CHECK_EQ(take_access(), L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY);
}

TEST(MEM0014, "code runs from a page that is mapped to be read only", "task.map:OK")
{
	uint8_t *page = (uint8_t *)page_with(0);

	page[0] = 0xb8; /* movl $0x1234, %eax */
	page[1] = 0x34;
	page[2] = 0x12;
	page[3] = page[4] = 0;
	page[5] = 0xc3; /* ret */
	CHECK_EQ(map(self(), (l4_word_t)page, WINDOW, 12, L4_RIGHT_R), 0);
	CHECK_EQ(((l4_word_t(*)(void))WINDOW)(), 0x1234);
}

/** 4 MiB of RAM; sigma0 keeps giving the same to the same client, so it is asked for once. */
static l4_word_t superpage(void)
{
	static l4_word_t address;

	if (address == 0 && l4_sigma0_any(l4_parent(), L4_SUPERPAGE_SHIFT, &address) != 0)
		address = 0;
	if (address == 0)
		conf_skip("no 4 MiB of RAM in one piece");
	return address;
}

/* Once an address has had a table for small pages, it may keep it; these are used by one test each. */
enum { WINDOW_20 = 0x30000000, WINDOW_21 = 0x31000000 };

TEST(MEM0020, "4 MiB are mapped and unmapped in one piece", "task.map:OK task.unmap:OK")
{
	l4_word_t memory = superpage(), value;
	l4_cap_t p = prober();

	*(volatile l4_word_t *)(memory + 0x3ff000) = 0x201;
	CHECK_EQ(map(self(), memory, WINDOW_20, L4_SUPERPAGE_SHIFT, RW), 0);
	CHECK(conf_read(p, WINDOW_20 + 0x3ff000, &value));
	CHECK_EQ(value, 0x201);
	CHECK(conf_write(p, WINDOW_20, 0x202));
	CHECK_EQ(*(volatile l4_word_t *)memory, 0x202);
	CHECK_EQ(unmap(self(), WINDOW_20, L4_SUPERPAGE_SHIFT, RWX, L4_UNMAP_SELF), 0);
	CHECK(!conf_read(p, WINDOW_20, NULL));
	CHECK(!conf_read(p, WINDOW_20 + 0x3ff000, NULL));
}

TEST(MEM0021, "unmapping a part of a 4 MiB page from its task takes all of it", "task.unmap:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), superpage(), WINDOW_21, L4_SUPERPAGE_SHIFT, RW), 0);
	CHECK(conf_read(p, WINDOW_21, NULL));
	CHECK_EQ(unmap(self(), WINDOW_21 + 0x1000, 12, RWX, L4_UNMAP_SELF), 0);
	CHECK(!conf_read(p, WINDOW_21 + 0x1000, NULL));
	CHECK(!conf_read(p, WINDOW_21 + 0x200000, NULL));
}

TEST(MEM0022, "a page of a 4 MiB page is mapped on alone", "task.map:OK task.unmap:OK")
{
	l4_word_t memory = superpage(), value;
	l4_cap_t p = prober();

	*(volatile l4_word_t *)(memory + 0x5000) = 0x221;
	CHECK_EQ(map(self(), memory + 0x5000, WINDOW, 12, RW), 0);
	CHECK(conf_read(p, WINDOW, &value));
	CHECK_EQ(value, 0x221);
	CHECK(!conf_read(p, WINDOW + 0x1000, NULL));
	CHECK_EQ(unmap(self(), memory + 0x5000, 12, RWX, 0), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK_EQ(*(volatile l4_word_t *)(memory + 0x5000), 0x221);
}

TEST(MEM0023, "4 MiB go to an address that is not a multiple of 4 MiB page by page", "task.map:OK")
{
	l4_word_t memory = superpage(), value;
	l4_cap_t p = prober();

	*(volatile l4_word_t *)(memory + 0x2000) = 0x231;
	CHECK_EQ(map(self(), memory, WINDOW + 0x400000, 14, RW), 0);
	CHECK(conf_read(p, WINDOW + 0x402000, &value));
	CHECK_EQ(value, 0x231);
	CHECK(!conf_read(p, WINDOW + 0x404000, NULL));
}

TEST(MEM0024, "memory is out of reach for a task without quota for its tables: IPC error 10", "task.map:IPC10")
{
	l4_cap_t limited = conf_slot(), task = conf_slot();
	l4_word_t page = page_with(1);
	int error = 0;

	CHECK_EQ(l4_factory_create_factory(l4_own_factory(), limited, 0x10000), 0);
	CHECK_EQ(l4_factory_create_task(limited, task, (l4_fpage_t){ 0 }), 0);
	for (l4_word_t i = 0; i < 64 && error == 0; i++)
		error = map(task, page, WINDOW + (i << L4_SUPERPAGE_SHIFT), 12, RW);
	CHECK_EQ(error, ipc_error(L4_IPC_SEND_MAP_FAILED));
}

TEST(MEM0025, "memory that a task had is gone with the task", "task.unmap:OK")
{
	l4_word_t page = page_with(0x251);
	l4_cap_t task = conf_task(), p = prober();

	CHECK_EQ(map(task, page, WINDOW, 12, RW), 0);
	CHECK_EQ(l4_task_map(self(), task, l4_map_item(l4_memory_fpage(WINDOW, 12, RW), WINDOW)), 0);
	CHECK(conf_read(p, WINDOW, NULL));
	CHECK_EQ(l4_task_delete(self(), task), 0);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK_EQ(*(volatile l4_word_t *)page, 0x251);
}

TEST(MEM0026, "several flexpages are unmapped by one request", "task.unmap:OK")
{
	l4_utcb_t *utcb = l4_utcb();
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), untouched_page(), WINDOW, 12, RW), 0);
	CHECK_EQ(map(self(), untouched_page(), OTHER, 12, RW), 0);
	CHECK(conf_write(p, OTHER, 3));
	utcb->mr[0] = L4_TASK_UNMAP;
	utcb->mr[1] = L4_UNMAP_SELF;
	utcb->mr[2] = l4_memory_fpage(WINDOW, 12, RWX).raw;
	utcb->mr[3] = l4_memory_fpage(OTHER, 12, RWX).raw;
	CHECK_EQ(l4_call(self(), l4_tag(L4_PROTO_TASK, 4, 0), l4_forever()).tag.raw, l4_tag(0, 4, 0).raw);
	CHECK_EQ(utcb->mr[2], l4_memory_fpage(WINDOW, 12, 0).raw);
	CHECK_EQ(utcb->mr[3], l4_memory_fpage(OTHER, 12, L4_ACCESS_REFERENCED | L4_ACCESS_DIRTY).raw);
	CHECK(!conf_read(p, WINDOW, NULL));
	CHECK(!conf_read(p, OTHER, NULL));
}

TEST(MEM0027, "nothing is mapped into the kernel's part of the address space", "task.map:OK")
{
	l4_cap_t p = prober();

	CHECK_EQ(map(self(), page_with(0x271), L4_USER_LIMIT, 12, RW), 0);
	CHECK_EQ(unmap(self(), L4_USER_LIMIT, 12, RWX, L4_UNMAP_SELF), 0);
	(void)p;
}
