/* The words of the interface, each with a type of its own: a capability cannot be passed where a tag is
 * wanted. All of them are one machine word in `raw`, laid out as the kernel reads it (ABI 4, 5, 6). */
#ifndef L4_TYPES_H
#define L4_TYPES_H

#include <l4/abi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t l4_word_t;

enum { L4_PAGE_SHIFT = 12, L4_PAGE_BYTES = 1 << L4_PAGE_SHIFT, L4_SUPERPAGE_SHIFT = 22 };

/* --- capabilities (ABI 5) ---------------------------------------------------------------------------- */

/** A capability: its index in the task's table, shifted left by 12. */
typedef struct {
	l4_word_t raw;
} l4_cap_t;

static inline l4_cap_t l4_cap(l4_word_t index)
{
	return (l4_cap_t){ index << L4_CAP_SHIFT };
}

static inline l4_word_t l4_cap_index(l4_cap_t cap)
{
	return cap.raw >> L4_CAP_SHIFT;
}

/** The calling thread itself: what an operation acts on when no capability is given. Receiving from it
 * is sleep. */
static inline l4_cap_t l4_self(void)
{
	return (l4_cap_t){ L4_CAP_INVALID };
}

/** Entry `index` of the task's table of reply slots. */
static inline l4_cap_t l4_reply_cap(l4_word_t index)
{
	return (l4_cap_t){ index << L4_CAP_SHIFT | L4_CAP_EXPLICIT_REPLY_BIT };
}

/* --- message tags (ABI 4) ---------------------------------------------------------------------------- */

typedef struct {
	l4_word_t raw;
} l4_tag_t;

static inline l4_tag_t l4_tag(int label, unsigned words, unsigned items)
{
	return (l4_tag_t){ (l4_word_t)label << L4_TAG_LABEL_SHIFT | items << L4_TAG_ITEMS_SHIFT | words };
}

/** The same tag with L4_TAG_SCHEDULE, L4_TAG_FPU. */
static inline l4_tag_t l4_tag_with(l4_tag_t tag, l4_word_t flags)
{
	return (l4_tag_t){ tag.raw | flags };
}

static inline int l4_tag_label(l4_tag_t tag)
{
	return (int32_t)tag.raw >> L4_TAG_LABEL_SHIFT;
}

static inline unsigned l4_tag_words(l4_tag_t tag)
{
	return tag.raw & L4_TAG_WORDS_MASK;
}

static inline unsigned l4_tag_items(l4_tag_t tag)
{
	return tag.raw >> L4_TAG_ITEMS_SHIFT & L4_TAG_ITEMS_MASK;
}

/** The IPC itself failed; the code stands in the UTCB. */
static inline bool l4_tag_failed(l4_tag_t tag)
{
	return tag.raw & L4_TAG_ERROR;
}

/* --- timeouts (ABI 4) -------------------------------------------------------------------------------- */

/** One timeout: L4_TIMEOUT_NEVER, L4_TIMEOUT_ZERO, or what the two functions below make. */
typedef uint16_t l4_timeout_t;

/** Send timeout in the high half, receive timeout in the low half. */
typedef struct {
	l4_word_t raw;
} l4_timeouts_t;

/** Relative, rounded up to what ten bits of mantissa can say; 0 is L4_TIMEOUT_ZERO. */
static inline l4_timeout_t l4_timeout_us(l4_word_t microseconds)
{
	unsigned exponent = 0;

	if (microseconds == 0)
		return L4_TIMEOUT_ZERO;
	while ((microseconds >> exponent) + ((microseconds & ((1u << exponent) - 1)) != 0) > L4_TIMEOUT_MANTISSA_MASK)
		exponent++;
	l4_word_t mantissa = (microseconds >> exponent) + ((microseconds & ((1u << exponent) - 1)) != 0);
	return (l4_timeout_t)(exponent << L4_TIMEOUT_EXPONENT_SHIFT | mantissa);
}

/** Absolute: the KIP clock time, in microseconds, that stands in buffer registers `br` and `br` + 1. */
static inline l4_timeout_t l4_timeout_at(unsigned br)
{
	return (l4_timeout_t)(L4_TIMEOUT_ABSOLUTE | br);
}

static inline l4_timeouts_t l4_timeouts(l4_timeout_t send, l4_timeout_t receive)
{
	return (l4_timeouts_t){ (l4_word_t)send << 16 | receive };
}

static inline l4_timeouts_t l4_forever(void)
{
	return l4_timeouts(L4_TIMEOUT_NEVER, L4_TIMEOUT_NEVER);
}

/** Both phases succeed at once or not at all. */
static inline l4_timeouts_t l4_no_wait(void)
{
	return l4_timeouts(L4_TIMEOUT_ZERO, L4_TIMEOUT_ZERO);
}

/* --- flexpages (ABI 6) ------------------------------------------------------------------------------- */

/** A naturally aligned range of 2^order bytes of memory, capability slots or I/O ports, with rights. */
typedef struct {
	l4_word_t raw;
} l4_fpage_t;

static inline l4_fpage_t l4_fpage(unsigned type, l4_word_t number, unsigned order, l4_word_t rights)
{
	return (l4_fpage_t){ number << L4_FPAGE_ADDRESS_SHIFT | order << L4_FPAGE_ORDER_SHIFT |
			     type << L4_FPAGE_TYPE_SHIFT | rights };
}

/** `order` is log2 of bytes, at least 12; `rights` of L4_RIGHT_R, W, X. */
static inline l4_fpage_t l4_memory_fpage(l4_word_t address, unsigned order, l4_word_t rights)
{
	return l4_fpage(L4_FPAGE_TYPE_MEMORY, address >> L4_PAGE_SHIFT, order, rights);
}

/** 2^order capability slots from `first`; `rights` of L4_OBJECT_RIGHT_R, W, S, D. */
static inline l4_fpage_t l4_object_fpage(l4_cap_t first, unsigned order, l4_word_t rights)
{
	return l4_fpage(L4_FPAGE_TYPE_OBJECT, l4_cap_index(first), order, rights);
}

static inline l4_fpage_t l4_io_fpage(l4_word_t port, unsigned order)
{
	return l4_fpage(L4_FPAGE_TYPE_IO, port, order, L4_RIGHT_R | L4_RIGHT_W);
}

/** The whole space of whatever type is asked for. */
static inline l4_fpage_t l4_all_fpage(void)
{
	return (l4_fpage_t){ L4_FPAGE_ALL };
}

static inline unsigned l4_fpage_type(l4_fpage_t fpage)
{
	return fpage.raw >> L4_FPAGE_TYPE_SHIFT & L4_FPAGE_TYPE_MASK;
}

static inline unsigned l4_fpage_order(l4_fpage_t fpage)
{
	return fpage.raw >> L4_FPAGE_ORDER_SHIFT & L4_FPAGE_ORDER_MASK;
}

static inline l4_word_t l4_fpage_rights(l4_fpage_t fpage)
{
	return fpage.raw & L4_FPAGE_RIGHTS_MASK;
}

/** Bits 12-31: page address, or (shifted right by 12) port or capability index. */
static inline l4_word_t l4_fpage_address(l4_fpage_t fpage)
{
	return fpage.raw & ~(l4_word_t)(L4_PAGE_BYTES - 1);
}

#endif
