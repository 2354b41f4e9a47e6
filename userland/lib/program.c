/* How a program starts and ends, and what it knows about itself. */
#include <l4/bootinfo.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/sigma0.h>
#include <l4/string.h>
#include <l4/task.h>

int main(int argc, char **argv); /* a program may define it without parameters: the caller removes them */

enum { AUX_END = 0, AUX_L4_KIP = 0xf2, MAX_ARGUMENTS = 32, MAX_COMMAND_LINE = 512 };

static bool boot_task;
static const l4_kip_t *kip;
static l4_word_t first_free_cap = L4_BOOT_CAP_FIRST_FREE;

bool l4_is_boot_task(void)
{
	return boot_task;
}

const l4_kip_t *l4_kip(void)
{
	l4_word_t address;

	if (kip == NULL && l4_sigma0_kip(l4_parent(), &address) == 0)
		kip = (const l4_kip_t *)address;
	if (kip == NULL)
		l4_panic("sigma0 does not give the kernel info page");
	return kip;
}

l4_cap_t l4_new_cap(void)
{
	return l4_cap(__atomic_fetch_add(&first_free_cap, 1, __ATOMIC_RELAXED));
}

/** Deletes the own task. What stands in the label register at that moment is the exit code of a root task. */
static _Noreturn void end_boot_task(int code)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_UNMAP;
	utcb->mr[1] = L4_UNMAP_SELF | L4_UNMAP_DELETE;
	utcb->mr[2] = l4_object_fpage(l4_own_task(), 0, L4_OBJECT_RIGHTS).raw;
	l4_invoke(l4_own_task(), L4_OP_CALL, l4_tag(L4_PROTO_TASK, 3, 0), (l4_word_t)code & 0xff, l4_forever());
	l4_sleep_forever();
}

void exit(int code)
{
	l4_utcb_t *utcb = l4_utcb();

	if (boot_task)
		end_boot_task(code);
	utcb->mr[0] = L4_PARENT_EXIT;
	utcb->mr[1] = (l4_word_t)code & 0xff;
	l4_call(l4_parent(), l4_tag(L4_PROTO_PARENT, 2, 0), l4_forever());
	l4_sleep_forever();
}

/** Cuts `line` into words in place. */
static int split(char *line, char **words)
{
	int count = 0;

	while (count < MAX_ARGUMENTS - 1) {
		while (*line == ' ')
			line++;
		if (*line == '\0')
			break;
		words[count++] = line;
		while (*line != ' ' && *line != '\0')
			line++;
		if (*line == ' ')
			*line++ = '\0';
	}
	words[count] = NULL;
	return count;
}

/** The arguments of a boot task are the command line of its boot module. */
static _Noreturn void start_boot_task(l4_word_t kip_address)
{
	static char line[MAX_COMMAND_LINE];
	static char *words[MAX_ARGUMENTS];
	bool is_sigma0 = kip_address != 0;

	boot_task = true;
	if (is_sigma0)
		kip = (const l4_kip_t *)kip_address;
	const l4_module_t *module =
		l4_module_of_type(l4_modules(l4_kip()), is_sigma0 ? L4_MODULE_TYPE_SIGMA0 : L4_MODULE_TYPE_ROOT);
	if (module != NULL)
		strncpy(line, l4_module_command_line(module), sizeof line - 1);
	int count = split(line, words);
	exit(main(count, words));
}

/** `stack`: argc, argv..., 0, envp..., 0, then pairs of auxiliary values. */
static _Noreturn void start_loaded_program(l4_word_t *stack)
{
	int argc = (int)stack[0];
	char **argv = (char **)&stack[1];
	l4_word_t *aux = stack + 1 + argc + 1;

	while (*aux++ != 0) /* the environment */
		;
	for (; aux[0] != AUX_END; aux += 2)
		if (aux[0] == AUX_L4_KIP)
			kip = (const l4_kip_t *)aux[1];
	exit(main(argc, argv));
}

/** Called by crt0 with its own stack pointer, where the list of arguments begins. A list without even a program name
 * is that of a boot task. */
_Noreturn void l4_program_start(l4_word_t *stack, l4_word_t kip_address)
{
	if (stack[0] == 0)
		start_boot_task(kip_address);
	start_loaded_program(stack);
}

void l4_panic(const char *format, ...)
{
	va_list arguments;

	printf("panic: ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(1);
}

void l4_assertion_failed(const char *condition, const char *file, int line)
{
	l4_panic("%s:%d: not true: %s", file, line, condition);
}
