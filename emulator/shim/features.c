/*
 * See features.h.
 *
 * Ref: Intel SDM vol. 2, CPUID; AMD CPUID Specification, publication 25481.
 */
#include "features.h"

#include "x86.h"

static uint32_t feature_if(uint32_t word, unsigned bit, enum feature feature)
{
    return word >> bit & 1 ? feature : 0;
}

void features_init(struct machine_features *f, const struct machine_answers *answers)
{
    const struct cpuid_leaf *basic = answers_leaf(answers, 1), *extended = answers_leaf(answers, 0x80000001);
    uint32_t family = basic->eax >> 8 & 15;
    /* rdtsc is the laboratory's clock, for programs on any processor; cpuid tells whether a real one had it. */
    f->bits = FEATURE_TSC | feature_if(basic->edx, 8, FEATURE_CX8)
            | feature_if(basic->edx, 15, FEATURE_CMOV) | feature_if(basic->edx, 19, FEATURE_CLFLUSH)
            | feature_if(basic->edx, 23, FEATURE_MMX) | feature_if(basic->edx, 24, FEATURE_FXSR)
            | feature_if(basic->edx, 25, FEATURE_SSE) | feature_if(basic->edx, 26, FEATURE_SSE2)
            | feature_if(basic->ecx, 0, FEATURE_SSE3) | feature_if(basic->ecx, 23, FEATURE_POPCNT)
            | feature_if(extended->ecx, 5, FEATURE_ABM) | feature_if(extended->ecx, 6, FEATURE_SSE4A)
            | feature_if(extended->edx, 27, FEATURE_RDTSCP) | (family >= 6 ? FEATURE_P6 : 0);
    f->is_amd = answers_leaf(answers, 0)->ebx == 0x68747541;  /* "Auth" */
}

void features_decode(const struct machine_features *f, const uint8_t *code, size_t available, struct insn *insn)
{
    decode_insn(code, available, insn);
    uint32_t missing = insn->requires & ~f->bits;
    if (LIKELY(missing == 0) || insn->flags & INSN_TRUNCATED)
        return;
    if (missing == FEATURE_ABM) {
        insn->ours = 1;
        return;
    }
    insn->flags |= INSN_REFUSED;
    insn->refusal = REFUSE_UD;
}
