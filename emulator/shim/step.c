/*
 * See step.h. One instruction at a time: decoded here first, then executed alone under TF, and charged by hand.
 *
 * For what the engine cannot be trusted with as part of a block: instructions it would execute although
 * user mode may not, loads of segment registers, memory operands in a null segment, a store into the page
 * that the instruction lies on, blocks whose second page is not mapped (the engine would report that
 * before executing the first page's part), pages with bytes that would abort it (decode_is_hazardous()),
 * and programs that step themselves.
 *
 * Ref: Intel SDM vol. 3, 6.8 (traps delayed by a load of SS), 17.3.1.4 (single-step).
 */
#include "step.h"

#include <string.h>

#include "books.h"
#include "coherence.h"
#include "debug.h"
#include "engine.h"
#include "features.h"
#include "limits.h"
#include "mmu.h"
#include "operand.h"
#include "operation.h"
#include "outcome.h"
#include "patch.h"
#include "report.h"
#include "run.h"
#include "segments.h"
#include "vcpu.h"

static uint8_t *bytes_at(const struct vcpu *v, uint32_t pfn, uint32_t address)
{
    return ram_at(&v->machine->ram, pfn, address & ~PAGE_MASK);
}

uint64_t step_peek(struct vcpu *v, struct insn *insn, uint32_t pfns[2])
{
    uint8_t bytes[INSN_MAX_BYTES];
    uint32_t part = PAGE_BYTES - (v->eip & ~PAGE_MASK);
    uint32_t size = part < sizeof bytes ? part : sizeof bytes;
    struct mapping m;
    if (!mmu_access(v, v->eip, ACCESS_FETCH, &m))
        return report_as_page_fault(&v->report);
    pfns[0] = pfns[1] = m.pfn;
    memcpy(bytes, bytes_at(v, m.pfn, v->eip), size);
    features_decode(&v->machine->features, bytes, size, insn);
    if (!(insn->flags & INSN_TRUNCATED) || size == sizeof bytes)
        return GO_ON;
    if (!mmu_access(v, v->eip + part, ACCESS_FETCH, &m))
        return report_as_page_fault(&v->report);
    pfns[1] = m.pfn;
    memcpy(bytes + size, bytes_at(v, m.pfn, 0), sizeof bytes - size);
    features_decode(&v->machine->features, bytes, sizeof bytes, insn);
    return GO_ON;
}

static uint64_t refuse_insn(struct vcpu *v, const struct insn *insn)
{
    if (insn->refusal == REFUSE_UD)
        return exception(VECTOR_UD, 0);
    if (insn->refusal == REFUSE_GP)
        return exception(VECTOR_GP, 0);
    v->eip += insn->length;  /* icebp: a trap */
    books_charge_insn(v, insn);
    return exception(VECTOR_DB, 0);
}

/* pushf under our own TF: the flag must not show in what it pushed. */
static void clean_pushed_flags(struct vcpu *v)
{
    struct mapping m;
    uint32_t address = engine_word(&v->engine, UC_X86_REG_ESP) + 1;  /* TF is bit 8 */
    if (mmu_access(v, address, ACCESS_READ, &m))
        *bytes_at(v, m.pfn, address) &= (uint8_t)~(EFLAGS_TF >> 8);
}

/* A far transfer took effect, but code in any other segment than the flat one cannot be accounted for. */
static uint64_t undo_far_transfer(struct vcpu *v, uint32_t eip, uint32_t registers[REGISTER_COUNT])
{
    uint32_t selector = segments_undo_code(v);
    engine_write_registers(&v->engine, registers, registers[REGISTER_EFLAGS]);
    v->eip = eip;
    return exception(VECTOR_GP, selector & 0xfffc);
}

/* Reads 2 or 4 bytes, which may lie on two pages; false: see report_as_page_fault(). */
static bool read_word(struct vcpu *v, uint32_t address, uint32_t size, uint32_t *word)
{
    *word = 0;
    for (uint32_t i = 0; i < size; i++) {
        struct mapping m;
        if (!mmu_access(v, address + i, ACCESS_READ, &m))
            return false;
        *word |= (uint32_t)*bytes_at(v, m.pfn, address + i) << 8 * i;
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
    uint32_t popped[3], esp = engine_word(&v->engine, UC_X86_REG_ESP);
    if (old_flags & EFLAGS_NT)
        return exception(VECTOR_TS, 0);  /* a task return, and there is no task to return to */
    for (uint32_t i = 0; i < 3; i++)
        if (!read_word(v, esp + i * insn->operand_bytes, insn->operand_bytes, &popped[i]))
            return report_as_page_fault(&v->report);
    if ((popped[1] & 0xffff) != v->machine->interface.code_selector)
        return exception(VECTOR_GP, popped[1] & 0xfffc);
    uint32_t flags = (old_flags & ~changeable) | (popped[2] & changeable);
    esp += 3u * insn->operand_bytes;
    engine_write(&v->engine, UC_X86_REG_ESP, &esp);
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &flags);
    v->eip = popped[0];
    return GO_ON;
}

static uint64_t complete_step(struct vcpu *v, const struct insn *insn, bool own_tf)
{
    books_charge_insn(v, insn);
    v->step.trap_next =
        insn->flags & INSN_POPS_FLAGS && engine_word(&v->engine, UC_X86_REG_EFLAGS) & EFLAGS_TF;
    run_set_resuming(v, !(insn->flags & (INSN_ENDS_BLOCK | INSN_POPS_FLAGS)));
    return own_tf && !(insn->flags & INSN_LOADS_SS) ? exception(VECTOR_DB, 0) : GO_ON;
}

/* The instruction at EIP, and a byte more. */
static void gather(const struct vcpu *v, const struct insn *insn, const uint32_t pfns[2], uint8_t code[INSN_MAX_BYTES + 1])
{
    memset(code, 0, INSN_MAX_BYTES + 1);
    for (uint32_t i = 0; i < insn->length; i++) {
        uint32_t offset = (v->eip + i) & ~PAGE_MASK;
        code[i] = *bytes_at(v, pfns[offset < (v->eip & ~PAGE_MASK)], offset);
    }
}

/* Whether it may use the segments of its memory operands at all. */
static uint64_t check_kinds(struct vcpu *v, const struct insn *insn)
{
    uint32_t null = insn->flags & segments_null(&v->segments);
    if (null)
        return exception(null & 1 << X86_SS ? VECTOR_SS : VECTOR_GP, 0);
    return insn->writes & segments_read_only(&v->segments) ? exception(VECTOR_GP, 0) : GO_ON;
}

static uint64_t check_segments(struct vcpu *v, const struct insn *insn, const uint32_t pfns[2])
{
    uint32_t count = insn->flags & INSN_REPEAT ? engine_word(&v->engine, UC_X86_REG_ECX) : 1;
    if ((insn->flags & INSN_ADDRESS16 ? count & 0xffff : count) == 0)
        return GO_ON;  /* no time at all */
    uint64_t outcome = check_kinds(v, insn);
    if (LIKELY(outcome == GO_ON && !(insn->flags & segments_limited(&v->segments)) && !segments_limit_stack(&v->segments)))
        return GO_ON;
    uint8_t code[INSN_MAX_BYTES + 1];
    gather(v, insn, pfns, code);
    return limits_check(v, insn, code, outcome);
}

/* An instruction that the shim executes; the engine does not see it. */
static uint64_t step_ours(struct vcpu *v, const struct insn *insn, const uint32_t pfns[2])
{
    uint8_t code[INSN_MAX_BYTES + 1];
    struct operation op;
    bool own_tf = engine_word(&v->engine, UC_X86_REG_EFLAGS) & EFLAGS_TF;
    gather(v, insn, pfns, code);
    operation_decode(code, &op);
    op.eip = v->eip;
    enum ending ending = operation_begin(v, &op);
    uint64_t outcome = ending == DONE && !operation_skips_operand(v, &op) ? check_segments(v, insn, pfns) : GO_ON;
    if (outcome != GO_ON)
        return outcome;
    ending = ending == DONE ? operation_execute(v, &op) : ending;
    if (ending == DONE) {
        v->eip += insn->length;
        return complete_step(v, insn, own_tf);
    }
    if (ending == RAISED)
        return report_as_exception(&v->report);
    return report_reason(&v->report) == EXIT_WATCH ? debug_watched_access(v) : report_as_page_fault(&v->report);
}

/*
 * mov ss and pop ss where the engine must not see what follows: it takes no trap behind them, so it would translate that.
 * Ref: Intel SDM vol. 2, MOV and POP (exceptions); vol. 3, 6.8.3.
 */
static uint64_t load_stack_segment(struct vcpu *v, const struct insn *insn, const uint32_t pfns[2])
{
    uint8_t code[INSN_MAX_BYTES + 1];
    struct operation op;
    int override;
    uint32_t word, esp = engine_word(&v->engine, UC_X86_REG_ESP);
    gather(v, insn, pfns, code);
    const uint8_t *p = operation_decode_opcode(code, &op, &override);
    bool pops = op.opcode == 0x17;
    if (!pops)
        operation_decode_modrm(p, &op, override);
    if (!pops && !op.memory)
        word = operand_general(v, op.modrm & 7);
    else if (!read_word(v, pops ? segments_base(&v->segments, X86_SS) + (esp & segments_stack_mask(&v->segments))
                                : operand_address(v, &op), pops ? insn->operand_bytes : 2, &word))
        return report_as_page_fault(&v->report);
    uint16_t selector = (uint16_t)word;
    if (!engine_try_write(&v->engine, UC_X86_REG_SS, &selector))
        return exception(segments_are_absent(v, selector) ? VECTOR_SS : VECTOR_GP, selector & 0xfffc);
    if (pops) {
        uint32_t mask = segments_stack_mask(&v->segments), moved = (esp & ~mask) | ((esp + insn->operand_bytes) & mask);
        engine_write(&v->engine, UC_X86_REG_ESP, &moved);
    }
    segments_read(v);
    v->eip += insn->length;
    return GO_ON;
}

/* Lets the engine execute one instruction: until the trap behind it, or until the block behind its own. */
static uc_err run_alone(struct vcpu *v, const uint32_t pfns[2], bool shared, bool by_block)
{
    struct step *s = &v->step;
    s->on = true;
    run_set_limit(v);
    s->blocks = by_block ? 2 : 0;
    if (shared)
        memcpy(s->shared_pfns, pfns, sizeof s->shared_pfns);
    uc_err err = run_engine(v, true);
    s->shared_pfns[0] = s->shared_pfns[1] = NO_PFN;
    s->on = false;
    run_set_limit(v);
    if (shared) {
        coherence_forget(v->machine, pfns[0]);
        coherence_forget(v->machine, pfns[1]);
    }
    return err;
}

uint64_t step(struct vcpu *v, bool shared)
{
    struct insn insn;
    uint32_t pfns[2], registers[REGISTER_COUNT];
    uint64_t outcome;
    if (UNLIKELY(debug_is_active(&v->machine->debug)) && debug_stops_here(v, &outcome))
        return outcome;
    outcome = step_peek(v, &insn, pfns);
    if (outcome != GO_ON)
        return outcome;
    if (insn.flags & INSN_REFUSED)
        return refuse_insn(v, &insn);
    if (insn.ours)
        return step_ours(v, &insn, pfns);
    outcome = check_segments(v, &insn, pfns);
    if (outcome != GO_ON)
        return outcome;
    patch_check_step(v, &insn, pfns);

    uint32_t eip = v->eip;
    engine_read_registers(&v->engine, registers, &registers[REGISTER_EFLAGS]);
    /* Where no trap follows, the engine ends a block: leave at the next one instead. */
    bool own_tf = registers[REGISTER_EFLAGS] & EFLAGS_TF, by_block = insn.flags & INSN_LOADS_SS;
    if (insn.flags & INSN_PAUSE) {  /* nothing */
        v->eip += insn.length;
        return complete_step(v, &insn, own_tf);
    }
    if (by_block && (decode_is_hazardous(bytes_at(v, pfns[0], 0)) || decode_is_hazardous(bytes_at(v, pfns[1], 0)))) {
        outcome = load_stack_segment(v, &insn, pfns);
        return outcome == GO_ON ? complete_step(v, &insn, own_tf) : outcome;
    }
    if (insn.flags & INSN_POPS_FLAGS && insn.flags & INSN_LOADS_SEGMENT) {
        outcome = interrupt_return(v, &insn, registers[REGISTER_EFLAGS]);
        return outcome == GO_ON ? complete_step(v, &insn, own_tf) : outcome;
    }
    uint32_t flags = by_block ? registers[REGISTER_EFLAGS] & ~EFLAGS_TF : registers[REGISTER_EFLAGS] | EFLAGS_TF;
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &flags);
    uc_err err = run_alone(v, pfns, shared, by_block);
    const struct ram *ram = &v->machine->ram;
    if (ram_is_marked(ram, pfns[0], PAGE_HAZARDOUS) || ram_is_marked(ram, pfns[1], PAGE_HAZARDOUS)) {
        engine_must_flush_if_free(&v->engine);  /* it may now fetch there without asking */
        step_carefully(&v->step, eip, UINT32_MAX);
    }

    bool completed = by_block ? report_reason(&v->report) == EXIT_STEP : report_vector(&v->report) == VECTOR_DB;
    if (!(completed && insn.flags & INSN_POPS_FLAGS)) {
        flags = (engine_word(&v->engine, UC_X86_REG_EFLAGS) & ~EFLAGS_TF) | (registers[REGISTER_EFLAGS] & EFLAGS_TF);
        engine_write(&v->engine, UC_X86_REG_EFLAGS, &flags);
    }
    if (!completed)
        return report(v, err, &insn);
    if (insn.flags & INSN_PUSHES_FLAGS && !own_tf)
        clean_pushed_flags(v);
    if (insn.flags & INSN_LOADS_SEGMENT) {
        segments_read(v);
        if (!segments_code_is_flat(v))
            return undo_far_transfer(v, eip, registers);
    }
    return complete_step(v, &insn, own_tf);
}
