/*
 * One Unicorn engine for each vCPU: its life, its registers, its own TLB and its translations. No other part
 * calls the engine's library.
 */
#ifndef L4LAB_ENGINE_H
#define L4LAB_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "x86.h"

struct vcpu;

#pragma GCC visibility push(hidden)

/* The functions of the library. The shim is not linked against it: Python passes their addresses. */
#define ENGINE_FUNCTIONS(X)                                                                               \
    X(uc_open) X(uc_close) X(uc_emu_start) X(uc_emu_stop) X(uc_hook_add) X(uc_hook_del) X(uc_mem_map_ptr) \
    X(uc_reg_read) X(uc_reg_write) X(uc_reg_read_batch) X(uc_reg_write_batch) X(uc_ctl)                   \
    X(uc_context_alloc) X(uc_context_save) X(uc_context_restore) X(uc_context_size) X(uc_context_free)    \
    X(uc_strerror)

struct engine_functions {
#define X(name) __typeof__(name) *name;
    ENGINE_FUNCTIONS(X)
#undef X
};
extern struct engine_functions unicorn;

struct engine {
    uc_engine *uc;          /* NULL: not started yet */
    uc_context *scratch;
    uint8_t *private_page;  /* descriptor table and ring-3 stub */
    bool setup;             /* bringing it up: no guest yet */
    bool forgetting;        /* inside engine_forget_code(): it looks up what a page holds */
    bool running;           /* inside engine_run() */
    bool flush;             /* its TLB must be flushed before it runs again */
    bool flush_if_free;     /* the same, but not before it runs for one step */
    uint64_t anomalies;     /* things it should not do; tests expect zero */
    char error[160];
};

/*
 * The 4 GiB of linear addresses from here on show physical memory, to the engine's own helpers only:
 * data addresses that guest instructions form are cut to 32 bits. (Instruction addresses are not
 * always: a near jcc adds its offset with sign. So fetches from here are the shim's own or truncated.)
 */
#define WINDOW (UINT64_C(1) << 36)
#define SHADOW_WINDOW (WINDOW + (UINT64_C(1) << 32))  /* and from here on the copies of pages: see patch.h */
#define SHADOW_PHYSICAL (UINT64_C(1) << 32)
#define PRIVATE_PHYSICAL UINT64_C(0xfffff000)
#define PRIVATE_LINEAR ((uint32_t)PRIVATE_PHYSICAL) /* until the guest runs */

/* The general registers in the order of the frame, then EFLAGS. */
#define REGISTER_COUNT 9
#define REGISTER_EFLAGS 8

static inline bool engine_is_started(const struct engine *e)
{
    return e->uc != NULL;
}

static inline bool engine_in_setup(const struct engine *e)
{
    return e->setup;
}

static inline bool engine_is_running(const struct engine *e)
{
    return e->running;
}

/* Whether this is an access of the engine itself, to physical memory; then where. */
static inline bool engine_sees_physical(const struct engine *e, uint64_t address, bool fetch, uint64_t *physical)
{
    uint32_t page = (uint32_t)address & PAGE_MASK;
    bool shadow = e->forgetting && address - SHADOW_WINDOW <= UINT32_MAX;
    *physical = shadow ? SHADOW_PHYSICAL + page : page;
    return shadow || (address - WINDOW <= UINT32_MAX && (!fetch || e->forgetting))
        || (e->setup && page == PRIVATE_PHYSICAL);
}

static inline void engine_read(struct engine *e, int reg, void *value)
{
    unicorn.uc_reg_read(e->uc, reg, value);
}

static inline void engine_write(struct engine *e, int reg, const void *value)
{
    unicorn.uc_reg_write(e->uc, reg, value);
}

/* False: the engine refuses the value. */
static inline bool engine_try_write(struct engine *e, int reg, const void *value)
{
    return unicorn.uc_reg_write(e->uc, reg, value) == UC_ERR_OK;
}

static inline uint32_t engine_word(struct engine *e, int reg)
{
    uint32_t word = 0;
    engine_read(e, reg, &word);
    return word;
}

void engine_read_registers(struct engine *e, uint32_t general[REGISTER_EFLAGS], uint32_t *eflags);
void engine_write_registers(struct engine *e, uint32_t general[REGISTER_EFLAGS], uint32_t eflags);

/* The descriptor table that the engine has; entry n are the words 2 n and 2 n + 1. Those it has not are zero. */
#define ENGINE_DESCRIPTORS 32u
static inline uint32_t *engine_descriptors(const struct engine *e)
{
    return (uint32_t *)e->private_page;
}

static inline void engine_must_flush(struct engine *e)
{
    e->flush = true;
}

static inline void engine_must_flush_if_free(struct engine *e)
{
    e->flush_if_free = true;
}

/* From within a hook: it goes no further. */
static inline void engine_leave(struct engine *e)
{
    unicorn.uc_emu_stop(e->uc);
}

bool engine_init(struct engine *e);
void engine_free(struct engine *e);

/* Makes it, at ring 3. False: see vcpu_error(); there is none then. */
bool engine_start(struct vcpu *v);

/* Executes from `eip` on until a hook leaves, or for one instruction if the hooks see to that. */
uc_err engine_run(struct engine *e, uint32_t eip, bool one_step);

void engine_flush_tlb(struct engine *e);

/* Drops the translations of some bytes of physical memory, which do not cross a page; with `shadow`, also those of the
   copy that patch.c has made of them. Not from within a run of this engine. */
void engine_forget_code(struct engine *e, uint64_t physical, uint32_t bytes, bool shadow);

/* Has the engine report every access, until it is unhooked; 0: it refuses. */
uc_hook engine_hook_accesses(struct vcpu *v, uc_cb_hookmem_t callback);
void engine_unhook_accesses(struct engine *e, uc_hook handle);

/* The engine did what it should not. Guests go on; tests expect this never to happen. */
void engine_note_anomaly(struct vcpu *v, const char *what);

const char *engine_error_name(uc_err err);

/* --- for hidden.c and native.c ------------------------------------------------------------------ */

/* Runs a few bytes at ring 3, in setup; returns the vector, or -1. */
int engine_probe(struct vcpu *v, const char *code, size_t bytes, uint32_t eax);

/* Leaves `what` for vcpu_error(); false. */
bool engine_fail(struct engine *e, const char *what);

static inline size_t engine_context_bytes(const struct engine *e)
{
    return unicorn.uc_context_size(e->uc);
}

/* The engine's state as last saved, from which engine_restore_context() takes it. */
static inline char *engine_context(const struct engine *e)
{
    return (char *)e->scratch;
}

static inline char *engine_save_context(struct engine *e)
{
    unicorn.uc_context_save(e->uc, e->scratch);
    return engine_context(e);
}

static inline void engine_restore_context(struct engine *e)
{
    unicorn.uc_context_restore(e->uc, e->scratch);
}

/* The struct that the library keeps of it. */
static inline const char *engine_struct(const struct engine *e)
{
    return (const char *)e->uc;
}

#pragma GCC visibility pop

#endif
