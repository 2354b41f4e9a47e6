/* The kernel debugger's object (ABI 11.10). Optional: without it every call is an IPC error to be ignored. */
#ifndef L4_DEBUGGER_H
#define L4_DEBUGGER_H

#include <l4/ipc.h>
#include <l4/string.h>

/** Gives `object` a name for debugging output; cut at the 15 bytes that the kernel keeps. */
static inline int l4_debugger_set_name(l4_cap_t debugger, l4_cap_t object, const char *name)
{
	enum { NAME_WORDS = 4 };
	l4_utcb_t *utcb = l4_utcb();
	size_t length = strlen(name);

	if (length > NAME_WORDS * sizeof(l4_word_t) - 1)
		length = NAME_WORDS * sizeof(l4_word_t) - 1;
	utcb->mr[0] = L4_DEBUGGER_SET_NAME;
	memset(&utcb->mr[1], 0, NAME_WORDS * sizeof(l4_word_t));
	memcpy(&utcb->mr[1], name, length);
	l4_put_item(1 + NAME_WORDS, l4_argument(object));
	return l4_request(debugger, l4_tag(L4_PROTO_DEBUGGER, 1 + NAME_WORDS, 1));
}

/** The number under which the debugger knows `object`. */
static inline int l4_debugger_global_id(l4_cap_t debugger, l4_cap_t object, l4_word_t *id)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_DEBUGGER_GLOBAL_ID;
	l4_put_item(1, l4_argument(object));
	int result = l4_request(debugger, l4_tag(L4_PROTO_DEBUGGER, 1, 1));
	*id = utcb->mr[0];
	return result;
}

#endif
