/*
 * See engine.h. An engine is made when the vCPU first runs: memory, hooks, and ring 3.
 *
 * Ring 3 is reached by executing an iret; a CS selector written through the interface does not
 * change the privilege level.
 */
#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "answers.h"
#include "books.h"
#include "fpu.h"
#include "hidden.h"
#include "memory.h"
#include "mmu.h"
#include "native.h"
#include "patch.h"
#include "ram.h"
#include "report.h"
#include "segments.h"
#include "vcpu.h"

struct engine_functions unicorn;

static uint32_t engines;  /* of all machines */

#define TCG_BUFFER_BYTES (8u << 20)
#define STUB_OFFSET 0x200u   /* iret */
#define TRAP_OFFSET 0x210u   /* the system call's int */
#define PROBE_OFFSET 0x220u  /* instructions under test */
#define STACK_OFFSET 0x300u

/* Entries 0 to 2 of the descriptor table are the engine's, the others are as the interface says. */
#define KERNEL_CODE_ENTRY 1u
#define KERNEL_DATA_ENTRY 2u
#define RING3 3u

bool engine_fail(struct engine *e, const char *what)
{
    snprintf(e->error, sizeof e->error, "%s", what);
    return false;
}

static bool check(struct engine *e, uc_err err, const char *what)
{
    if (err == UC_ERR_OK)
        return true;
    snprintf(e->error, sizeof e->error, "%s: %s", what, unicorn.uc_strerror(err));
    return false;
}

const char *engine_error_name(uc_err err)
{
    return unicorn.uc_strerror(err);
}

void engine_note_anomaly(struct vcpu *v, const char *what)
{
    struct engine *e = &v->engine;
    const struct block *block = books_block(&v->books);
    e->anomalies++;
    snprintf(e->error, sizeof e->error, "%s at EIP %#x (exit %d, vector %d, block %#x + %#x)", what, v->eip,
             report_reason(&v->report), report_vector(&v->report), block ? block->eip : 0, block ? block->size : 0);
}

/* --- registers --------------------------------------------------------------------------------- */

static int registers[REGISTER_COUNT] = {
    UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX, UC_X86_REG_ESP, UC_X86_REG_EBP,
    UC_X86_REG_ESI, UC_X86_REG_EDI, UC_X86_REG_EFLAGS,
};

void engine_read_registers(struct engine *e, uint32_t general[REGISTER_EFLAGS], uint32_t *eflags)
{
    void *values[REGISTER_COUNT] = {
        &general[0], &general[1], &general[2], &general[3], &general[4],
        &general[5], &general[6], &general[7], eflags,
    };
    unicorn.uc_reg_read_batch(e->uc, registers, values, REGISTER_COUNT);
}

void engine_write_registers(struct engine *e, uint32_t general[REGISTER_EFLAGS], uint32_t eflags)
{
    void *const values[REGISTER_COUNT] = {
        &general[0], &general[1], &general[2], &general[3], &general[4],
        &general[5], &general[6], &general[7], &eflags,
    };
    unicorn.uc_reg_write_batch(e->uc, registers, values, REGISTER_COUNT);
}

/* --- its TLB and translations ------------------------------------------------------------------ */

uc_err engine_run(struct engine *e, uint32_t eip, bool one_step)
{
    if (e->flush || (e->flush_if_free && !one_step)) {
        engine_flush_tlb(e);
        e->flush = e->flush_if_free = false;
    }
    e->running = true;
    uc_err err = unicorn.uc_emu_start(e->uc, eip, 0, 0, 0);
    e->running = false;
    return err;
}

void engine_flush_tlb(struct engine *e)
{
    if (e->uc != NULL)
        unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0));
}

static void remove_translations(struct engine *e, uint64_t first, uint64_t bytes)
{
    unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), first, first + bytes);
}

void engine_forget_code(struct engine *e, uint64_t physical, uint32_t bytes, bool shadow)
{
    e->forgetting = true;
    remove_translations(e, WINDOW + physical, bytes);
    if (shadow)
        remove_translations(e, SHADOW_WINDOW + physical, bytes);
    e->forgetting = false;
}

/* Code translated before does not report anything, so it must go; likewise afterwards. */
uc_hook engine_hook_accesses(struct vcpu *v, uc_cb_hookmem_t callback)
{
    uc_hook handle = 0;
    unicorn.uc_hook_add(v->engine.uc, &handle, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, (void *)callback, v, (uint64_t)1,
                        (uint64_t)0);
    unicorn.uc_ctl(v->engine.uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
    return handle;
}

void engine_unhook_accesses(struct engine *e, uc_hook handle)
{
    unicorn.uc_hook_del(e->uc, handle);
    unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
}

/* --- its start --------------------------------------------------------------------------------- */

static bool add_hook(struct vcpu *v, int type, void *callback, int instruction)
{
    uc_hook handle;
    /* Begin above end: everywhere. */
    return check(&v->engine,
                 unicorn.uc_hook_add(v->engine.uc, &handle, type, callback, v, (uint64_t)1, (uint64_t)0, instruction),
                 "cannot hook the engine");
}

static bool map_memory(struct engine *e, const struct ram *ram, uint8_t *shadow)
{
    uint64_t ram_bytes = (uint64_t)ram_pfn_count(ram) * PAGE_BYTES;
    return check(e, unicorn.uc_mem_map_ptr(e->uc, 0, ram_bytes, UC_PROT_ALL, ram_at(ram, 0, 0)),
                 "cannot map guest memory")
        && check(e, unicorn.uc_mem_map_ptr(e->uc, SHADOW_PHYSICAL, ram_bytes, UC_PROT_ALL, shadow),
                 "cannot map copies of guest memory")
        && check(e, unicorn.uc_mem_map_ptr(e->uc, PRIVATE_PHYSICAL, PAGE_BYTES, UC_PROT_ALL, e->private_page),
                 "cannot map the descriptor table");
}

static bool create(struct vcpu *v)
{
    struct engine *e = &v->engine;
    if (!check(e, unicorn.uc_open(UC_ARCH_X86, UC_MODE_32, &e->uc), "cannot make an engine"))
        return false;
    __atomic_add_fetch(&engines, 1, __ATOMIC_RELAXED);
    /* A K10, like the machine of the default profile: what it lacks (AVX, RDRAND, …) is #UD. */
    unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), (int)UC_CPU_X86_OPTERON_G3);
    unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), TCG_BUFFER_BYTES);
    /* No end address: with one, the engine drops the block there after every run. */
    unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_UC_USE_EXITS, 1), 1);
    return check(e, unicorn.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), (int)UC_TLB_VIRTUAL), "no virtual TLB")
        && map_memory(e, &v->machine->ram, patch_shadow(&v->machine->patch))
        && check(e, unicorn.uc_context_alloc(e->uc, &e->scratch), "cannot save an engine's state")
        && add_hook(v, UC_HOOK_TLB_FILL, (void *)mmu_fill, 0)
        && add_hook(v, UC_HOOK_BLOCK, (void *)books_block_entered, 0)
        && add_hook(v, UC_HOOK_INTR, (void *)report_interrupt, 0)
        && add_hook(v, UC_HOOK_INSN, (void *)answers_cpuid, UC_X86_INS_CPUID)
        && add_hook(v, UC_HOOK_INSN, (void *)answers_rdtsc, UC_X86_INS_RDTSC)
        && add_hook(v, UC_HOOK_INSN, (void *)answers_rdtscp, UC_X86_INS_RDTSCP);
}

/* The last entry of the descriptor table that the interface has; 0 if its numbers fit no table. */
static uint32_t last_entry(const struct interface *i)
{
    uint32_t selectors[3 + THREAD_ENTRIES] = {i->code_selector, i->data_selector, i->utcb_selector};
    uint32_t taken = 1 | 1u << KERNEL_CODE_ENTRY | 1u << KERNEL_DATA_ENTRY, last = 0;
    if (i->thread_entries > THREAD_ENTRIES || i->system_call_vector > UINT8_MAX)
        return 0;
    for (uint32_t n = 0; n < i->thread_entries; n++)
        selectors[3 + n] = i->first_thread_selector + 8 * n;
    for (uint32_t n = 0; n < 3 + i->thread_entries; n++) {
        uint32_t entry = selectors[n] >> 3;
        if ((selectors[n] & 7) != RING3 || entry >= ENGINE_DESCRIPTORS || taken >> entry & 1)
            return 0;
        taken |= 1u << entry;
        last = entry > last ? entry : last;
    }
    return last;
}

static void put_flat_descriptor(struct engine *e, uint32_t entry, uint32_t type)
{
    engine_descriptors(e)[2 * entry] = 0x0000ffff;
    engine_descriptors(e)[2 * entry + 1] = 0x00cf0000 | type << 8;
}

static void put_descriptors(struct engine *e, const struct interface *i)
{
    put_flat_descriptor(e, KERNEL_CODE_ENTRY, 0x9b);
    put_flat_descriptor(e, KERNEL_DATA_ENTRY, 0x93);
    put_flat_descriptor(e, i->code_selector >> 3, 0xfb);
    put_flat_descriptor(e, i->data_selector >> 3, 0xf3);
}

static void put_stub(struct engine *e, const struct interface *i)
{
    const uint32_t stack[5] = {
        PRIVATE_LINEAR + TRAP_OFFSET, i->code_selector, EFLAGS_FIXED, 0, i->data_selector,
    };
    memcpy(e->private_page + STACK_OFFSET, stack, sizeof stack);
    e->private_page[STUB_OFFSET] = 0xcf;
    e->private_page[TRAP_OFFSET] = 0xcd;
    e->private_page[TRAP_OFFSET + 1] = (uint8_t)i->system_call_vector;
}

static bool enter_ring3(struct vcpu *v)
{
    struct engine *e = &v->engine;
    const struct interface *i = &v->machine->interface;
    const uint32_t cr0 = CR0_USER, cr4 = CR4_USER, esp = PRIVATE_LINEAR + STACK_OFFSET;
    const uint16_t kernel_data = KERNEL_DATA_ENTRY * 8, user_data = (uint16_t)i->data_selector, null = 0;
    const uint32_t last = last_entry(i);
    uc_x86_mmr gdtr = {.base = PRIVATE_LINEAR, .limit = last * 8 + 7};
    if (last == 0)
        return engine_fail(e, "the interface's numbers have no place in the processor's tables");
    put_descriptors(e, i);
    put_stub(e, i);
    engine_write(e, UC_X86_REG_CR4, &cr4);
    engine_write(e, UC_X86_REG_CR0, &cr0);
    engine_write(e, UC_X86_REG_GDTR, &gdtr);
    engine_write(e, UC_X86_REG_SS, &kernel_data);
    engine_write(e, UC_X86_REG_ESP, &esp);
    unicorn.uc_emu_start(e->uc, PRIVATE_LINEAR + STUB_OFFSET, 0, 0, 0);
    if (report_vector(&v->report) != (int)i->system_call_vector)
        return engine_fail(e, "the engine does not reach ring 3");
    engine_write(e, UC_X86_REG_DS, &user_data);
    engine_write(e, UC_X86_REG_ES, &user_data);
    engine_write(e, UC_X86_REG_FS, &null);
    engine_write(e, UC_X86_REG_GS, &null);
    return true;
}

int engine_probe(struct vcpu *v, const char *code, size_t size, uint32_t eax)
{
    struct engine *e = &v->engine;
    memcpy(e->private_page + PROBE_OFFSET, code, size);
    engine_forget_code(e, PRIVATE_PHYSICAL, PAGE_BYTES, false);
    engine_write(e, UC_X86_REG_EAX, &eax);
    report_begin(&v->report);
    unicorn.uc_emu_start(e->uc, PRIVATE_LINEAR + PROBE_OFFSET, 0, 0, 0);
    return report_vector(&v->report);
}

bool engine_init(struct engine *e)
{
    e->private_page = memory_reserve(PAGE_BYTES);
    return e->private_page != NULL;
}

static void stop(struct engine *e)
{
    if (e->uc == NULL)
        return;
    if (e->scratch != NULL)
        unicorn.uc_context_free(e->scratch);
    unicorn.uc_close(e->uc);
    e->scratch = NULL;
    e->uc = NULL;
    __atomic_sub_fetch(&engines, 1, __ATOMIC_RELAXED);
}

bool engine_start(struct vcpu *v)
{
    struct engine *e = &v->engine;
    e->setup = true;
    bool ok = create(v) && enter_ring3(v) && hidden_find(v) && native_find(v);
    if (ok) {
        hidden_move_descriptors(e, WINDOW + PRIVATE_PHYSICAL);
        memset(e->private_page + STUB_OFFSET, 0, PAGE_BYTES - STUB_OFFSET);
        engine_forget_code(e, PRIVATE_PHYSICAL, PAGE_BYTES, false);
        engine_flush_tlb(e);
    } else {
        stop(e);
    }
    e->setup = false;
    report_begin(&v->report);
    fpu_reset(&v->fpu);
    segments_reset(v);
    return ok;
}

void engine_free(struct engine *e)
{
    stop(e);
    memory_release(e->private_page, PAGE_BYTES);
}

/* --- for vcpu.py ------------------------------------------------------------------------------- */

static const char *const function_names[] = {
#define X(name) #name,
    ENGINE_FUNCTIONS(X)
#undef X
    NULL,
};

const char *const *vcpu_function_names(void)
{
    return function_names;
}

void vcpu_use_engine(const struct engine_functions *functions)
{
    unicorn = *functions;
}

/* How many engines all machines have. */
uint32_t vcpu_engines_in_use(void)
{
    return __atomic_load_n(&engines, __ATOMIC_RELAXED);
}

/* Makes the engine now rather than at the first run; false: see vcpu_error(). */
bool vcpu_prepare(struct vcpu *v)
{
    return v->engine.uc != NULL || engine_start(v);
}

uint64_t vcpu_anomalies(const struct vcpu *v)
{
    return v->engine.anomalies;
}

const char *vcpu_error(const struct vcpu *v)
{
    return v->engine.error;
}
