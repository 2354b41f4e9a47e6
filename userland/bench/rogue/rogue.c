/* A client that mistreats its pager: frees twice, frees what it never had, talks nonsense, leaves without freeing.
 * Exit code 0 if the pager answers each as it should and goes on serving.
 *
 *     rogue [clear]
 *
 * clear: fresh pages must be zero, though others have used their frames. */
#include <l4/pager.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>

enum { LEFT_PAGES = 3 };

static const l4_cap_t pager = { L4_PAGER_SLOT << L4_CAP_SHIFT };

static void expect(int found, int expected, const char *what)
{
	if (found != expected)
		l4_panic("%s: found %d, expected %d", what, found, expected);
}

static void touch(l4_word_t address)
{
	volatile char *byte = (volatile char *)address;

	*byte = (char)(address >> L4_PAGE_SHIFT);
	expect(*byte, (char)(address >> L4_PAGE_SHIFT), "a fresh page does not keep what is written to it");
}

/** A message of `words` words, as a client may make it up. */
static int say(int label, unsigned words, l4_word_t first, l4_word_t second)
{
	l4_utcb_t *utcb = l4_utcb();

	l4_accept_nothing();
	utcb->mr[0] = first;
	utcb->mr[1] = second;
	return l4_request(pager, l4_tag(label, words, 0));
}

static void free_wrongly(void)
{
	l4_word_t page = L4_PAGER_HEAP_START + 0x5000;

	expect(l4_pager_free(pager, page), -L4_ENOENT, "freeing a page never touched, with nothing near it");
	touch(page);
	expect(l4_pager_free(pager, page + L4_PAGE_BYTES), -L4_ENOENT, "freeing a page never touched");
	expect(l4_pager_free(pager, page + 8), -L4_EINVAL, "freeing what is no page address");
	expect(l4_pager_free(pager, page), 0, "freeing a page");
	expect(l4_pager_free(pager, page), -L4_ENOENT, "freeing a page twice");
	expect(l4_pager_free(pager, L4_PAGER_HEAP_END), -L4_EINVAL, "freeing behind the heap");
	expect(l4_pager_free(pager, (l4_word_t)free_wrongly & ~0xfffu), -L4_EINVAL, "freeing the own program");
	touch(page); /* a freed page is there again when it is touched again */
	expect(l4_pager_free(pager, page), 0, "freeing it once more");
}

static void talk_nonsense(void)
{
	expect(say(L4_PROTO_PAGER, 2, 0x12345, 0), -L4_EPERM, "an operation that there is not");
	expect(say(L4_PROTO_PAGER, 1, L4_PAGER_FREE, 0), -L4_EMSGTOOSHORT, "a request without its argument");
	expect(say(L4_PROTO_PAGER, 0, 0, 0), -L4_EMSGTOOSHORT, "an empty request");
	expect(say(0x7abc, 2, 0, 0), -L4_EBADPROTO, "a protocol that there is not");
	expect(say(L4_PROTO_FACTORY, 2, 0, 0), -L4_EBADPROTO, "a kernel object's protocol");
	for (l4_word_t operation = L4_PAGER_MEMORY; operation <= L4_PAGER_STATISTICS; operation++)
		expect(say(L4_PROTO_PAGER, 2, operation, 1), -L4_EPERM, "what only the master may");
	expect(say(L4_PROTO_PAGE_FAULT, 2, 0x1000, 0), -L4_EFAULT, "a made-up fault outside of the heap");
	expect(say(L4_PROTO_PAGE_FAULT, 0, 0, 0), -L4_EMSGTOOSHORT, "a made-up fault without an address");
}

/** Memory that is sent to the pager does not arrive: it lets nothing in. */
static void send_memory(void)
{
	l4_utcb_t *utcb = l4_utcb();

	touch(L4_PAGER_HEAP_START);
	utcb->mr[0] = L4_PAGER_MEMORY;
	utcb->mr[1] = 0;
	l4_put_item(2, l4_map_item(l4_memory_fpage(L4_PAGER_HEAP_START, L4_PAGE_SHIFT, L4_MEMORY_RIGHTS), 0xb4000000));
	expect(l4_request(pager, l4_tag(L4_PROTO_PAGER, 2, 1)), -(L4_IPC_ERROR_BASE + L4_IPC_SEND_OVERFLOW),
	       "sending memory to the pager");
	expect(l4_pager_free(pager, L4_PAGER_HEAP_START), 0, "freeing the page sent");
}

/** A page that was asked for with a made-up fault, but not let in, is still the client's. */
static void refuse_page(void)
{
	l4_word_t page = L4_PAGER_HEAP_END - L4_PAGE_BYTES;

	expect(say(L4_PROTO_PAGE_FAULT, 2, page, 0), -(L4_IPC_ERROR_BASE + (L4_IPC_SEND_OVERFLOW | 1)),
	       "the answer to a made-up fault");
	expect(l4_pager_free(pager, page), 0, "freeing what the made-up fault got");
	expect(l4_pager_free(pager, page), -L4_ENOENT, "freeing it twice");
}

static void find_zeros(void)
{
	for (unsigned i = 0; i < 10; i++) {
		volatile l4_word_t *words = (volatile l4_word_t *)(L4_PAGER_HEAP_START + i * L4_PAGE_BYTES);
		for (unsigned j = 0; j < L4_PAGE_BYTES / sizeof *words; j++) {
			expect((int)words[j], 0, "a fresh page");
			words[j] = ~0u;
		}
		expect(l4_pager_free(pager, (l4_word_t)words), 0, "freeing it");
	}
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "clear") == 0)
		find_zeros();
	free_wrongly();
	talk_nonsense();
	send_memory();
	refuse_page();
	for (unsigned i = 0; i < LEFT_PAGES; i++)
		touch(L4_PAGER_HEAP_START + i * 0x401000);
	return 0;
}
