/* The life of a loaded program: task, thread and capabilities (ABI 14), its memory page by page, its end. */
#include "child.h"

#include "stack.h"

#include <l4/debugger.h>
#include <l4/elf.h>
#include <l4/factory.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/string.h>
#include <l4/task.h>
#include <l4/thread.h>

enum { ALL_RIGHTS = L4_OBJECT_RIGHTS, CLIENT_RIGHTS = L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_W | L4_OBJECT_RIGHT_S };

/* --- memory ------------------------------------------------------------------------------------------- */

static l4_word_t page_of(l4_word_t address)
{
	return address & ~(l4_word_t)(L4_PAGE_BYTES - 1);
}

static bool within(l4_word_t address, l4_word_t start, l4_word_t end)
{
	return address >= start && address < end;
}

/** The page of the boot module that can serve as page `page` of the program as it is: it is not written, holds
 * nothing but the file's bytes, and lies right. Null if the page must be put together. */
static const void *file_page(const child_t *child, const l4_elf_segment_t *segment, l4_word_t page)
{
	l4_word_t start = (l4_word_t)child->image + segment->offset - segment->vaddr;

	if (segment->flags & L4_ELF_W || segment->memsz != segment->filesz || start % L4_PAGE_BYTES != 0)
		return NULL;
	return (const void *)(start + page);
}

/** Copies what the file has for page `page` of the program into `frame`. */
static void copy_file_part(const child_t *child, const l4_elf_segment_t *segment, l4_word_t page, char *frame)
{
	l4_word_t start = segment->vaddr > page ? segment->vaddr : page;
	l4_word_t end = segment->vaddr + segment->filesz;

	if (end > page + L4_PAGE_BYTES)
		end = page + L4_PAGE_BYTES;
	if (start < end)
		memcpy(frame + (start - page), (const char *)child->image + segment->offset + (start - segment->vaddr),
		       end - start);
}

/** Finds or makes what belongs at `page`; null if nothing does. */
static const void *find_page(child_t *child, l4_word_t page, l4_word_t *rights)
{
	const l4_elf_segment_t *segment = l4_elf_segment_at(child->image, page);
	void *frame = space_find(&child->space, page);

	*rights = L4_RIGHT_R | L4_RIGHT_W;
	if (segment != NULL) {
		const void *file = file_page(child, segment, page);
		*rights = L4_RIGHT_R | (segment->flags & L4_ELF_W ? L4_RIGHT_W : 0) |
			  (segment->flags & L4_ELF_X ? L4_RIGHT_X : 0);
		if (file != NULL)
			return file;
		if (frame == NULL && (frame = space_frame(&child->space, page)) != NULL)
			copy_file_part(child, segment, page, frame);
		return frame;
	}
	if (page == (l4_word_t)l4_kip()) {
		*rights = L4_RIGHT_R | L4_RIGHT_X;
		return l4_kip();
	}
	if (within(page, L4_STACK_TOP - L4_STACK_BYTES, L4_STACK_TOP) || within(page, L4_HEAP_START, L4_HEAP_END))
		return frame != NULL ? frame : space_frame(&child->space, page);
	return NULL;
}

l4_tag_t child_fault(child_t *child)
{
	l4_word_t fault = l4_utcb()->mr[0], rights;
	l4_word_t page = page_of(fault);
	const void *source = find_page(child, page, &rights);

	child->faults++;
	if (source == NULL || (fault & L4_FAULT_WRITE && (rights & L4_RIGHT_W) == 0))
		return l4_tag(-L4_EFAULT, 0, 0);
	(void)*(const volatile char *)source; /* what this task has not mapped itself it cannot map on */
	l4_put_item(0, l4_map_item(l4_memory_fpage((l4_word_t)source, L4_PAGE_SHIFT, rights), page));
	return l4_tag(0, 0, 1);
}

/** Maps `page` of the program, and reports whether that could be done. */
static bool map_page(child_t *child, l4_word_t page)
{
	l4_word_t rights;
	const void *source = find_page(child, page, &rights);

	if (source == NULL)
		return false;
	(void)*(const volatile char *)source;
	l4_fpage_t fpage = l4_memory_fpage((l4_word_t)source, L4_PAGE_SHIFT, rights);
	return l4_task_map(child->task, l4_own_task(), l4_map_item(fpage, page)) == 0;
}

static bool map_pages(child_t *child, l4_word_t start, l4_word_t end)
{
	for (l4_word_t page = page_of(start); page < end; page += L4_PAGE_BYTES)
		if (!map_page(child, page))
			return false;
	return true;
}

const char *child_map_all(child_t *child, unsigned stack_pages)
{
	const l4_elf_segment_t *segment;
	l4_word_t kip = (l4_word_t)l4_kip();
	bool done = map_pages(child, kip, kip + 1) &&
		    map_pages(child, L4_STACK_TOP - stack_pages * L4_PAGE_BYTES, L4_STACK_TOP);

	for (unsigned i = 0; done && (segment = l4_elf_segment(child->image, i)) != NULL; i++)
		done = map_pages(child, segment->vaddr, segment->vaddr + segment->memsz);
	return done ? NULL : "no memory for it; the machine needs more RAM";
}

/* --- birth -------------------------------------------------------------------------------------------- */

int child_give(child_t *child, l4_cap_t cap, l4_word_t slot)
{
	return l4_task_map_cap(child->task, l4_own_task(), cap, l4_cap(slot), CLIENT_RIGHTS);
}

static int give_capabilities(child_t *child)
{
	int error = l4_task_map_cap(child->task, l4_own_task(), child->task, l4_own_task(), ALL_RIGHTS);

	if (error == 0)
		error = child_give(child, l4_own_factory(), L4_BOOT_CAP_FACTORY);
	if (error == 0)
		error = l4_task_map_cap(child->task, l4_own_task(), child->thread, l4_main_thread(), ALL_RIGHTS);
	if (error == 0)
		error = child_give(child, child->gate, L4_BOOT_CAP_PAGER);
	if (error == 0)
		error = child_give(child, l4_own_log(), L4_BOOT_CAP_LOG);
	if (error == 0)
		error = child_give(child, l4_own_scheduler(), L4_BOOT_CAP_SCHEDULER);
	/* Not every kernel has a debugger; mapping from an empty slot is no error. */
	if (error == 0)
		error = child_give(child, l4_cap(L4_BOOT_CAP_DEBUGGER), L4_BOOT_CAP_DEBUGGER);
	return error;
}

static const char *base_name(const char *path)
{
	const char *name = path;

	for (; *path != '\0'; path++)
		if (*path == '/')
			name = path + 1;
	return name;
}

static int create_objects(child_t *child, l4_word_t label)
{
	l4_fpage_t utcbs = l4_memory_fpage(L4_UTCB_AREA, L4_PAGE_SHIFT, L4_RIGHT_R | L4_RIGHT_W);

	child->task = l4_new_cap();
	child->thread = l4_new_cap();
	child->gate = l4_new_cap();
	int error = l4_factory_create_task(l4_own_factory(), child->task, utcbs);
	if (error == 0)
		error = l4_factory_create_thread(l4_own_factory(), child->thread);
	if (error == 0)
		error = l4_factory_create_gate(l4_own_factory(), child->gate, l4_main_thread(), label);
	/* For people; a kernel without debugger has no names. */
	const char *name = base_name(child->name);
	l4_debugger_set_name(l4_cap(L4_BOOT_CAP_DEBUGGER), child->task, name);
	l4_debugger_set_name(l4_cap(L4_BOOT_CAP_DEBUGGER), child->thread, name);
	return error;
}

const char *child_create(child_t *child, const l4_module_t *module, l4_word_t label)
{
	const char *problem = l4_elf_problem((const void *)(uintptr_t)module->start, module->end - module->start);

	if (problem != NULL)
		return problem;
	child->image = (const void *)(uintptr_t)module->start;
	char *top_page = space_frame(&child->space, L4_STACK_TOP - 1);
	if (top_page == NULL)
		return "no memory for its stack";
	child->stack = stack_fill(top_page, l4_module_command_line(module), child->image);
	if (child->stack == 0)
		problem = "its command line is too long";
	else if (create_objects(child, label) != 0 || give_capabilities(child) != 0)
		problem = "the kernel refuses to make its task";
	if (problem != NULL)
		child_end(child);
	return problem;
}

static int launch(child_t *child, unsigned cpu, int priority, l4_cap_t pager)
{
	l4_thread_control_t control = {
		.change = L4_CONTROL_SET_PAGER | L4_CONTROL_SET_EXCEPTION_HANDLER | L4_CONTROL_BIND_TASK,
		.pager = pager,
		.handler = l4_parent(),
		.task = child->task,
		.utcb = (l4_utcb_t *)L4_UTCB_AREA,
	};
	int error = l4_thread_control(child->thread, &control);

	if (error == 0)
		error = l4_scheduler_run_on(l4_own_scheduler(), child->thread, cpu, priority);
	if (error == 0)
		error = l4_thread_ex_regs(child->thread, l4_elf_entry(child->image), child->stack, 0, NULL);
	return error;
}

const char *child_run(child_t *child, unsigned cpu, int priority, l4_cap_t pager)
{
	child->running = launch(child, cpu, priority, pager) == 0;
	if (child->running)
		return NULL;
	child_end(child);
	return "the kernel refuses to run it";
}

/* --- death -------------------------------------------------------------------------------------------- */

void child_report_exception(const child_t *child, const char *reporter)
{
	const l4_word_t *mr = l4_utcb()->mr;

	if (mr[L4_EXC_TRAPNO] == 14)
		printf("%s: %s: page fault: %s %p by the instruction at %p, and nothing is there for it\n", reporter,
		       child->name, mr[L4_EXC_ERR] & L4_FAULT_WRITE ? "write to" : "read from", (void *)mr[L4_EXC_PFA],
		       (void *)mr[L4_EXC_EIP]);
	else
		printf("%s: %s: exception %u, error code 0x%x, by the instruction at %p\n", reporter, child->name,
		       mr[L4_EXC_TRAPNO], mr[L4_EXC_ERR], (void *)mr[L4_EXC_EIP]);
}

unsigned child_end(child_t *child)
{
	l4_task_delete(l4_own_task(), child->thread);
	l4_task_delete(l4_own_task(), child->task);
	l4_task_delete(l4_own_task(), child->gate);
	child->running = false;
	return space_clear(&child->space);
}
