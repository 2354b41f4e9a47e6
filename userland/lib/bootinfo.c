/* Looking things up in what the kernel and the boot loader left for programs. */
#include <l4/bootinfo.h>
#include <l4/string.h>

bool l4_kip_has_feature(const l4_kip_t *kip, const char *feature)
{
	const char *text = l4_kip_version(kip);

	for (text += strlen(text) + 1; *text != '\0'; text += strlen(text) + 1)
		if (strcmp(text, feature) == 0)
			return true;
	return false;
}

/** Whether the first word of `command_line` is a path that ends in `name`. */
static bool names(const char *command_line, const char *name)
{
	const char *base = command_line;
	const char *end = command_line;

	for (; *end != '\0' && *end != ' '; end++)
		if (*end == '/')
			base = end + 1;
	return strlen(name) == (size_t)(end - base) && memcmp(base, name, strlen(name)) == 0;
}

const l4_module_t *l4_module_find(const l4_modules_t *modules, const char *name)
{
	if (strncmp(name, "rom/", 4) == 0)
		name += 4;
	for (unsigned i = 0; i < modules->count; i++) {
		const l4_module_t *module = l4_module(modules, i);
		if (l4_module_type(module) == L4_MODULE_TYPE_NORMAL && names(l4_module_command_line(module), name))
			return module;
	}
	return NULL;
}

const l4_module_t *l4_module_of_type(const l4_modules_t *modules, unsigned type)
{
	for (unsigned i = 0; i < modules->count; i++)
		if (l4_module_type(l4_module(modules, i)) == type)
			return l4_module(modules, i);
	return NULL;
}
