/* A memory server for all: keeps dataspaces and fills them page by page as their clients' region maps ask.
 *
 *     dataspaces [--pma=avl|buddy|slab] [--clear]
 *
 * --clear: zero each frame before a client gets it. Without it a client sees what the one before left there.
 *
 * The structure is that of moe, the memory server of L4Re: a gate for each dataspace, frames allocated when first asked
 * for, unmapped and freed one by one at its end. Whoever starts it tells it which memory it has (l4/pager.h). */
#include "service.h"

#include <l4/dataspace.h>
#include <l4/factory.h>
#include <l4/pager.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/task.h>
#include <l4/thread.h>

enum {
	MAX_DATASPACES = 8192, /* at a time */
	MAX_PAGES = 1 << 19,   /* of one dataspace: 2 GB */
	LABEL_NOBODY = 0xfffffff0,
};

/** A dataspace; it lies at the start of pages of the allocator's. The label of its gate is its address. */
typedef struct dataspace {
	struct dataspace *next, **link; /* among those of its client; `link` is the pointer that points here */
	l4_cap_t gate;
	l4_word_t pages;
	pma_page_t frames[]; /* PMA_NONE: not asked for yet */
} dataspace_t;

service_t service = { .name = "dataspaces" };

static dataspace_t *dataspaces[L4_PAGER_MAX_CLIENTS + 1]; /* by client */
static l4_cap_t free_slots[MAX_DATASPACES];
static unsigned free_slot_count, dataspace_count, tables;
static dataspace_t *undoable; /* if an answer with an item is that it exists, or a page of it now does */
static unsigned lines[L4_PAGER_MAX_CLIENTS + 1]; /* printed about each client */

static l4_tag_t out_of_memory(l4_word_t client, l4_word_t pages)
{
	if (service_may_tell(client, &lines[client]))
		printf("dataspaces: out of memory: %u of %u pages are in use; client %u wants %u more%s\n",
		       service.pma.used_pages, service.pma.pages, client, pages, pages > 1 ? " in a row" : "");
	return service_refuse(L4_ENOMEM);
}

/* --- dataspaces --------------------------------------------------------------------------------------- */

/** How many pages a dataspace of that size takes for itself. */
static l4_word_t table_pages(l4_word_t pages)
{
	return (sizeof(dataspace_t) + pages * sizeof(pma_page_t) + L4_PAGE_BYTES - 1) / L4_PAGE_BYTES;
}

static dataspace_t *create(l4_word_t client, l4_word_t pages)
{
	pma_page_t first = pma_allocate(&service.pma, table_pages(pages));

	if (first == PMA_NONE)
		return NULL;
	tables += table_pages(pages);
	dataspace_t *dataspace = (dataspace_t *)service_address(first);
	memset(dataspace->frames, 0, pages * sizeof(pma_page_t));
	dataspace->pages = pages;
	dataspace->gate = free_slot_count > 0 ? free_slots[--free_slot_count] : l4_new_cap();
	dataspace->next = dataspaces[client];
	dataspace->link = &dataspaces[client];
	if (dataspace->next != NULL)
		dataspace->next->link = &dataspace->next;
	dataspaces[client] = dataspace;
	dataspace_count++;
	return dataspace;
}

static l4_word_t client_of(const dataspace_t *dataspace)
{
	while (dataspace->link < dataspaces || dataspace->link > &dataspaces[L4_PAGER_MAX_CLIENTS])
		dataspace = (const dataspace_t *)dataspace->link; /* `next` of the one before it, its first member */
	return (l4_word_t)(dataspace->link - dataspaces);
}

/** Unmaps the frame behind a page, from whomever has it, and frees it. */
static void take_back(pma_page_t *frame)
{
	l4_task_unmap(l4_own_task(), l4_memory_fpage(service_address(*frame), L4_PAGE_SHIFT, L4_MEMORY_RIGHTS), 0);
	pma_free(&service.pma, *frame);
	*frame = PMA_NONE;
}

/** Returns how many pages it had. */
static l4_word_t end(dataspace_t *dataspace)
{
	l4_word_t label = (l4_word_t)dataspace, held = 0;

	for (l4_word_t i = 0; i < dataspace->pages; i++) {
		if (dataspace->frames[i] == PMA_NONE)
			continue;
		take_back(&dataspace->frames[i]);
		held++;
	}
	l4_task_delete(l4_own_task(), dataspace->gate);
	/* What was already queued with its label must not be taken for a request to whatever lies there next. */
	l4_thread_modify_senders(l4_main_thread(), ~(l4_word_t)L4_LABEL_RIGHTS_MASK, label, ~0u, LABEL_NOBODY);
	free_slots[free_slot_count++] = dataspace->gate;
	*dataspace->link = dataspace->next;
	if (dataspace->next != NULL)
		dataspace->next->link = dataspace->link;
	tables -= table_pages(dataspace->pages);
	dataspace_count--;
	pma_free(&service.pma, label >> L4_PAGE_SHIFT);
	return held;
}

/* --- requests ----------------------------------------------------------------------------------------- */

static l4_tag_t too_many(l4_word_t client)
{
	if (service_may_tell(client, &lines[client]))
		printf("dataspaces: all %u dataspaces that there can be are there; client %u wants one more\n", MAX_DATASPACES,
		       client);
	return service_refuse(L4_ENOMEM);
}

static l4_tag_t new_dataspace(l4_word_t client, l4_word_t pages)
{
	if (pages == 0 || pages > MAX_PAGES)
		return service_refuse(L4_EINVAL);
	if (dataspace_count == MAX_DATASPACES)
		return too_many(client);
	dataspace_t *dataspace = create(client, pages);
	if (dataspace == NULL)
		return out_of_memory(client, table_pages(pages));
	int error = l4_factory_create_gate(l4_own_factory(), dataspace->gate, l4_main_thread(), (l4_word_t)dataspace);
	l4_accept_nothing();
	if (error != 0) {
		end(dataspace);
		return service_refuse(L4_ENOMEM);
	}
	undoable = dataspace;
	l4_put_item(0, l4_object_item(dataspace->gate, L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W));
	return l4_tag(0, 0, 1);
}

static l4_tag_t map(dataspace_t *dataspace, l4_word_t number)
{
	if (number >= dataspace->pages)
		return service_refuse(L4_ERANGE);
	pma_page_t *frame = &dataspace->frames[number];
	undoable = NULL;
	if (*frame == PMA_NONE) {
		*frame = service_allocate();
		if (*frame == PMA_NONE)
			return out_of_memory(client_of(dataspace), 1);
		undoable = dataspace;
	}
	l4_fpage_t fpage = l4_memory_fpage(service_address(*frame), L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);
	l4_put_item(0, l4_map_item(fpage, 0));
	return l4_tag(0, 0, 1);
}

static l4_tag_t client_request(l4_word_t client)
{
	const l4_word_t *mr = l4_utcb()->mr;

	if (client > L4_PAGER_MAX_CLIENTS)
		return service_refuse(L4_EPERM);
	return mr[0] == L4_DATASPACE_CREATE ? new_dataspace(client, mr[1]) : service_refuse(L4_ENOSYS);
}

static l4_tag_t dataspace_request(l4_word_t label)
{
	const l4_word_t *mr = l4_utcb()->mr;

	if (label < L4_PAGE_BYTES) /* no address of a dataspace: that is never in page 0 */
		return client_request(label >> L4_PAGER_CLIENT_SHIFT);
	if (label >= L4_PAGER_MEMORY_END) /* nor where no memory is: LABEL_NOBODY */
		return service_refuse(L4_ENOENT);
	dataspace_t *dataspace = (dataspace_t *)label;
	switch (mr[0]) {
	case L4_DATASPACE_MAP:
		return map(dataspace, mr[1]);
	case L4_DATASPACE_RELEASE:
		end(dataspace);
		return l4_tag(0, 0, 0);
	}
	return service_refuse(L4_ENOSYS);
}

/** A client is gone: whatever it had comes back. */
static l4_tag_t end_client(l4_word_t client)
{
	l4_word_t pages = 0;

	if (client == L4_PAGER_MASTER || client > L4_PAGER_MAX_CLIENTS)
		return service_refuse(L4_EINVAL);
	while (dataspaces[client] != NULL)
		pages += end(dataspaces[client]);
	l4_utcb()->mr[0] = pages;
	return l4_tag(0, 1, 0);
}

static l4_tag_t master_request(void)
{
	switch (l4_utcb()->mr[0]) {
	case L4_PAGER_CLIENT_END:
		return end_client(l4_utcb()->mr[1]);
	case L4_PAGER_STATISTICS:
		return service_statistics(tables);
	}
	return service_refuse(L4_ENOSYS);
}

static l4_tag_t answer(l4_message_t message)
{
	l4_word_t label = message.label & ~(l4_word_t)L4_LABEL_RIGHTS_MASK;

	service.requests++;
	if (l4_tag_words(message.tag) < 2)
		return service_refuse(L4_EMSGTOOSHORT);
	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_DATASPACE:
		return dataspace_request(label);
	case L4_PROTO_PAGER:
		return label >> L4_PAGER_CLIENT_SHIFT == L4_PAGER_MASTER ? master_request() : service_refuse(L4_EPERM);
	}
	return service_refuse(L4_EBADPROTO);
}

/** A new dataspace that its client did not get is of no use to anybody, nor is the frame of a new page that the kernel
 * has no memory to map. The client knows: its call fails. */
static __attribute__((noinline)) void undelivered(l4_tag_t reply)
{
	const l4_utcb_t *utcb = l4_utcb();
	l4_fpage_t sent = { utcb->mr[1] };

	if (l4_tag_items(reply) == 0 || undoable == NULL)
		return;
	if (l4_fpage_type(sent) == L4_FPAGE_TYPE_OBJECT) {
		end(undoable);
		return;
	}
	if (utcb->error != L4_IPC_SEND_MAP_FAILED)
		return;
	pma_page_t *frame = undoable->frames;
	while (*frame != l4_fpage_address(sent) >> L4_PAGE_SHIFT)
		frame++;
	take_back(frame);
	l4_word_t client = client_of(undoable);
	if (service_may_tell(client, &lines[client]))
		printf("dataspaces: the kernel has no memory to map a page that client %u wants\n", client);
}

int main(int argc, char **argv)
{
	for (l4_tag_t reply = service_start(argc, argv);;)
		reply = answer(service_next(reply, undelivered));
}
