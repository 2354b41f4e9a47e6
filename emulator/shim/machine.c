/*
 * Machines and vCPUs, made and freed. Everything that the shim allocates belongs to a machine:
 * vcpu_delete_machine() gives all of it back, engines included.
 */
#include "machine.h"

#include <string.h>

#include "engine.h"
#include "features.h"
#include "floating.h"
#include "memory.h"
#include "mmu.h"
#include "step.h"
#include "vcpu.h"

static const char *const interface_names[] = {
#define X(name) #name,
    INTERFACE_FIELDS(X)
#undef X
    NULL,
};

/* In the order of struct interface. */
const char *const *vcpu_interface_names(void)
{
    return interface_names;
}

#define WORD(member) (offsetof(struct thread_frame, member) / 4)
/* For the test that kernel/frame.py has the same layout. */
const uint32_t vcpu_frame_layout[] = {
    WORD(general), WORD(eip), WORD(eflags), WORD(cs), WORD(ss), WORD(ds), WORD(es), WORD(fs), WORD(gs),
    WORD(utcb_base), WORD(cr3), WORD(gdt), WORD(fpu_core), WORD(fpu_valid), WORD(instructions),
    WORD(user_cycles), WORD(tlb_misses), WORD(fpu_switches), WORD(fpu), sizeof(struct thread_frame) / 4,
};

static void delete_vcpu(struct vcpu *v)
{
    engine_free(&v->engine);
    coherence_free(&v->coherence, &v->machine->ram);
    mmu_free(&v->mmu);
    memory_release(v, sizeof *v);
}

/* Of a machine half made, too. NULL: nothing to free. */
void vcpu_delete_machine(struct machine *m)
{
    if (m == NULL)
        return;
    while (m->vcpu_count > 0)
        delete_vcpu(m->vcpus[--m->vcpu_count]);
    books_free(&m->books);
    coherence_free_machine(&m->coherence, &m->ram);
    debug_free_machine(&m->debug);
    breakpoints_free(&m->breakpoints);
    patch_free(&m->patch, &m->ram);
    operations_free(&m->operations);
    ram_free(&m->ram);
    memory_release(m, sizeof *m);
}

/* `ram` stays the caller's, until the machine is deleted. NULL: no memory, or too many leaves. */
struct machine *vcpu_new_machine(uint8_t *ram, uint64_t ram_bytes, const struct interface *interface,
                                 const int64_t *costs, const struct cpuid_leaf *leaves, uint32_t leaf_count)
{
    struct machine *m = memory_reserve(sizeof *m);
    if (m == NULL)
        return NULL;
    m->interface = *interface;
    if (ram_init(&m->ram, ram, ram_bytes) && books_init(&m->books, costs)
        && answers_init(&m->answers, leaves, leaf_count) && coherence_init_machine(&m->coherence, &m->ram)
        && debug_init_machine(&m->debug) && patch_init(&m->patch, &m->ram) && operations_init(&m->operations)) {
        features_init(&m->features, &m->answers);
        return m;
    }
    vcpu_delete_machine(m);
    return NULL;
}

/* The core's number is the count of vCPUs made before. NULL: no memory, or too many. */
struct vcpu *vcpu_new(struct machine *m)
{
    if (m->vcpu_count == MAX_VCPUS)
        return NULL;
    struct vcpu *v = memory_reserve(sizeof *v);  /* mostly never touched */
    if (v == NULL)
        return NULL;
    v->machine = m;
    v->core = m->vcpu_count;
    books_use_blocks(&v->books, books_own_blocks(&m->books));
    step_init(&v->step);
    debug_init(&v->debug);
    floating_init(&v->floating, features_are_amds(&m->features));
    if (engine_init(&v->engine) && coherence_init(&v->coherence, &m->ram) && mmu_init(&v->mmu)) {
        m->vcpus[m->vcpu_count++] = v;
        return v;
    }
    delete_vcpu(v);
    return NULL;
}

_Static_assert(offsetof(struct vcpu, frame) == 0 && offsetof(struct vcpu, deadline_cycles) == 8
                   && offsetof(struct vcpu, books.start_cycles) == 16,
               "the words that vcpu.py reads and writes");

int64_t *vcpu_shared_words(struct vcpu *v)
{
    return (int64_t *)v;
}
