/* The UTCB: the part of a thread's memory that its messages pass through (ABI 3). */
#ifndef L4_UTCB_H
#define L4_UTCB_H

#include <l4/types.h>

typedef struct {
	l4_word_t mr[L4_UTCB_MR_WORDS]; /* message registers */
	l4_word_t address;              /* where this UTCB is in its task */
	l4_word_t bdr;                  /* first buffer of each kind */
	l4_word_t br[L4_UTCB_BR_WORDS]; /* buffer registers */
	l4_word_t error;                /* written when an IPC fails, kept when one succeeds */
	l4_word_t free_marker;          /* the kernel writes 0 when the thread is gone */
	l4_word_t user[L4_UTCB_USER_WORDS];
} l4_utcb_t;

_Static_assert(sizeof(l4_utcb_t) == L4_UTCB_BYTES, "UTCB size");
_Static_assert(offsetof(l4_utcb_t, mr) == L4_UTCB_MR, "message registers");
_Static_assert(offsetof(l4_utcb_t, address) == L4_UTCB_ADDRESS, "own address");
_Static_assert(offsetof(l4_utcb_t, bdr) == L4_UTCB_BDR, "buffer descriptor");
_Static_assert(offsetof(l4_utcb_t, br) == L4_UTCB_BR, "buffer registers");
_Static_assert(offsetof(l4_utcb_t, error) == L4_UTCB_ERROR, "IPC error");
_Static_assert(offsetof(l4_utcb_t, free_marker) == L4_UTCB_FREE_MARKER, "free marker");
_Static_assert(offsetof(l4_utcb_t, user) == L4_UTCB_USER, "user words");

/** The calling thread's UTCB: FS points at its `address` word. */
static inline l4_utcb_t *l4_utcb(void)
{
	l4_utcb_t *utcb;

	__asm__("movl %%fs:0, %0" : "=r"(utcb));
	return utcb;
}

#endif
