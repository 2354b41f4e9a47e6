#include "server.h"

#include <l4/factory.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>

enum {
	STACK_PAGES = 4,
	START_TIMEOUT_US = 1000000, /* a server that has ended instead of listening shall not hold everybody up */
};

const char *server_create(server_t *server, const l4_module_t *module, const char *name, l4_word_t label)
{
	snprintf(server->name, sizeof server->name, "%s.%u", name, server->cpu);
	server->child.name = server->name;
	const char *problem = child_create(&server->child, module, label);
	if (problem == NULL)
		problem = child_map_all(&server->child, STACK_PAGES);
	if (problem != NULL)
		return problem;
	server->control = l4_new_cap();
	l4_word_t master = L4_PAGER_MASTER << L4_PAGER_CLIENT_SHIFT;
	if (l4_factory_create_gate(l4_own_factory(), server->control, server->child.thread, master) != 0)
		return "the kernel refuses to make a gate to it";
	return NULL;
}

static int give_piece(void *context, l4_fpage_t piece)
{
	const server_t *server = context;
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_PAGER_MEMORY;
	utcb->mr[1] = 0;
	l4_put_item(2, l4_map_item(piece, l4_fpage_address(piece)));
	l4_timeouts_t timeouts = l4_timeouts(l4_timeout_us(START_TIMEOUT_US), L4_TIMEOUT_NEVER);
	return l4_result(l4_call(server->control, l4_tag(L4_PROTO_PAGER, 2, 1), timeouts).tag);
}

const char *server_start(server_t *server, int priority, l4_word_t pages)
{
	const char *problem = child_run(&server->child, server->cpu, priority, l4_parent());

	if (problem != NULL)
		return problem;
	server->region_pages = server->share.count * MEMORY_SUPERPAGE_PAGES;
	if (pages != 0 && pages < server->region_pages)
		server->region_pages = pages;
	if (memory_give(server->share, server->region_pages, give_piece, server) != 0)
		return "it does not take its memory";
	if (l4_pager_request(server->control, L4_PAGER_START, 0) != 0)
		return "its memory is too small for its own records";
	return NULL;
}

const char *server_new_client(server_t *server, l4_cap_t *gate, unsigned *number)
{
	if (server->client_count == L4_PAGER_MAX_CLIENTS)
		return "its server has as many clients as it can tell apart";
	*number = ++server->client_count;
	*gate = l4_new_cap();
	if (l4_factory_create_gate(l4_own_factory(), *gate, server->child.thread, *number << L4_PAGER_CLIENT_SHIFT) != 0)
		return "the kernel refuses to make a gate to its server";
	return NULL;
}

int server_end_client(server_t *server, unsigned number)
{
	int error = l4_pager_request(server->control, L4_PAGER_CLIENT_END, number);

	return error < 0 ? error : (int)l4_utcb()->mr[0];
}

int server_statistics(server_t *server, l4_pager_statistics_t *statistics)
{
	int error = l4_pager_request(server->control, L4_PAGER_STATISTICS, 0);

	if (error >= 0)
		memcpy(statistics, l4_utcb()->mr, sizeof *statistics);
	return error;
}
