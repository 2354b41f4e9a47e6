/*
 * See limits.h. Which bytes an instruction accesses, from its operands: only threads with descriptors of their own need that, and
 * only for instructions in segments that are not all of 4 GiB. Of those that are, the manual leaves open what an access does
 * that runs over their end.
 *
 * Ref: Intel SDM vol. 3, 5.3 (limit checking), 3.4.5 (descriptors); vol. 2, the instructions (operands).
 */
#include "limits.h"

#include <string.h>

#include "mmu.h"
#include "opcodes.h"
#include "operand.h"
#include "operation.h"
#include "outcome.h"
#include "report.h"
#include "segments.h"
#include "vcpu.h"

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };

static uint64_t check(const struct vcpu *v, unsigned segment, uint32_t offset, uint32_t size)
{
    if (segments_have(&v->segments, segment, offset, size))
        return GO_ON;
    return exception(segment == X86_SS ? VECTOR_SS : VECTOR_GP, 0);
}

#define CHECK(...)                             \
    do {                                       \
        uint64_t outcome_ = check(__VA_ARGS__); \
        if (outcome_ != GO_ON)                 \
            return outcome_;                   \
    } while (0)

/* The same as `outcome`, which is of a later access, unless the page of this one is not there. */
static uint64_t after_reading(struct vcpu *v, unsigned segment, uint32_t offset, uint32_t size, uint64_t outcome)
{
    uint32_t address = offset + segments_base(&v->segments, segment);
    struct mapping mapping;
    if (outcome == GO_ON || (mmu_access(v, address, ACCESS_READ, &mapping)
                             && mmu_access(v, address + size - 1, ACCESS_READ, &mapping)))
        return outcome;
    return report_as_page_fault(&v->report);
}

/* --- how large a ModRM operand is -------------------------------------------------------------- */

static uint32_t x87_bytes(const struct operation *op)
{
    enum { ENVIRONMENT = 0xfe, STATE = 0xff };
    static const uint8_t sizes[8][8] = {
        {4, 4, 4, 4, 4, 4, 4, 4}, {4, 1, 4, 4, ENVIRONMENT, 2, ENVIRONMENT, 2},
        {4, 4, 4, 4, 4, 4, 4, 4}, {4, 4, 4, 4, 1, 10, 1, 10},
        {8, 8, 8, 8, 8, 8, 8, 8}, {8, 8, 8, 8, STATE, 1, STATE, 2},
        {2, 2, 2, 2, 2, 2, 2, 2}, {2, 2, 2, 2, 10, 8, 10, 8},
    };
    uint32_t size = sizes[op->opcode & 7][op->modrm >> 3 & 7], environment = op->operand16 ? 14 : 28;
    return size == ENVIRONMENT ? environment : size == STATE ? environment + 80 : size;
}

static uint32_t one_byte_bytes(const struct operation *op, uint32_t general)
{
    unsigned reg = op->modrm >> 3 & 7;
    switch (op->opcode) {
    case 0x63: case 0x8c: case 0x8e: return 2;
    case 0xc4: case 0xc5: return general + 2;
    case 0xff: return reg == 3 || reg == 5 ? general + 2 : general;
    default: break;
    }
    if (op->opcode >= 0xd8 && op->opcode <= 0xdf)
        return x87_bytes(op);
    return op->opcode & 1 ? general : 1;
}

static uint32_t simd_bytes(uint8_t opcode, uint8_t prefix)
{
    bool f3 = prefix == 0xf3, f2 = prefix == 0xf2;
    switch (opcode) {
    case 0x10: case 0x11: case 0x2b: case 0x51: case 0x52: case 0x53: case 0x58: case 0x59: case 0x5c: case 0x5d: case 0x5e:
    case 0x5f: case 0xc2:
        return f3 ? 4 : f2 ? 8 : 16;
    case 0x12: case 0x16: return f3 ? 16 : 8;
    case 0x13: case 0x17: case 0xd6: return 8;
    case 0x14: case 0x15: case 0x28: case 0x29: case 0x54: case 0x55: case 0x56: case 0x57: case 0x5b: case 0x6c: case 0x6d:
    case 0x7c: case 0x7d: case 0xc6: case 0xd0: case 0xf0:
        return 16;
    case 0x2a: return prefix >= 0xf2 ? 4 : 8;
    case 0x2c: case 0x2d: return f3 ? 4 : prefix == 0x66 ? 16 : 8;
    case 0x2e: case 0x2f: return prefix == 0x66 ? 8 : 4;
    case 0x5a: return prefix == 0x66 ? 16 : f3 ? 4 : 8;
    case 0x60: case 0x61: case 0x62: return prefix ? 16 : 4;
    case 0x6e: return 4;
    case 0x7e: return f3 ? 8 : 4;
    case 0xc4: return 2;
    case 0xe6: return f3 ? 8 : 16;
    default: return prefix ? 16 : 8;
    }
}

static uint32_t two_byte_bytes(const struct operation *op, uint32_t general)
{
    unsigned reg = op->modrm >> 3 & 7;
    uint8_t o = op->opcode;
    if ((o & 0xf0) == 0x40)
        return general;
    if ((o & 0xf0) == 0x90)
        return 1;
    switch (o) {
    case 0x00: case 0x02: case 0x03: case 0xb7: case 0xbf: return 2;
    case 0x01: return reg < 4 ? 6 : 2;
    case 0xa3: case 0xa4: case 0xa5: case 0xab: case 0xac: case 0xad: case 0xaf: case 0xb1: case 0xb3: case 0xb8: case 0xba:
    case 0xbb: case 0xbc: case 0xbd: case 0xc1:
        return general;
    case 0xae: return reg <= 1 ? 512 : reg == 7 ? 1 : 4;
    case 0xb0: case 0xb6: case 0xbe: case 0xc0: return 1;
    case 0xb2: case 0xb4: case 0xb5: return general + 2;
    case 0xc3: return 4;
    case 0xc7: return 8;
    default: return simd_bytes(o, op->prefix);
    }
}

/* bt, bts, btr, btc: how far from its address the operand lies, by a bit number that is a register. */
static uint32_t bit_distance(struct vcpu *v, const struct operation *op)
{
    uint8_t o = op->opcode;
    if (op->map != 1 || (o != 0xa3 && o != 0xab && o != 0xb3 && o != 0xbb))
        return 0;
    uint32_t bit = operand_general(v, op->modrm >> 3 & 7);
    return op->operand16 ? (uint32_t)((int16_t)bit >> 4) * 2 : (uint32_t)((int32_t)bit >> 5) * 4;
}

/* --- operands ---------------------------------------------------------------------------------- */

/* Whether an operand of so many bytes must be aligned, which is looked at before the limit; but behind that of the first
   byte, if it is a whole state (seen on an Intel of family 6, model 167). */
static bool is_aligned(const struct operation *op, uint32_t size)
{
    bool moves = ((op->opcode & 0xfe) == 0x10 && op->prefix <= 0x66) || ((op->opcode & 0xef) == 0x6f && op->prefix == 0xf3);
    return op->map == 1 && size >= 16 && !moves && op->opcode != 0xf0;
}

static uint32_t offset_of(struct vcpu *v, const struct operation *op, uint32_t general)
{
    uint32_t offset = operand_offset(v, op) + bit_distance(v, op);
    if (op->map == 0 && op->opcode == 0x8f && op->base == ESP)
        offset += general;  /* pop: the address is formed behind it */
    return op->address16 ? offset & 0xffff : offset;
}

/* bound looks at the upper bound only if the index is not below the lower one. */
static uint64_t check_bounds(struct vcpu *v, const struct operation *op, uint32_t general)
{
    uint32_t offset = offset_of(v, op, general), lower = 0, index = operand_general(v, op->modrm >> 3 & 7);
    CHECK(v, op->segment, offset, general);
    uint64_t outcome = check(v, op->segment, offset + general, general);
    if (outcome == GO_ON)
        return GO_ON;
    outcome = after_reading(v, op->segment, offset, general, outcome);
    if (operand_read(v, offset + segments_base(&v->segments, op->segment), &lower, general) != DONE)
        return outcome;
    bool below = general == 2 ? (int16_t)index < (int16_t)lower : (int32_t)index < (int32_t)lower;
    return below ? GO_ON : outcome;
}

static uint64_t check_modrm(struct vcpu *v, const struct operation *op, uint32_t general)
{
    uint32_t offset = offset_of(v, op, general);
    if (op->map == 0 && op->opcode == 0x62)
        return check_bounds(v, op, general);
    uint32_t size = op->map == 0 ? one_byte_bytes(op, general) : two_byte_bytes(op, general);
    if (size == 512)
        CHECK(v, op->segment, offset, 1);
    if (is_aligned(op, size) && (offset + segments_base(&v->segments, op->segment)) & 15)
        return exception(VECTOR_GP, 0);
    return check(v, op->segment, offset, size);
}

/*
 * movs reads before anything of its destination is looked at; cmps reads ES:(E)DI first (seen on an Intel of family 6, model
 * 167).
 */
static uint64_t check_string(struct vcpu *v, const struct operation *op, uint32_t general, uint64_t of_kinds)
{
    enum { MOVS = 0xa4, CMPS = 0xa6, STOS = 0xaa, LODS = 0xac, SCAS = 0xae };
    uint8_t which = op->opcode & 0xfe;
    uint32_t mask = op->address16 ? 0xffff : UINT32_MAX, size = op->opcode & 1 ? general : 1;
    bool from_di = which == CMPS || which == STOS || which == SCAS;
    unsigned first = from_di ? X86_ES : op->segment, second = from_di ? op->segment : X86_ES;
    uint32_t si = operand_general(v, ESI) & mask, di = operand_general(v, EDI) & mask;
    uint32_t first_offset = from_di ? di : si, second_offset = from_di ? si : di;
    if (segments_null(&v->segments) >> first & 1)
        return of_kinds;
    CHECK(v, first, first_offset, size);
    if (which != MOVS && which != CMPS)
        return of_kinds;
    return after_reading(v, first, first_offset, size, of_kinds != GO_ON ? of_kinds : check(v, second, second_offset, size));
}

/* Operands that no ModRM byte names: at an address that follows the opcode; of xlat, of maskmovq and maskmovdqu. */
static uint64_t check_implicit(struct vcpu *v, const struct operation *op, const struct decoding *s, const uint8_t *p,
                               uint32_t general)
{
    uint32_t mask = op->address16 ? 0xffff : UINT32_MAX, offset;
    if (s->word & IA) {
        memcpy(&offset, p, 4);
        return check(v, op->segment, offset & mask, op->opcode & 1 ? general : 1);
    }
    if (op->map == 0 && op->opcode == 0xd7)
        return check(v, op->segment, (operand_general(v, EBX) + (operand_general(v, EAX) & 0xff)) & mask, 1);
    if (op->map == 1 && op->opcode == 0xf7 && s->register_form)
        return check(v, op->segment, operand_general(v, EDI) & mask, op->prefix ? 16 : 8);
    return GO_ON;
}

static uint32_t stack_offset(const struct vcpu *v)
{
    return operand_general(v, ESP) & segments_stack_mask(&v->segments);
}

/* What is taken from the stack, or put there, in words of `general` bytes. */
static uint64_t check_stack(struct vcpu *v, const struct operation *op, const struct decoding *s, const uint8_t *p,
                            uint32_t general)
{
    const uint32_t mask = segments_stack_mask(&v->segments), esp = operand_general(v, ESP), ebp = operand_general(v, EBP);
    uint32_t pops = s->word & POP ? 1 : 0, pushes = s->word & PUSH ? 1 : 0;
    unsigned reg = op->modrm >> 3 & 7;
    if (op->map == 0) {
        switch (op->opcode) {
        case 0x60: pushes = 8; break;
        case 0x61: pops = 8; break;
        case 0x9a: pushes = 2; break;
        case 0xc8:  /* enter: copies frame pointers, pushes two, and faults where a write by the new ESP would */
            for (uint32_t i = 1; i < (p[2] & 31u); i++)
                CHECK(v, X86_SS, (ebp - i * general) & mask, general);
            pushes = (p[2] & 31u) + 1;
            CHECK(v, X86_SS, (esp - pushes * general - (uint32_t)(p[0] | p[1] << 8)) & mask, general);
            break;
        case 0xc9: return check(v, X86_SS, ebp & mask, general);  /* leave */
        case 0xca: case 0xcb: pops = 2; break;
        case 0xcf: pops = 3; break;
        case 0xff: pushes = reg == 3 ? 2 : pushes; break;
        default: break;
        }
    }
    for (uint32_t i = 0; i < pops; i++)
        CHECK(v, X86_SS, (esp + i * general) & mask, general);
    for (uint32_t i = 1; i <= pushes; i++)
        CHECK(v, X86_SS, (esp - i * general) & mask, general);
    return GO_ON;
}

uint64_t limits_check(struct vcpu *v, const struct insn *insn, const uint8_t *code, uint64_t of_kinds)
{
    struct operation op;
    int override;
    const uint8_t *p = operation_decode_opcode(code, &op, &override);
    struct decoding s = {.segment = override, .operand16 = op.operand16, .address16 = op.address16, .f2 = op.prefix == 0xf2,
                         .f3 = op.prefix == 0xf3};
    opcodes_find(p - 1 - op.map, INSN_MAX_BYTES, &s);
    if (s.word & M) {
        s.modrm = *p;
        s.register_form = s.modrm >= 0xc0;
        opcodes_refine(&s);
        p = operation_decode_modrm(p, &op, override);
    }
    const uint32_t general = insn->operand_bytes;
    bool has_operand = op.memory && !(s.word & REG) && insn->flags & INSN_SEGMENTS;
    if (s.word & STR)
        return check_string(v, &op, general, of_kinds);
    uint64_t of_stack = check_stack(v, &op, &s, p, general);
    if (!has_operand)
        return of_stack != GO_ON ? of_stack : of_kinds != GO_ON ? of_kinds : check_implicit(v, &op, &s, p, general);
    uint64_t of_operand = of_kinds != GO_ON ? of_kinds : check_modrm(v, &op, general);
    if (s.word & POP)  /* which comes first */
        return of_stack != GO_ON ? of_stack : after_reading(v, X86_SS, stack_offset(v), general, of_operand);
    return of_operand != GO_ON ? of_operand : after_reading(v, op.segment, offset_of(v, &op, general), general, of_stack);
}
