/* What a program finds when main starts, and how it ends.
 *
 * There are two ways to be started, and a program need not care which. A boot task (sigma0, the root task) is
 * started by the kernel with ESP = 0 and has L4_BOOT_CAP_* (ABI 13). Any other program is started by the root
 * task with a stack that holds its arguments (ABI 14) and the capabilities below. */
#ifndef L4_PROGRAM_H
#define L4_PROGRAM_H

#include <l4/kip.h>
#include <l4/utcb.h>

/** Capabilities of every program. */
static inline l4_cap_t l4_own_task(void)
{
	return l4_cap(L4_BOOT_CAP_TASK);
}

static inline l4_cap_t l4_own_factory(void)
{
	return l4_cap(L4_BOOT_CAP_FACTORY);
}

/** The thread that runs main. */
static inline l4_cap_t l4_main_thread(void)
{
	return l4_cap(L4_BOOT_CAP_THREAD);
}

/** Pager, exception handler and parent. Sigma0 has none. */
static inline l4_cap_t l4_parent(void)
{
	return l4_cap(L4_BOOT_CAP_PAGER);
}

static inline l4_cap_t l4_own_log(void)
{
	return l4_cap(L4_BOOT_CAP_LOG);
}

static inline l4_cap_t l4_own_scheduler(void)
{
	return l4_cap(L4_BOOT_CAP_SCHEDULER);
}

/** What a program tells its parent: tag label L4_PROTO_PARENT, MR[0] = L4_PARENT_EXIT, MR[1] = exit code. */
enum { L4_PROTO_PARENT = 0x4002, L4_PARENT_EXIT = 0 };

/** Memory that a program has without asking: fresh zeroed pages from the root task as it touches them. */
enum { L4_HEAP_START = 0x20000000, L4_HEAP_END = 0x60000000 };

/** Where the root task puts the stack and the UTCBs of a program. */
enum { L4_STACK_BYTES = 0x100000 };
#define L4_STACK_TOP 0xb3000000u
#define L4_UTCB_AREA 0xb3000000u

/** Started by the kernel itself. */
bool l4_is_boot_task(void);

/** The kernel info page. A root task asks sigma0 for it the first time. */
const l4_kip_t *l4_kip(void);

/** A capability slot that was not handed out before; slots are never reused. */
l4_cap_t l4_new_cap(void);

/** Ends the program: all its threads and memory are gone. Only the low 8 bits of `code` are seen. */
_Noreturn void exit(int code);

#endif
