/* A client that mistreats the dataspace server. Exit code 0 if it answers each as it should and goes on serving. */
#include <l4/dataspace.h>
#include <l4/pager.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/task.h>

enum { PAGES = 4, TOUCHED_PAGES = 2 };

static const l4_cap_t server = { L4_PAGER_SLOT << L4_CAP_SHIFT };

static void expect(int found, int expected, const char *what)
{
	if (found != expected)
		l4_panic("%s: found %d, expected %d", what, found, expected);
}

static int say(l4_cap_t partner, int label, unsigned words, l4_word_t first, l4_word_t second)
{
	l4_utcb_t *utcb = l4_utcb();

	l4_accept_nothing();
	utcb->mr[0] = first;
	utcb->mr[1] = second;
	return l4_request(partner, l4_tag(label, words, 0));
}

static void talk_nonsense(l4_cap_t dataspace)
{
	expect(say(server, L4_PROTO_DATASPACE, 2, 77, 0), -L4_ENOSYS, "an operation that there is not");
	expect(say(server, L4_PROTO_DATASPACE, 2, L4_DATASPACE_RELEASE, 0), -L4_ENOSYS, "releasing the server");
	expect(say(server, L4_PROTO_DATASPACE, 2, L4_DATASPACE_MAP, 0), -L4_ENOSYS, "a page of the server");
	expect(say(server, L4_PROTO_DATASPACE, 1, L4_DATASPACE_CREATE, 0), -L4_EMSGTOOSHORT, "a request cut short");
	expect(say(dataspace, L4_PROTO_DATASPACE, 2, L4_DATASPACE_CREATE, 1), -L4_ENOSYS, "creating at a dataspace");
	expect(say(server, 0x7abc, 2, 0, 0), -L4_EBADPROTO, "a protocol that there is not");
	for (l4_word_t operation = L4_PAGER_MEMORY; operation <= L4_PAGER_STATISTICS; operation++) {
		expect(say(server, L4_PROTO_PAGER, 2, operation, 1), -L4_EPERM, "what only the master may");
		expect(say(dataspace, L4_PROTO_PAGER, 2, operation, 1), -L4_EPERM, "the same at a dataspace");
	}
}

static void ask_too_much(l4_cap_t slot, l4_cap_t dataspace)
{
	expect(l4_dataspace_create(server, slot, 0), -L4_EINVAL, "a dataspace without pages");
	expect(l4_dataspace_create(server, slot, ~0u), -L4_EINVAL, "a dataspace larger than any address space");
	expect(l4_dataspace_map(dataspace, PAGES, L4_PAGER_HEAP_START), -L4_ERANGE, "a page behind the end");
	expect(l4_dataspace_map(dataspace, ~0u, L4_PAGER_HEAP_START), -L4_ERANGE, "a page far behind the end");
}

int main(void)
{
	l4_cap_t first = l4_new_cap(), second = l4_new_cap();

	expect(l4_dataspace_create(server, first, PAGES), 0, "a dataspace");
	talk_nonsense(first);
	ask_too_much(second, first);
	for (unsigned i = 0; i < TOUCHED_PAGES; i++) {
		volatile char *byte = (volatile char *)(L4_PAGER_HEAP_START + i * L4_PAGE_BYTES);
		expect(l4_dataspace_map(first, i, (l4_word_t)byte), 0, "mapping a page");
		*byte = 1;
	}
	expect(l4_dataspace_release(first), 0, "releasing it");
	expect(l4_dataspace_release(first), -(L4_IPC_ERROR_BASE + L4_IPC_NOT_EXISTENT), "releasing it twice");
	expect(l4_task_cap_valid(l4_own_task(), first), 0, "the capability of a released dataspace");
	expect(l4_dataspace_create(server, second, PAGES), 0, "another one");
	expect(l4_dataspace_map(second, 1, L4_PAGER_HEAP_START), 0, "mapping a page of it");
	return 0; /* and leaves it to whoever cleans up */
}
