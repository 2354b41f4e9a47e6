/*
 * See native.h. The engine's interface copies registers one by one, which takes longer than most instructions. A saved context is a copy of
 * that memory, so it tells how far apart the registers lie; the memory itself is looked for behind the pointers in the
 * engine's own structure. Some of those only happen to point nearby, so all ways that led there are kept, and tried in
 * the next engine first. Memory that may not be there is read by the operating system's leave (a write to a pipe fails
 * where it is not).
 */
#include "native.h"

#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "memory.h"
#include "vcpu.h"

enum { ENGINE_WORDS = 8192 / 8, STATE_BYTES = 64 << 10, PIECE = 4096, MAX_WAYS = 32 };

static struct {
    bool known;
    struct way {
        size_t pointer;  /* in the engine's structure: to something */
        size_t general;  /* from there to the general registers, 64 bits each */
    } ways[MAX_WAYS];
    unsigned count;
    ptrdiff_t xmm;     /* from the general registers to XMM0 */
    size_t xmm_stride;
} places;

static int probe_pipe[2] = {-1, -1};

/* Copies a piece of memory if all of it is there. */
static bool read_memory(const void *from, void *into, size_t size)
{
    return write(probe_pipe[1], from, size) == (ssize_t)size && read(probe_pipe[0], into, size) == (ssize_t)size;
}

static void pattern(uint32_t seed, uint64_t general[8], union xmm xmm[2])
{
    for (unsigned i = 0; i < 8; i++)
        general[i] = seed + 0x1000193u * i;
    for (unsigned i = 0; i < 32; i++)
        xmm[i / 16].b[i % 16] = (uint8_t)(seed + 29 * i);
}

static void write_pattern(struct vcpu *v, uint32_t seed, uint64_t general[8], union xmm xmm[2])
{
    uint32_t words[REGISTER_EFLAGS], eflags;
    engine_read_registers(&v->engine, words, &eflags);
    pattern(seed, general, xmm);
    for (unsigned i = 0; i < 8; i++)
        words[i] = (uint32_t)general[i];
    engine_write_registers(&v->engine, words, eflags);
    for (unsigned i = 0; i < 2; i++)
        engine_write(&v->engine, UC_X86_REG_XMM0 + (int)i, &xmm[i]);
}

/* The only place of `what`; NULL if there is none, or more than one. */
static const uint8_t *only_place(const uint8_t *in, size_t size, const void *what, size_t what_size)
{
    const uint8_t *found = NULL;
    for (size_t at = 0; at + what_size <= size; at += 8) {
        if (memcmp(in + at, what, what_size) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = in + at;
    }
    return found;
}

static bool distances(struct vcpu *v, const uint64_t general[8], const union xmm xmm[2])
{
    size_t size = engine_context_bytes(&v->engine);
    const uint8_t *saved = (const uint8_t *)engine_save_context(&v->engine);
    const uint8_t *g = only_place(saved, size, general, 64);
    const uint8_t *x = only_place(saved, size, &xmm[0], 16), *y = only_place(saved, size, &xmm[1], 16);
    if (g == NULL || x == NULL || y == NULL || y <= x)
        return false;
    places.xmm = x - g;
    places.xmm_stride = (size_t)(y - x);
    return true;
}

/* Looks behind one pointer for the general registers; 0: they are not there. */
static size_t look_behind(const uint8_t *start, const uint64_t general[8], uint8_t *buffer)
{
    size_t size = 0;
    while (size < STATE_BYTES && read_memory(start + size, buffer + size, PIECE))
        size += PIECE;
    const uint8_t *found = only_place(buffer, size, general, 64);
    return found == NULL ? 0 : (size_t)(found - buffer);
}

/* NULL: the registers are not where this way leads. */
static uint8_t *follow(const struct vcpu *v, const struct way *way, const uint64_t general[8])
{
    uint8_t *start;
    uint64_t there[8];
    memcpy(&start, engine_struct(&v->engine) + way->pointer, sizeof start);
    if (!read_memory(start + way->general, there, sizeof there) || memcmp(there, general, sizeof there) != 0)
        return NULL;
    return start + way->general;
}

static void find_ways(const struct vcpu *v, const uint64_t general[8])
{
    uint8_t *buffer = memory_new(STATE_BYTES);
    places.count = 0;
    for (size_t i = 0; buffer != NULL && i < ENGINE_WORDS && places.count < MAX_WAYS; i++) {
        const uint8_t *pointer;
        memcpy(&pointer, engine_struct(&v->engine) + 8 * i, sizeof pointer);
        if (pointer == NULL || (uintptr_t)pointer & 7)
            continue;
        size_t at = look_behind(pointer, general, buffer);
        if (at != 0)
            places.ways[places.count++] = (struct way){8 * i, at};
    }
    memory_delete(buffer, STATE_BYTES);
}

static uint8_t *find_general(struct vcpu *v, const uint64_t general[8])
{
    for (unsigned i = 0; i < places.count; i++) {
        uint8_t *found = follow(v, &places.ways[i], general);
        if (found != NULL)
            return found;
    }
    find_ways(v, general);
    return places.count == 0 ? NULL : follow(v, &places.ways[0], general);
}

/* Whether the arithmetic flags are where they should be: what is written one way must be read the other. */
static bool find_flags(struct vcpu *v)
{
    struct native *n = &v->native;
    const uint32_t all = EFLAGS_FIXED | ARITHMETIC_FLAGS, some = ZF | CF, others = OF | SF | PF;
    uint32_t before = engine_word(&v->engine, UC_X86_REG_EFLAGS), kind;
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &all);
    memcpy(&n->flags_known, &n->general[NATIVE_FLAGS_KIND], sizeof n->flags_known);
    bool right = n->general[NATIVE_FLAGS] == ARITHMETIC_FLAGS;
    const uint32_t fewer = EFLAGS_FIXED | some;
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &fewer);
    memcpy(&kind, &n->general[NATIVE_FLAGS_KIND], sizeof kind);
    right = right && n->general[NATIVE_FLAGS] == some && kind == n->flags_known;
    native_set_flags(n, others);
    right = right && engine_word(&v->engine, UC_X86_REG_EFLAGS) == (EFLAGS_FIXED | others);
    engine_write(&v->engine, UC_X86_REG_EFLAGS, &before);
    return right;
}

static bool connect(struct vcpu *v)
{
    uint64_t general[8];
    union xmm xmm[2];
    write_pattern(v, 0x3a3c9e83, general, xmm);
    if (!places.known && !distances(v, general, xmm))
        return false;
    write_pattern(v, 0x4b17a05d, general, xmm);  /* another: the saved context must not be taken for the registers */
    uint8_t *found = find_general(v, general);
    if (found == NULL)
        return false;
    places.known = true;
    struct native *n = &v->native;
    *n = (struct native){.general = (uint64_t *)found, .xmm = found + places.xmm, .xmm_stride = places.xmm_stride};
    bool right = memcmp(native_xmm(n, 0), &xmm[0], 16) == 0 && memcmp(native_xmm(n, 1), &xmm[1], 16) == 0
              && (uint32_t)n->general[NATIVE_EIP] == engine_word(&v->engine, UC_X86_REG_EIP);
    right = right && find_flags(v);
    memset(&xmm, 0, sizeof xmm);
    for (int i = 0; i < 2; i++)
        engine_write(&v->engine, UC_X86_REG_XMM0 + i, &xmm[i]);
    return right;
}

bool native_find(struct vcpu *v)
{
    bool found = false;
    if (pipe(probe_pipe) == 0) {
        found = connect(v);
        close(probe_pipe[0]);
        close(probe_pipe[1]);
    }
    return found || engine_fail(&v->engine, "its registers are not where they should be");
}
