/*
 * Stopping user code at an instruction: breakpoints, instruction counts, clocks, watchpoints.
 *
 * Nothing here changes what a program does or costs. Guest memory keeps its bytes: a breakpoint is a
 * flag on the cached block that its address lies in, which sends the block the slow way; there the
 * block is executed one instruction at a time, as other blocks are that cannot be trusted to the
 * engine. So that only those concerned are slowed down, there are three block caches: that of address
 * spaces without breakpoints; that of those that have some; and, while a thread is to go on within a
 * range of addresses, one for it, in which blocks not wholly in the range bear the flag, too.
 *
 * A watchpoint takes its frame out of the engine's TLB, so that every access to it comes to
 * tlb_fill(); the instruction is then executed alone.
 *
 * A run that stops in the middle of a block is *suspended*: the next run goes on with the same block,
 * to its end and one instruction at a time, without asking for the deadline there. So the places where
 * a core can meet its deadline stay those of the program.
 */
#include <stdlib.h>
#include <string.h>

#include "vcpu.h"

#define MOST_INSTRUCTIONS 1024             /* more than any block has */
#define MOST_CLOCK (1000000 * MILLICYCLES) /* more than any block costs, but for the oddest: those stop late */

static uint64_t executed(const struct vcpu *v)
{
    return v->frame->instructions + v->instructions;
}

static uint64_t stop(struct vcpu *v, enum debug_reason reason, uint32_t detail)
{
    struct debug *d = &v->machine->debug;
    d->passed = v->frame;
    d->passed_at = executed(v);
    debug_suspend(v);
    return OUTCOME_DEBUG_STOP | (uint64_t)reason << 8 | (uint64_t)detail << 32;
}

/*
 * Notes where the run was left, so that the next one can go on there. What comes next is that the
 * instruction is fetched; that is done now, so that the clock shows the same whatever the run was
 * left for: some stops are noticed only behind the fetch.
 */
void debug_suspend(struct vcpu *v)
{
    struct insn insn;
    uint32_t frames[2];
    if (v->machine->debug.active)
        (void)peek(v, &insn, frames);
    v->suspended.frame = v->frame;
    v->suspended.eip = v->eip;
    v->suspended.resuming = v->resuming;
    v->suspended.entering = v->entering;
    v->suspended.block_end = v->resuming ? v->block_end : 0;
    v->suspended.block_goes_on = v->block_goes_on;
    v->block_end = 0;
    v->entering = false;
}

/* Before a run: whether it goes on in the middle of a block. Not if the debugger moved EIP. */
bool debug_resume(struct vcpu *v)
{
    bool same = v->suspended.frame == v->frame && v->suspended.eip == v->frame->eip;
    bool resuming = same && v->suspended.resuming;
    v->block_end = resuming ? v->suspended.block_end : 0;
    v->block_goes_on = v->suspended.block_goes_on;
    v->entering = same && v->suspended.entering;
    v->suspended.frame = NULL;
    return resuming;
}

/* --- what to stop for -------------------------------------------------------------------------- */

/* The first breakpoint at or above `address`; they are sorted. */
static uint32_t first_breakpoint(const struct debug *d, uint32_t address)
{
    uint32_t low = 0, high = d->breakpoint_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (d->breakpoints[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool breakpoint_between(const struct vcpu *v, uint32_t first, uint32_t last)
{
    const struct debug *d = &v->machine->debug;
    for (uint32_t i = first_breakpoint(d, first); i < d->breakpoint_count && d->breakpoints[i].address <= last; i++)
        if (d->breakpoints[i].cr3 == 0 || d->breakpoints[i].cr3 == v->frame->cr3)
            return true;
    return false;
}

static bool in_range(const struct debug *d, uint32_t eip, uint32_t size)
{
    uint32_t offset = eip - d->range_first;
    return offset < d->range_size && size <= d->range_size - offset;
}

/* For the block cache: whether there is a breakpoint of any address space in these bytes, or the end of the range. */
bool debug_marks_block(const struct vcpu *v, uint32_t eip, uint32_t size)
{
    const struct debug *d = &v->machine->debug;
    uint32_t at = first_breakpoint(d, eip);
    return (at < d->breakpoint_count && d->breakpoints[at].address - eip < size)
        || (v->blocks == d->range_blocks && !in_range(d, eip, size));
}

static bool has_breakpoints(const struct machine *m, uint32_t cr3)
{
    const struct debug *d = &m->debug;
    return d->everywhere || (cr3 / PAGE_BYTES < m->frames && m->frame_flags[cr3 / PAGE_BYTES] & FRAME_MARKED_SPACE);
}

/* Before a run: the block cache to use. */
void debug_choose_blocks(struct vcpu *v)
{
    const struct debug *d = &v->machine->debug;
    /* Once it has executed what it had to, it stops at the range's end, wherever that is. */
    bool ranging = d->active && d->counted == v->frame && d->range_size > 0 && executed(v) + 1 >= d->instructions;
    v->blocks = ranging ? d->range_blocks
              : d->active && has_breakpoints(v->machine, v->frame->cr3) ? d->marked_blocks : v->machine->blocks;
}

/* Whether the count is reached within `more` instructions. */
static bool count_near(const struct vcpu *v, uint64_t more)
{
    const struct debug *d = &v->machine->debug;
    return d->counted == v->frame && executed(v) + more >= d->instructions;
}

static bool count_reached(const struct vcpu *v)
{
    const struct debug *d = &v->machine->debug;
    return count_near(v, 0) && v->eip - d->range_first >= d->range_size;
}

static bool clock_reached(const struct vcpu *v, int64_t more)
{
    const struct debug *d = &v->machine->debug;
    return d->clocked == v->core && d->clock != INT64_MAX && v->clock + more >= d->clock;
}

/* Before an instruction that is executed next, whatever the deadline. */
bool debug_stops_here(struct vcpu *v, uint64_t *outcome)
{
    const struct debug *d = &v->machine->debug;
    enum debug_reason reason;
    if (count_reached(v))
        reason = DEBUG_COUNT;
    else if (clock_reached(v, 0))
        reason = DEBUG_CLOCK;
    else if (!(d->passed == v->frame && d->passed_at == executed(v)) && breakpoint_between(v, v->eip, v->eip))
        reason = DEBUG_BREAKPOINT;
    else
        return false;
    v->entering = true;
    *outcome = stop(v, reason, 0);
    return true;
}

/* Before a block that the engine is about to execute: whether it may have to stop inside. */
bool debug_wants_block(struct vcpu *v, const struct block *block)
{
    const struct debug *d = &v->machine->debug;
    uint32_t size = block->size & BLOCK_SIZE_MASK;
    bool ranging = v->blocks == d->range_blocks;
    if (ranging ? !in_range(d, block->eip, size) : count_near(v, block->instructions))
        return true;
    if (clock_reached(v, block->cost))
        return true;
    if (block->flags & INSN_BREAKPOINT && breakpoint_between(v, block->eip, block->eip + size - 1))
        return true;
    if (v->clock >= v->look_from)
        debug_look_ahead(v);
    return false;
}

static int64_t least_cost(const struct machine *m)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < COST_LOAD; i++)
        if (m->costs[i] < least)
            least = m->costs[i];
    return least > 0 ? least : 0;
}

/* Sets the clock up to which no count and no clock can be reached. */
void debug_look_ahead(struct vcpu *v)
{
    const struct debug *d = &v->machine->debug;
    int64_t from = INT64_MAX;
    if (d->active && d->counted == v->frame && v->blocks != d->range_blocks) {
        uint64_t done = executed(v), left = d->instructions > done ? d->instructions - done : 0;
        if (left > UINT32_MAX)
            left = UINT32_MAX;
        from = left <= MOST_INSTRUCTIONS ? INT64_MIN
             : v->clock + (int64_t)(left - MOST_INSTRUCTIONS) * least_cost(v->machine);
    }
    if (d->active && d->clocked == v->core && d->clock != INT64_MAX && d->clock - MOST_CLOCK < from)
        from = d->clock - MOST_CLOCK;
    v->look_from = from;
    set_limit(v);
}

/* --- one instruction at a time ----------------------------------------------------------------- */

/* One instruction of the block up to v->block_end. After some the engine translates the rest anew, and
   the block may end elsewhere: then `block_end` is 0, and the engine gets it. */
static uint64_t step_in_block(struct vcpu *v)
{
    uint64_t switches = v->fpu_switches;
    v->code_write_frame = NO_FRAME;
    uint64_t outcome = step_one(v);
    if (v->fpu_switches != switches || v->code_write_frame != NO_FRAME || outcome != GO_ON)
        v->block_end = 0;
    return outcome;
}

/* The block is done. The engine would enter the next by itself: it fetches first, and then asks for the deadline. */
static void end_block(struct vcpu *v)
{
    bool goes_on = v->resuming && v->block_goes_on;
    v->block_end = 0;
    v->resuming = goes_on;
    v->entering = !goes_on;
    set_limit(v);
}

/* Executes the block up to v->block_end, or until it is left. */
uint64_t debug_step_block(struct vcpu *v)
{
    while (v->block_end != 0) {
        uint64_t outcome = step_in_block(v);
        if (outcome != GO_ON)
            return outcome;
        if (!v->resuming || v->eip == v->block_end)
            end_block(v);
    }
    if (count_reached(v))
        return stop(v, DEBUG_COUNT, 0);
    return clock_reached(v, 0) ? stop(v, DEBUG_CLOCK, 0) : GO_ON;
}

/* --- watchpoints ------------------------------------------------------------------------------- */

#define MAX_WATCHED_BYTES 64

typedef uint8_t watched_bytes[MAX_WATCHPOINTS][MAX_WATCHED_BYTES];

static uint32_t watched_size(const struct watchpoint *w)
{
    return w->last - w->first + 1;
}

static void read_watched(const struct machine *m, watched_bytes bytes)
{
    for (uint32_t i = 0; i < m->debug.watchpoint_count; i++)
        memcpy(bytes[i], m->ram + m->debug.watchpoints[i].first, watched_size(&m->debug.watchpoints[i]));
}

static void hit(struct vcpu *v, uint32_t physical)
{
    const struct debug *d = &v->machine->debug;
    for (uint32_t n = 0; n < d->watchpoint_count; n++)
        if (d->watchpoints[n].kinds & WATCH_READ && d->watchpoints[n].first <= physical
            && physical <= d->watchpoints[n].last)
            v->watch_hits |= 1u << n;
}

/* Called for each access of an instruction that is executed with `watching`. The engine tells the physical
   address of its first byte; an access that runs over the end of its page goes on in another frame. */
static void access_seen(uc_engine *uc, uc_mem_type type, uint64_t address, int size, int64_t value, void *opaque)
{
    (void)uc;
    (void)type;
    (void)value;
    struct vcpu *v = opaque;
    uint32_t first = (uint32_t)address, here = PAGE_BYTES - (first & ~PAGE_MASK);
    for (uint32_t i = 0; i < (uint32_t)size && i < here; i++)
        hit(v, first + i);
    if ((uint32_t)size > here && (uint32_t)size - here > v->crossed_bytes)
        v->crossed_bytes = (uint32_t)size - here;
}

/* What lay behind the end of a page: now that the instruction is done, its pages are known. */
static void hit_crossed(struct vcpu *v)
{
    for (uint32_t i = 0; v->crossed_bytes > 0 && i < v->touched_count; i++)
        for (uint32_t j = 0; j < v->touched_count; j++)
            if (v->touched[j].page == v->touched[i].page + 1)
                for (uint32_t byte = 0; byte < v->crossed_bytes; byte++)
                    hit(v, v->touched[j].frame * PAGE_BYTES + byte);
}

/* The engine translates a page for the instruction that is executed with `watching`. */
void debug_note_page(struct vcpu *v, uint32_t address, uint32_t frame)
{
    if (v->touched_count < MAX_TOUCHED_PAGES) {
        v->touched[v->touched_count].page = address >> 12;
        v->touched[v->touched_count++].frame = frame;
    }
}

/* The same of an instruction that the shim executes, with what it accesses there. */
void debug_note_access(struct vcpu *v, uint32_t address, uint32_t frame, uint32_t size)
{
    debug_note_page(v, address, frame);
    for (uint32_t i = 0; i < size; i++)
        hit(v, frame * PAGE_BYTES + (address & ~PAGE_MASK) + i);
}

static bool watches_reads(const struct debug *d)
{
    for (uint32_t i = 0; i < d->watchpoint_count; i++)
        if (d->watchpoints[i].kinds & WATCH_READ)
            return true;
    return false;
}

/* Has the engine report every access; code translated before does not, so it must go. 0: it refuses. */
static uc_hook hook_accesses(struct vcpu *v)
{
    uc_hook handle = 0;
    engine.uc_hook_add(v->uc, &handle, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, (void *)access_seen, v, (uint64_t)1,
                       (uint64_t)0);
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
    return handle;
}

static void unhook_accesses(struct vcpu *v, uc_hook handle)
{
    engine.uc_hook_del(v->uc, handle);
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
}

/* Executes the instruction at v->eip with access to watched frames; v->watch_hits is what it touched. */
static uint64_t step_watching(struct vcpu *v)
{
    struct machine *m = v->machine;
    watched_bytes before, after;
    uc_hook handle = watches_reads(&m->debug) ? hook_accesses(v) : 0;
    read_watched(m, before);
    v->watching = true;
    v->watch_hits = v->touched_count = v->crossed_bytes = 0;
    v->engine_flush = true;  /* so that it asks for every page */
    uint64_t outcome = step_in_block(v);
    v->watching = false;
    v->engine_flush = true;  /* it may access those frames without asking now */
    read_watched(m, after);
    if (handle != 0) {
        unhook_accesses(v, handle);
        hit_crossed(v);
    }
    for (uint32_t i = 0; i < m->debug.watchpoint_count; i++) {
        const struct watchpoint *w = &m->debug.watchpoints[i];
        if (w->kinds & WATCH_WRITE && memcmp(before[i], after[i], watched_size(w)) != 0)
            v->watch_hits |= 1u << i;
    }
    return outcome;
}

static uint32_t lowest_bit(uint32_t bits)
{
    uint32_t number = 0;
    while (!(bits >> number & 1))
        number++;
    return number;
}

/* The instruction at v->eip wants to access a watched frame. */
uint64_t debug_watched_access(struct vcpu *v)
{
    bool in_engine = v->block != NULL;
    uint32_t end = in_engine ? v->block->eip + (v->block->size & BLOCK_SIZE_MASK) : v->block_end;
    if (in_engine)
        v->block_goes_on = v->block->size & BLOCK_HAS_OPERATIONS && operations_of(v, v->block)->trails;
    settle(v, v->eip);
    v->block_end = end;
    uint64_t outcome = step_watching(v);
    if (outcome != GO_ON)
        return outcome;
    if (!v->resuming || v->eip == v->block_end)
        end_block(v);
    if (v->watch_hits != 0)
        return stop(v, DEBUG_WATCHPOINT, lowest_bit(v->watch_hits));
    return in_engine && v->block_end != 0 ? debug_step_block(v) : GO_ON;
}

/* --- for the debugger, between runs ------------------------------------------------------------ */

static int by_address(const void *a, const void *b)
{
    const struct breakpoint *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->cr3 < y->cr3 ? -1 : x->cr3 > y->cr3;
}

static void forget_blocks(struct block *blocks)
{
    memset(blocks, 0, BLOCK_CACHE_SIZE * sizeof *blocks);
}

static void mark_spaces(struct machine *m, bool marked)
{
    struct debug *d = &m->debug;
    d->everywhere = false;
    for (uint32_t i = 0; i < d->breakpoint_count; i++) {
        uint32_t frame = d->breakpoints[i].cr3 / PAGE_BYTES;
        if (d->breakpoints[i].cr3 == 0)
            d->everywhere = marked;
        else if (frame < m->frames)
            m->frame_flags[frame] = marked ? m->frame_flags[frame] | FRAME_MARKED_SPACE
                                           : m->frame_flags[frame] & (uint8_t)~FRAME_MARKED_SPACE;
    }
}

/* Replaces all breakpoints: pairs of address and page directory (0: any). */
bool debug_set_breakpoints(struct machine *m, const uint32_t *pairs, uint32_t count)
{
    struct breakpoint *all = malloc((count ? count : 1) * sizeof *all);
    if (all == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        all[i] = (struct breakpoint){.address = pairs[2 * i], .cr3 = pairs[2 * i + 1]};
    qsort(all, count, sizeof *all, by_address);
    mark_spaces(m, false);
    free(m->debug.breakpoints);
    m->debug.breakpoints = all;
    m->debug.breakpoint_count = count;
    mark_spaces(m, true);
    forget_blocks(m->debug.marked_blocks);
    forget_blocks(m->debug.range_blocks);
    return true;
}

static void mark_watched(struct machine *m, bool watched)
{
    for (uint32_t i = 0; i < m->debug.watchpoint_count; i++) {
        uint8_t *flags = &m->frame_flags[m->debug.watchpoints[i].first / PAGE_BYTES];
        *flags = watched ? *flags | FRAME_WATCHED : *flags & (uint8_t)~FRAME_WATCHED;
    }
    for (uint32_t i = 0; i < m->vcpu_count; i++)
        m->vcpus[i]->engine_flush = true;
}

/* Replaces all watchpoints: triples of first byte, size and kinds. Each lies in one frame. */
bool debug_set_watchpoints(struct machine *m, const uint32_t *triples, uint32_t count)
{
    if (count > MAX_WATCHPOINTS)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t first = triples[3 * i], size = triples[3 * i + 1];
        if (size == 0 || size > MAX_WATCHED_BYTES || first / PAGE_BYTES >= m->frames
            || (first & ~PAGE_MASK) + size > PAGE_BYTES)
            return false;
    }
    mark_watched(m, false);
    for (uint32_t i = 0; i < count; i++)
        m->debug.watchpoints[i] =
            (struct watchpoint){triples[3 * i], triples[3 * i] + triples[3 * i + 1] - 1, triples[3 * i + 2]};
    m->debug.watchpoint_count = count;
    mark_watched(m, true);
    return true;
}

void debug_activate(struct machine *m, bool active)
{
    m->debug.active = active;
}

/* Stops `frame` once it has executed `instructions` in all and EIP is not in the range. NULL: none. */
void debug_count(struct machine *m, struct thread_frame *frame, uint64_t instructions, uint32_t range_first,
                 uint32_t range_size)
{
    if (range_first != m->debug.range_first || range_size != m->debug.range_size)
        forget_blocks(m->debug.range_blocks);
    m->debug.counted = frame;
    m->debug.instructions = instructions;
    m->debug.range_first = range_first;
    m->debug.range_size = range_size;
}

/* Stops a core at its first instruction at or after `clock` (thousandths of a cycle). INT64_MAX: never. */
void debug_clock(struct machine *m, uint32_t core, int64_t clock)
{
    m->debug.clocked = core;
    m->debug.clock = clock;
}

/* A breakpoint does not stop `frame` at its instruction number `instructions`: it has just been there. */
void debug_pass(struct machine *m, struct thread_frame *frame, uint64_t instructions)
{
    m->debug.passed = frame;
    m->debug.passed_at = instructions;
}
