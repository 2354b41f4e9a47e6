/*
 * The engine's own copy of pages with instructions that the shim executes.
 *
 * An engine fetches code from RAM, or, once a block with such an instruction has been met, from a copy of the page in
 * which each of them is replaced (operation.c). Data accesses always go to RAM, so no guest sees the copy. What a
 * page needs is found block by block, when a block is first entered (find_block()) and before it is charged: only then
 * is it known where instructions begin. A block that needs a change is left; the change is made while no engine runs.
 *
 * Each byte of a copy is claimed, by instructions that must be there as they are or by replaced ones. Code that jumps
 * into the middle of its own instructions can need both: its page is then executed from RAM, one instruction at a time,
 * and those of the shim never reach the engine.
 */
#include <stdlib.h>
#include <string.h>

#include "vcpu.h"

enum { CLAIMED = 1, REPLACED = 2 };

/* Bytes [at, at + size) of linear memory, which may lie on two pages, one after the other. */
struct place {
    uint32_t frame, offset;
};

static struct place place_of(const struct vcpu *v, uint32_t address)
{
    return (struct place){v->code[address >> 12].frame, address & ~PAGE_MASK};
}

static uint8_t *claims_of(struct machine *m, uint32_t frame)
{
    if (m->claims[frame] == NULL) {
        m->claims[frame] = calloc(PAGE_BYTES, 1);
        if (m->claims[frame] == NULL)
            abort();
    }
    return m->claims[frame];
}

static uint8_t *shadow_byte(const struct machine *m, struct place p)
{
    return m->shadow + (size_t)p.frame * PAGE_BYTES + p.offset;
}

enum { PREFIX = 0x3e, NOP = 0x90, JUMP = 0xeb };

/* The instruction that stands for one of `length` bytes, two at least: a jump to the next, or none. */
static void replacement(const struct insn *insn, bool follows, uint8_t *bytes)
{
    memset(bytes, PREFIX, insn->length);
    bytes[insn->length - 2] = follows ? PREFIX : JUMP;
    bytes[insn->length - 1] = follows ? NOP : 0;
}

/* Whether the replaced instruction that begins there ends the engine's block. */
bool patch_ends_block(struct vcpu *v, uint32_t eip)
{
    uint8_t byte;
    do
        byte = *shadow_byte(v->machine, place_of(v, eip++));
    while (byte == PREFIX);
    return byte == JUMP;
}

enum need { NEED_NOTHING, NEED_CHANGE, NEED_STEPS };

static enum need need_native(struct vcpu *v, uint32_t eip, uint32_t length)
{
    struct machine *m = v->machine;
    for (uint32_t i = 0; i < length; i++) {
        struct place p = place_of(v, eip + i);
        uint8_t *claim = &claims_of(m, p.frame)[p.offset];
        if (*claim == REPLACED)
            return NEED_STEPS;
        *claim = CLAIMED;
    }
    return NEED_NOTHING;
}

/* `follows`: another of them lies right before it. If it has been met without that one, it remains a jump. */
static enum need need_replaced(struct vcpu *v, uint32_t eip, const struct insn *insn, bool follows, bool change)
{
    struct machine *m = v->machine;
    uint8_t bytes[INSN_MAX_BYTES];
    enum need need = NEED_NOTHING;
    struct place first = place_of(v, eip);
    if (claims_of(m, first.frame)[first.offset] == REPLACED)
        follows = !patch_ends_block(v, eip);
    replacement(insn, follows, bytes);
    for (uint32_t i = 0; i < insn->length; i++) {
        struct place p = place_of(v, eip + i);
        uint8_t *claim = &claims_of(m, p.frame)[p.offset];
        if (*claim == CLAIMED || (*claim == REPLACED && *shadow_byte(m, p) != bytes[i]))
            return NEED_STEPS;
        if (*claim == REPLACED)
            continue;
        need = NEED_CHANGE;
        if (change) {
            *claim = REPLACED;
            *shadow_byte(m, p) = bytes[i];
        }
    }
    return need;
}

static enum need look_at(struct vcpu *v, uint32_t eip, uint32_t size, bool change)
{
    uint8_t buffer[2 * PAGE_BYTES];
    enum need need = NEED_NOTHING;
    bool follows = false;
    if (size > PAGE_BYTES)
        size = PAGE_BYTES;
    const uint8_t *code = fetched_bytes(v, eip, size, buffer);
    struct insn insn;
    for (uint32_t at = 0; at < size; at += insn.length) {
        decode_for(v->machine, code + at, size - at, &insn);
        if (insn.flags & INSN_TRUNCATED)
            break;  /* the engine raised an exception (#NM, #UD) before it had read it all */
        bool ours = insn.ours && !(insn.flags & INSN_REFUSED);
        enum need one = ours ? need_replaced(v, eip + at, &insn, follows, change) : need_native(v, eip + at, insn.length);
        if (one > need)
            need = one;
        follows = ours;
    }
    return need;
}

/* Whether the engine may execute this block as it is translated now. */
bool patch_block_is_ready(struct vcpu *v, uint32_t eip, uint32_t size)
{
    return look_at(v, eip, size, false) == NEED_NOTHING;
}

static void forget_in_engines(struct machine *m, uint32_t frame, uint32_t offset, uint32_t size, bool flush)
{
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (!(v->executed[frame >> 3] >> (frame & 7) & 1))
            continue;
        engine_forget_code(v, (uint64_t)frame * PAGE_BYTES + offset, size);
        v->engine_flush |= flush;
    }
}

/* From here on engines fetch from the copy. */
static void begin_copy(struct machine *m, uint32_t frame)
{
    if (m->frame_flags[frame] & FRAME_SHADOWED)
        return;
    size_t start = (size_t)frame * PAGE_BYTES;
    memcpy(m->shadow + start, m->ram + start, PAGE_BYTES);
    forget_in_engines(m, frame, 0, PAGE_BYTES, true);
    m->frame_flags[frame] |= FRAME_SHADOWED;
}

/* The page's code is executed from RAM, by single steps, until it changes. */
static void give_up_copy(struct machine *m, uint32_t frame)
{
    forget_in_engines(m, frame, 0, PAGE_BYTES, true);
    m->frame_flags[frame] = (uint8_t)((m->frame_flags[frame] & ~FRAME_SHADOWED) | FRAME_HAZARDOUS);
}

static void drop_copies(struct vcpu *v, struct place first, struct place last)
{
    give_up_copy(v->machine, first.frame);
    give_up_copy(v->machine, last.frame);
}

/* Makes the block at v->patch ready. No engine runs. */
void patch_block(struct vcpu *v)
{
    uint32_t eip = v->patch_eip, size = v->patch_size;
    struct place first = place_of(v, eip), last = place_of(v, eip + size - 1);
    if (look_at(v, eip, size, false) == NEED_STEPS) {
        drop_copies(v, first, last);
        return;
    }
    begin_copy(v->machine, first.frame);
    begin_copy(v->machine, last.frame);
    if (look_at(v, eip, size, true) == NEED_STEPS) {  /* it overlaps itself */
        drop_copies(v, first, last);
        return;
    }
    if (first.frame == last.frame && first.offset <= last.offset) {
        forget_in_engines(v->machine, first.frame, first.offset, size, false);
    } else {
        forget_in_engines(v->machine, first.frame, first.offset, PAGE_BYTES - first.offset, false);
        forget_in_engines(v->machine, last.frame, 0, last.offset + 1, false);
    }
}

/* Before the engine executes one instruction alone: if the copy has others in its place, it is given up. */
void patch_check_step(struct vcpu *v, const struct insn *insn, const uint32_t frames[2])
{
    struct machine *m = v->machine;
    for (uint32_t i = 0; i < insn->length; i++) {
        uint32_t offset = (v->eip + i) & ~PAGE_MASK;
        uint32_t frame = frames[offset < (v->eip & ~PAGE_MASK)];
        struct place p = {frame, offset};
        if (m->frame_flags[frame] & FRAME_SHADOWED && *shadow_byte(m, p) != m->ram[(size_t)frame * PAGE_BYTES + offset])
            give_up_copy(m, frame);
    }
}

/* The content of the frame is no longer code. */
void patch_forget(struct machine *m, uint32_t frame)
{
    free(m->claims[frame]);
    m->claims[frame] = NULL;
}
