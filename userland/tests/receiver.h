/* A thread that waits for one message with the buffers that a test describes, and keeps what came. */
#ifndef TESTS_RECEIVER_H
#define TESTS_RECEIVER_H

#include "conf.h"

enum { RECEIVER_BRS = 12 };

/** What the receiver opens, and what it got. Its message registers hold 0xeee00000, ... before. */
typedef struct {
	l4_word_t bdr, br[RECEIVER_BRS];
	bool call;                    /* receive the answer to a call of `partner` instead of waiting */
	l4_cap_t partner;
	volatile bool done;
	volatile l4_word_t tag, label, error, mr[L4_UTCB_MR_WORDS];
} receiver_t;

extern receiver_t received;

/** Nothing is open, and nothing came. */
void receiver_clear(void);

l4_word_t receiver_small_buffer(l4_cap_t slot);

/** Opens one small buffer for a capability in `slot`. */
void receiver_open_slot(l4_cap_t slot);

void receiver_open_window(l4_fpage_t window);

/** Lets a receiver of `task` (or the own one) wait. */
l4_cap_t receiver_start_in(l4_cap_t task);
l4_cap_t receiver_start(void);

/** Sends `words` words from 0x100 and then the items. */
l4_tag_t receiver_send(l4_cap_t to, unsigned words, const l4_item_t *items, unsigned count);
l4_tag_t receiver_send_one(l4_cap_t to, l4_item_t item);

#endif
