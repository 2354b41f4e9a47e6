/*
 * See hidden.h. Three things about the engine are not in its interface and are found out by experiment when
 * the first engine starts (calibrate()); what does not come out unambiguous refuses the engine:
 *
 *   - GDT base: the interface cuts it to 32 bits. We want the GDT at a linear address beyond 4 GiB,
 *     where the engine's descriptor loads reach it and no guest instruction can.
 *   - the exception being handled: after reporting one, the engine takes the next for a double fault.
 *   - the error code of an exception, and the byte address that missed the TLB (hooks get the page).
 */
#include "hidden.h"

#include <string.h>

#include "engine.h"
#include "memory.h"
#include "report.h"
#include "vcpu.h"

#define ENGINE_STRUCT_BYTES 8192  /* of uc_engine, enough to hold what we look for; it is larger */

static struct {
    bool done;
    size_t gdt_base, old_exception, error_code;  /* in a uc_context */
    size_t fault_address;                        /* in a uc_engine */
} offsets;

uint32_t hidden_take_exception(struct engine *e)
{
    const int32_t none = -1;
    uint32_t error_code;
    char *context = engine_save_context(e);
    memcpy(&error_code, context + offsets.error_code, sizeof error_code);
    memcpy(context + offsets.old_exception, &none, sizeof none);
    engine_restore_context(e);
    return error_code;
}

uint32_t hidden_fault_address(const struct engine *e)
{
    uint64_t address;
    memcpy(&address, engine_struct(e) + offsets.fault_address, sizeof address);
    return (uint32_t)address;
}

void hidden_move_descriptors(struct engine *e, uint64_t base)
{
    memcpy(engine_save_context(e) + offsets.gdt_base, &base, sizeof base);
    engine_restore_context(e);
}

/* --- finding it -------------------------------------------------------------------------------- */

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
    memcpy(into, engine_save_context(&v->engine), size);
}

static void go_back(struct vcpu *v, const char *observed, size_t size)
{
    memcpy(engine_context(&v->engine), observed, size);
    engine_restore_context(&v->engine);
}

#define MOV_FS_EAX "\x8e\xe0"
#define DIV_EAX "\xf7\xf0"

/* Selectors beyond the GDT's limit: #GP with the selector, its RPL bits cleared, as error code. */
static bool calibrate_exceptions(struct vcpu *v, char *seen[4], size_t size)
{
    observe(v, seen[0], size);
    if (engine_probe(v, MOV_FS_EAX, 2, 0x5553) != VECTOR_GP)
        return engine_fail(&v->engine, "a bad selector is not vector 13");
    observe(v, seen[1], size);
    go_back(v, seen[0], size);
    if (engine_probe(v, MOV_FS_EAX, 2, 0x2a2b) != VECTOR_GP)
        return engine_fail(&v->engine, "a bad selector is not vector 13");
    observe(v, seen[2], size);
    go_back(v, seen[0], size);
    if (engine_probe(v, DIV_EAX, 2, 0) != 0)
        return engine_fail(&v->engine, "a division by zero is not vector 0");
    observe(v, seen[3], size);
    go_back(v, seen[0], size);

    struct observation codes[] = {{seen[1], 0x5550}, {seen[2], 0x2a28}, {seen[3], 0}};
    struct observation handled[] = {
        {seen[0], UINT32_MAX}, {seen[1], VECTOR_GP}, {seen[2], VECTOR_GP}, {seen[3], 0},
    };
    offsets.error_code = only_offset(codes, 3, size, 4);
    offsets.old_exception = only_offset(handled, 4, size, 4);
    return (offsets.error_code && offsets.old_exception)
        || engine_fail(&v->engine, "its exception state is not where it should be");
}

static bool calibrate_gdt(struct vcpu *v, char *seen[4], size_t size)
{
    uc_x86_mmr gdtr;
    engine_read(&v->engine, UC_X86_REG_GDTR, &gdtr);
    observe(v, seen[0], size);
    struct observation base[] = {{seen[0], gdtr.base}, {seen[1], 0x5a5a6000}};
    gdtr.base = 0x5a5a6000;
    engine_write(&v->engine, UC_X86_REG_GDTR, &gdtr);
    observe(v, seen[1], size);
    offsets.gdt_base = only_offset(base, 2, size, 8);
    return offsets.gdt_base != 0 || engine_fail(&v->engine, "its GDT base is not where it should be");
}

static bool calibrate_fault_address(struct vcpu *v, char *seen[2])
{
    static const uint32_t addresses[2] = {0x5a5a7123, 0x3c3c1457};
    struct observation seen_structs[2];
    for (int i = 0; i < 2; i++) {
        engine_probe(v, "\x8a\x08", 2, addresses[i]);  /* mov cl, [eax] */
        if (report_reason(&v->report) != EXIT_PAGE_FAULT)
            return engine_fail(&v->engine, "a refused TLB fill does not stop it");
        memcpy(seen[i], engine_struct(&v->engine), ENGINE_STRUCT_BYTES);
        seen_structs[i] = (struct observation){seen[i], addresses[i]};
    }
    offsets.fault_address = only_offset(seen_structs, 2, ENGINE_STRUCT_BYTES, 8);
    return offsets.fault_address != 0 || engine_fail(&v->engine, "its fault address is not where it should be");
}

static bool calibrate(struct vcpu *v)
{
    size_t size = engine_context_bytes(&v->engine);
    size_t each = size > ENGINE_STRUCT_BYTES ? size : ENGINE_STRUCT_BYTES;
    char *memory = memory_reserve(4 * each);
    if (memory == NULL)
        return engine_fail(&v->engine, "out of memory");
    char *seen[4] = {memory, memory + each, memory + 2 * each, memory + 3 * each};
    bool ok = calibrate_exceptions(v, seen, size) && calibrate_fault_address(v, seen) && calibrate_gdt(v, seen, size);
    memory_release(memory, 4 * each);
    offsets.done = ok;
    return ok;
}

/* Twice the same exception: if the first is not taken, the second is a double fault. */
static bool verify(struct vcpu *v)
{
    for (int i = 0; i < 2; i++) {
        if (engine_probe(v, MOV_FS_EAX, 2, 0x5553) != VECTOR_GP)
            return engine_fail(&v->engine, "exceptions leave a mark that cannot be cleared");
        if (hidden_take_exception(&v->engine) != 0x5550)
            return engine_fail(&v->engine, "it reports a wrong error code");
    }
    return true;
}

bool hidden_find(struct vcpu *v)
{
    return (offsets.done || calibrate(v)) && verify(v);
}
