#include "options.h"

#include <l4/print.h>
#include <l4/string.h>

static const design_t designs[] = {
	{ "percore", "pager", true },
	{ "single", "pager", false },
	{ "l4re", "dataspaces", false },
};

options_t options;

/** The value behind `option=`, or null if `argument` is another option. */
static const char *value_of(const char *argument, const char *option)
{
	size_t length = strlen(option);

	return strncmp(argument, option, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

static const design_t *design_named(const char *name)
{
	for (size_t i = 0; i < sizeof designs / sizeof designs[0]; i++)
		if (strcmp(designs[i].name, name) == 0)
			return &designs[i];
	return NULL;
}

/** Returns null or what is wrong with the option. */
static const char *read_option(const char *argument)
{
	const char *value;

	if ((value = value_of(argument, "--design")) != NULL) {
		options.design = design_named(value);
		return options.design != NULL ? NULL : "expected --design=percore, single or l4re";
	}
	if ((value = value_of(argument, "--cores")) != NULL) {
		unsigned long present = options.cpus, cores = l4_number(value, 0);
		options.cpus = (unsigned)cores;
		return cores >= 1 && cores <= present ? NULL : "expected a number of processors that the machine has";
	}
	if ((value = value_of(argument, "--region")) != NULL) {
		options.region_pages = l4_number(value, 0);
		return options.region_pages != 0 ? NULL : "expected a number of pages";
	}
	if ((value = value_of(argument, "--each")) != NULL)
		options.each = value;
	else if ((value = value_of(argument, "--coordinator")) != NULL)
		options.coordinator = value;
	else
		return "not an option";
	return NULL;
}

bool options_read(int argc, char **argv, unsigned cpus)
{
	const char *what = NULL, *problem = NULL;

	options.cpus = cpus < OPTIONS_MAX_CPUS ? cpus : OPTIONS_MAX_CPUS;
	for (int i = 1; i < argc && problem == NULL; i++) {
		what = argv[i];
		problem = read_option(argv[i]);
	}
	if (problem == NULL && (options.design == NULL || options.each == NULL)) {
		what = "command line";
		problem = "expected --design=DESIGN and --each=rom/PROGRAM";
	}
	if (problem != NULL)
		printf("loader: %s: %s\n", what, problem);
	return problem == NULL;
}
