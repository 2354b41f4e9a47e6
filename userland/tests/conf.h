/* The frame of the conformance suite.
 *
 * A test is a function with an identifier, a sentence that it shows to be true, and the cells of the table of
 * operations and results that it covers:
 *
 *     TEST(SEM0001, "down of a free semaphore answers 0", "semaphore.down:OK semaphore.up:OK")
 *     {
 *         CHECK_EQ(...);
 *     }
 *
 * Each test runs in a new thread, the worker. What it puts into slots from conf_slot() is destroyed after it, and so
 * are its helper threads; a test that hangs or faults fails. The output, one line for each test:
 *
 *     CONF SEM0001 PASS
 *     CONF SEM0002 FAIL semaphore.c:17: l4_semaphore_down(...): found -22 (0xffffffea), expected 0
 *     CONF SMP0001 SKIP needs two processors
 *     CONF done: 1 passed, 1 failed, 1 skipped
 *
 * With `--list` it prints what tests there are instead, `LIST SEM0001 semaphore.down:OK semaphore.up:OK | sentence`; with
 * `--only=PREFIX` it runs those whose identifier starts so. Cells are written operation:CODE,CODE; codes are OK, the
 * names of errno values, and IPC with the hexadecimal number for IPC errors. Which cells there must be is in tools/conformance_cells.txt.
 * The table of tests also stands in the ELF file, from l4_table_start to l4_table_end: conf_test_t, sorted by
 * identifier. */
#ifndef TESTS_CONF_H
#define TESTS_CONF_H

#include <l4/debugger.h>
#include <l4/factory.h>
#include <l4/gate.h>
#include <l4/icu.h>
#include <l4/irq.h>
#include <l4/log.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/scheduler.h>
#include <l4/semaphore.h>
#include <l4/sigma0.h>
#include <l4/task.h>
#include <l4/thread.h>

typedef struct {
	const char *id, *sentence, *cells;
	void (*run)(void);
} conf_test_t;

#define TEST(name, sentence_, cells_)                                                                                 \
	static void name(void);                                                                                       \
	static const conf_test_t name##_entry                                                                         \
		__attribute__((section(".table." #name), used)) = { #name, sentence_, cells_, name };                 \
	static void name(void)

/* --- checks: the first that fails is reported, and the test goes on ------------------------------------- */

void conf_check(bool good, const char *what, const char *file, int line);
void conf_check_equal(l4_word_t found, l4_word_t expected, const char *what, const char *file, int line);

/** Ends the test without a verdict. */
_Noreturn void conf_skip(const char *why);

#define CHECK(condition) conf_check((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(found, expected)                                                                                     \
	conf_check_equal((l4_word_t)(found), (l4_word_t)(expected), #found, __FILE__, __LINE__)

/** What l4_result gives for an IPC error. */
static inline int ipc_error(unsigned code)
{
	return -(L4_IPC_ERROR_BASE + (int)code);
}

/* --- time --------------------------------------------------------------------------------------------- */

enum { CONF_TICK_US = 1000 };

uint64_t conf_now_us(void);

/** Lets every ready helper run until it blocks. Keeps the message registers and the IPC error. */
void conf_settle(void);

/** Lasts at least that long without blocking. */
void conf_spin_us(l4_word_t microseconds);

static inline l4_timeouts_t receive_within(l4_word_t microseconds)
{
	return l4_timeouts(L4_TIMEOUT_NEVER, l4_timeout_us(microseconds));
}

static inline l4_timeouts_t send_within(l4_word_t microseconds)
{
	return l4_timeouts(l4_timeout_us(microseconds), L4_TIMEOUT_NEVER);
}

/* --- things that are gone after the test ---------------------------------------------------------------- */

enum {
	CONF_SLOTS = 128,        /* slots a test may use, from CONF_FIRST_SLOT, aligned */
	CONF_FIRST_SLOT = 0x400,
	CONF_HELPERS = 6,
	CONF_WORKER_PRIORITY = 100,
	CONF_HIGHER = 120,
	CONF_LOWER = 80,
};

/** A slot that is empty. */
l4_cap_t conf_slot(void);

/** 2^order slots, aligned. */
l4_cap_t conf_slots(unsigned order);

/** The thread that runs the test. */
l4_cap_t conf_worker(void);

/** A helper that is not given something in one of these members gets what stands behind it. */
typedef struct {
	l4_thread_entry_t *entry; /* NULL: it is not started by ex_regs */
	void *argument;
	unsigned priority;        /* that of the worker */
	unsigned cpu;
	bool no_cpu;              /* run_thread is not called */
	bool unbound;             /* no thread control */
	l4_cap_t task;            /* own; else one made by conf_task: its slots 3 and 4 get thread and pager */
	l4_cap_t pager;           /* sigma0 */
	l4_cap_t handler;         /* the suite, for which any exception is a failure */
	bool no_pager;
	bool no_handler;
	bool alien;
} conf_helper_t;

/** A thread made as described. It is not waited for: conf_settle does that. */
l4_cap_t conf_helper(const conf_helper_t *description);

/** A helper in the own task with everything as the worker has it, except its priority. */
l4_cap_t conf_thread(l4_thread_entry_t *entry, void *argument, unsigned priority);

/** Sets a helper back to an entry point, on an empty stack, whatever it waits for. */
void conf_restart(l4_cap_t helper, l4_thread_entry_t *entry, void *argument);

/** The UTCB of the helper made last, in its task. */
l4_utcb_t *conf_helper_utcb(void);

/** Another address space in which the program's own memory is at the same addresses. */
l4_cap_t conf_task(void);

/** The same, charged to `factory`. */
l4_cap_t conf_task_of(l4_cap_t factory);

/** Copies a capability to the same slot of a task made by conf_task. */
void conf_give(l4_cap_t task, l4_cap_t cap);

/** A gate to `thread`, all rights. */
l4_cap_t conf_gate(l4_cap_t thread, l4_word_t label);

/** A copy of a capability with other rights: L4_OBJECT_RIGHT_*. */
l4_cap_t conf_copy(l4_cap_t cap, l4_word_t rights);

l4_cap_t conf_irq(void);
l4_cap_t conf_semaphore(void);

/** Fresh zeroed memory of 2^order bytes in the own task. Taken again by every test. */
void *conf_memory(unsigned order);

/** Whether a slot of the own task holds something, and whether two of them hold the same. */
static inline bool conf_valid(l4_cap_t cap)
{
	return l4_task_cap_valid(l4_own_task(), cap) == 1;
}

static inline bool conf_equal(l4_cap_t a, l4_cap_t b)
{
	return l4_task_cap_equal(l4_own_task(), a, b) == 1;
}

static inline l4_cap_t conf_cap_plus(l4_cap_t cap, l4_word_t offset)
{
	return l4_cap(l4_cap_index(cap) + offset);
}

/** A call of `object`, whose message registers are filled in, as it ends in the registers. */
static inline l4_tag_t conf_call(l4_cap_t object, int label, unsigned words, unsigned items)
{
	return l4_call(object, l4_tag(label, words, items), receive_within(10 * CONF_TICK_US)).tag;
}

/* --- looking whether memory is there -------------------------------------------------------------------------- */

/** A helper that reads and writes memory for conf_read and conf_write. `task` as in conf_helper_t; its faults come to the
 * worker. One for each test. */
l4_cap_t conf_prober(l4_cap_t task);

/** Whether the prober can read the word at `address`; `value` (may be null) gets it. */
bool conf_read(l4_cap_t prober, l4_word_t address, l4_word_t *value);

bool conf_write(l4_cap_t prober, l4_word_t address, l4_word_t value);

/** The first message register of the fault that the last access ended with, 0 if it was none. */
l4_word_t conf_last_fault(void);

/** Puts `count` words first, first + 1, ... into the message registers. */
void conf_fill(l4_word_t first, unsigned count);

#endif
