#include "service.h"

#include "region.h"

#include <l4/print.h>
#include <l4/program.h>

enum { EXIT_USAGE = 2 };

l4_tag_t service_start(int argc, char **argv)
{
	const pma_kind_t *kind = &pma_avl;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--pma=", 6) == 0 && pma_kind(argv[i] + 6) != NULL) {
			kind = pma_kind(argv[i] + 6);
		} else if (strcmp(argv[i], "--clear") == 0) {
			service.clear = true;
		} else {
			printf("%s: %s: not an option; expected --pma=avl, --pma=buddy, --pma=slab or --clear\n",
			       service.name, argv[i]);
			exit(EXIT_USAGE);
		}
	}
	return region_receive(&service.pma, kind);
}

l4_tag_t service_refuse(int error)
{
	service.refusals++;
	return l4_tag(-error, 0, 0);
}

l4_tag_t service_statistics(l4_word_t in_tables)
{
	const pma_t *pma = &service.pma;
	l4_pager_statistics_t statistics = {
		.pages = pma->pages,
		.in_use = pma->used_pages,
		.in_tables = in_tables,
		.allocated = (l4_word_t)pma->allocated_pages,
		.released = (l4_word_t)pma->released_pages,
		.requests = service.requests,
		.refusals = service.refusals,
	};

	memcpy(l4_utcb()->mr, &statistics, sizeof statistics);
	return l4_tag(0, L4_PAGER_STATISTICS_WORDS, 0);
}

bool service_may_tell(unsigned client, unsigned *lines)
{
	if (*lines > SERVICE_LINES)
		return false;
	if (++*lines <= SERVICE_LINES)
		return true;
	printf("%s: more of the same from client %u, and no more lines about it\n", service.name, client);
	return false;
}
