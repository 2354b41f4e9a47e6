/* What the boot loader leaves in memory: the list of modules (ABI 13). All addresses are physical, which
 * in the root task are also virtual. */
#ifndef L4_BOOTINFO_H
#define L4_BOOTINFO_H

#include <l4/kip.h>

typedef struct {
	uint64_t flags; /* L4_MODULE_TYPE_* in the low three bits */
	uint64_t start, end;
	uint64_t command_line;
} l4_module_t;

typedef struct {
	uint64_t flags;
	uint64_t command_line; /* of the boot loader */
	uint64_t modules;
	uint32_t count;
	uint32_t pad;
	uint64_t vbe_control, vbe_mode;
} l4_modules_t;

_Static_assert(sizeof(l4_modules_t) == L4_MODULE_INFO_BYTES, "module list header");
_Static_assert(offsetof(l4_modules_t, command_line) == L4_MODULE_INFO_CMDLINE, "boot loader's command line");
_Static_assert(offsetof(l4_modules_t, modules) == L4_MODULE_INFO_MODULES, "module array");
_Static_assert(offsetof(l4_modules_t, count) == L4_MODULE_INFO_COUNT, "module count");
_Static_assert(sizeof(l4_module_t) == L4_MODULE_BYTES, "module");
_Static_assert(offsetof(l4_module_t, start) == L4_MODULE_START, "module start");
_Static_assert(offsetof(l4_module_t, end) == L4_MODULE_END, "module end");
_Static_assert(offsetof(l4_module_t, command_line) == L4_MODULE_CMDLINE, "module command line");

static inline const l4_modules_t *l4_modules(const l4_kip_t *kip)
{
	return (const l4_modules_t *)(uintptr_t)kip->user_ptr;
}

static inline const l4_module_t *l4_module(const l4_modules_t *modules, unsigned index)
{
	return (const l4_module_t *)(uintptr_t)modules->modules + index;
}

static inline unsigned l4_module_type(const l4_module_t *module)
{
	return module->flags & 7;
}

static inline const char *l4_module_command_line(const l4_module_t *module)
{
	return (const char *)(uintptr_t)module->command_line;
}

/** The normal module whose command line starts with a path ending in `name`; a leading "rom/" of `name` is
 * ignored. Null if there is none. */
const l4_module_t *l4_module_find(const l4_modules_t *modules, const char *name);

/** The first module of the given type, or null. */
const l4_module_t *l4_module_of_type(const l4_modules_t *modules, unsigned type);

#endif
