/*
 * Integer instructions that the shim executes, because the engine does not know them, loses flags, or has changed
 * something by the time it faults. Here memory is asked for before anything changes.
 *
 * Ref: Intel SDM vol. 2, the instructions; vol. 3, 6.5 (a fault leaves the state before the instruction).
 */
#include "integer.h"

#include <string.h>

#include "operand.h"
#include "segments.h"
#include "vcpu.h"

/* test by F6/1 and F7/1, which the engine does not know (APM vol. 3, table A-6). */
static enum ending test(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->opcode == 0xf6 ? 1 : op->operand16 ? 2 : 4, value = 0, sign = 1u << (8 * size - 1);
    if (op->memory) {
        TRY(operand_read(v, operand_address(v, op), &value, size));
    } else if (size == 1) {
        unsigned number = op->modrm & 7;
        value = operand_general(v, number & 3) >> (number & 4 ? 8 : 0) & 0xff;
    } else {
        value = operand_general(v, op->modrm & 7) & (sign | (sign - 1));
    }
    value &= size == 1 ? op->immediate : op->wide_immediate;
    uint32_t flags = (value == 0 ? ZF : 0) | (value & sign ? SF : 0) | (__builtin_parity(value & 0xff) ? 0 : PF);
    operand_set_eflags(v, flags, CF | PF | ZF | SF | OF);
    return DONE;
}

/* Flags of 0 - value in `size` bytes. */
static uint32_t flags_of_negation(uint32_t value, uint32_t size)
{
    uint32_t sign = 1u << (8 * size - 1), result = (0 - value) & (sign | (sign - 1));
    return (value ? CF : ZF) | (result & sign ? SF : 0) | (result & value & sign ? OF : 0) | (value & 15 ? AF : 0)
         | (__builtin_parity(result & 0xff) ? 0 : PF);
}

/* A locked neg of memory by F6/3 and F7/3, whose flags the engine takes from something else. */
static enum ending negate(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->opcode == 0xf6 ? 1 : op->operand16 ? 2 : 4, address = operand_address(v, op), value = 0;
    TRY(operand_probe_write(v, address, size));
    TRY(operand_read(v, address, &value, size));
    uint32_t flags = flags_of_negation(value, size);
    value = 0 - value;
    TRY(operand_write(v, address, &value, size));
    operand_set_arithmetic_flags(v, flags);
    return DONE;
}

/* cmpxchg8b, which in the engine loses the flags of the instruction before. It always writes (SDM vol. 2). */
static enum ending compare_and_exchange(struct vcpu *v, const struct operation *op)
{
    uint32_t address = operand_address(v, op), words[2];
    TRY(operand_probe_write(v, address, 8));
    TRY(operand_read(v, address, words, 8));
    bool equal = words[0] == operand_general(v, 0) && words[1] == operand_general(v, 2);
    if (equal) {
        words[0] = operand_general(v, 3);
        words[1] = operand_general(v, 1);
    } else {
        operand_set_general(v, 0, words[0]);
        operand_set_general(v, 2, words[1]);
    }
    TRY(operand_write(v, address, words, 8));
    operand_set_eflags(v, equal ? ZF : 0, ZF);
    return DONE;
}

/* clflush: faults as a load does (SDM vol. 2); there is no cache to flush. */
static enum ending flush_line(struct vcpu *v, const struct operation *op)
{
    uint8_t byte;
    return operand_read(v, operand_address(v, op), &byte, 1);
}

/* arpl, which writes only what it changes (SDM vol. 2). */
static enum ending adjust_rpl(struct vcpu *v, const struct operation *op)
{
    uint32_t address = op->memory ? operand_address(v, op) : 0;
    uint16_t selector = (uint16_t)operand_general(v, op->modrm & 7), least = operand_general(v, op->modrm >> 3 & 7) & 3;
    if (op->memory)
        TRY(operand_read(v, address, &selector, 2));
    bool below = (selector & 3) < least;
    if (below && op->memory && segments_read_only(&v->segments) >> op->segment & 1)
        return raise_vector(v, VECTOR_GP);
    selector = (uint16_t)((selector & ~3) | least);
    if (below && op->memory)
        TRY(operand_write(v, address, &selector, 2));
    else if (below)
        operand_set_general(v, op->modrm & 7, (operand_general(v, op->modrm & 7) & 0xffff0000) | selector);
    operand_set_eflags(v, below ? ZF : 0, ZF);
    return DONE;
}

/* rcl and rcr of memory, whose flags the engine changes before it has written. A bit at a time, carry included. */
static enum ending rotate_through_carry(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->opcode & 1 ? op->operand16 ? 2 : 4 : 1, bits = 8 * size, address = operand_address(v, op), value = 0;
    uint32_t count = (op->opcode < 0xd0 ? op->immediate : op->opcode < 0xd2 ? 1 : operand_general(v, 1)) & 31;
    bool right = op->modrm >> 3 & 1;
    TRY(operand_probe_write(v, address, size));
    TRY(operand_read(v, address, &value, size));
    uint64_t carry = operand_eflags(v) & CF;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t wide = (uint64_t)value | carry << bits;
        wide = right ? wide >> 1 | (wide & 1) << bits : wide << 1 | wide >> bits;
        value = (uint32_t)(wide & ((UINT64_C(1) << bits) - 1));
        carry = wide >> bits & 1;
    }
    TRY(operand_write(v, address, &value, size));
    if (count == 0)
        return DONE;
    uint32_t top = value >> (bits - 1) & 1, other = right ? value >> (bits - 2) & 1 : (uint32_t)carry;
    operand_set_eflags(v, (uint32_t)carry | (top != other ? OF : 0), CF | OF);
    return DONE;
}

/* lzcnt on a processor without it: the prefix means nothing, and it is bsr. */
static enum ending scan_reverse(struct vcpu *v, const struct operation *op)
{
    uint32_t value = 0, to = op->modrm >> 3 & 7;
    if (op->memory)
        TRY(operand_read(v, operand_address(v, op), &value, op->operand16 ? 2 : 4));
    else
        value = operand_general(v, op->modrm & 7) & (op->operand16 ? 0xffff : UINT32_MAX);
    if (value != 0) {
        uint32_t index = 31 - (uint32_t)__builtin_clz(value);
        operand_set_general(v, to, op->operand16 ? (operand_general(v, to) & 0xffff0000) | index : index);
    }
    operand_set_eflags(v, value == 0 ? ZF : 0, ZF);
    return DONE;
}

/* A prefetch of a register, which the engine refuses: a hint without meaning (APM vol. 3, PREFETCHlevel). */
static enum ending do_nothing(struct vcpu *v, const struct operation *op)
{
    (void)v;
    (void)op;
    return DONE;
}

static bool holds(uint32_t flags, unsigned condition)
{
    bool less = !(flags & SF) != !(flags & OF);
    const bool results[8] = {
        flags & OF, flags & CF, flags & ZF, flags & (CF | ZF), flags & SF, flags & PF, less, less || flags & ZF,
    };
    return results[condition >> 1] != (condition & 1);
}

/* setcc of memory, in which the engine loses the flags if that faults. */
static enum ending set_by_condition(struct vcpu *v, const struct operation *op)
{
    uint8_t byte = holds(operand_eflags(v), op->opcode & 15);
    return operand_write(v, operand_address(v, op), &byte, 1);
}

/* --- the stack ----------------------------------------------------------------------------------- */

enum { ESP = 4, EBP = 5 };

static uint32_t stack_address(struct vcpu *v, uint32_t offset)
{
    return offset + segments_base(&v->segments, X86_SS);
}

/* Whether `count` words can be pushed from `esp` down, the first of them asked for first. */
static enum ending probe_pushes(struct vcpu *v, uint32_t esp, uint32_t size, uint32_t count)
{
    for (uint32_t i = 1; i <= count; i++)
        TRY(operand_probe_write(v, stack_address(v, esp - i * size), size));
    return DONE;
}

static enum ending push_all(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->operand16 ? 2 : 4, esp = operand_general(v, ESP);
    TRY(probe_pushes(v, esp, size, 8));
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t word = operand_general(v, i);
        TRY(operand_write(v, stack_address(v, esp - (i + 1) * size), &word, size));
    }
    operand_set_general(v, ESP, esp - 8 * size);
    return DONE;
}

static enum ending pop_all(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->operand16 ? 2 : 4, esp = operand_general(v, ESP), words[8];
    for (uint32_t i = 0; i < 8; i++) {
        words[i] = operand_general(v, 7 - i);
        TRY(operand_read(v, stack_address(v, esp + i * size), &words[i], size));
    }
    for (uint32_t i = 0; i < 8; i++)
        if (7 - i != ESP)
            operand_set_general(v, 7 - i, words[i]);
    operand_set_general(v, ESP, esp + 8 * size);
    return DONE;
}

/* enter, which faults also where a write by the new ESP would. */
static enum ending enter_frame(struct vcpu *v, const struct operation *op)
{
    uint32_t size = op->operand16 ? 2 : 4, level = op->immediate & 31, esp = operand_general(v, ESP);
    uint32_t ebp = operand_general(v, EBP), frame = esp - size, pushed = level ? 1 + level : 1;
    TRY(probe_pushes(v, esp, size, pushed));
    uint32_t end = esp - pushed * size - op->wide_immediate;
    TRY(operand_probe_write(v, stack_address(v, end), size));
    for (uint32_t i = 1; i < level; i++) {
        uint32_t word;
        TRY(operand_read(v, stack_address(v, ebp - i * size), &word, size));
    }
    TRY(operand_write(v, stack_address(v, frame), &ebp, size));
    for (uint32_t i = 1; i < level; i++) {
        uint32_t word = 0;
        TRY(operand_read(v, stack_address(v, ebp - i * size), &word, size));
        TRY(operand_write(v, stack_address(v, frame - i * size), &word, size));
    }
    if (level > 0)
        TRY(operand_write(v, stack_address(v, frame - level * size), &frame, size));
    operand_set_general(v, EBP, size == 2 ? (ebp & 0xffff0000) | (frame & 0xffff) : frame);
    operand_set_general(v, ESP, end);
    return DONE;
}

bool integer_classify(struct operation *op)
{
    unsigned reg = op->modrm >> 3 & 7;
    if (op->map == 0) {
        switch (op->opcode) {
        case 0x60: op->execute = push_all; return true;
        case 0x61: op->execute = pop_all; return true;
        case 0x63: op->execute = adjust_rpl; return true;
        case 0xc8: op->execute = enter_frame; return true;
        case 0xf6: case 0xf7: op->execute = reg == 3 ? negate : test; return true;
        default: break;
        }
        op->execute = rotate_through_carry;
        return op->opcode < 0xd8;
    }
    switch (op->opcode) {
    case 0x18: op->execute = do_nothing; return true;
    case 0xae: op->execute = flush_line; return reg == 7;
    case 0xbd: op->execute = scan_reverse; return true;
    case 0xc7: op->execute = compare_and_exchange; return true;
    default: break;
    }
    op->execute = set_by_condition;
    return (op->opcode & 0xf0) == 0x90;
}
