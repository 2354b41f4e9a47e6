/* How a server gets the memory it manages: in messages from whoever starts it, before it has clients (l4/pager.h). */
#ifndef PAGER_REGION_H
#define PAGER_REGION_H

#include "pma.h"

#include <l4/ipc.h>

/** Takes memory in until the start is ordered, and makes an allocator of the given kind of it. The first answer to be
 * sent is returned: that to the order. From then on nothing is let in with messages. */
l4_tag_t region_receive(pma_t *pma, const pma_kind_t *kind);

#endif
