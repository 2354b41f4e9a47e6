/*
 * The x87: its instructions decoded, and those that move its registers. The others are in the files that x87.h names.
 *
 * Ref: Intel SDM vol. 1, chapter 8 (registers, stack, exceptions); vol. 2, appendix A.5 (escape opcodes) and the F* instructions.
 */
#include "x87.h"

#include "fpu.h"
#include "operand.h"
#include "softfloat.h"
#include "vcpu.h"

static enum ending memory_form(struct vcpu *v, const struct operation *op, uint32_t address)
{
    static const char kinds[4] = {'s', 'l', 'd', 'w'};
    struct floating *f = &v->floating;
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    struct number n;
    if (op->control)
        return x87_state(v, op, address);
    if (row & 1)
        return x87_transfer(v, op, address);
    TRY(x87_load_operand(v, address, &kinds[row >> 1], &n));
    if ((reg & 6) == 2)
        x87_compare(f, &n, is_empty(f, 0), true, reg & 1);
    else
        x87_arithmetic(f, reg, &n, is_empty(f, 0), 0, false);
    return DONE;
}

static void exchange(struct floating *f, unsigned i)
{
    if (is_empty(f, 0) || is_empty(f, i)) {
        if (!stack_fault(f, false))
            return;
        if (is_empty(f, 0))
            put(f, 0, DEFAULT_NAN);
        if (is_empty(f, i))
            put(f, i, DEFAULT_NAN);
    } else {
        set_c1(f, false);
    }
    struct extended first = *st(f, 0);
    *st(f, 0) = *st(f, i);
    *st(f, i) = first;
}

static void load_register(struct floating *f, unsigned i)
{
    bool missing = is_empty(f, i);
    struct float_env env = x87_environment(f);
    if (missing) {
        if (stack_fault(f, false))
            push(f, DEFAULT_NAN);
        return;
    }
    x87_load(f, *st(f, i), &env);
}

static void store_register(struct floating *f, unsigned i, bool pops)
{
    struct extended value = *st(f, 0);
    if (is_empty(f, 0)) {
        if (!stack_fault(f, false))
            return;
        value = DEFAULT_NAN;
    } else {
        set_c1(f, false);
    }
    put(f, i, value);
    if (pops)
        pop(f);
}

/* fstpnouflow, D9 D8+i: of an empty register it is but a pop (APM vol. 3, table A-15). */
static void store_without_underflow(struct floating *f, unsigned i)
{
    if (!is_empty(f, 0))
        put(f, i, *st(f, 0));
    set_c1(f, false);
    pop(f);
}

static bool condition(struct vcpu *v, unsigned which)
{
    uint32_t flags = operand_eflags(v);
    static const uint32_t masks[4] = {CF, ZF, CF | ZF, PF};
    return (flags & masks[which]) != 0;
}

static void conditional_move(struct vcpu *v, unsigned i, bool moves)
{
    struct floating *f = &v->floating;
    if (is_empty(f, 0) || is_empty(f, i)) {
        if (stack_fault(f, false))
            put(f, 0, DEFAULT_NAN);
        return;
    }
    if (moves)
        *st(f, 0) = *st(f, i);
}

static enum ending register_form(struct vcpu *v, const struct operation *op)
{
    struct floating *f = &v->floating;
    unsigned reg = op->modrm >> 3 & 7, i = op->modrm & 7, row = op->opcode & 7;
    bool missing = is_empty(f, 0) || is_empty(f, i);
    struct number b = number_at(f, i);
    if (row == 0 || row == 4 || row == 6) {
        if ((reg & 6) == 2)
            x87_compare(f, &b, missing, true, row == 6 ? 1 + (reg & 1) : reg & 1);
        else
            x87_arithmetic(f, reg, &b, missing, row == 0 ? 0 : i, row == 6);
        return DONE;
    }
    switch (row << 3 | reg) {
    case 010: load_register(f, i); return DONE;
    case 011: case 051: case 071: exchange(f, i); return DONE;
    case 012: return DONE;  /* fnop */
    case 013: store_without_underflow(f, i); return DONE;
    case 053: case 072: case 073: store_register(f, i, true); return DONE;
    case 052: store_register(f, i, false); return DONE;
    case 014: case 015: case 016: case 017:
        x87_function(f, op->modrm);
        return DONE;
    case 020: case 021: case 022: case 023: conditional_move(v, i, condition(v, reg)); return DONE;
    case 030: case 031: case 032: case 033: conditional_move(v, i, !condition(v, reg)); return DONE;
    case 025: x87_compare(f, &b, missing, false, 2); return DONE;
    case 034:
        if (i == 2)
            f->status &= 0x7f00;
        else if (i == 3)
            initialize(f);
        return DONE;
    case 035: x87_compare_to_eflags(v, i, false, false); return DONE;
    case 036: x87_compare_to_eflags(v, i, true, false); return DONE;
    case 075: x87_compare_to_eflags(v, i, false, true); return DONE;
    case 076: x87_compare_to_eflags(v, i, true, true); return DONE;
    case 050: case 070:
        f->valid &= (uint8_t)~(1 << ((f->top + i) & 7));
        set_c1(f, false);
        if (row == 7)
            pop(f);
        return DONE;
    case 054: case 055: x87_compare(f, &b, missing, false, reg & 1); return DONE;
    case 074:
        operand_set_general(v, 0, (operand_general(v, 0) & 0xffff0000) | status_word(f));
        return DONE;
    default: return raise_vector(v, VECTOR_UD);
    }
}

enum ending x87_check_pending(struct vcpu *v)
{
    return v->floating.status & STATUS_ES ? raise_vector(v, VECTOR_MF) : DONE;
}

/* Whether there is no such instruction: #UD comes before what is pending (SDM vol. 3, table 6-2). */
static bool is_reserved(const struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7, low = op->modrm & 63;
    if (op->memory)
        return (row == 1 && reg == 1) || (row == 3 && (reg == 4 || reg == 6)) || (row == 5 && reg == 5);
    switch (row) {
    case 1: return (reg == 2 && low != 020) || low == 042 || low == 043 || low == 046 || low == 047 || low == 057;
    case 2: return reg >= 4 && low != 051;
    case 3: return (reg == 4 && low > 044) || reg == 7;
    case 5: return reg >= 6;
    case 6: return reg == 3 && low != 031;
    case 7: return (reg == 4 && low != 040) || reg == 7;
    default: return false;
    }
}

static enum ending refuse(struct vcpu *v, const struct operation *op)
{
    (void)op;
    return raise_vector(v, VECTOR_UD);
}

/* fnclex, fninit, fnstsw, fnstcw, fnstenv, fnsave and the like: they do not wait, and are not remembered. */
void x87_classify(struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7, row = op->opcode & 7;
    executor quick = x87_quick(op);
    op->execute = is_reserved(op) ? refuse : quick ? quick : x87_execute;
    if (op->memory) {
        op->control = (row == 1 && reg >= 4) || (row == 5 && (reg == 4 || reg >= 6));
        op->waits = !(op->control && reg >= 6);
    } else {
        op->control = (row == 3 && reg == 4) || (row == 7 && reg == 4);
        op->waits = !op->control;
    }
}

/* What comes before anything of a memory operand, its segment included (SDM vol. 3, table 6-2). */
enum ending x87_begin(struct vcpu *v, const struct operation *op)
{
    if (op->execute == refuse)
        return refuse(v, op);
    return op->waits ? x87_check_pending(v) : DONE;
}

enum ending x87_execute(struct vcpu *v, const struct operation *op)
{
    if (op->waits)
        TRY(x87_check_pending(v));
    uint32_t address = op->memory ? operand_address(v, op) : 0;
    TRY(op->memory ? memory_form(v, op, address) : register_form(v, op));
    if (UNLIKELY(fpu_must_show(&v->fpu, &v->floating)))
        fpu_write_pending(v);
    if (!op->control)
        x87_remember(v, op, op->memory ? operand_offset(v, op) : 0);
    return DONE;
}
