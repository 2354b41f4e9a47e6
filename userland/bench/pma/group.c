#include "group.h"

#include <l4/ipc.h>
#include <l4/panic.h>
#include <l4/string.h>
#include <l4/tsc.h>

uint64_t group_start(void)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = GROUP_READY;
	int error = l4_request(l4_cap(GROUP_SLOT), l4_tag(GROUP_PROTO, 1, 0));
	if (error < 0)
		l4_panic("no start from the coordinator: error %d", error);
	uint64_t start = (uint64_t)utcb->mr[1] << 32 | utcb->mr[0];
	uint64_t now;
	do {
		now = l4_tsc();
	} while (now < start);
	return now;
}

void group_finish(const result_t *result)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = GROUP_RESULT;
	memcpy(&utcb->mr[1], result, sizeof *result);
	int error = l4_request(l4_cap(GROUP_SLOT), l4_tag(GROUP_PROTO, 1 + RESULT_WORDS, 0));
	if (error < 0)
		l4_panic("the coordinator does not take the result: error %d", error);
}
