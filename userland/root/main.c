/* The root task: starts programs from boot modules, is their pager, and ends with their exit code.
 *
 *     root [-v] [--cpu=N] [--priority=N] --init=rom/NAME ...
 *
 * --cpu and --priority hold for the --init options after them. A program's arguments are the command line of its
 * module. The first exit code that is not 0 becomes that of the root task; a program that dies of a fault counts as 1.
 * -v reports at each end what the program used. */
#include "child.h"
#include "frames.h"

#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>

enum {
	PRIORITY = 0xc0, /* a pager waits for nobody it serves */
	PROGRAM_PRIORITY = 2,
	MAX_CHILDREN = 32,
	LABEL_SHIFT = 4,
	EXIT_USAGE = 2,
};

static child_t children[MAX_CHILDREN];
static unsigned count, running;
static int exit_code;
static bool verbose;

static int fail(const char *what, const char *why)
{
	printf("root: %s: %s\n", what, why);
	return EXIT_USAGE;
}

static int start(const char *name, unsigned cpu, unsigned priority)
{
	const l4_module_t *module = l4_module_find(l4_modules(l4_kip()), name);

	if (count == MAX_CHILDREN)
		return fail(name, "too many programs");
	if (module == NULL)
		return fail(name, "there is no boot module of that name");
	child_t *child = &children[count];
	child->name = name;
	const char *problem = child_create(child, module, count << LABEL_SHIFT);
	if (problem == NULL)
		problem = child_run(child, cpu, (int)priority, l4_parent());
	if (problem != NULL)
		return fail(name, problem);
	count++;
	running++;
	return 0;
}

/** The value behind `option=`, or null if `argument` is another option. */
static const char *value_of(const char *argument, const char *option)
{
	size_t length = strlen(option);

	return strncmp(argument, option, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

static int start_all(int argc, char **argv)
{
	unsigned long cpu = 0, priority = PROGRAM_PRIORITY;
	const char *value;
	int error = 0;

	for (int i = 1; i < argc && error == 0; i++) {
		if (strcmp(argv[i], "-v") == 0 || strcmp(argv[i], "--verbose") == 0)
			verbose = true;
		else if ((value = value_of(argv[i], "--cpu")) != NULL)
			cpu = l4_number(value, 0);
		else if ((value = value_of(argv[i], "--priority")) != NULL)
			priority = l4_number(value, PROGRAM_PRIORITY);
		else if ((value = value_of(argv[i], "--init")) != NULL)
			error = start(value, cpu, priority);
		else
			error = fail(argv[i], "not an option; expected -v, --cpu=N, --priority=N or --init=rom/NAME");
	}
	if (error == 0 && count == 0)
		error = fail("command line", "no --init=rom/NAME");
	return error;
}

static void bury(child_t *child, int code)
{
	unsigned pages = child_end(child);

	if (verbose)
		printf("root: %s ended with %d after %u page faults, on %u fresh pages\n", child->name, code, child->faults,
		       pages);
	if (exit_code == 0)
		exit_code = code;
	running--;
}

static l4_tag_t answer(l4_message_t message)
{
	child_t *child = &children[message.label >> LABEL_SHIFT];

	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_PAGE_FAULT:
		return child_fault(child);
	case L4_PROTO_EXCEPTION:
		child_report_exception(child, "root");
		bury(child, 1);
		break; /* the answer finds nobody */
	case L4_PROTO_PARENT:
		if (l4_utcb()->mr[0] == L4_PARENT_EXIT && l4_tag_words(message.tag) == 2)
			bury(child, (int)(l4_utcb()->mr[1] & 0xff));
		break;
	}
	return l4_tag(-L4_EBADPROTO, 0, 0);
}

int main(int argc, char **argv)
{
	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), PRIORITY);
	int error = start_all(argc, argv);
	if (error != 0)
		return error;
	l4_accept_nothing();
	l4_message_t message = l4_wait(l4_forever());
	for (;;) {
		l4_tag_t reply = answer(message);
		if (running == 0)
			break;
		message = l4_serve(reply);
	}
	if (verbose)
		printf("root: %u pages still in use\n", frames_in_use());
	return exit_code;
}
