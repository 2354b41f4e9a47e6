/*
 * One instruction at a time: decoded here first, then executed alone under TF, and charged by hand.
 *
 * For what the engine cannot be trusted with as part of a block: instructions it would execute although
 * user mode may not, loads of segment registers, memory operands in a null segment, a store into the page
 * that the instruction lies on, blocks whose second page is not mapped (the engine would report that
 * before executing the first page's part), pages with bytes that would abort it (decode_is_hazardous()),
 * and programs that step themselves.
 *
 * Ref: Intel SDM vol. 3, 6.8 (traps delayed by a load of SS), 17.3.1.4 (single-step).
 */
#include <string.h>

#include "vcpu.h"

static uint64_t reported_fault(const struct vcpu *v)
{
    return page_fault(v->fault.address, v->fault.write, v->fault.fetch, v->fault.present);
}

static const uint8_t *frame_bytes(const struct vcpu *v, uint32_t frame, uint32_t address)
{
    return v->machine->ram + (size_t)frame * PAGE_BYTES + (address & ~PAGE_MASK);
}

/* Fetches and decodes the instruction at v->eip without the engine. GO_ON, or the page fault of that. */
uint64_t peek(struct vcpu *v, struct insn *insn, uint32_t frames[2])
{
    uint8_t bytes[INSN_MAX_BYTES];
    uint32_t part = PAGE_BYTES - (v->eip & ~PAGE_MASK);
    uint32_t size = part < sizeof bytes ? part : sizeof bytes;
    struct mapping m;
    if (!access_page(v, v->eip, ACCESS_FETCH, &m))
        return reported_fault(v);
    frames[0] = frames[1] = m.frame;
    memcpy(bytes, frame_bytes(v, m.frame, v->eip), size);
    decode_for(v->machine, bytes, size, insn);
    if (!(insn->flags & INSN_TRUNCATED) || size == sizeof bytes)
        return GO_ON;
    if (!access_page(v, v->eip + part, ACCESS_FETCH, &m))
        return reported_fault(v);
    frames[1] = m.frame;
    memcpy(bytes + size, frame_bytes(v, m.frame, 0), sizeof bytes - size);
    decode_for(v->machine, bytes, sizeof bytes, insn);
    return GO_ON;
}

static uint64_t refuse_insn(struct vcpu *v, const struct insn *insn)
{
    if (insn->refusal == REFUSE_UD)
        return exception(VECTOR_UD, 0);
    if (insn->refusal == REFUSE_GP)
        return exception(VECTOR_GP, 0);
    v->eip += insn->length;  /* icebp: a trap */
    v->instructions++;
    v->clock += insn_cost(v, insn);
    return exception(VECTOR_DB, 0);
}

/* Goes on by single steps as long as EIP stays on this page, but not for more than so many. */
void step_carefully(struct vcpu *v, uint32_t eip, uint32_t steps)
{
    v->careful_page = (eip & PAGE_MASK) + 1;
    v->careful_steps = steps;
}

/* pushf under our own TF: the flag must not show in what it pushed. */
static void clean_pushed_flags(struct vcpu *v)
{
    struct mapping m;
    uint32_t address = engine_word(v, UC_X86_REG_ESP) + 1;  /* TF is bit 8 */
    if (access_page(v, address, ACCESS_READ, &m))
        v->machine->ram[(size_t)m.frame * PAGE_BYTES + (address & ~PAGE_MASK)] &= (uint8_t)~(EFLAGS_TF >> 8);
}

static void *const *register_values(uint32_t values[9], void *pointers[9])
{
    for (int i = 0; i < 9; i++)
        pointers[i] = &values[i];
    return pointers;
}

/* A far transfer took effect, but code in any other segment than the flat one cannot be accounted for. */
static uint64_t undo_far_transfer(struct vcpu *v, uint32_t eip, uint32_t registers[9])
{
    void *pointers[9];
    uint32_t selector = v->segments[X86_CS];
    uint16_t flat = 0x1b;
    engine_write(v, UC_X86_REG_CS, &flat);
    engine.uc_reg_write_batch(v->uc, general_registers, register_values(registers, pointers), 9);
    v->segments[X86_CS] = flat;
    v->eip = eip;
    return exception(VECTOR_GP, selector & 0xfffc);
}

/* Reads 2 or 4 bytes, which may lie on two pages; false: see reported_fault(). */
static bool read_word(struct vcpu *v, uint32_t address, uint32_t size, uint32_t *word)
{
    *word = 0;
    for (uint32_t i = 0; i < size; i++) {
        struct mapping m;
        if (!access_page(v, address + i, ACCESS_READ, &m))
            return false;
        *word |= (uint32_t)*frame_bytes(v, m.frame, address + i) << 8 * i;
    }
    return true;
}

/*
 * iret, done here: the engine would enter virtual-8086 mode if the flags on the stack say so, which
 * user mode may not. Only to the flat code segment. Ref: Intel SDM vol. 2, IRET.
 */
static uint64_t interrupt_return(struct vcpu *v, const struct insn *insn, uint32_t old_flags)
{
    const uint32_t changeable = EFLAGS_USER & (insn->operand_bytes == 2 ? 0xffff : UINT32_MAX);
    uint32_t popped[3], esp = engine_word(v, UC_X86_REG_ESP);
    if (old_flags & EFLAGS_NT)
        return exception(VECTOR_TS, 0);  /* a task return, and there is no task to return to */
    for (uint32_t i = 0; i < 3; i++)
        if (!read_word(v, esp + i * insn->operand_bytes, insn->operand_bytes, &popped[i]))
            return reported_fault(v);
    if ((popped[1] & 0xffff) != 0x1b)
        return exception(VECTOR_GP, popped[1] & 0xfffc);
    uint32_t flags = (old_flags & ~changeable) | (popped[2] & changeable);
    esp += 3u * insn->operand_bytes;
    engine_write(v, UC_X86_REG_ESP, &esp);
    engine_write(v, UC_X86_REG_EFLAGS, &flags);
    v->eip = popped[0];
    return GO_ON;
}

static uint64_t complete_step(struct vcpu *v, const struct insn *insn, bool own_tf)
{
    v->instructions++;
    v->clock += insn_cost(v, insn);
    v->resuming = !(insn->flags & (INSN_ENDS_BLOCK | INSN_POPS_FLAGS));
    v->trap_next = insn->flags & INSN_POPS_FLAGS && engine_word(v, UC_X86_REG_EFLAGS) & EFLAGS_TF;
    set_limit(v);
    return own_tf && !(insn->flags & INSN_LOADS_SS) ? exception(VECTOR_DB, 0) : GO_ON;
}

/* An instruction that the shim executes; the engine does not see it. */
static uint64_t step_ours(struct vcpu *v, const struct insn *insn, const uint32_t frames[2])
{
    uint8_t code[INSN_MAX_BYTES + 1] = {0};
    struct operation op;
    bool own_tf = engine_word(v, UC_X86_REG_EFLAGS) & EFLAGS_TF;
    for (uint32_t i = 0; i < insn->length; i++) {
        uint32_t offset = (v->eip + i) & ~PAGE_MASK;
        code[i] = *frame_bytes(v, frames[offset < (v->eip & ~PAGE_MASK)], offset);
    }
    operation_decode(code, &op);
    op.eip = v->eip;
    enum ending ending = operation_execute(v, &op);
    if (ending == DONE) {
        v->eip += insn->length;
        return complete_step(v, insn, own_tf);
    }
    return ending == LEFT && v->event == EVENT_WATCH ? debug_watched_access(v) : operation_outcome(v, ending);
}

/*
 * Executes the instruction at v->eip alone: under TF, which traps behind it. `shared`: it may write to the page it lies on.
 * GO_ON, or what the kernel must see.
 */
uint64_t step(struct vcpu *v, bool shared)
{
    struct insn insn;
    uint32_t frames[2], registers[9];
    void *pointers[9];
    uint64_t outcome;
    if (UNLIKELY(v->machine->debug.active) && debug_stops_here(v, &outcome))
        return outcome;
    outcome = peek(v, &insn, frames);
    if (outcome != GO_ON)
        return outcome;
    if (insn.flags & INSN_REFUSED)
        return refuse_insn(v, &insn);
    uint32_t null = insn.flags & v->null_segments;
    if (null)
        return exception(null & 1 << X86_SS ? VECTOR_SS : VECTOR_GP, 0);

    if (insn.writes & v->read_only_segments)
        return exception(VECTOR_GP, 0);
    if (insn.ours)
        return step_ours(v, &insn, frames);
    patch_check_step(v, &insn, frames);

    uint32_t eip = v->eip;
    engine.uc_reg_read_batch(v->uc, general_registers, (void **)register_values(registers, pointers), 9);
    /* Where no trap follows, the engine ends a block: leave at the next one instead. */
    bool own_tf = registers[8] & EFLAGS_TF, by_block = insn.flags & (INSN_LOADS_SS | INSN_PAUSE);
    if (insn.flags & INSN_POPS_FLAGS && insn.flags & INSN_LOADS_SEGMENT) {
        outcome = interrupt_return(v, &insn, registers[8]);
        return outcome == GO_ON ? complete_step(v, &insn, own_tf) : outcome;
    }
    uint32_t flags = by_block ? registers[8] & ~EFLAGS_TF : registers[8] | EFLAGS_TF;
    engine_write(v, UC_X86_REG_EFLAGS, &flags);
    v->stepping = true;
    set_limit(v);
    v->step_blocks = by_block ? 2 : 0;
    if (shared)
        memcpy(v->shared_frames, frames, sizeof frames);
    uc_err err = run_engine(v);
    v->shared_frames[0] = v->shared_frames[1] = NO_FRAME;
    v->stepping = false;
    set_limit(v);
    if (shared) {
        forget_frame(v->machine, frames[0]);
        forget_frame(v->machine, frames[1]);
    }
    if ((v->machine->frame_flags[frames[0]] | v->machine->frame_flags[frames[1]]) & FRAME_HAZARDOUS) {
        v->free_flush = true;  /* it may now fetch there without asking */
        step_carefully(v, eip, UINT32_MAX);
    }

    bool completed = by_block ? v->event == EVENT_STEP : v->event == EVENT_INTERRUPT && v->vector == VECTOR_DB;
    if (!(completed && insn.flags & INSN_POPS_FLAGS)) {
        flags = (engine_word(v, UC_X86_REG_EFLAGS) & ~EFLAGS_TF) | (registers[8] & EFLAGS_TF);
        engine_write(v, UC_X86_REG_EFLAGS, &flags);
    }
    if (!completed)
        return report(v, err, &insn);
    if (insn.flags & INSN_PUSHES_FLAGS && !own_tf)
        clean_pushed_flags(v);
    if (insn.flags & INSN_LOADS_SEGMENT) {
        read_segments(v);
        if (v->segments[X86_CS] != 0x1b)
            return undo_far_transfer(v, eip, registers);
    }
    return complete_step(v, &insn, own_tf);
}

uint64_t step_one(struct vcpu *v)
{
    return step(v, false);
}
