/* What the shim answers in the engine's place: the core's clock, and who the processor is (cpuid.py). */
#include "vcpu.h"

int rdtsc_executed(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint64_t now = clock_now(v);
    uint32_t low = (uint32_t)now, high = (uint32_t)(now >> 32);
    engine_write(v, UC_X86_REG_EAX, &low);
    engine_write(v, UC_X86_REG_EDX, &high);
    return 1;
}

int rdtscp_executed(uc_engine *uc, void *opaque)
{
    struct vcpu *v = opaque;
    engine_write(v, UC_X86_REG_ECX, &v->core);  /* TSC_AUX: the core's number */
    return rdtsc_executed(uc, opaque);
}

/* Basic or extended leaves beyond the highest one read as zero, as AMD does it. */
static const struct cpuid_leaf *find_leaf(const struct machine *m, uint32_t leaf, uint32_t subleaf)
{
    static const struct cpuid_leaf none;
    for (uint32_t i = 0; i < m->cpuid_leaves; i++)
        if (m->cpuid[i].leaf == leaf && (m->cpuid[i].subleaf == subleaf || m->cpuid[i].subleaf == UINT32_MAX))
            return &m->cpuid[i];
    return &none;
}

int cpuid_executed(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint32_t leaf = engine_word(v, UC_X86_REG_EAX);
    struct cpuid_leaf answer = *find_leaf(v->machine, leaf, engine_word(v, UC_X86_REG_ECX));
    if (leaf == 1)
        answer.ebx |= v->core << 24;  /* initial APIC id */
    engine_write(v, UC_X86_REG_EAX, &answer.eax);
    engine_write(v, UC_X86_REG_EBX, &answer.ebx);
    engine_write(v, UC_X86_REG_ECX, &answer.ecx);
    engine_write(v, UC_X86_REG_EDX, &answer.edx);
    return 1;
}
