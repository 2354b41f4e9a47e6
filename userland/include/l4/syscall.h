/* The one system call (ABI 1): everything else in these headers is a message through it. */
#ifndef L4_SYSCALL_H
#define L4_SYSCALL_H

#include <l4/types.h>

/** What an invocation leaves in the registers. */
typedef struct {
	l4_tag_t tag;    /* see "Results in EAX", ABI 4 */
	l4_word_t label; /* of the received message; the passed one if none came from a thread or an IRQ */
} l4_message_t;

/** Invokes a capability with L4_OP_* bits. `label` reaches the receiver only through a thread capability
 * or a reply slot. */
static inline l4_message_t l4_invoke(l4_cap_t cap, l4_word_t operation, l4_tag_t tag, l4_word_t label,
				     l4_timeouts_t timeouts)
{
	l4_word_t selector = cap.raw | operation;

	/* The stub may destroy EBX and EBP (it does on CPUs with sysenter); neither can be named as clobbered
	 * in every build, so both are kept on the stack. */
	__asm__ volatile("pushl %%ebx\n\t"
			 "pushl %%ebp\n\t"
			 "call %P[page]\n\t"
			 "popl %%ebp\n\t"
			 "popl %%ebx"
			 : "+a"(tag.raw), "+d"(selector), "+c"(timeouts.raw), "+S"(label)
			 : [page] "i"(L4_SYSTEM_CALL_PAGE)
			 : "edi", "cc", "memory");
	return (l4_message_t){ tag, label };
}

#endif
