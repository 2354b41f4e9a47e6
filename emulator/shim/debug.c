/*
 * See debug.h. Breakpoints, instruction counts and clocks, and what follows from a watchpoint (watch.h).
 *
 * Nothing here changes what a program does or costs. Guest memory keeps its bytes: a breakpoint is a
 * flag on the cached block that its address lies in, which sends the block the slow way; there the
 * block is executed one instruction at a time, as other blocks are that cannot be trusted to the
 * engine. So that only those concerned are slowed down, there are three block caches: that of address
 * spaces without breakpoints; that of those that have some; and, while a thread is to go on within a
 * range of addresses, one for it, in which blocks not wholly in the range bear the flag, too.
 *
 * A run that stops in the middle of a block is *suspended*: the next run goes on with the same block,
 * to its end and one instruction at a time, without asking for the deadline there. So the places where
 * a core can meet its deadline stay those of the program.
 */
#include "debug.h"

#include "books.h"
#include "breakpoints.h"
#include "operations.h"
#include "outcome.h"
#include "ram.h"
#include "report.h"
#include "run.h"
#include "step.h"
#include "vcpu.h"
#include "watch.h"

#define MOST_INSTRUCTIONS 1024             /* more than any block has */
#define MOST_CLOCK (1000000 * MILLICYCLES) /* more than any block costs, but for the oddest: those stop late */

bool debug_init_machine(struct machine_debug *d)
{
    d->clock_cycles = INT64_MAX;
    d->marked_blocks = blocks_new();
    d->range_blocks = blocks_new();
    return d->marked_blocks && d->range_blocks;
}

void debug_free_machine(struct machine_debug *d)
{
    blocks_free(d->marked_blocks);
    blocks_free(d->range_blocks);
}

void debug_init(struct debug *d)
{
    d->look_from = INT64_MAX;
}

static uint64_t executed(const struct vcpu *v)
{
    return v->frame->instructions + books_instructions(&v->books);
}

static uint64_t stop(struct vcpu *v, enum debug_reason reason, uint32_t detail)
{
    struct machine_debug *d = &v->machine->debug;
    d->passed = v->frame;
    d->passed_at = executed(v);
    debug_suspend(v);
    return debug_stop(reason, detail);
}

/*
 * Notes where the run was left, so that the next one can go on there. What comes next is that the
 * instruction is fetched; that is done now, so that the clock shows the same whatever the run was
 * left for: some stops are noticed only behind the fetch.
 */
void debug_suspend(struct vcpu *v)
{
    struct insn insn;
    uint32_t pfns[2];
    if (v->machine->debug.active)
        (void)step_peek(v, &insn, pfns);
    bool resuming = run_is_resuming(&v->run);
    v->debug.suspended = (struct suspended){
        .frame = v->frame, .eip = v->eip, .block_end = resuming ? v->debug.block_end : 0,
        .resuming = resuming, .entering = run_is_entering(&v->run), .block_goes_on = v->debug.block_goes_on,
    };
    v->debug.block_end = 0;
    run_set_entering(&v->run, false);
}

bool debug_resume(struct vcpu *v)
{
    struct suspended *suspended = &v->debug.suspended;
    bool same = suspended->frame == v->frame && suspended->eip == v->frame->eip;
    bool resuming = same && suspended->resuming;
    v->debug.block_end = resuming ? suspended->block_end : 0;
    v->debug.block_goes_on = suspended->block_goes_on;
    run_set_entering(&v->run, same && suspended->entering);
    suspended->frame = NULL;
    return resuming;
}

void debug_leave_before(struct vcpu *v, const struct block *block)
{
    v->debug.block_end = block_end(block);
    v->debug.block_goes_on = operations_trail(v, block);
}

/* --- what to stop for -------------------------------------------------------------------------- */

static const struct machine_breakpoints *breakpoints(const struct vcpu *v)
{
    return &v->machine->breakpoints;
}

static bool in_range(const struct machine_debug *d, uint32_t eip, uint32_t size)
{
    uint32_t offset = eip - d->range_first;
    return offset < d->range_size && size <= d->range_size - offset;
}

/* There is a breakpoint of any address space in these bytes, or the end of the range. */
bool debug_marks_block(const struct vcpu *v, const struct block *cache, uint32_t eip, uint32_t size)
{
    const struct machine_debug *d = &v->machine->debug;
    if (cache == books_own_blocks(&v->machine->books))
        return false;
    return breakpoints_in(breakpoints(v), eip, size)
        || (cache == d->range_blocks && !in_range(d, eip, size));
}

static void choose_blocks(struct vcpu *v)
{
    const struct machine_debug *d = &v->machine->debug;
    /* Once it has executed what it had to, it stops at the range's end, wherever that is. */
    bool ranging = d->active && d->counted == v->frame && d->range_size > 0 && executed(v) + 1 >= d->instructions;
    bool marked = d->active && breakpoints_of(breakpoints(v), &v->machine->ram, v->frame->cr3);
    books_use_blocks(&v->books, ranging ? d->range_blocks
                              : marked  ? d->marked_blocks : books_own_blocks(&v->machine->books));
}

/* Whether the count is reached within `more` instructions. */
static bool count_near(const struct vcpu *v, uint64_t more)
{
    const struct machine_debug *d = &v->machine->debug;
    return d->counted == v->frame && executed(v) + more >= d->instructions;
}

static bool count_reached(const struct vcpu *v)
{
    const struct machine_debug *d = &v->machine->debug;
    return count_near(v, 0) && v->eip - d->range_first >= d->range_size;
}

static bool clock_reached(const struct vcpu *v, int64_t more)
{
    const struct machine_debug *d = &v->machine->debug;
    return d->clocked == v->core && books_clock(&v->books) + more >= books_clock_at(&v->books, d->clock_cycles);
}

bool debug_stops_here(struct vcpu *v, uint64_t *outcome)
{
    const struct machine_debug *d = &v->machine->debug;
    enum debug_reason reason;
    if (count_reached(v))
        reason = DEBUG_COUNT;
    else if (clock_reached(v, 0))
        reason = DEBUG_CLOCK;
    else if (!(d->passed == v->frame && d->passed_at == executed(v))
             && breakpoints_between(breakpoints(v), v->eip, v->eip, v->frame->cr3))
        reason = DEBUG_BREAKPOINT;
    else
        return false;
    run_set_entering(&v->run, true);
    *outcome = stop(v, reason, 0);
    return true;
}

static int64_t least_cost(const struct machine *m)
{
    const int64_t *costs = books_costs(&m->books);
    int64_t least = INT64_MAX;
    for (int i = 0; i < COST_LOAD; i++)
        if (costs[i] < least)
            least = costs[i];
    return least > 0 ? least : 0;
}

/* Sets the clock up to which no count and no clock can be reached. */
static void look_ahead(struct vcpu *v)
{
    const struct machine_debug *d = &v->machine->debug;
    int64_t from = INT64_MAX;
    if (d->active && d->counted == v->frame && books_blocks(&v->books) != d->range_blocks) {
        uint64_t done = executed(v), left = d->instructions > done ? d->instructions - done : 0;
        if (left > UINT32_MAX)
            left = UINT32_MAX;
        from = left <= MOST_INSTRUCTIONS ? INT64_MIN
             : books_clock(&v->books) + (int64_t)(left - MOST_INSTRUCTIONS) * least_cost(v->machine);
    }
    if (d->active && d->clocked == v->core) {
        int64_t clock = books_clock_at(&v->books, d->clock_cycles);
        if (clock != INT64_MAX && clock - MOST_CLOCK < from)
            from = clock - MOST_CLOCK;
    }
    v->debug.look_from = from;
    run_set_limit(v);
}

bool debug_wants_block(struct vcpu *v, const struct block *block)
{
    const struct machine_debug *d = &v->machine->debug;
    uint32_t size = block_size(block);
    bool ranging = books_blocks(&v->books) == d->range_blocks;
    if (ranging ? !in_range(d, block->eip, size) : count_near(v, block->instructions))
        return true;
    if (clock_reached(v, block->cost))
        return true;
    if (block->flags & INSN_BREAKPOINT
        && breakpoints_between(breakpoints(v), block->eip, block->eip + size - 1, v->frame->cr3))
        return true;
    if (books_clock(&v->books) >= v->debug.look_from)
        look_ahead(v);
    return false;
}

void debug_begin(struct vcpu *v)
{
    choose_blocks(v);
    look_ahead(v);
}

/* --- one instruction at a time ----------------------------------------------------------------- */

/* One instruction of the block up to v->debug.block_end. After some the engine translates the rest anew, and
   the block may end elsewhere: then `block_end` is 0, and the engine gets it. */
static uint64_t step_in_block(struct vcpu *v)
{
    uint64_t switches = books_fpu_switches(&v->books);
    report_forget_code_write(&v->report);
    uint64_t outcome = step(v, false);
    if (books_fpu_switches(&v->books) != switches || report_saw_code_write(&v->report) || outcome != GO_ON)
        v->debug.block_end = 0;
    return outcome;
}

/* The block is done. The engine would enter the next by itself: it fetches first, and then asks for the deadline. */
static void end_block(struct vcpu *v)
{
    bool goes_on = run_is_resuming(&v->run) && v->debug.block_goes_on;
    v->debug.block_end = 0;
    run_set_entering(&v->run, !goes_on);
    run_set_resuming(v, goes_on);
}

uint64_t debug_step_block(struct vcpu *v)
{
    while (v->debug.block_end != 0) {
        uint64_t outcome = step_in_block(v);
        if (outcome != GO_ON)
            return outcome;
        if (!run_is_resuming(&v->run) || v->eip == v->debug.block_end)
            end_block(v);
    }
    if (count_reached(v))
        return stop(v, DEBUG_COUNT, 0);
    return clock_reached(v, 0) ? stop(v, DEBUG_CLOCK, 0) : GO_ON;
}

/* --- a watched access -------------------------------------------------------------------------- */

static uint32_t lowest_bit(uint32_t bits)
{
    uint32_t number = 0;
    while (!(bits >> number & 1))
        number++;
    return number;
}

uint64_t debug_watched_access(struct vcpu *v)
{
    const struct block *block = books_block(&v->books);
    uint32_t end = block != NULL ? block_end(block) : v->debug.block_end;
    struct watch_look look;
    if (block != NULL)
        v->debug.block_goes_on = operations_trail(v, block);
    books_settle(v, v->eip);
    v->debug.block_end = end;
    watch_begin(v, &look);
    uint64_t outcome = step_in_block(v);
    watch_end(v, &look);
    if (outcome != GO_ON)
        return outcome;
    if (!run_is_resuming(&v->run) || v->eip == v->debug.block_end)
        end_block(v);
    if (watch_hits(&v->watch) != 0)
        return stop(v, DEBUG_WATCHPOINT, lowest_bit(watch_hits(&v->watch)));
    return block != NULL && v->debug.block_end != 0 ? debug_step_block(v) : GO_ON;
}

/* --- for debugport.py, between runs ------------------------------------------------------------ */

/* Replaces all breakpoints: pairs of address and page directory (EVERY_SPACE: any). False: no memory. */
bool debug_set_breakpoints(struct machine *m, const uint32_t *pairs, uint32_t count)
{
    if (!breakpoints_set(&m->breakpoints, &m->ram, pairs, count))
        return false;
    blocks_forget(m->debug.marked_blocks);
    blocks_forget(m->debug.range_blocks);
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
        blocks_forget(m->debug.range_blocks);
    m->debug.counted = frame;
    m->debug.instructions = instructions;
    m->debug.range_first = range_first;
    m->debug.range_size = range_size;
}

/* Stops a core at its first instruction at or after cycle `clock_cycles`. INT64_MAX: never. */
void debug_clock(struct machine *m, uint32_t core, int64_t clock_cycles)
{
    m->debug.clocked = core;
    m->debug.clock_cycles = clock_cycles;
}

/* A breakpoint does not stop `frame` at its instruction number `instructions`: it has just been there. */
void debug_pass(struct machine *m, struct thread_frame *frame, uint64_t instructions)
{
    m->debug.passed = frame;
    m->debug.passed_at = instructions;
}
