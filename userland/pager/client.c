#include "client.h"

#include <l4/string.h>

static unsigned table_index(l4_word_t address)
{
	return (address - L4_PAGER_HEAP_START) / L4_PAGE_BYTES / CLIENT_TABLE_PAGES;
}

static unsigned page_index(l4_word_t address)
{
	return (address - L4_PAGER_HEAP_START) / L4_PAGE_BYTES % CLIENT_TABLE_PAGES;
}

pma_page_t *client_find(const client_t *client, l4_word_t address)
{
	pma_page_t *table = client->tables[table_index(address)];

	return table == NULL ? NULL : &table[page_index(address)];
}

pma_page_t *client_entry(client_t *client, pma_t *pma, l4_word_t address)
{
	pma_page_t **table = &client->tables[table_index(address)];

	if (*table == NULL) {
		pma_page_t frame = pma_allocate(pma, 1);
		if (frame == PMA_NONE)
			return NULL;
		*table = memset((void *)(uintptr_t)(frame << L4_PAGE_SHIFT), 0, L4_PAGE_BYTES);
		client->table_count++;
	}
	return &(*table)[page_index(address)];
}

void client_end(client_t *client, pma_t *pma)
{
	for (unsigned i = 0; i < CLIENT_TABLES; i++) {
		if (client->tables[i] != NULL)
			pma_free(pma, (pma_page_t)((uintptr_t)client->tables[i] >> L4_PAGE_SHIFT));
		client->tables[i] = NULL;
	}
	client->table_count = 0;
}
