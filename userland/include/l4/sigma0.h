/* Sigma0, the pager that owns all memory at the start (ABI 12): what a client asks it for. The memory
 * appears in `window`, which must be empty. With l4_all_fpage() it appears at its physical address. */
#ifndef L4_SIGMA0_H
#define L4_SIGMA0_H

#include <l4/ipc.h>

static inline int l4_sigma0_request(l4_cap_t sigma0, l4_word_t what, l4_fpage_t fpage, l4_fpage_t window)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_SIGMA0_REQUEST | what;
	utcb->mr[1] = fpage.raw;
	l4_accept(window);
	l4_tag_t tag = l4_call(sigma0, l4_tag(L4_PROTO_SIGMA0, 2, 0), l4_forever()).tag;
	int result = l4_result(tag);
	if (result < 0)
		return result;
	return l4_tag_items(tag) == 1 && l4_item_kind(l4_tag_words(tag)) == L4_ITEM_KIND_MAPPED ? 0 : -L4_ENOMEM;
}

/** The physical address of what the request just before brought. */
static inline l4_word_t l4_sigma0_address(void)
{
	return l4_utcb()->mr[0] & L4_ITEM_SEND_BASE_MASK;
}

/** RAM at the address of `fpage`. */
static inline int l4_sigma0_ram(l4_cap_t sigma0, l4_fpage_t fpage, l4_fpage_t window)
{
	return l4_sigma0_request(sigma0, L4_SIGMA0_RAM, fpage, window);
}

/** Any free RAM of 2^order bytes, at its physical address, which `address` gets. */
static inline int l4_sigma0_any(l4_cap_t sigma0, unsigned order, l4_word_t *address)
{
	l4_fpage_t wanted = l4_memory_fpage(0, order, L4_MEMORY_RIGHTS);
	int result = l4_sigma0_request(sigma0, L4_SIGMA0_ANY, wanted, l4_all_fpage());

	*address = l4_sigma0_address();
	return result;
}

/** Device memory, `what` being L4_SIGMA0_IO_UNCACHED or L4_SIGMA0_IO_CACHED. */
static inline int l4_sigma0_io(l4_cap_t sigma0, l4_word_t what, l4_fpage_t fpage, l4_fpage_t window)
{
	return l4_sigma0_request(sigma0, what, fpage, window);
}

/** The kernel info page, at its physical address, which `address` gets. */
static inline int l4_sigma0_kip(l4_cap_t sigma0, l4_word_t *address)
{
	int result = l4_sigma0_request(sigma0, L4_SIGMA0_KIP, (l4_fpage_t){ 0 }, l4_all_fpage());

	*address = l4_sigma0_address();
	return result;
}

/** A gate to sigma0 for another client, into `slot`. */
static inline int l4_sigma0_new_client(l4_cap_t sigma0, l4_cap_t slot)
{
	l4_utcb()->mr[0] = (l4_word_t)L4_PROTO_SIGMA0;
	l4_accept_object(slot);
	return l4_request(sigma0, l4_tag(L4_PROTO_FACTORY, 1, 0));
}

#endif
