/* Sigma0's protocol, as its client the root task sees it (ABI 12). This is user-level code: the tests say whether the sigma0
 * that was booted, and the kernel below it, do what clients rely on. */
#include "conf.h"

static l4_cap_t sigma0(void)
{
	return l4_parent();
}

static int request(l4_word_t what, l4_fpage_t fpage, l4_fpage_t window)
{
	return l4_sigma0_request(sigma0(), what, fpage, window);
}

/** The memory descriptor that `address` is in counts: the last one. 0 if there is none. */
static unsigned type_of(l4_word_t address)
{
	unsigned type = L4_MEM_UNUSED;

	for (unsigned i = 0; i < l4_kip()->mem_descs_count; i++) {
		l4_mem_desc_t desc = l4_kip_mem_descs(l4_kip())[i];
		if (l4_mem_type(desc) != L4_MEM_UNUSED && !l4_mem_is_virtual(desc) && l4_mem_start(desc) <= address &&
		    l4_mem_last(desc) >= address)
			type = l4_mem_type(desc);
	}
	return type;
}

TEST(SIG0001, "any free page is given at its physical address, and each only once", "sigma0.any:OK")
{
	l4_word_t first = 0, second = 0;

	CHECK_EQ(l4_sigma0_any(sigma0(), L4_PAGE_SHIFT, &first), 0);
	CHECK_EQ(l4_sigma0_any(sigma0(), L4_PAGE_SHIFT, &second), 0);
	CHECK(first != second);
	CHECK_EQ(type_of(first), L4_MEM_CONVENTIONAL);
	*(volatile l4_word_t *)first = 1;
	*(volatile l4_word_t *)second = 2;
	CHECK_EQ(*(volatile l4_word_t *)first, 1);
}

TEST(SIG0002, "the answer is one item without words, with the address as send base", "sigma0.any:OK")
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SIGMA0_REQUEST | L4_SIGMA0_ANY;
	utcb->mr[1] = l4_memory_fpage(0, L4_PAGE_SHIFT, 7).raw;
	l4_accept(l4_all_fpage());
	CHECK_EQ(l4_call(sigma0(), l4_tag(L4_PROTO_SIGMA0, 2, 0), l4_forever()).tag.raw, l4_tag(0, 0, 1).raw);
	CHECK_EQ(utcb->mr[0] & 0xfff, L4_PAGE_SHIFT << 6 | 0x18);
	CHECK(utcb->mr[0] >= L4_PAGE_BYTES);
}

TEST(SIG0003, "larger blocks are given in one piece, naturally aligned", "sigma0.any:OK")
{
	for (unsigned order = 13; order <= 18; order++) {
		l4_word_t address = 0;
		CHECK_EQ(l4_sigma0_any(sigma0(), order, &address), 0);
		CHECK_EQ(address & ((1u << order) - 1), 0);
		((volatile l4_word_t *)(address + (1u << order)))[-1] = 1;
	}
}

TEST(SIG0004, "more memory than there is is not given", "sigma0.any:ENOMEM")
{
	l4_word_t address;

	CHECK_EQ(l4_sigma0_any(sigma0(), 31, &address), -L4_ENOMEM);
}

TEST(SIG0005, "what is no page is invalid", "sigma0.any:EINVAL sigma0.ram:EINVAL")
{
	l4_word_t address;

	CHECK_EQ(l4_sigma0_any(sigma0(), 11, &address), -L4_EINVAL);
	CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage(0x2000, 11, 7), l4_all_fpage()), -L4_EINVAL);
	CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage(0x5000, 13, 7), l4_all_fpage()), -L4_EINVAL);
}

TEST(SIG0006, "RAM is given at an address, again and again to the same client", "sigma0.ram:OK")
{
	l4_word_t address = 0;

	CHECK_EQ(l4_sigma0_any(sigma0(), L4_PAGE_SHIFT, &address), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage(address, 12, 7), l4_all_fpage()), 0);
	CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage(address, 12, 7), l4_memory_fpage(L4_HEAP_START, 12, 7)), 0);
	*(volatile l4_word_t *)address = 0x66;
	CHECK_EQ(*(volatile l4_word_t *)L4_HEAP_START, 0x66);
}

TEST(SIG0007, "the kernel's memory and what is no RAM is not given as RAM", "sigma0.ram:ENOMEM")
{
	CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage((l4_word_t)l4_kip(), 12, 7), l4_all_fpage()), -L4_ENOMEM);
	CHECK_EQ(request(L4_SIGMA0_RAM, l4_memory_fpage(0xb0000000, 12, 7), l4_all_fpage()), -L4_ENOMEM);
}

TEST(SIG0008, "the kernel info page is given to be read", "sigma0.kip:OK")
{
	l4_word_t address = 0;

	CHECK_EQ(l4_sigma0_kip(sigma0(), &address), 0);
	CHECK_EQ(address, (l4_word_t)l4_kip());
	l4_cap_t prober = conf_prober((l4_cap_t){ 0 });
	CHECK(conf_read(prober, address, NULL));
	CHECK(!conf_write(prober, address, 0));
}

TEST(SIG0009, "device memory is given where there is no RAM, and RAM is not given as device memory",
     "sigma0.io_uncached:OK,ENOMEM sigma0.io_cached:OK,ENOMEM")
{
	l4_fpage_t device = l4_memory_fpage(0xf0000000, 12, 7), ram = l4_memory_fpage((l4_word_t)l4_kip(), 12, 7);
	l4_fpage_t window = l4_memory_fpage(L4_HEAP_START, 12, 7);

	CHECK_EQ(request(L4_SIGMA0_IO_UNCACHED, device, window), 0);
	CHECK_EQ(request(L4_SIGMA0_IO_CACHED, device, window), 0);
	CHECK_EQ(request(L4_SIGMA0_IO_UNCACHED, ram, window), -L4_ENOMEM);
	CHECK_EQ(request(L4_SIGMA0_IO_CACHED, ram, window), -L4_ENOMEM);
}

TEST(SIG0010, "an unknown request is not implemented, an unknown protocol refused", "sigma0.unknown:ENOSYS,EBADPROTO")
{
	CHECK_EQ(request(0x10, l4_memory_fpage(0, 12, 7), l4_all_fpage()), -L4_ENOSYS);
	l4_utcb()->mr[0] = 0x90;
	CHECK_EQ(l4_request(sigma0(), l4_tag(L4_PROTO_SIGMA0, 2, 0)), -L4_ENOSYS);
	CHECK_EQ(l4_request(sigma0(), l4_tag(L4_PROTO_LOG, 2, 0)), -L4_EBADPROTO);
}

TEST(SIG0011, "a gate for a new client is made, and what one client has another does not get", "sigma0.new_client:OK sigma0.ram:ENOMEM")
{
	l4_cap_t client = conf_slot();
	l4_word_t mine = 0, its = 0;

	CHECK_EQ(l4_sigma0_new_client(sigma0(), client), 0);
	CHECK_EQ(l4_sigma0_any(sigma0(), L4_PAGE_SHIFT, &mine), 0);
	CHECK_EQ(l4_sigma0_any(client, L4_PAGE_SHIFT, &its), 0);
	CHECK_EQ(l4_sigma0_ram(client, l4_memory_fpage(mine, 12, 7), l4_memory_fpage(L4_HEAP_START, 12, 7)), -L4_ENOMEM);
	CHECK_EQ(l4_sigma0_ram(sigma0(), l4_memory_fpage(its, 12, 7), l4_memory_fpage(L4_HEAP_START, 12, 7)), -L4_ENOMEM);
	CHECK_EQ(l4_sigma0_ram(client, l4_memory_fpage(its, 12, 7), l4_memory_fpage(L4_HEAP_START, 12, 7)), 0);
}

TEST(SIG0012, "making clients needs the S right, and nothing else can be made", "sigma0.new_client:EPERM,ENODEV")
{
	l4_cap_t weak = conf_copy(sigma0(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W);

	CHECK_EQ(l4_sigma0_new_client(weak, conf_slot()), -L4_EPERM);
	CHECK_EQ(l4_factory_create_irq(sigma0(), conf_slot()), -L4_ENODEV);
}

static volatile l4_word_t touched;

static void touch(void *argument)
{
	touched = *(volatile l4_word_t *)argument;
	touched = 1;
	l4_sleep_forever();
}

TEST(SIG0013, "a page fault on free RAM is answered 1:1, one on others' memory refused", "sigma0.page_fault:OK,ENOMEM")
{
	l4_cap_t client = conf_slot(), task = conf_task();
	l4_word_t its = 0, mine = 0;

	CHECK_EQ(l4_sigma0_new_client(sigma0(), client), 0);
	CHECK_EQ(l4_sigma0_any(client, L4_PAGE_SHIFT, &its), 0);
	CHECK_EQ(l4_sigma0_any(sigma0(), L4_PAGE_SHIFT, &mine), 0);
	l4_cap_t gate = conf_gate(conf_worker(), 0x130);
	touched = 0;
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = touch, .argument = (void *)its, .task = task, .pager = client,
							.handler = gate, .priority = CONF_HIGHER });
	conf_settle();
	CHECK_EQ(touched, 1);
	touched = 0;
	conf_restart(thread, touch, (void *)mine);
	conf_settle();
	CHECK_EQ(touched, 0);
	CHECK_EQ(l4_result(l4_wait(l4_no_wait()).tag), L4_PROTO_EXCEPTION);
	CHECK_EQ(l4_utcb()->mr[L4_EXC_PFA], mine);
}
