/*
 * What the processor has, by its cpuid leaves: an instruction that they do not promise is #UD.
 *
 * Ref: Intel SDM vol. 2, CPUID; AMD CPUID Specification, publication 25481.
 */
#include "vcpu.h"

static const struct cpuid_leaf *leaf(const struct machine *m, uint32_t number)
{
    static const struct cpuid_leaf none;
    for (uint32_t i = 0; i < m->cpuid_leaves; i++)
        if (m->cpuid[i].leaf == number)
            return &m->cpuid[i];
    return &none;
}

static uint32_t feature_if(uint32_t word, unsigned bit, enum feature feature)
{
    return word >> bit & 1 ? feature : 0;
}

uint32_t features_of(const struct machine *m)
{
    const struct cpuid_leaf *basic = leaf(m, 1), *extended = leaf(m, 0x80000001);
    uint32_t family = basic->eax >> 8 & 15;
    /* rdtsc is the laboratory's clock, for programs on any processor; cpuid tells whether a real one had it. */
    return FEATURE_TSC | feature_if(basic->edx, 8, FEATURE_CX8)
         | feature_if(basic->edx, 15, FEATURE_CMOV) | feature_if(basic->edx, 19, FEATURE_CLFLUSH)
         | feature_if(basic->edx, 23, FEATURE_MMX) | feature_if(basic->edx, 24, FEATURE_FXSR)
         | feature_if(basic->edx, 25, FEATURE_SSE) | feature_if(basic->edx, 26, FEATURE_SSE2)
         | feature_if(basic->ecx, 0, FEATURE_SSE3) | feature_if(basic->ecx, 23, FEATURE_POPCNT)
         | feature_if(extended->ecx, 5, FEATURE_ABM) | feature_if(extended->ecx, 6, FEATURE_SSE4A)
         | feature_if(extended->edx, 27, FEATURE_RDTSCP) | (family >= 6 ? FEATURE_P6 : 0);
}

/* As decode_insn(), on this machine's processor. lzcnt needs no feature: without it, it is bsr. */
void decode_for(const struct machine *m, const uint8_t *code, size_t available, struct insn *insn)
{
    decode_insn(code, available, insn);
    uint32_t missing = insn->requires & ~m->features;
    if (LIKELY(missing == 0) || insn->flags & INSN_TRUNCATED)
        return;
    if (missing == FEATURE_ABM) {
        insn->ours = 1;
        return;
    }
    insn->flags |= INSN_REFUSED;
    insn->refusal = REFUSE_UD;
}
