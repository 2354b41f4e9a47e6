/*
 * What the x87 is, beside its numbers, from and to memory: control and status word, environment, all of it.
 *
 * Ref: Intel SDM vol. 1, 8.1.10 (environment), 10.5 (fxsave, fxrstor); vol. 2, the instructions.
 */
#include "x87.h"

#include <stddef.h>
#include <string.h>

#include "features.h"
#include "floating.h"
#include "fpu.h"
#include "operand.h"
#include "softfloat.h"
#include "vcpu.h"

static void set_status_word(struct floating *f, uint16_t word)
{
    f->top = word >> 11 & 7;
    f->status = word & 0xc7ff;
    summarize(f);
}

static uint16_t tag_word(const struct floating *f)
{
    uint16_t tags = 0;
    for (int i = 0; i < 8; i++) {
        struct number n = unpack_extended(f->st[i]);
        unsigned tag = !(f->valid >> i & 1) ? 3 : n.class == ZERO ? 1 : n.class == FINITE && !n.denormal ? 0 : 2;
        tags |= (uint16_t)(tag << 2 * i);
    }
    return tags;
}

static void set_tag_word(struct floating *f, uint16_t tags)
{
    f->valid = 0;
    for (int i = 0; i < 8; i++)
        f->valid |= (uint8_t)(((tags >> 2 * i & 3) != 3) << i);
}

/* The environment as fnstenv stores it: protected mode, 32 or 16 bits (SDM vol. 1, 8.1.10). Returns its bytes. */
static uint32_t environment_image(const struct floating *f, bool narrow, uint8_t *image)
{
    if (narrow) {
        uint16_t words[7] = {f->control, status_word(f), tag_word(f), (uint16_t)f->ip, f->cs, (uint16_t)f->dp, f->ds};
        memcpy(image, words, sizeof words);
        return sizeof words;
    }
    const uint32_t ones = 0xffff0000;
    uint32_t words[7] = {ones | f->control, ones | status_word(f), ones | tag_word(f), f->ip,
                         f->cs | (uint32_t)f->opcode << 16, f->dp, ones | f->ds};
    memcpy(image, words, sizeof words);
    return sizeof words;
}

static void load_environment(struct floating *f, bool narrow, const uint8_t *image)
{
    uint16_t half[14];
    memcpy(half, image, narrow ? 14 : 28);
    unsigned step = narrow ? 1 : 2;
    f->control = (half[0] & 0x1f7f) | 0x40;
    set_tag_word(f, half[2 * step]);
    f->ip = half[3 * step] | (narrow ? 0 : (uint32_t)half[7] << 16);
    f->cs = half[4 * step];
    f->opcode = narrow ? 0 : half[9] & 0x7ff;
    f->dp = half[5 * step] | (narrow ? 0 : (uint32_t)half[11] << 16);
    f->ds = half[6 * step];
    set_status_word(f, half[step]);
}

static enum ending store_environment(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[28];
    TRY(operand_write(v, address, image, environment_image(&v->floating, op->operand16, image)));
    v->floating.control |= FE_ALL;
    summarize(&v->floating);
    return DONE;
}

static enum ending restore_environment(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[28];
    TRY(operand_read(v, address, image, op->operand16 ? 14 : 28));
    load_environment(&v->floating, op->operand16, image);
    return DONE;
}

static enum ending save_all(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[108];
    struct floating *f = &v->floating;
    uint32_t size = environment_image(f, op->operand16, image);
    for (unsigned i = 0; i < 8; i++, size += 10) {
        memcpy(image + size, &st(f, i)->m, 8);
        memcpy(image + size + 8, &st(f, i)->se, 2);
    }
    TRY(operand_write(v, address, image, size));
    initialize(f);
    return DONE;
}

static enum ending restore_all(struct vcpu *v, const struct operation *op, uint32_t address)
{
    uint8_t image[108];
    struct floating *f = &v->floating;
    uint32_t size = op->operand16 ? 14 : 28;
    TRY(operand_read(v, address, image, size + 80));
    load_environment(f, op->operand16, image);
    for (unsigned i = 0; i < 8; i++, size += 10) {
        memcpy(&st(f, i)->m, image + size, 8);
        memcpy(&st(f, i)->se, image + size + 8, 2);
    }
    return DONE;
}

/* AMD processors save the pointers to the last instruction only with an exception pending (APM vol. 2, 11.4.4). */
enum ending fxsave(struct vcpu *v, const struct operation *op)
{
    struct fxsave_area area;
    uint32_t address = operand_address(v, op);
    if (address & 15)
        return raise_vector(v, VECTOR_GP);
    TRY(operand_probe_write(v, address, sizeof area));
    floating_save(v, &area);
    if (features_are_amds(&v->machine->features) && !(v->floating.status & STATUS_ES)) {
        area.opcode = area.cs = area.ds = 0;
        area.ip = area.dp = 0;
    }
    return operand_write(v, address, &area, offsetof(struct fxsave_area, rest));
}

enum ending fxrstor(struct vcpu *v, const struct operation *op)
{
    struct fxsave_area area;
    uint32_t address = operand_address(v, op);
    if (address & 15)
        return raise_vector(v, VECTOR_GP);
    TRY(operand_read(v, address, &area, sizeof area));
    if (area.mxcsr & ~(uint32_t)MXCSR_MASK)
        return raise_vector(v, VECTOR_GP);
    floating_load(v, &area);
    summarize(&v->floating);
    if (UNLIKELY(fpu_must_show(&v->fpu, &v->floating)))
        fpu_write_pending(v);
    return DONE;
}

enum ending x87_state(struct vcpu *v, const struct operation *op, uint32_t address)
{
    struct floating *f = &v->floating;
    bool all = (op->opcode & 7) == 5;  /* frstor, fnsave, fnstsw; else fldenv, fldcw, fnstenv, fnstcw */
    uint16_t word;
    switch (op->modrm >> 3 & 7) {
    case 4:
        return all ? restore_all(v, op, address) : restore_environment(v, op, address);
    case 5:
        TRY(operand_read(v, address, &word, 2));
        f->control = (word & 0x1f7f) | 0x40;
        summarize(f);
        return DONE;
    case 6:
        return all ? save_all(v, op, address) : store_environment(v, op, address);
    default:
        word = all ? status_word(f) : f->control;
        return operand_write(v, address, &word, 2);
    }
}
