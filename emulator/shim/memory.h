/* Memory of the host. Everything that the shim allocates comes from here, so that it can be counted. */
#ifndef L4LAB_MEMORY_H
#define L4LAB_MEMORY_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

/* Whole pages of the host, for what is large or must lie so: zeroed, and not backed by anything until touched. NULL
   if there are none. */
void *memory_reserve(size_t bytes);

/* `bytes` as reserved. NULL: nothing to give back. */
void memory_release(void *memory, size_t bytes);

/* For what is small: zeroed. NULL if there is none. */
void *memory_new(size_t bytes);
void memory_delete(void *memory, size_t bytes);

/* In place of something small, whose contents are kept; of nothing, if NULL. Ends the process if there is none. */
void *memory_grow(void *memory, size_t bytes, size_t more_bytes);

#pragma GCC visibility pop

#endif
