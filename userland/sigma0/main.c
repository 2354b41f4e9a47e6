/* Sigma0: owns all memory at the start and maps each page to the first who asks (ABI 12).
 *
 * Whom it serves is told by the label of the gate: client << 4 | rights of the capability. The root task is client 4;
 * a client may get further gates from sigma0 and hand them on. */
#include "memory.h"

#include <l4/factory.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>

enum { PRIORITY = L4_PRIORITY_MAX, CLIENT_SHIFT = 4 };

static l4_tag_t refuse(int error)
{
	return l4_tag(-error, 0, 0);
}

/** Memory appears where it is physically, if the client's window allows it. */
static l4_tag_t give(l4_word_t address, unsigned order, l4_word_t rights, l4_word_t caching)
{
	l4_item_t item = l4_map_item(l4_memory_fpage(address, order, rights), address);

	item.control |= caching;
	l4_put_item(0, item);
	return l4_tag(0, 0, 1);
}

static l4_tag_t page_fault(l4_word_t client)
{
	l4_word_t fault = l4_utcb()->mr[0], rights;
	l4_word_t page = fault & ~(l4_word_t)(L4_PAGE_BYTES - 1);
	l4_word_t wanted = fault & L4_FAULT_WRITE ? L4_RIGHT_R | L4_RIGHT_W : L4_RIGHT_R;

	if (!memory_claim(client, page, L4_PAGE_SHIFT, wanted, &rights))
		return refuse(L4_ENOMEM);
	return give(page, L4_PAGE_SHIFT, rights, L4_ITEM_CACHE_CACHED);
}

/** Ports are not counted: who shall not use them is not given a gate to sigma0. */
static l4_tag_t io_fault(void)
{
	l4_fpage_t ports = { l4_utcb()->mr[0] };

	if (l4_fpage_type(ports) != L4_FPAGE_TYPE_IO)
		return refuse(L4_EINVAL);
	l4_put_item(0, l4_map_item(l4_io_fpage(l4_fpage_address(ports) >> L4_FPAGE_ADDRESS_SHIFT, l4_fpage_order(ports)),
				   l4_fpage_address(ports)));
	return l4_tag(0, 0, 1);
}

static l4_tag_t request(l4_word_t client)
{
	l4_word_t what = l4_utcb()->mr[0], rights;
	l4_fpage_t fpage = { l4_utcb()->mr[1] };
	l4_word_t address = l4_fpage_address(fpage);
	unsigned order = l4_fpage_order(fpage);

	if ((what & L4_SIGMA0_REQUEST) != L4_SIGMA0_REQUEST)
		return refuse(L4_ENOSYS);
	what &= ~L4_SIGMA0_REQUEST;
	if (what == L4_SIGMA0_KIP)
		return give((l4_word_t)l4_kip(), L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_X, L4_ITEM_CACHE_CACHED);
	if (what == L4_SIGMA0_DUMP) {
		memory_dump();
		return l4_tag(0, 0, 0);
	}
	if (order < L4_PAGE_SHIFT || order > 31 || (what != L4_SIGMA0_ANY && (address & ((1u << order) - 1)) != 0))
		return refuse(L4_EINVAL);
	switch (what) {
	case L4_SIGMA0_RAM:
		if (!memory_claim(client, address, order, L4_RIGHT_R, &rights))
			return refuse(L4_ENOMEM);
		return give(address, order, rights, L4_ITEM_CACHE_CACHED);
	case L4_SIGMA0_ANY:
		if (!memory_claim_any(client, order, &address))
			return refuse(L4_ENOMEM);
		return give(address, order, L4_MEMORY_RIGHTS, L4_ITEM_CACHE_CACHED);
	case L4_SIGMA0_IO_UNCACHED:
	case L4_SIGMA0_IO_CACHED:
		if (!memory_is_device(address, order))
			return refuse(L4_ENOMEM);
		return give(address, order, L4_RIGHT_R | L4_RIGHT_W,
			    what == L4_SIGMA0_IO_CACHED ? L4_ITEM_CACHE_CACHED : L4_ITEM_CACHE_UNCACHED);
	}
	return refuse(L4_ENOSYS);
}

/** The number of a client is that of the slot which keeps its gate, so none is given twice. */
static l4_tag_t new_client(l4_word_t rights)
{
	if ((rights & L4_OBJECT_RIGHT_S) == 0)
		return refuse(L4_EPERM);
	if ((int)l4_utcb()->mr[0] != L4_PROTO_SIGMA0)
		return refuse(L4_ENODEV);
	l4_cap_t gate = l4_new_cap();
	int error = l4_factory_create_gate(l4_own_factory(), gate, l4_main_thread(), l4_cap_index(gate) << CLIENT_SHIFT);
	l4_accept_nothing();
	if (error != 0)
		return refuse(L4_ENOMEM);
	l4_put_item(0, l4_object_item(gate, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S));
	return l4_tag(0, 0, 1);
}

static l4_tag_t answer(l4_message_t message)
{
	l4_word_t client = message.label >> CLIENT_SHIFT;

	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_PAGE_FAULT:
		return page_fault(client);
	case L4_PROTO_SIGMA0:
		return request(client);
	case L4_PROTO_FACTORY:
		return new_client(message.label & L4_LABEL_RIGHTS_MASK);
	case L4_PROTO_IO_PAGE_FAULT:
		return io_fault();
	}
	return refuse(L4_EBADPROTO);
}

int main(int argc, char **argv)
{
	memory_init(l4_kip());
	if (argc > 1 && strcmp(argv[1], "-v") == 0)
		memory_dump();
	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), PRIORITY);
	l4_accept_nothing();
	for (l4_message_t message = l4_wait(l4_forever());;)
		message = l4_serve(answer(message));
}
