/*
 * One Unicorn engine per vCPU, made when the vCPU first runs: memory, hooks, and ring 3.
 *
 * Three things about the engine are not in its interface and are found out by experiment when the
 * first engine starts (calibrate()); what does not come out unambiguous refuses the engine:
 *
 *   - GDT base: the interface cuts it to 32 bits. We want the GDT at a linear address beyond 4 GiB,
 *     where the engine's descriptor loads reach it and no guest instruction can.
 *   - the exception being handled: after reporting one, the engine takes the next for a double fault.
 *   - the error code of an exception, and the byte address that missed the TLB (hooks get the page).
 *
 * Ring 3 is reached by executing an iret; a CS selector written through the interface does not
 * change the privilege level.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#include "vcpu.h"

struct engine_functions engine;

#define TCG_BUFFER_BYTES (8u << 20)
#define STUB_OFFSET 0x200u   /* iret */
#define TRAP_OFFSET 0x210u   /* int 0x30 */
#define PROBE_OFFSET 0x220u  /* instructions under test */
#define STACK_OFFSET 0x300u
#define PRIVATE_LINEAR ((uint32_t)PRIVATE_PHYSICAL)

#define ENGINE_STRUCT_BYTES 8192  /* of uc_engine, enough to hold what we look for; it is larger */

static struct {
    bool done;
    size_t gdt_base, old_exception, error_code;  /* in a uc_context */
    size_t fault_address;                        /* in a uc_engine */
} offsets;

#define KERNEL_DATA_SELECTOR 0x10
#define USER_CODE_SELECTOR 0x1b
#define USER_DATA_SELECTOR 0x23

static const uint32_t boot_gdt[10] = {
    0, 0,
    0x0000ffff, 0x00cf9b00,  /* 0x08 kernel code */
    0x0000ffff, 0x00cf9300,  /* 0x10 kernel data */
    0x0000ffff, 0x00cffb00,  /* 0x1b user code */
    0x0000ffff, 0x00cff300,  /* 0x23 user data */
};

static bool fail(struct vcpu *v, const char *what)
{
    snprintf(v->error, sizeof v->error, "%s", what);
    return false;
}

static bool check(struct vcpu *v, uc_err err, const char *what)
{
    if (err == UC_ERR_OK)
        return true;
    snprintf(v->error, sizeof v->error, "%s: %s", what, engine.uc_strerror(err));
    return false;
}

void engine_flush_tlb(struct vcpu *v)
{
    if (v->uc != NULL)
        engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TLB_FLUSH, 0));
}

/* Drops the translations of a page of physical memory. Not from within a run of this engine. */
void engine_forget_page(struct vcpu *v, uint64_t physical)
{
    engine_forget_code(v, physical, PAGE_BYTES);
}

/* The same of some bytes, which do not cross a page; and of the copy that patch.c may have made of them. */
void engine_forget_code(struct vcpu *v, uint64_t physical, uint32_t size)
{
    uint64_t in_copy = SHADOW_WINDOW + physical;
    bool copied = physical < (uint64_t)v->machine->frames * PAGE_BYTES
               && v->machine->frame_flags[physical / PAGE_BYTES] & FRAME_SHADOWED;
    v->forgetting = true;
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), WINDOW + physical, WINDOW + physical + size);
    if (copied)
        engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), in_copy, in_copy + size);
    v->forgetting = false;
}

/* After an exception was reported: makes the engine forget that it is handling it. */
void engine_scrub(struct vcpu *v, uint32_t *error_code)
{
    const int32_t none = -1;
    engine.uc_context_save(v->uc, v->scratch);
    memcpy(error_code, (char *)v->scratch + offsets.error_code, sizeof *error_code);
    memcpy((char *)v->scratch + offsets.old_exception, &none, sizeof none);
    engine.uc_context_restore(v->uc, v->scratch);
}

/* The byte address of the TLB miss that was just refused. */
uint32_t engine_fault_address(struct vcpu *v)
{
    uint64_t address;
    memcpy(&address, (const char *)v->uc + offsets.fault_address, sizeof address);
    return (uint32_t)address;
}

static bool add_hook(struct vcpu *v, int type, void *callback, int instruction)
{
    uc_hook handle;
    /* Begin above end: everywhere. */
    return check(v, engine.uc_hook_add(v->uc, &handle, type, callback, v, (uint64_t)1, (uint64_t)0, instruction),
                 "cannot hook the engine");
}

static bool map_memory(struct vcpu *v)
{
    struct machine *m = v->machine;
    return check(v, engine.uc_mem_map_ptr(v->uc, 0, (uint64_t)m->frames * PAGE_BYTES, UC_PROT_ALL, m->ram),
                 "cannot map guest memory")
        && check(v, engine.uc_mem_map_ptr(v->uc, SHADOW_PHYSICAL, (uint64_t)m->frames * PAGE_BYTES, UC_PROT_ALL, m->shadow),
                 "cannot map copies of guest memory")
        && check(v, engine.uc_mem_map_ptr(v->uc, PRIVATE_PHYSICAL, PAGE_BYTES, UC_PROT_ALL, v->private_page),
                 "cannot map the descriptor table");
}

static bool create(struct vcpu *v)
{
    if (!check(v, engine.uc_open(UC_ARCH_X86, UC_MODE_32, &v->uc), "cannot make an engine"))
        return false;
    /* A K10, like the machine of the default profile: what it lacks (AVX, RDRAND, …) is #UD. */
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), (int)UC_CPU_X86_OPTERON_G3);
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), TCG_BUFFER_BYTES);
    /* No end address: with one, the engine drops the block there after every run. */
    engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_UC_USE_EXITS, 1), 1);
    return check(v, engine.uc_ctl(v->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), (int)UC_TLB_VIRTUAL), "no virtual TLB")
        && map_memory(v)
        && check(v, engine.uc_context_alloc(v->uc, &v->scratch), "cannot save an engine's state")
        && add_hook(v, UC_HOOK_TLB_FILL, (void *)tlb_fill, 0)
        && add_hook(v, UC_HOOK_BLOCK, (void *)block_entered, 0)
        && add_hook(v, UC_HOOK_INTR, (void *)interrupt_taken, 0)
        && add_hook(v, UC_HOOK_INSN, (void *)cpuid_executed, UC_X86_INS_CPUID)
        && add_hook(v, UC_HOOK_INSN, (void *)rdtsc_executed, UC_X86_INS_RDTSC)
        && add_hook(v, UC_HOOK_INSN, (void *)rdtscp_executed, UC_X86_INS_RDTSCP);
}

static void put_stack_frame(struct vcpu *v)
{
    const uint32_t words[5] = {
        PRIVATE_LINEAR + TRAP_OFFSET, USER_CODE_SELECTOR, EFLAGS_FIXED, 0, USER_DATA_SELECTOR,
    };
    memcpy(v->private_page + STACK_OFFSET, words, sizeof words);
}

static bool enter_ring3(struct vcpu *v)
{
    const uint32_t cr0 = CR0_USER, cr4 = CR4_USER, esp = PRIVATE_LINEAR + STACK_OFFSET;
    const uint16_t kernel_data = KERNEL_DATA_SELECTOR, user_data = USER_DATA_SELECTOR, null = 0;
    uc_x86_mmr gdtr = {.base = PRIVATE_LINEAR, .limit = GDT_ENTRIES_COUNT * 8 - 1};
    memcpy(v->private_page, boot_gdt, sizeof boot_gdt);
    v->private_page[STUB_OFFSET] = 0xcf;
    v->private_page[TRAP_OFFSET] = 0xcd;
    v->private_page[TRAP_OFFSET + 1] = 0x30;
    put_stack_frame(v);
    engine_write(v, UC_X86_REG_CR4, &cr4);
    engine_write(v, UC_X86_REG_CR0, &cr0);
    engine_write(v, UC_X86_REG_GDTR, &gdtr);
    engine_write(v, UC_X86_REG_SS, &kernel_data);
    engine_write(v, UC_X86_REG_ESP, &esp);
    engine.uc_emu_start(v->uc, PRIVATE_LINEAR + STUB_OFFSET, 0, 0, 0);
    if (v->event != EVENT_INTERRUPT || v->vector != 0x30)
        return fail(v, "the engine does not reach ring 3");
    engine_write(v, UC_X86_REG_DS, &user_data);
    engine_write(v, UC_X86_REG_ES, &user_data);
    engine_write(v, UC_X86_REG_FS, &null);
    engine_write(v, UC_X86_REG_GS, &null);
    return true;
}

/* --- calibration ------------------------------------------------------------------------------- */

/* Runs a few bytes at ring 3 in the private page; returns the vector, or -1. */
static int probe(struct vcpu *v, const char *code, size_t size, uint32_t eax)
{
    memcpy(v->private_page + PROBE_OFFSET, code, size);
    engine_forget_page(v, PRIVATE_PHYSICAL);
    engine_write(v, UC_X86_REG_EAX, &eax);
    v->event = EVENT_NONE;
    engine.uc_emu_start(v->uc, PRIVATE_LINEAR + PROBE_OFFSET, 0, 0, 0);
    return v->event == EVENT_INTERRUPT ? (int)v->vector : -1;
}

struct observation {
    char *bytes;
    uint64_t expected;
};

/* The one offset at which each observation has the `width` bytes it should have; 0 if not exactly one. */
static size_t only_offset(const struct observation *seen, size_t count, size_t size, size_t width)
{
    size_t found = 0, matches = 0;
    for (size_t at = 4; at + width <= size; at += 4) {
        bool match = true;
        for (size_t i = 0; i < count && match; i++)
            match = memcmp(seen[i].bytes + at, &seen[i].expected, width) == 0;
        if (match) {
            found = at;
            matches++;
        }
    }
    return matches == 1 ? found : 0;
}

static void observe(struct vcpu *v, char *into, size_t size)
{
    engine.uc_context_save(v->uc, v->scratch);
    memcpy(into, v->scratch, size);
}

#define MOV_FS_EAX "\x8e\xe0"
#define DIV_EAX "\xf7\xf0"

/* Selectors beyond the GDT's limit: #GP with the selector, its RPL bits cleared, as error code. */
static bool calibrate_exceptions(struct vcpu *v, char *seen[4], size_t size)
{
    observe(v, seen[0], size);
    if (probe(v, MOV_FS_EAX, 2, 0x5553) != 13)
        return fail(v, "a bad selector is not vector 13");
    observe(v, seen[1], size);
    memcpy(v->scratch, seen[0], size);
    engine.uc_context_restore(v->uc, v->scratch);
    if (probe(v, MOV_FS_EAX, 2, 0x2a2b) != 13)
        return fail(v, "a bad selector is not vector 13");
    observe(v, seen[2], size);
    memcpy(v->scratch, seen[0], size);
    engine.uc_context_restore(v->uc, v->scratch);
    if (probe(v, DIV_EAX, 2, 0) != 0)
        return fail(v, "a division by zero is not vector 0");
    observe(v, seen[3], size);
    memcpy(v->scratch, seen[0], size);
    engine.uc_context_restore(v->uc, v->scratch);

    struct observation codes[] = {{seen[1], 0x5550}, {seen[2], 0x2a28}, {seen[3], 0}};
    struct observation handled[] = {{seen[0], UINT32_MAX}, {seen[1], 13}, {seen[2], 13}, {seen[3], 0}};
    offsets.error_code = only_offset(codes, 3, size, 4);
    offsets.old_exception = only_offset(handled, 4, size, 4);
    return (offsets.error_code && offsets.old_exception) || fail(v, "its exception state is not where it should be");
}

static bool calibrate_gdt(struct vcpu *v, char *seen[4], size_t size)
{
    uc_x86_mmr gdtr = {.base = 0x5a5a6000, .limit = GDT_ENTRIES_COUNT * 8 - 1};
    observe(v, seen[0], size);
    engine_write(v, UC_X86_REG_GDTR, &gdtr);
    observe(v, seen[1], size);
    struct observation base[] = {{seen[0], PRIVATE_LINEAR}, {seen[1], 0x5a5a6000}};
    offsets.gdt_base = only_offset(base, 2, size, 8);
    return offsets.gdt_base != 0 || fail(v, "its GDT base is not where it should be");
}

static bool calibrate_fault_address(struct vcpu *v, char *seen[2])
{
    static const uint32_t addresses[2] = {0x5a5a7123, 0x3c3c1457};
    struct observation engine_bytes[2];
    for (int i = 0; i < 2; i++) {
        v->event = EVENT_NONE;
        if (probe(v, "\x8a\x08", 2, addresses[i]) != -1 || v->event != EVENT_PAGE_FAULT)  /* mov cl, [eax] */
            return fail(v, "a refused TLB fill does not stop it");
        memcpy(seen[i], v->uc, ENGINE_STRUCT_BYTES);
        engine_bytes[i] = (struct observation){seen[i], addresses[i]};
    }
    offsets.fault_address = only_offset(engine_bytes, 2, ENGINE_STRUCT_BYTES, 8);
    return offsets.fault_address != 0 || fail(v, "its fault address is not where it should be");
}

static bool calibrate(struct vcpu *v)
{
    size_t size = engine.uc_context_size(v->uc);
    size_t each = size > ENGINE_STRUCT_BYTES ? size : ENGINE_STRUCT_BYTES;
    char *memory = calloc(4, each);
    if (memory == NULL)
        return fail(v, "out of memory");
    char *seen[4] = {memory, memory + each, memory + 2 * each, memory + 3 * each};
    bool ok = calibrate_exceptions(v, seen, size) && calibrate_fault_address(v, seen) && calibrate_gdt(v, seen, size);
    free(memory);
    offsets.done = ok;
    return ok;
}

/* Twice the same exception: without engine_scrub() the second would be a double fault. */
static bool verify(struct vcpu *v)
{
    for (int i = 0; i < 2; i++) {
        uint32_t code = 0;
        if (probe(v, MOV_FS_EAX, 2, 0x5553) != 13)
            return fail(v, "exceptions leave a mark that cannot be cleared");
        engine_scrub(v, &code);
        if (code != 0x5550)
            return fail(v, "it reports a wrong error code");
    }
    return true;
}

static void hide_gdt(struct vcpu *v)
{
    const uint64_t base = WINDOW + PRIVATE_PHYSICAL;
    engine.uc_context_save(v->uc, v->scratch);
    memcpy((char *)v->scratch + offsets.gdt_base, &base, sizeof base);
    engine.uc_context_restore(v->uc, v->scratch);
    memset(v->private_page + sizeof boot_gdt, 0, PAGE_BYTES - sizeof boot_gdt);
}

bool engine_start(struct vcpu *v)
{
    v->setup = true;
    bool ok = create(v) && enter_ring3(v) && (offsets.done || calibrate(v)) && verify(v);
    if (!ok)
        return false;
    if (!native_find(v))
        return fail(v, "its registers are not where they should be");
    hide_gdt(v);
    v->setup = false;
    v->ts = false;
    v->event = EVENT_NONE;
    engine_forget_page(v, PRIVATE_PHYSICAL);
    engine_flush_tlb(v);
    v->segments[X86_CS] = USER_CODE_SELECTOR;
    v->segments[X86_SS] = v->segments[X86_DS] = v->segments[X86_ES] = USER_DATA_SELECTOR;
    v->segments[X86_FS] = v->segments[X86_GS] = 0;
    note_null_segments(v);
    return true;
}
