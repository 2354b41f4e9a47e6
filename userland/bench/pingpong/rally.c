/* Each side does what any program does with a message: it looks into its message registers and at a variable of its
 * own. So a switch to it costs the refills of four or five pages: code, stack, message registers, variable, and the
 * system call page where that is not global. Nothing else happens between two messages. */
#include "rally.h"

#include <l4/ipc.h>
#include <l4/program.h>
#include <l4/string.h>
#include <l4/task.h>
#include <l4/tsc.h>

enum { CLIENT, SERVER, WINDOW = 0x50000000, PIECE_BYTES = L4_UTCB_MR_WORDS * sizeof(l4_word_t) };

static char outbox[2][RALLY_MAX_BYTES] __attribute__((aligned(L4_PAGE_BYTES)));
static char inbox[2][RALLY_MAX_BYTES] __attribute__((aligned(L4_PAGE_BYTES)));

static char letter(unsigned index)
{
	return (char)(index * 7 + 1);
}

/** Looks at the message that came. */
static inline void receive(rally_t *rally, unsigned side, l4_tag_t tag)
{
	if (l4_tag_failed(tag) || l4_utcb()->error != 0)
		rally->damaged = true;
	rally->received[side]++;
}

/* --- words ---------------------------------------------------------------------------------------------- */

static void fill_words(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		l4_utcb()->mr[i] = 0x1000 + i;
}

static void check_words(rally_t *rally)
{
	for (unsigned i = 0; i < rally->size; i++)
		if (l4_utcb()->mr[i] != 0x1000 + i)
			rally->damaged = true;
}

static __attribute__((noinline)) void volley_words(rally_t *rally, unsigned rounds)
{
	l4_tag_t tag = l4_tag(0, rally->size, 0);

	for (; rounds > 0; rounds--)
		receive(rally, CLIENT, l4_call(l4_cap(RALLY_SERVER_SLOT), tag, l4_forever()).tag);
}

static __attribute__((noinline)) void return_words(rally_t *rally)
{
	for (l4_message_t message = l4_wait(l4_forever());; message = l4_reply_and_wait(message.tag, l4_forever()))
		receive(rally, SERVER, message.tag);
}

static __attribute__((noinline)) void volley_sends(rally_t *rally, unsigned rounds)
{
	l4_tag_t tag = l4_tag(0, rally->size, 0);

	for (; rounds > 0; rounds--) {
		l4_send(l4_cap(RALLY_SERVER_SLOT), tag, 0, l4_forever());
		receive(rally, CLIENT, l4_wait(l4_forever()).tag);
	}
}

static __attribute__((noinline)) void return_sends(rally_t *rally)
{
	for (;;) {
		l4_tag_t tag = l4_wait(l4_forever()).tag;
		receive(rally, SERVER, tag);
		l4_send(l4_cap(RALLY_CLIENT_SLOT), tag, 0, l4_forever());
	}
}

/* --- pieces --------------------------------------------------------------------------------------------- */

static size_t piece_bytes(const rally_t *rally, size_t offset)
{
	return rally->size - offset < PIECE_BYTES ? rally->size - offset : PIECE_BYTES;
}

static l4_tag_t piece_tag(size_t bytes)
{
	return l4_tag(0, (unsigned)((bytes + sizeof(l4_word_t) - 1) / sizeof(l4_word_t)), 0);
}

/** Takes the pieces that follow the first, which stands in the message registers. */
static void receive_pieces(rally_t *rally, unsigned side, l4_cap_t partner, l4_tag_t tag)
{
	for (size_t offset = 0;;) {
		size_t bytes = piece_bytes(rally, offset);
		memcpy(inbox[side] + offset, l4_utcb()->mr, bytes);
		receive(rally, side, tag);
		offset += bytes;
		if (offset == rally->size)
			break;
		tag = l4_receive(partner, l4_forever()).tag;
	}
}

/** Sends the buffer, and with the last piece waits for the first of the answer. */
static l4_tag_t send_pieces(const rally_t *rally, unsigned side, l4_cap_t partner)
{
	for (size_t offset = 0;;) {
		size_t bytes = piece_bytes(rally, offset);
		memcpy(l4_utcb()->mr, outbox[side] + offset, bytes);
		offset += bytes;
		if (offset == rally->size)
			return l4_call(partner, piece_tag(bytes), l4_forever()).tag;
		l4_send(partner, piece_tag(bytes), 0, l4_forever());
	}
}

static void volley_pieces(rally_t *rally, unsigned rounds)
{
	l4_cap_t partner = l4_cap(RALLY_SERVER_SLOT);

	for (; rounds > 0; rounds--)
		receive_pieces(rally, CLIENT, partner, send_pieces(rally, CLIENT, partner));
}

static void return_pieces(rally_t *rally)
{
	l4_cap_t partner = l4_cap(RALLY_CLIENT_SLOT);

	for (l4_tag_t tag = l4_receive(partner, l4_forever()).tag;; tag = send_pieces(rally, SERVER, partner))
		receive_pieces(rally, SERVER, partner, tag);
}

/* --- mapping -------------------------------------------------------------------------------------------- */

/** Puts the page of the buffer into the message. */
static l4_tag_t offer_page(unsigned side)
{
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)outbox[side], L4_PAGE_SHIFT, L4_RIGHT_R), 0));
	return l4_tag(0, 0, 1);
}

static void take_page(rally_t *rally, unsigned side, l4_tag_t tag)
{
	l4_fpage_t window = l4_memory_fpage(WINDOW, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS);

	receive(rally, side, tag);
	memcpy(inbox[side], (const char *)WINDOW, rally->size);
	if (l4_task_unmap(l4_own_task(), window, L4_UNMAP_SELF) != 0)
		rally->damaged = true;
}

static void accept_page(void)
{
	l4_accept(l4_memory_fpage(WINDOW, L4_PAGE_SHIFT, 0));
}

static void volley_mapping(rally_t *rally, unsigned rounds)
{
	for (; rounds > 0; rounds--)
		take_page(rally, CLIENT, l4_call(l4_cap(RALLY_SERVER_SLOT), offer_page(CLIENT), l4_forever()).tag);
}

static void return_mapping(rally_t *rally)
{
	accept_page();
	for (l4_message_t message = l4_wait(l4_forever());;
	     message = l4_reply_and_wait(offer_page(SERVER), l4_forever()))
		take_page(rally, SERVER, message.tag);
}

/* --- both sides ----------------------------------------------------------------------------------------- */

static void check_boxes(rally_t *rally)
{
	for (unsigned i = 0; i < rally->size; i++)
		if (inbox[CLIENT][i] != letter(i) || inbox[SERVER][i] != letter(i))
			rally->damaged = true;
}

static void fill_boxes(unsigned bytes)
{
	for (unsigned side = CLIENT; side <= SERVER; side++) {
		for (unsigned i = 0; i < bytes; i++)
			outbox[side][i] = letter(i);
		memset(inbox[side], 0, bytes);
	}
}

void rally_client(void *argument)
{
	static void (*const volleys[RALLY_KINDS])(rally_t *, unsigned) = { volley_words, volley_sends, volley_pieces,
									      volley_mapping };
	rally_t *rally = argument;
	void (*volley)(rally_t *, unsigned) = volleys[rally->kind];

	accept_page();
	if (rally->kind <= RALLY_SENDS)
		fill_words(rally->size);
	else
		fill_boxes(rally->size);
	volley(rally, rally->warmup);
	rally->stamps[0] = l4_tsc();
	for (unsigned sample = 1; sample <= rally->samples; sample++) {
		volley(rally, rally->rounds);
		rally->stamps[sample] = l4_tsc();
	}
	if (rally->kind <= RALLY_SENDS)
		check_words(rally);
	else
		check_boxes(rally);
	l4_call(l4_parent(), l4_tag(RALLY_DONE, 0, 0), l4_forever());
	l4_sleep_forever();
}

void rally_server(void *argument)
{
	static void (*const returns[RALLY_KINDS])(rally_t *) = { return_words, return_sends, return_pieces, return_mapping };
	rally_t *rally = argument;

	returns[rally->kind](rally);
}
