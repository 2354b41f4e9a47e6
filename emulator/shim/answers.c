/* See answers.h. */
#include "answers.h"

#include <string.h>

#include "books.h"
#include "engine.h"
#include "vcpu.h"

bool answers_init(struct machine_answers *a, const struct cpuid_leaf *leaves, uint32_t count)
{
    if (count > MAX_CPUID_LEAVES)
        return false;
    memcpy(a->leaves, leaves, count * sizeof *leaves);
    a->count = count;
    return true;
}

int answers_rdtsc(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint64_t now = books_cycles_now(v);
    uint32_t low = (uint32_t)now, high = (uint32_t)(now >> 32);
    engine_write(&v->engine, UC_X86_REG_EAX, &low);
    engine_write(&v->engine, UC_X86_REG_EDX, &high);
    return 1;
}

int answers_rdtscp(uc_engine *uc, void *opaque)
{
    struct vcpu *v = opaque;
    engine_write(&v->engine, UC_X86_REG_ECX, &v->core);  /* TSC_AUX: the core's number */
    return answers_rdtsc(uc, opaque);
}

static const struct cpuid_leaf no_leaf;

const struct cpuid_leaf *answers_leaf(const struct machine_answers *a, uint32_t leaf)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->leaves[i].leaf == leaf)
            return &a->leaves[i];
    return &no_leaf;
}

/* Basic or extended leaves beyond the highest one read as zero, as AMD does it. */
static const struct cpuid_leaf *find_leaf(const struct machine_answers *a, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->leaves[i].leaf == leaf && (a->leaves[i].subleaf == subleaf || a->leaves[i].subleaf == UINT32_MAX))
            return &a->leaves[i];
    return &no_leaf;
}

int answers_cpuid(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint32_t leaf = engine_word(&v->engine, UC_X86_REG_EAX);
    struct cpuid_leaf answer = *find_leaf(&v->machine->answers, leaf, engine_word(&v->engine, UC_X86_REG_ECX));
    if (leaf == 1)
        answer.ebx |= v->core << 24;  /* initial APIC id */
    engine_write(&v->engine, UC_X86_REG_EAX, &answer.eax);
    engine_write(&v->engine, UC_X86_REG_EBX, &answer.ebx);
    engine_write(&v->engine, UC_X86_REG_ECX, &answer.ecx);
    engine_write(&v->engine, UC_X86_REG_EDX, &answer.edx);
    return 1;
}
