/* The kernel's console (ABI 11.9). Programs print with l4/print.h. */
#ifndef L4_LOG_H
#define L4_LOG_H

#include <l4/ipc.h>
#include <l4/string.h>

/** Writes up to L4_LOG_WRITE_MAX_BYTES; overwrites the message registers. */
static inline void l4_log_write(l4_cap_t log, const char *text, size_t bytes)
{
	l4_utcb_t *utcb = l4_utcb();
	unsigned words = 2 + (unsigned)(bytes + sizeof(l4_word_t) - 1) / sizeof(l4_word_t);

	utcb->mr[0] = L4_LOG_WRITE;
	utcb->mr[1] = (l4_word_t)bytes;
	memcpy(&utcb->mr[2], text, bytes);
	l4_send(log, l4_tag_with(l4_tag(L4_PROTO_LOG, words, 0), L4_TAG_SCHEDULE), 0, l4_forever());
}

/** Reads what was typed, up to L4_LOG_READ_MAX_BYTES; returns the number of bytes or a negative error. */
static inline int l4_log_read(l4_cap_t log, char *text, size_t bytes)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = (l4_word_t)bytes << 16 | L4_LOG_READ;
	int result = l4_request(log, l4_tag(L4_PROTO_LOG, 1, 0));
	if (result < 0)
		return result;
	l4_word_t count = utcb->mr[0] & ~(l4_word_t)L4_LOG_READ_DRAINED;
	memcpy(text, &utcb->mr[1], count);
	return (int)count;
}

typedef struct {
	l4_word_t input, output, local;
} l4_log_attributes_t;

static inline int l4_log_get_attributes(l4_cap_t log, l4_log_attributes_t *attributes)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_LOG_GET_ATTR;
	int result = l4_request(log, l4_tag(L4_PROTO_LOG, 1, 0));
	*attributes = (l4_log_attributes_t){ utcb->mr[1], utcb->mr[2], utcb->mr[3] };
	return result;
}

static inline int l4_log_set_attributes(l4_cap_t log, const l4_log_attributes_t *attributes)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_LOG_SET_ATTR;
	utcb->mr[1] = attributes->input;
	utcb->mr[2] = attributes->output;
	utcb->mr[3] = attributes->local;
	return l4_request(log, l4_tag(L4_PROTO_LOG, 4, 0));
}

#endif
