/*
 * Segment registers, loaded when they or their descriptors differ from what the engine has.
 *
 * The descriptor table is the engine's own (engine.c); entries 8 to 12 are the running thread's. The
 * engine checks neither limits nor null segments when memory is accessed; blocks that use a null segment
 * are therefore looked at (books.c), and the access is refused (step.c). Limits are not modelled.
 *
 * Ref: Fiasco.OC ia32 for the selectors (kernel/frame.py); Intel SDM vol. 3, 3.4 (segment descriptors).
 */
#include "vcpu.h"

static const int segment_registers[6] = {
    UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS,
};

uint32_t *frame_segment(struct thread_frame *frame, int segment)
{
    uint32_t *const words[6] = {&frame->es, &frame->cs, &frame->ss, &frame->ds, &frame->fs, &frame->gs};
    return words[segment];
}

/* Of the descriptors that the segment registers were loaded from: bases, and where writes are refused (SDM vol. 3, 3.4.5). */
static void note_descriptors(struct vcpu *v)
{
    enum { CODE = 0x800, WRITABLE = 0x200 };
    v->read_only_segments = 1u << X86_CS;
    for (int i = 0; i < 6; i++) {
        uint32_t index = v->segments[i] >> 3;
        v->segment_bases[i] = 0;
        if (index == 0 || index >= GDT_ENTRIES_COUNT)
            continue;
        const uint32_t *entry = (const uint32_t *)(v->private_page + index * 8);
        v->segment_bases[i] = entry[0] >> 16 | (entry[1] & 0xff) << 16 | (entry[1] & 0xff000000);
        if (entry[1] & CODE || !(entry[1] & WRITABLE))
            v->read_only_segments |= 1u << i;
    }
}

void note_null_segments(struct vcpu *v)
{
    v->null_segments = 0;
    for (int i = 0; i < 6; i++)
        if ((v->segments[i] & ~3) == 0)
            v->null_segments |= 1u << i;
    note_descriptors(v);
    set_limit(v);
}

static void load_segment(struct vcpu *v, int segment)
{
    uint16_t selector = (uint16_t)*frame_segment(v->frame, segment);
    if (engine.uc_reg_write(v->uc, segment_registers[segment], &selector) != UC_ERR_OK) {
        /* The kernel let a selector through that no longer loads: null, or flat where null cannot be. */
        selector = segment == X86_SS ? 0x23 : 0;
        engine_write(v, segment_registers[segment], &selector);
    }
    v->segments[segment] = selector;
}

static void put_descriptor(struct vcpu *v, uint32_t index, uint32_t low, uint32_t high, uint32_t *changed)
{
    uint32_t *entry = (uint32_t *)(v->private_page + index * 8);
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

void load_segments(struct vcpu *v)
{
    const struct thread_frame *frame = v->frame;
    uint32_t base = frame->utcb_base, changed = 0;
    put_descriptor(v, UTCB_ENTRY, base << 16 | 0xffff, (base & 0xff000000) | 0xcff300 | (base >> 16 & 0xff), &changed);
    for (uint32_t i = 0; i < 4; i++)
        put_descriptor(v, FIRST_THREAD_ENTRY + i, frame->gdt[2 * i], frame->gdt[2 * i + 1], &changed);
    bool different = false;
    for (int i = 0; i < 6; i++) {
        uint32_t index = v->segments[i] >> 3;
        if (i == X86_CS || (v->segments[i] == (uint16_t)*frame_segment(v->frame, i)
                            && !(index < 32 && changed >> index & 1)))
            continue;
        load_segment(v, i);
        different = true;
    }
    if (different)
        note_null_segments(v);
}

void read_segments(struct vcpu *v)
{
    for (int i = 0; i < 6; i++)
        engine_read(v, segment_registers[i], &v->segments[i]);
    note_null_segments(v);
}
