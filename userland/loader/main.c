/* The root task of the experiment: divides all memory, starts the servers that manage it, and one application on each
 * processor that gets its memory from one of them.
 *
 *     loader --design=DESIGN --each=rom/PROGRAM [--coordinator=rom/PROGRAM] [--cores=N] [--region=PAGES]
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
 * and the coordinator have ended, the servers are asked for their counts. Exit code 1 if a program failed or could not
 * be started, 2 if the command line is wrong. */
#include "options.h"
#include "server.h"

#include <l4/factory.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>
#include <l4/thread.h>

enum {
	PRIORITY = 0xc0,        /* waits for nobody it serves */
	SERVER_PRIORITY = 0x80,
	COORDINATOR_PRIORITY = 3, /* lets all applications go before one of them runs */
	APPLICATION_PRIORITY = 2,
	STACK_PAGES = 4,
	LABEL_SHIFT = 4,
	COORDINATOR_SLOT = 11,
	LOOK_US = 60000000, /* after so long without a message, see whether programs still run; no usual run is as long */
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

typedef struct {
	child_t child;
	char name[16];
	server_t *server;
	unsigned client; /* its number there */
} application_t;

static server_t servers[OPTIONS_MAX_CPUS];
static application_t applications[OPTIONS_MAX_CPUS];
static child_t coordinator;
static unsigned server_count, running;
static bool failed;

/* --- starting ----------------------------------------------------------------------------------------- */

/** These return the loader's exit code. */
static int fail(const char *what, const char *why)
{
	printf("loader: %s: %s\n", what, why);
	return EXIT_FAILED;
}

static int no_such_module(const char *name)
{
	fail(name, "there is no boot module of that name");
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
		return no_such_module(options.design->server);
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
		return no_such_module(options.coordinator);
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
		error = no_such_module(options.each);
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
		servers[i].share = memory_share(server_count, i);
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

/** Whether the main thread waits for its exception handler: then the kernel leaves its registers as they are. Else they
 * are spoilt. */
static bool in_exception(const child_t *child)
{
	l4_thread_state_t state = { 0 };

	l4_thread_ex_regs(child->thread, 0, L4_EX_REGS_KEEP, 0, NULL);
	return l4_thread_ex_regs(child->thread, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, 0, &state) >= 0 && state.eip != 0;
}

/** Who can reach the gate of its exception handler can send there what the kernel would. */
static void report_exception(const child_t *child, l4_tag_t tag)
{
	l4_word_t words[L4_EXCEPTION_WORDS];

	if (l4_tag_words(tag) != L4_EXCEPTION_WORDS) {
		printf("loader: %s: a made-up exception message, of %u words\n", child->name, l4_tag_words(tag));
		return;
	}
	memcpy(words, l4_utcb()->mr, sizeof words);
	if (!in_exception(child))
		printf("loader: %s: its main thread is in no exception; another is, or what follows is made up\n", child->name);
	memcpy(l4_utcb()->mr, words, sizeof words);
	child_report_exception(child, "loader");
}

static l4_tag_t answer(l4_message_t message)
{
	child_t *child = child_of(message.label);

	switch (l4_tag_label(message.tag)) {
	case L4_PROTO_EXCEPTION:
		report_exception(child, message.tag);
		bury(child, EXIT_FAILED);
		break; /* the answer finds nobody */
	case L4_PROTO_PARENT:
		if (l4_utcb()->mr[0] == L4_PARENT_EXIT && l4_tag_words(message.tag) == 2)
			bury(child, (int)(l4_utcb()->mr[1] & 0xff));
		break;
	}
	return l4_tag(-L4_EBADPROTO, 0, 0);
}

static uint64_t time_used_us(const child_t *child)
{
	uint64_t time_us = 0;

	if (child->running)
		l4_thread_time_us(child->thread, &time_us);
	return time_us;
}

/** Whether no program has run since the last call. */
static bool nothing_runs(void)
{
	static uint64_t before_us = ~(uint64_t)0;
	uint64_t now_us = time_used_us(&coordinator);

	for (unsigned i = 0; i < server_count; i++)
		now_us += time_used_us(&servers[i].child);
	for (unsigned cpu = 0; cpu < options.cpus; cpu++)
		now_us += time_used_us(&applications[cpu].child);
	bool same = now_us == before_us;
	before_us = now_us;
	return same;
}

/** Asks with an empty message that nobody need take. Only for threads that do not run: they might wait for one. */
static bool is_dead(const child_t *child)
{
	l4_tag_t tag = l4_send(child->thread, l4_tag(0, 0, 0), 0, l4_no_wait());

	return l4_tag_failed(tag) && l4_utcb()->error == L4_IPC_NOT_EXISTENT;
}

/** Programs are left that will never end. Those that are dead are likely to be what the others wait for. */
static void report_stall(void)
{
	unsigned dead = 0;

	for (unsigned cpu = 0; cpu < options.cpus; cpu++) {
		const child_t *child = &applications[cpu].child;
		if (!child->running || !is_dead(child))
			continue;
		printf("loader: %s: the kernel has killed its thread\n", child->name);
		dead++;
	}
	if (dead == 0)
		printf("loader: %u program%s for something that does not come\n", running, running == 1 ? " waits" : "s wait");
	failed = true;
}

/** Until all applications and the coordinator have ended, or something has failed. */
static void serve(void)
{
	l4_timeouts_t timeouts = l4_timeouts(L4_TIMEOUT_ZERO, l4_timeout_us(LOOK_US));

	l4_accept_nothing();
	for (l4_message_t message = l4_wait(timeouts); running > 0 && !failed;) {
		if (!l4_tag_failed(message.tag)) {
			l4_tag_t reply = answer(message);
			if (running > 0 && !failed)
				message = l4_reply_and_wait(reply, timeouts);
		} else { /* nobody has taken the answer, or it is time to look */
			if (l4_utcb()->error == L4_IPC_RECEIVE_TIMEOUT && nothing_runs())
				report_stall();
			else
				message = l4_wait(timeouts);
		}
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

int main(int argc, char **argv)
{
	int error = options_read(argc, argv, l4_scheduler_count(l4_own_scheduler())) ? 0 : EXIT_USAGE;

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
