/* Memory comes in pieces; where they touch they are joined. The records of the allocator lie at the end of the longest
 * piece, so that the first pages to be given out have the first records, whatever the size of the region. */
#include "region.h"

#include <l4/pager.h>
#include <l4/string.h>

enum { MAX_PIECES = 64 };

typedef struct {
	pma_page_t first, end;
} piece_t;

typedef struct {
	piece_t pieces[MAX_PIECES]; /* by address, none touching another */
	unsigned count;
} pieces_t;

static void remove_piece(pieces_t *all, unsigned index)
{
	memmove(&all->pieces[index], &all->pieces[index + 1], (all->count - index - 1) * sizeof(piece_t));
	all->count--;
}

/** Returns 0 or an error. */
static int add_piece(pieces_t *all, piece_t piece)
{
	unsigned index = 0;

	while (index < all->count && all->pieces[index].first < piece.first)
		index++;
	if (index > 0 && all->pieces[index - 1].end == piece.first) {
		piece.first = all->pieces[--index].first;
		remove_piece(all, index);
	}
	if (index < all->count && all->pieces[index].first == piece.end) {
		piece.end = all->pieces[index].end;
		remove_piece(all, index);
	}
	if (all->count == MAX_PIECES)
		return -L4_ENOMEM;
	memmove(&all->pieces[index + 1], &all->pieces[index], (all->count - index) * sizeof(piece_t));
	all->pieces[index] = piece;
	all->count++;
	return 0;
}

/** The item of the message just received, which is where the window of all memory puts it: at its own address. */
static int take_memory(pieces_t *all, l4_tag_t tag)
{
	l4_fpage_t fpage = { l4_utcb()->mr[l4_tag_words(tag)] }; /* type and size are where a flexpage has them */
	l4_word_t address = l4_fpage_address(fpage), bytes = 1u << l4_fpage_order(fpage);

	if (l4_tag_items(tag) != 1 || l4_item_kind(l4_tag_words(tag)) != L4_ITEM_KIND_MAPPED ||
	    l4_fpage_type(fpage) != L4_FPAGE_TYPE_MEMORY || address < L4_PAGER_MEMORY_START ||
	    address + bytes > L4_PAGER_MEMORY_END)
		return -L4_EINVAL;
	return add_piece(all, (piece_t){ address >> L4_PAGE_SHIFT, (address + bytes) >> L4_PAGE_SHIFT });
}

static int start(const pieces_t *all, pma_t *pma, const pma_kind_t *kind)
{
	unsigned longest = 0;

	if (all->count == 0)
		return -L4_ENOMEM;
	for (unsigned i = 1; i < all->count; i++)
		if (all->pieces[i].end - all->pieces[i].first > all->pieces[longest].end - all->pieces[longest].first)
			longest = i;
	pma_page_t first = all->pieces[0].first, end = all->pieces[all->count - 1].end;
	size_t record_bytes = kind->record_bytes(first, end);
	pma_page_t record_pages = (pma_page_t)((record_bytes + L4_PAGE_BYTES - 1) >> L4_PAGE_SHIFT);
	if (all->pieces[longest].end - all->pieces[longest].first <= record_pages)
		return -L4_ENOMEM;
	pma_page_t records = all->pieces[longest].end - record_pages;
	pma_init(pma, kind, first, end, (void *)(uintptr_t)(records << L4_PAGE_SHIFT));
	for (unsigned i = 0; i < all->count; i++)
		pma_add(pma, all->pieces[i].first, (i == longest ? records : all->pieces[i].end) - all->pieces[i].first);
	return 0;
}

l4_tag_t region_receive(pma_t *pma, const pma_kind_t *kind)
{
	static pieces_t all;

	l4_accept(l4_all_fpage());
	for (l4_message_t message = l4_wait(l4_forever());;) {
		int result = -L4_EBADPROTO;
		if (message.label >> L4_PAGER_CLIENT_SHIFT == L4_PAGER_MASTER &&
		    l4_tag_label(message.tag) == L4_PROTO_PAGER) {
			l4_word_t operation = l4_utcb()->mr[0];
			result = operation == L4_PAGER_MEMORY ? take_memory(&all, message.tag) :
				 operation == L4_PAGER_START  ? start(&all, pma, kind) :
								-L4_ENOSYS;
			if (operation == L4_PAGER_START && result == 0)
				break;
		}
		message = l4_serve(l4_tag(result, 0, 0));
	}
	l4_accept_nothing();
	return l4_tag(0, 0, 0);
}
