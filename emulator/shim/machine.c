/* What vcpu.py calls between runs: machines and vCPUs made and freed, code and translations forgotten. */
#define _DEFAULT_SOURCE  /* MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE
#include "vcpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *const function_names[] = {
#define X(name) #name,
    ENGINE_FUNCTIONS(X)
#undef X
    NULL,
};
static const char *const cost_names[] = {
#define X(upper, lower) #lower,
    COST_CLASSES(X)
#undef X
    NULL,
};

#define WORD(member) (offsetof(struct thread_frame, member) / 4)
/* For the test that kernel/frame.py has the same layout. */
const uint32_t vcpu_frame_layout[] = {
    WORD(general), WORD(eip), WORD(eflags), WORD(cs), WORD(ss), WORD(ds), WORD(es), WORD(fs), WORD(gs),
    WORD(utcb_base), WORD(cr3), WORD(gdt), WORD(fpu_core), WORD(fpu_valid), WORD(instructions),
    WORD(user_cycles), WORD(tlb_misses), WORD(fpu_switches), WORD(fpu), sizeof(struct thread_frame) / 4,
};

const char *const *vcpu_function_names(void)
{
    return function_names;
}

const char *const *vcpu_cost_names(void)
{
    return cost_names;
}

void vcpu_use_engine(const struct engine_functions *functions)
{
    engine = *functions;
}

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

struct machine *vcpu_new_machine(uint8_t *ram, uint64_t ram_bytes, const int64_t *costs,
                                 const struct cpuid_leaf *leaves, uint32_t leaf_count)
{
    struct machine *m = calloc(1, sizeof *m);
    if (m == NULL || leaf_count > MAX_CPUID_LEAVES)
        return NULL;
    m->ram = ram;
    m->frames = (uint32_t)(ram_bytes / PAGE_BYTES);
    memcpy(m->costs, costs, sizeof m->costs);
    memcpy(m->cpuid, leaves, leaf_count * sizeof *leaves);
    m->cpuid_leaves = leaf_count;
    m->frame_flags = reserve(m->frames);
    m->frame_writer = reserve(m->frames * sizeof *m->frame_writer);
    m->frame_token = reserve(m->frames * sizeof *m->frame_token);
    m->blocks = reserve(BLOCK_CACHE_SIZE * sizeof *m->blocks);
    m->debug.marked_blocks = reserve(BLOCK_CACHE_SIZE * sizeof *m->blocks);
    m->debug.range_blocks = reserve(BLOCK_CACHE_SIZE * sizeof *m->blocks);
    m->frame_dirty = reserve(m->frames);
    m->debug.clock = INT64_MAX;
    m->runs = reserve(BLOCK_CACHE_SIZE * sizeof *m->runs);
    m->shadow = reserve(ram_bytes);
    m->claims = reserve(m->frames * sizeof *m->claims);
    m->features = features_of(m);
    bool blocks = m->runs && m->shadow && m->claims && m->blocks && m->debug.marked_blocks && m->debug.range_blocks;
    return m->frame_flags && m->frame_writer && m->frame_token && blocks && m->frame_dirty ? m : NULL;
}

/* The core's number is the count of vCPUs made before. */
struct vcpu *vcpu_new(struct machine *m)
{
    if (m->vcpu_count == MAX_VCPUS)
        return NULL;
    struct vcpu *v = reserve(sizeof *v);  /* mostly never touched */
    if (v == NULL)
        return NULL;
    v->machine = m;
    v->core = m->vcpu_count;
    v->blocks = m->blocks;
    v->generation = v->global_generation = 1;
    v->cr3 = UINT32_MAX;
    v->look_from = INT64_MAX;
    v->shared_frames[0] = v->shared_frames[1] = NO_FRAME;
    v->private_page = reserve(PAGE_BYTES);
    v->executed = reserve(m->frames / 8 + 1);
    for (int side = 0; side < 2; side++) {
        v->slots[side] = reserve(PAGES * sizeof *v->slots[side]);
        v->super_slots[side] = reserve(1024 * sizeof *v->super_slots[side]);
        v->stamped[side] = calloc(1024, 1);
        if (!v->slots[side] || !v->super_slots[side] || !v->stamped[side])
            return NULL;
    }
    if (!v->private_page || !v->executed)
        return NULL;
    m->vcpus[m->vcpu_count++] = v;
    return v;
}

void vcpu_delete_machine(struct machine *m)
{
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (v->uc != NULL) {
            engine.uc_free(v->scratch);
            engine.uc_close(v->uc);
        }
        munmap(v->private_page, PAGE_BYTES);
        munmap(v->executed, m->frames / 8 + 1);
        for (int side = 0; side < 2; side++) {
            munmap(v->slots[side], PAGES * sizeof *v->slots[side]);
            munmap(v->super_slots[side], 1024 * sizeof *v->super_slots[side]);
            free(v->stamped[side]);
        }
        free(v->dropped);
        munmap(v, sizeof *v);
    }
    munmap(m->frame_flags, m->frames);
    munmap(m->frame_dirty, m->frames);
    free(m->debug.breakpoints);
    munmap(m->frame_writer, m->frames * sizeof *m->frame_writer);
    munmap(m->frame_token, m->frames * sizeof *m->frame_token);
    munmap(m->blocks, BLOCK_CACHE_SIZE * sizeof *m->blocks);
    munmap(m->debug.marked_blocks, BLOCK_CACHE_SIZE * sizeof *m->blocks);
    munmap(m->debug.range_blocks, BLOCK_CACHE_SIZE * sizeof *m->blocks);
    munmap(m->runs, BLOCK_CACHE_SIZE * sizeof *m->runs);
    munmap(m->shadow, (size_t)m->frames * PAGE_BYTES);
    munmap(m->claims, m->frames * sizeof *m->claims);
    free(m);
}

/* clock, frame, deadline_cycles */
int64_t *vcpu_shared_words(struct vcpu *v)
{
    return &v->clock;
}

uint64_t vcpu_anomalies(const struct vcpu *v)
{
    return v->anomalies;
}

const char *vcpu_error(const struct vcpu *v)
{
    return v->error;
}

/* Makes the engine now rather than at the first run; false: see vcpu_error(). */
bool vcpu_prepare(struct vcpu *v)
{
    return v->uc != NULL || engine_start(v);
}

void vcpu_flush_tlb(struct vcpu *v)
{
    tlb_flush(v, false);
}

void vcpu_invalidate_page(struct vcpu *v, uint32_t address)
{
    tlb_invalidate(v, address);
}

void vcpu_forget_code(struct machine *m, uint32_t first, uint32_t count)
{
    for (uint32_t frame = first; frame - first < count && frame < m->frames; frame++)
        forget_frame(m, frame);
}

void vcpu_set_kernel_written(struct machine *m, uint32_t frame, bool flag)
{
    if (frame >= m->frames)
        return;
    forget_frame(m, frame);
    if (flag)
        m->frame_flags[frame] |= FRAME_KERNEL_WRITTEN;
    else
        m->frame_flags[frame] &= (uint8_t)~FRAME_KERNEL_WRITTEN;
}
