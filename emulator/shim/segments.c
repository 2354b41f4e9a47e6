/*
 * See segments.h. Segment registers are loaded when they or their descriptors differ from what the engine has.
 *
 * The descriptor table is the engine's own (engine.c); one entry is the UTCB's, some are the running thread's.
 * The engine checks neither limits nor null segments when memory is accessed; blocks that use such a segment
 * are therefore looked at (books.c), and the access is refused (step.c, limits.c).
 *
 * Ref: Intel SDM vol. 3, 3.4 (segment descriptors).
 */
#include "segments.h"

#include "engine.h"
#include "run.h"
#include "vcpu.h"

static const int segment_registers[6] = {
    UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS,
};

static uint32_t *frame_segment(struct thread_frame *frame, int segment)
{
    uint32_t *const words[6] = {&frame->es, &frame->cs, &frame->ss, &frame->ds, &frame->fs, &frame->gs};
    return words[segment];
}

enum { CODE = 0x800, EXPANDS_DOWN = 0x400, WRITABLE = 0x200, BIG = 0x400000, PAGES_COUNT = 0x800000 };

/* Which offsets a segment has (SDM vol. 3, 3.4.5, 5.3). */
static void note_limit(struct segments *s, int segment, const uint32_t entry[2])
{
    uint32_t limit = (entry[0] & 0xffff) | (entry[1] & 0xf0000);
    if (entry[1] & PAGES_COUNT)
        limit = limit << 12 | 0xfff;
    s->lowest[segment] = 0;
    s->highest[segment] = limit;
    if ((entry[1] & (CODE | EXPANDS_DOWN)) == EXPANDS_DOWN) {
        s->lowest[segment] = limit == UINT32_MAX ? limit : limit + 1;
        s->highest[segment] = limit == UINT32_MAX ? 0 : entry[1] & BIG ? UINT32_MAX : 0xffff;
    }
    if (s->lowest[segment] != 0 || s->highest[segment] != UINT32_MAX)
        s->limited |= 1u << segment;
}

/* Of the descriptors that the registers were loaded from: bases, limits, and where writes are refused. */
static void note_descriptors(struct vcpu *v)
{
    struct segments *s = &v->segments;
    const uint32_t *table = engine_descriptors(&v->engine);
    s->read_only = 1u << X86_CS;
    s->limited = 0;
    s->stack_mask = UINT32_MAX;
    for (int i = 0; i < 6; i++) {
        uint32_t index = s->selectors[i] >> 3;
        s->bases[i] = 0;
        if (index == 0 || index >= ENGINE_DESCRIPTORS)
            continue;
        const uint32_t *entry = table + 2 * index;
        s->bases[i] = entry[0] >> 16 | (entry[1] & 0xff) << 16 | (entry[1] & 0xff000000);
        if (entry[1] & CODE || !(entry[1] & WRITABLE))
            s->read_only |= 1u << i;
        if (i == X86_SS && !(entry[1] & BIG))
            s->stack_mask = 0xffff;
        note_limit(s, i, entry);
    }
}

static void note_loaded(struct vcpu *v)
{
    struct segments *s = &v->segments;
    s->null = 0;
    for (int i = 0; i < 6; i++)
        if ((s->selectors[i] & ~3) == 0)
            s->null |= 1u << i;
    note_descriptors(v);
    run_set_limit(v);
}

void segments_reset(struct vcpu *v)
{
    uint16_t *selectors = v->segments.selectors;
    selectors[X86_CS] = (uint16_t)v->machine->interface.code_selector;
    selectors[X86_SS] = selectors[X86_DS] = selectors[X86_ES] = (uint16_t)v->machine->interface.data_selector;
    selectors[X86_FS] = selectors[X86_GS] = 0;
    note_loaded(v);
}

static void load_segment(struct vcpu *v, int segment)
{
    uint16_t selector = (uint16_t)*frame_segment(v->frame, segment);
    if (!engine_try_write(&v->engine, segment_registers[segment], &selector)) {
        /* The kernel let a selector through that no longer loads: null, or flat where null cannot be. */
        selector = segment == X86_SS ? (uint16_t)v->machine->interface.data_selector : 0;
        engine_write(&v->engine, segment_registers[segment], &selector);
    }
    v->segments.selectors[segment] = selector;
}

static void put_descriptor(uint32_t *table, uint32_t index, uint32_t low, uint32_t high, uint32_t *changed)
{
    uint32_t *entry = table + 2 * index;
    if (!(high & 0x1000))
        low = high = 0;  /* gates and other system descriptors: never for user code */
    if ((high & 0x9000) == 0x9000)
        high |= 0x100;  /* present code or data: accessed, as the load would set */
    if (entry[0] == low && entry[1] == high)
        return;
    entry[0] = low;
    entry[1] = high;
    *changed |= 1u << index;
}

/* The running thread's descriptors; bit per entry that is not what it was. */
static uint32_t put_descriptors(struct vcpu *v)
{
    const struct thread_frame *frame = v->frame;
    const struct interface *interface = &v->machine->interface;
    uint32_t *table = engine_descriptors(&v->engine);
    uint32_t base = frame->utcb_base, first = interface->first_thread_selector >> 3, changed = 0;
    put_descriptor(table, interface->utcb_selector >> 3, base << 16 | 0xffff,
                   (base & 0xff000000) | 0xcff300 | (base >> 16 & 0xff), &changed);
    for (uint32_t i = 0; i < interface->thread_entries; i++)
        put_descriptor(table, first + i, frame->gdt[2 * i], frame->gdt[2 * i + 1], &changed);
    return changed;
}

void segments_load(struct vcpu *v)
{
    uint32_t changed = put_descriptors(v);
    bool different = false;
    for (int i = 0; i < 6; i++) {
        uint16_t present = v->segments.selectors[i];
        uint32_t index = present >> 3;
        if (i == X86_CS || (present == (uint16_t)*frame_segment(v->frame, i)
                            && !(index < 32 && changed >> index & 1)))
            continue;
        load_segment(v, i);
        different = true;
    }
    if (different)
        note_loaded(v);
}

void segments_store(const struct segments *s, struct thread_frame *frame)
{
    for (int i = 0; i < 6; i++)
        *frame_segment(frame, i) = s->selectors[i];
}

void segments_read(struct vcpu *v)
{
    for (int i = 0; i < 6; i++)
        engine_read(&v->engine, segment_registers[i], &v->segments.selectors[i]);
    note_loaded(v);
}

bool segments_are_absent(const struct vcpu *v, uint16_t selector)
{
    enum { PRESENT = 0x8000, SYSTEM_NOT = 0x1000, PRIVILEGE = 0x6000 };
    uint32_t index = selector >> 3, high = index < ENGINE_DESCRIPTORS ? engine_descriptors(&v->engine)[2 * index + 1] : 0;
    return (high & (PRESENT | SYSTEM_NOT | PRIVILEGE | WRITABLE | CODE)) == (SYSTEM_NOT | PRIVILEGE | WRITABLE)
        && (selector & 7) == 3;
}

bool segments_code_is_flat(const struct vcpu *v)
{
    return v->segments.selectors[X86_CS] == v->machine->interface.code_selector;
}

uint16_t segments_undo_code(struct vcpu *v)
{
    uint16_t there = v->segments.selectors[X86_CS], flat = (uint16_t)v->machine->interface.code_selector;
    engine_write(&v->engine, UC_X86_REG_CS, &flat);
    v->segments.selectors[X86_CS] = flat;
    return there;
}
