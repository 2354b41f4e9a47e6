/* Memory in dataspaces: the protocol between a region map and the server that keeps them (userland/dataspaces). The
 * structure is that of L4Re's native run-time; the numbers are our own.
 *
 * The server has a gate for each client and one for each dataspace. A request has the tag label L4_PROTO_DATASPACE and
 * the operation in MR[0]; the answer's label is 0 or -errno. With whoever starts it the server talks as pagers do
 * (l4/pager.h). */
#ifndef L4_DATASPACE_H
#define L4_DATASPACE_H

#include <l4/ipc.h>

enum { L4_PROTO_DATASPACE = 0x4101 };

enum {
	/** At the client's gate. MR[1]: pages. The answer has an item, the gate of the new dataspace. */
	L4_DATASPACE_CREATE,
	/** At a dataspace. MR[1]: number of the page. The answer has an item with that page, which is there from now on. */
	L4_DATASPACE_MAP,
	/** At a dataspace: it ends, and its pages are free. MR[1] is not used. */
	L4_DATASPACE_RELEASE,
};

static inline int l4_dataspace_request(l4_cap_t server, l4_word_t operation, l4_word_t argument)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = operation;
	utcb->mr[1] = argument;
	return l4_request(server, l4_tag(L4_PROTO_DATASPACE, 2, 0));
}

/** A new dataspace in the empty slot `slot`. */
static inline int l4_dataspace_create(l4_cap_t server, l4_cap_t slot, l4_word_t pages)
{
	l4_accept_object(slot);
	return l4_dataspace_request(server, L4_DATASPACE_CREATE, pages);
}

/** Lets page number `number` of it appear at `address`. */
static inline int l4_dataspace_map(l4_cap_t dataspace, l4_word_t number, l4_word_t address)
{
	l4_accept(l4_memory_fpage(address, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W));
	return l4_dataspace_request(dataspace, L4_DATASPACE_MAP, number);
}

static inline int l4_dataspace_release(l4_cap_t dataspace)
{
	return l4_dataspace_request(dataspace, L4_DATASPACE_RELEASE, 0);
}

#endif
