/* A pager with a physical memory allocator (PMA): gives its clients a page frame for each page of their heap that they
 * touch, and takes it back when they free it.
 *
 *     pager [--pma=avl|buddy|slab] [--clear]
 *
 * --clear: zero each frame before a client gets it. Without it a client sees what the one before left there.
 *
 * Fault: allocate, map. Free: unmap, deallocate. Whoever starts it tells it which memory it has (l4/pager.h); one such
 * pager for each core, or one for all: 000_1be4d2f6ae8bebbc.txt, section 3.2. */
#include "client.h"
#include "service.h"

#include <l4/print.h>
#include <l4/program.h>
#include <l4/task.h>

service_t service = { .name = "pager" };

static client_t clients[L4_PAGER_MAX_CLIENTS + 1]; /* by number; that of the master stays unused */
static unsigned lines[L4_PAGER_MAX_CLIENTS + 1];   /* printed about each */

/** The client cannot be told why its access fails, so whoever watches is. */
static l4_tag_t out_of_memory(client_t *client, l4_word_t address)
{
	unsigned number = (unsigned)(client - clients);

	if (service_may_tell(number, &lines[number]))
		printf("pager: out of memory: all %u pages are in use; client %u, which has %u, wants one more at %p\n",
		       service.pma.pages, number, client->pages, (void *)address);
	return service_refuse(L4_ENOMEM);
}

static bool in_heap(l4_word_t address)
{
	return address >= L4_PAGER_HEAP_START && address < L4_PAGER_HEAP_END;
}

/** Unmaps the frame behind a page, from the client and from whomever it passed it on to, and frees it. */
static void take_back(client_t *client, pma_page_t *entry)
{
	l4_fpage_t fpage = l4_memory_fpage(service_address(*entry), L4_PAGE_SHIFT, L4_MEMORY_RIGHTS);

	l4_task_unmap(l4_own_task(), fpage, 0);
	pma_free(&service.pma, *entry);
	*entry = PMA_NONE;
	client->pages--;
}

static l4_tag_t page_fault(client_t *client)
{
	l4_word_t page = l4_utcb()->mr[0] & ~(l4_word_t)(L4_PAGE_BYTES - 1);

	if (!in_heap(page))
		return service_refuse(L4_EFAULT);
	pma_page_t *entry = client_entry(client, &service.pma, page);
	if (entry == NULL)
		return out_of_memory(client, page);
	if (*entry == PMA_NONE) {
		*entry = service_allocate();
		if (*entry == PMA_NONE)
			return out_of_memory(client, page);
		client->pages++;
	} else if (*entry == CLIENT_REFUSED) {
		*entry = PMA_NONE;
		return service_refuse(L4_ENOMEM);
	} /* else it has the page, and has lost the mapping */
	l4_fpage_t fpage = l4_memory_fpage(service_address(*entry), L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);
	l4_put_item(0, l4_map_item(fpage, page));
	return l4_tag(0, 0, 1);
}

static l4_tag_t free_page(client_t *client, l4_word_t address)
{
	if (!in_heap(address) || address % L4_PAGE_BYTES != 0)
		return service_refuse(L4_EINVAL);
	pma_page_t *entry = client_find(client, address);
	if (entry == NULL || !client_has(*entry))
		return service_refuse(L4_ENOENT);
	take_back(client, entry);
	return l4_tag(0, 0, 0);
}

/** A client is gone: whatever it had comes back. */
static l4_tag_t end_client(l4_word_t number)
{
	if (number == L4_PAGER_MASTER || number > L4_PAGER_MAX_CLIENTS)
		return service_refuse(L4_EINVAL);
	client_t *client = &clients[number];
	unsigned pages = client->pages;
	for (unsigned i = 0; i < CLIENT_TABLES && client->pages > 0; i++)
		for (unsigned j = 0; client->tables[i] != NULL && j < CLIENT_TABLE_PAGES; j++)
			if (client_has(client->tables[i][j]))
				take_back(client, &client->tables[i][j]);
	client_end(client, &service.pma);
	l4_utcb()->mr[0] = pages;
	return l4_tag(0, 1, 0);
}

static l4_tag_t statistics(void)
{
	unsigned tables = 0;

	for (unsigned i = 0; i <= L4_PAGER_MAX_CLIENTS; i++)
		tables += clients[i].table_count;
	return service_statistics(tables);
}

static l4_tag_t request(l4_word_t number)
{
	const l4_word_t *mr = l4_utcb()->mr;

	if (mr[0] == L4_PAGER_FREE)
		return free_page(&clients[number], mr[1]);
	if (number != L4_PAGER_MASTER)
		return service_refuse(L4_EPERM);
	switch (mr[0]) {
	case L4_PAGER_CLIENT_END:
		return end_client(mr[1]);
	case L4_PAGER_STATISTICS:
		return statistics();
	}
	return service_refuse(L4_ENOSYS);
}

static l4_tag_t answer(l4_message_t message)
{
	l4_word_t number = message.label >> L4_PAGER_CLIENT_SHIFT;

	service.requests++;
	if (number > L4_PAGER_MAX_CLIENTS)
		return service_refuse(L4_EPERM);
	if (l4_tag_words(message.tag) < 2) /* the operation and its argument; address and instruction of a fault */
		return service_refuse(L4_EMSGTOOSHORT);
	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_PAGE_FAULT:
		return page_fault(&clients[number]);
	case L4_PROTO_PAGER:
		return request(number);
	}
	return service_refuse(L4_EBADPROTO);
}

/** If the kernel has no memory to map the page just sent, the frame comes back, and the next access to the page is
 * refused: the client has not learned anything and only faults again. Rare, so the loop spends no registers on it. */
static __attribute__((noinline)) void undelivered(l4_tag_t reply)
{
	const l4_utcb_t *utcb = l4_utcb();
	l4_word_t page = utcb->mr[0] & L4_ITEM_SEND_BASE_MASK;
	pma_page_t frame = l4_fpage_address((l4_fpage_t){ utcb->mr[1] }) >> L4_PAGE_SHIFT;

	(void)reply; /* had an item: else there were nothing to map */
	if (utcb->error != L4_IPC_SEND_MAP_FAILED)
		return;
	for (client_t *client = clients; client <= &clients[L4_PAGER_MAX_CLIENTS]; client++) {
		pma_page_t *entry = client_find(client, page);
		if (entry == NULL || *entry != frame)
			continue;
		take_back(client, entry);
		*entry = CLIENT_REFUSED;
		unsigned number = (unsigned)(client - clients);
		if (service_may_tell(number, &lines[number]))
			printf("pager: the kernel has no memory to map a page: client %u, which has %u, wants one more at %p\n",
			       number, client->pages, (void *)page);
	}
}

int main(int argc, char **argv)
{
	for (l4_tag_t reply = service_start(argc, argv);;)
		reply = answer(service_next(reply, undelivered));
}
