/* The root task of the experiment: divides all memory, starts the servers that manage it, and one application on each
 * processor that gets its memory from one of them.
 *
 *     loader --design=DESIGN --each=rom/PROGRAM [--coordinator=rom/PROGRAM] [--cores=N] [--partition=even] [--region=PAGES]
 *
 * The designs:
 *     percore    a pager with its own allocator on each processor: 000_1be4d2f6ae8bebbc.txt, section 3.2
 *     single     one such pager on processor 0, for all
 *     l4re       one dataspace server on processor 0; a region map in each application serves its faults
 *
 * --each is started on each of the N processors (all there are). --coordinator is one more program on processor 0; every
 * application gets a gate to it. --region gives each server just so many pages of its share.
 *
 * All programs are mapped completely before they start, so what they fault on is their heap. The boot modules `pager`
 * and `dataspaces` are the servers; arguments of a program are the command line of its module. When all applications
 * and the coordinator have ended, the servers are asked for their counts. Exit code 1 if a program failed. */
#include "server.h"

#include <l4/factory.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>

enum {
	PRIORITY = 0xc0,        /* waits for nobody it serves */
	SERVER_PRIORITY = 0x80,
	COORDINATOR_PRIORITY = 3, /* lets all applications go before one of them runs */
	APPLICATION_PRIORITY = 2,
	MAX_CPUS = L4_PAGER_MAX_CLIENTS,
	STACK_PAGES = 4,
	LABEL_SHIFT = 4,
	COORDINATOR_SLOT = 11,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

typedef struct {
	const char *name, *server;
	bool everywhere; /* a server on each processor, else on processor 0 */
} design_t;

static const design_t designs[] = {
	{ "percore", "pager", true },
	{ "single", "pager", false },
	{ "l4re", "dataspaces", false },
};

typedef struct {
	child_t child;
	char name[16];
	server_t *server;
	unsigned client; /* its number there */
} application_t;

typedef struct {
	const design_t *design;
	const char *each, *coordinator;
	unsigned cpus;
	memory_policy_t *partition;
	l4_word_t region_pages; /* 0: all of it */
} options_t;

static options_t options;
static server_t servers[MAX_CPUS];
static application_t applications[MAX_CPUS];
static child_t coordinator;
static unsigned server_count, running;
static bool failed;

/* --- starting ----------------------------------------------------------------------------------------- */

static int fail(const char *what, const char *why)
{
	printf("loader: %s: %s\n", what, why);
	return EXIT_USAGE;
}

static const l4_module_t *module_of(const char *name)
{
	return l4_module_find(l4_modules(l4_kip()), name);
}

/** Labels of messages to the loader: first servers, then applications, then the coordinator. */
static l4_word_t label_of(unsigned index)
{
	return index << LABEL_SHIFT;
}

static child_t *child_of(l4_word_t label)
{
	unsigned index = label >> LABEL_SHIFT;

	if (index < server_count)
		return &servers[index].child;
	index -= server_count;
	return index < options.cpus ? &applications[index].child : &coordinator;
}

static int create_servers(void)
{
	const l4_module_t *module = module_of(options.design->server);

	if (module == NULL)
		return fail(options.design->server, "there is no boot module of that name");
	server_count = options.design->everywhere ? options.cpus : 1;
	for (unsigned i = 0; i < server_count; i++) {
		servers[i].cpu = i;
		const char *problem = server_create(&servers[i], module, options.design->server, label_of(i));
		if (problem != NULL)
			return fail(servers[i].name, problem);
	}
	return 0;
}

static int create_coordinator(void)
{
	const l4_module_t *module = module_of(options.coordinator);

	if (module == NULL)
		return fail(options.coordinator, "there is no boot module of that name");
	coordinator.name = options.coordinator;
	const char *problem = child_create(&coordinator, module, label_of(server_count + options.cpus));
	if (problem == NULL)
		problem = child_map_all(&coordinator, STACK_PAGES);
	return problem == NULL ? 0 : fail(coordinator.name, problem);
}

/** Gates to its server and, with a label that is its number, to the coordinator. */
static const char *connect(application_t *application, unsigned cpu)
{
	l4_cap_t gate;

	application->server = &servers[options.design->everywhere ? cpu : 0];
	const char *problem = server_new_client(application->server, &gate, &application->client);
	if (problem == NULL && child_give(&application->child, gate, L4_PAGER_SLOT) != 0)
		problem = "the kernel refuses to give it a capability";
	if (problem != NULL || options.coordinator == NULL)
		return problem;
	gate = l4_new_cap();
	if (l4_factory_create_gate(l4_own_factory(), gate, coordinator.thread, cpu << LABEL_SHIFT) != 0 ||
	    child_give(&application->child, gate, COORDINATOR_SLOT) != 0)
		return "the kernel refuses to connect it to the coordinator";
	return NULL;
}

static int create_application(unsigned cpu, const l4_module_t *module)
{
	application_t *application = &applications[cpu];
	const char *base = strrchr(options.each, '/');

	snprintf(application->name, sizeof application->name, "%s.%u", base == NULL ? options.each : base + 1, cpu);
	application->child.name = application->name;
	const char *problem = child_create(&application->child, module, label_of(server_count + cpu));
	if (problem == NULL)
		problem = child_map_all(&application->child, STACK_PAGES);
	if (problem == NULL)
		problem = connect(application, cpu);
	return problem == NULL ? 0 : fail(application->name, problem);
}

static int create_all(void)
{
	const l4_module_t *module = module_of(options.each);
	int error = create_servers();

	if (error == 0 && options.coordinator != NULL)
		error = create_coordinator();
	if (error == 0 && module == NULL)
		error = fail(options.each, "there is no boot module of that name");
	for (unsigned cpu = 0; cpu < options.cpus && error == 0; cpu++)
		error = create_application(cpu, module);
	return error;
}

static int start_servers(void)
{
	unsigned superpages = memory_take_all();

	if (superpages < server_count)
		return fail("memory", "less than 4 MiB for each server; the machine needs more RAM");
	for (unsigned i = 0; i < server_count; i++) {
		servers[i].share = options.partition(superpages, server_count, i);
		const char *problem = server_start(&servers[i], SERVER_PRIORITY, options.region_pages);
		if (problem != NULL)
			return fail(servers[i].name, problem);
	}
	printf("loader: %s: %u x 4 MiB for %u server%s\n", options.design->name, superpages, server_count,
	       server_count == 1 ? "" : "s");
	return 0;
}

static int start_applications(void)
{
	const char *problem = NULL;

	if (options.coordinator != NULL)
		problem = child_run(&coordinator, 0, COORDINATOR_PRIORITY, l4_parent());
	if (problem != NULL)
		return fail(coordinator.name, problem);
	for (unsigned cpu = 0; cpu < options.cpus; cpu++) {
		problem = child_run(&applications[cpu].child, cpu, APPLICATION_PRIORITY, l4_cap(L4_PAGER_SLOT));
		if (problem != NULL)
			return fail(applications[cpu].name, problem);
	}
	running = options.cpus + (options.coordinator != NULL);
	return 0;
}

/* --- serving and ending ------------------------------------------------------------------------------- */

static void bury(child_t *child, int code)
{
	if (code != 0) {
		printf("loader: %s failed with code %d\n", child->name, code);
		failed = true;
	}
	child_end(child);
	running--;
}

static l4_tag_t answer(l4_message_t message)
{
	child_t *child = child_of(message.label);

	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_EXCEPTION:
		child_report_exception(child, "loader");
		bury(child, EXIT_FAILED);
		break; /* the answer finds nobody */
	case L4_PROTO_PARENT:
		if (l4_utcb()->mr[0] == L4_PARENT_EXIT && l4_tag_words(message.tag) == 2)
			bury(child, (int)(l4_utcb()->mr[1] & 0xff));
		break;
	}
	return l4_tag(-L4_EBADPROTO, 0, 0);
}

/** Until all applications and the coordinator have ended, or something has failed. */
static void serve(void)
{
	l4_accept_nothing();
	for (l4_message_t message = l4_wait(l4_forever());;) {
		l4_tag_t reply = answer(message);
		if (running == 0 || failed)
			break;
		message = l4_serve(reply);
	}
}

/** Counts of an application that is gone and, once all are, of the servers: a line each, for programs to read. */
static void report(void)
{
	l4_pager_statistics_t counts;

	for (unsigned cpu = 0; cpu < options.cpus; cpu++) {
		application_t *application = &applications[cpu];
		if (application->child.running)
			child_end(&application->child);
		if (application->server->child.running)
			printf("client name=%s server=%s left=%d\n", application->name, application->server->name,
			       server_end_client(application->server, application->client));
	}
	for (server_t *server = servers; server < servers + server_count; server++) {
		if (!server->child.running || server_statistics(server, &counts) < 0)
			continue;
		printf("server name=%s cpu=%u region=%u pages=%u in_use=%u in_tables=%u allocated=%u released=%u requests=%u "
		       "refusals=%u\n",
		       server->name, server->cpu, server->region_pages, counts.pages, counts.in_use, counts.in_tables,
		       counts.allocated, counts.released, counts.requests, counts.refusals);
	}
}

/* --- the command line --------------------------------------------------------------------------------- */

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
	if ((value = value_of(argument, "--partition")) != NULL) {
		options.partition = memory_policy(value);
		return options.partition != NULL ? NULL : "expected --partition=even";
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

static int read_options(int argc, char **argv)
{
	options.cpus = l4_scheduler_count(l4_own_scheduler());
	if (options.cpus > MAX_CPUS)
		options.cpus = MAX_CPUS;
	options.partition = memory_policy("even");
	for (int i = 1; i < argc; i++) {
		const char *problem = read_option(argv[i]);
		if (problem != NULL)
			return fail(argv[i], problem);
	}
	if (options.design == NULL || options.each == NULL)
		return fail("command line", "expected --design=DESIGN and --each=rom/PROGRAM");
	return 0;
}

int main(int argc, char **argv)
{
	int error = read_options(argc, argv);

	l4_scheduler_set_priority(l4_own_scheduler(), l4_main_thread(), PRIORITY);
	if (error == 0)
		error = create_all();
	if (error == 0)
		error = start_servers();
	if (error == 0)
		error = start_applications();
	if (error != 0)
		return error;
	serve();
	report();
	return failed ? EXIT_FAILED : 0;
}
