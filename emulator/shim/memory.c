/* See memory.h. */
#define _DEFAULT_SOURCE  /* MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t in_use;  /* machines may live in different host threads */

static void count(size_t bytes)
{
    __atomic_add_fetch(&in_use, bytes, __ATOMIC_RELAXED);
}

static void discount(size_t bytes)
{
    __atomic_sub_fetch(&in_use, bytes, __ATOMIC_RELAXED);
}

void *memory_reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    count(bytes);
    return memory;
}

void memory_release(void *memory, size_t bytes)
{
    if (memory == NULL)
        return;
    munmap(memory, bytes);
    discount(bytes);
}

void *memory_new(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory != NULL)
        count(bytes);
    return memory;
}

void memory_delete(void *memory, size_t bytes)
{
    if (memory == NULL)
        return;
    free(memory);
    discount(bytes);
}

void *memory_grow(void *memory, size_t bytes, size_t more_bytes)
{
    void *larger = memory_new(more_bytes);
    if (larger == NULL)
        abort();
    if (memory != NULL)
        memcpy(larger, memory, bytes);
    memory_delete(memory, bytes);
    return larger;
}

/* Bytes that all machines have, touched or not. */
uint64_t vcpu_memory_in_use(void)
{
    return __atomic_load_n(&in_use, __ATOMIC_RELAXED);
}
