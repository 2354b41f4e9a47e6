/* See breakpoints.h. */
#include "breakpoints.h"

#include <stdlib.h>

#include "memory.h"

/* The first at or above `address`. */
static uint32_t first_from(const struct machine_breakpoints *b, uint32_t address)
{
    uint32_t low = 0, high = b->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (b->all[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool breakpoints_between(const struct machine_breakpoints *b, uint32_t first, uint32_t last, uint32_t cr3)
{
    for (uint32_t i = first_from(b, first); i < b->count && b->all[i].address <= last; i++)
        if (b->all[i].cr3 == EVERY_SPACE || b->all[i].cr3 == cr3)
            return true;
    return false;
}

bool breakpoints_in(const struct machine_breakpoints *b, uint32_t first, uint32_t bytes)
{
    uint32_t at = first_from(b, first);
    return at < b->count && b->all[at].address - first < bytes;
}

bool breakpoints_of(const struct machine_breakpoints *b, const struct ram *ram, uint32_t cr3)
{
    uint32_t pfn = cr3 / PAGE_BYTES;
    return b->everywhere || (ram_has(ram, pfn) && ram_is_marked(ram, pfn, PAGE_MARKED_SPACE));
}

static int by_address(const void *a, const void *b)
{
    const struct breakpoint *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->cr3 < y->cr3 ? -1 : x->cr3 > y->cr3;
}

static void mark_spaces(struct machine_breakpoints *b, struct ram *ram, bool marked)
{
    b->everywhere = false;
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t pfn = b->all[i].cr3 / PAGE_BYTES;
        if (b->all[i].cr3 == EVERY_SPACE)
            b->everywhere = marked;
        else if (ram_has(ram, pfn))
            ram_mark(ram, pfn, PAGE_MARKED_SPACE, marked);
    }
}

void breakpoints_free(struct machine_breakpoints *b)
{
    memory_delete(b->all, b->count * sizeof *b->all);
}

bool breakpoints_set(struct machine_breakpoints *b, struct ram *ram, const uint32_t *pairs, uint32_t count)
{
    struct breakpoint *all = count > 0 ? memory_new(count * sizeof *all) : NULL;
    if (all == NULL && count > 0)
        return false;
    for (uint32_t i = 0; i < count; i++)
        all[i] = (struct breakpoint){.address = pairs[2 * i], .cr3 = pairs[2 * i + 1]};
    if (count > 0)
        qsort(all, count, sizeof *all, by_address);
    mark_spaces(b, ram, false);
    breakpoints_free(b);
    b->all = all;
    b->count = count;
    mark_spaces(b, ram, true);
    return true;
}
