/* See decode.h. */
#include "decode.h"

#include "opcodes.h"
#include "requires.h"

/* The segments that the instruction writes to, pushes apart: those go to SS, which can be written. */
static uint8_t written_segments(const struct decoding *s, uint32_t flags)
{
    if (s->map == 1 && s->opcode == 0xf7 && s->register_form)  /* maskmovq */
        return (uint8_t)(1 << (s->segment >= 0 ? s->segment : X86_DS));
    if (!(s->word & W) || (s->map == 0 && s->opcode == 0x63))  /* arpl need not */
        return 0;
    return (uint8_t)(s->word & STR ? 1 << X86_ES : flags & INSN_SEGMENTS);
}

static size_t modrm_bytes(const struct decoding *s, const uint8_t *p, size_t left)
{
    uint8_t mod = s->modrm >> 6, rm = s->modrm & 7;
    if (mod == 3 || (s->word & REG))
        return 0;
    if (s->address16)
        return mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
    size_t bytes = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
    if (rm == 4) {
        bytes++;
        if (mod == 0 && left > 0 && (p[0] & 7) == 5)
            bytes += 4;
    }
    return bytes;
}

/* The segment that a ModRM memory operand is in: SS if its base is (E)SP or (E)BP, else DS. */
static int operand_segment(const struct decoding *s, const uint8_t *p, size_t left)
{
    uint8_t mod = s->modrm >> 6, rm = s->modrm & 7;
    if (s->segment >= 0)
        return s->segment;
    if (s->address16)
        return rm == 2 || rm == 3 || (rm == 6 && mod != 0) ? X86_SS : X86_DS;
    if (rm == 4) {
        uint8_t base = left > 0 ? p[0] & 7 : 0;
        return base == 4 || (base == 5 && mod != 0) ? X86_SS : X86_DS;
    }
    return rm == 5 && mod != 0 ? X86_SS : X86_DS;
}

static size_t prefixes(const uint8_t *code, size_t available, struct decoding *s)
{
    size_t at = 0;
    for (; at < available; at++) {
        switch (code[at]) {
        case 0x26: s->segment = X86_ES; break;
        case 0x2e: s->segment = X86_CS; break;
        case 0x36: s->segment = X86_SS; break;
        case 0x3e: s->segment = X86_DS; break;
        case 0x64: s->segment = X86_FS; break;
        case 0x65: s->segment = X86_GS; break;
        case 0x66: s->operand16 = 1; break;
        case 0x67: s->address16 = 1; break;
        case 0xf0: s->lock = 1; break;
        case 0xf2: s->f2 = 1; s->f3 = 0; break;  /* the last of them counts */
        case 0xf3: s->f3 = 1; s->f2 = 0; break;
        default: return at;
        }
    }
    return at;
}

static void truncated(size_t available, struct insn *insn)
{
    insn->length = (uint8_t)(available < INSN_MAX_BYTES ? available : INSN_MAX_BYTES);
    insn->flags |= INSN_TRUNCATED;
}

static size_t immediate_bytes(const struct decoding *s)
{
    return (s->word & I8 ? 1 : 0) + (s->word & I16 ? 2 : 0) + (s->word & IZ ? (s->operand16 ? 2 : 4) : 0)
         + (s->word & IA ? (s->address16 ? 2 : 4) : 0);
}

/* Accesses to memory that no bit of the word tells. */
static void implicit_accesses(const struct decoding *s, struct insn *insn)
{
    if (s->word & POP)
        insn->loads++;
    if (s->word & PUSH)
        insn->stores++;
    if (s->map != 0)
        return;
    switch (s->opcode) {
    case 0x60: insn->stores = 8; break;           /* pusha */
    case 0x61: insn->loads = 8; break;            /* popa */
    case 0x62: case 0xc4: case 0xc5: insn->loads = 2; break;  /* bound, les, lds */
    case 0x9a: insn->stores = 2; break;           /* far call */
    case 0xca: case 0xcb: insn->loads = 2; break; /* far return */
    case 0xcf: insn->loads = 3; break;            /* iret */
    case 0xa6: case 0xa7: insn->loads = 2; break; /* cmps */
    default: break;
    }
}

/* Whether the instruction, which reads and writes memory, may have a lock prefix. */
static int may_be_locked(const struct decoding *s)
{
    if (s->map == 0)
        return s->opcode < 0x40 || (s->opcode >= 0x80 && s->opcode <= 0x87) || s->opcode >= 0xf6;
    return s->map == 1 && s->opcode >= 0xab && s->opcode != 0xac && s->opcode != 0xad;
}

static void set_flags(const struct decoding *s, struct insn *insn)
{
    if (s->word & SEG)
        insn->flags |= INSN_LOADS_SEGMENT;
    if (s->word & END)
        insn->flags |= INSN_ENDS_BLOCK;
    if (s->address16)
        insn->flags |= INSN_ADDRESS16;
    if (s->word & NO) {
        insn->flags |= INSN_REFUSED;
        /* syscall with EFER.SCE clear and sysret are #UD; so is what no processor here has, sysenter among it. */
        int undefined = s->map == 1 ? s->opcode == 0x05 || s->opcode == 0x07 || (s->opcode & 0xfe) == 0x34
                                      || s->opcode >= 0xa0
                                    : s->opcode == 0x8f || s->opcode == 0xc4 || s->opcode == 0xc5;
        insn->refusal = undefined ? REFUSE_UD : REFUSE_GP;
    }
    int monitors = s->map == 1 && s->opcode == 0x01 && s->register_form && (s->modrm == 0xc8 || s->modrm == 0xc9);
    if (monitors || (s->lock && !(insn->flags & INSN_READ_WRITE && may_be_locked(s)))) {
        insn->flags |= INSN_REFUSED;  /* monitor and mwait are not for user mode */
        insn->refusal = REFUSE_UD;
    }
    if (s->map != 0)
        return;
    switch (s->opcode) {
    case 0x17:
        insn->flags |= INSN_LOADS_SS;
        break;
    case 0x8e:
        if ((s->modrm >> 3 & 7) == X86_SS)
            insn->flags |= INSN_LOADS_SS;
        break;
    case 0x90:
        if (s->f3)
            insn->flags |= INSN_PAUSE | INSN_ENDS_BLOCK;
        break;
    case 0xe0: case 0xe1: insn->flags |= INSN_ALONE; break;  /* loopne, loope: if they count down to zero */
    case 0x9c: insn->flags |= INSN_PUSHES_FLAGS; break;
    case 0x9d: case 0xcf: insn->flags |= INSN_POPS_FLAGS; break;
    case 0xcd: insn->int_vector = s->second; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xcc: insn->int_vector = 3; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xce: insn->int_vector = 4; insn->flags |= INSN_SOFTWARE_INT; break;
    case 0xf1: insn->flags |= INSN_REFUSED; insn->refusal = REFUSE_DB; break;  /* icebp */
    default: break;
    }
}

static uint8_t temporaries(const struct decoding *s)
{
    if (s->map == 0 && s->opcode >= 0xd8 && s->opcode <= 0xdf)
        return 2;
    if (s->map != 0 && (s->word & I16))
        return 2;
    if (s->map != 0 && (s->word & I8))
        return 1;
    return s->word & SEG || (s->map == 0 && (s->opcode == 0xd4 || s->opcode == 0xd5 || s->opcode == 0xce));
}

void decode_insn(const uint8_t *code, size_t available, struct insn *insn)
{
    struct decoding s = {.segment = -1};
    *insn = (struct insn){0};
    if (available > INSN_MAX_BYTES)
        available = INSN_MAX_BYTES;
    size_t at = prefixes(code, available, &s);
    size_t bytes = opcodes_find(code + at, available - at, &s);
    if (bytes == 0) {
        truncated(available, insn);
        return;
    }
    at += bytes;
    s.second = at < available ? code[at] : 0;
    if (s.word & M) {
        if (at >= available) {
            truncated(available, insn);
            return;
        }
        s.modrm = code[at++];
        s.register_form = s.modrm >= 0xc0;
        opcodes_refine(&s);
        if (!s.register_form && !(s.word & REG)) {
            size_t left = available > at ? available - at : 0;
            insn->flags |= 1u << operand_segment(&s, code + at, left);
            bool flushes = s.map == 1 && s.opcode == 0xae && (s.modrm >> 3 & 7) == 7;
            if (!(s.word & RW) && !flushes)
                insn->flags &= ~(uint32_t)INSN_SEGMENTS;  /* lea, prefetch, nop: an address, no access */
            at += modrm_bytes(&s, code + at, left);
        }
    }
    at += immediate_bytes(&s);
    if (at > available) {
        truncated(available, insn);
        return;
    }
    insn->length = (uint8_t)at;
    insn->operand_bytes = s.operand16 ? 2 : 4;
    insn->temporaries = temporaries(&s);
    insn->cost_class = (uint8_t)(s.word >> CLASS_SHIFT);
    if (s.word & STR) {
        /* cmps, scas, movs and stos use ES:(E)DI; movs, cmps and lods use the overridable source. */
        int uses_di = s.opcode != 0xac && s.opcode != 0xad;
        int uses_si = s.opcode != 0xaa && s.opcode != 0xab && s.opcode != 0xae && s.opcode != 0xaf;
        insn->flags |= (uint32_t)uses_di << X86_ES;
        if (uses_si)
            insn->flags |= 1u << (s.segment >= 0 ? s.segment : X86_DS);
        if (s.f2 || s.f3)
            insn->flags |= INSN_REPEAT | INSN_ENDS_BLOCK;
    } else if ((s.word & IA) || (s.map == 0 && s.opcode == 0xd7)  /* moffs, xlat */
               || (s.map == 1 && s.opcode == 0xf7 && s.register_form)) {  /* maskmovq */
        insn->flags |= 1u << (s.segment >= 0 ? s.segment : X86_DS);
    }
    if (!s.register_form || !(s.word & M)) {
        insn->loads = (s.word & R) != 0;
        insn->stores = (s.word & W) != 0;
        if ((s.word & RW) == RW && !(s.word & STR)) {
            insn->flags |= INSN_READ_WRITE;
            insn->locked = s.lock || (s.map == 0 && (s.opcode == 0x86 || s.opcode == 0x87));
        }
    }
    implicit_accesses(&s, insn);
    set_flags(&s, insn);
    insn->requires = requires_features(&s);
    insn->ours = (uint8_t)requires_shim(&s);
    insn->writes = written_segments(&s, insn->flags);
}

void decode_block(const uint8_t *code, size_t size, const int64_t costs[COST_CLASS_COUNT], struct block_sum *sum)
{
    struct insn insn;
    int64_t cost = 0;
    *sum = (struct block_sum){0};
    for (size_t at = 0; at < size; at += insn.length) {
        decode_insn(code + at, size - at, &insn);
        sum->instructions++;
        sum->last = (uint32_t)at;
        sum->flags |= insn.flags | (uint32_t)insn.writes << WRITES_SHIFT;
        sum->requires |= insn.requires;
        sum->ours |= insn.ours;
        cost += costs[insn.cost_class] + insn.loads * costs[COST_LOAD] + insn.stores * costs[COST_STORE]
              + insn.locked * costs[COST_LOCKED];
    }
    sum->cost = cost;
}
