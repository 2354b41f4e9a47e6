/*
 * Pages that the engine must not be let loose on, because translating some block in them could kill the
 * process. See decode_is_hazardous() in decode.h for what does. Pages are few and looked at once for each
 * content, so nothing here needs to be fast but the first test.
 */
#include <string.h>

#include "decode.h"

/* --- a locked bit test of a register ----------------------------------------------------------- */

static int is_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67:
    case 0xf0: case 0xf2: case 0xf3:
        return 1;
    default:
        return 0;
    }
}

/* Whether a lock prefix before `code` could make a locked bit test of a register. Where the page ends in the middle, the
 * page that has more of it answers: this one if the opcode has begun here, else the next (see has_locked_bit_test()). */
static int bit_test_follows(const uint8_t *code, size_t left)
{
    size_t at = 0;
    while (at < left && at < INSN_MAX_BYTES - 1 && is_prefix(code[at]))
        at++;
    if (at >= INSN_MAX_BYTES - 1 || at == left || code[at] != 0x0f)
        return 0;
    if (left - at < 3)
        return left - at < 2 || (code[at + 1] & 0xe2) == 0xa2;
    uint8_t second = code[at + 1], modrm = code[at + 2];
    int bit_test = second == 0xa3 || second == 0xab || second == 0xb3 || second == 0xbb
                || (second == 0xba && (modrm & 0x20));
    return bit_test && modrm >= 0xc0;
}

static int has_locked_bit_test(const uint8_t *page)
{
    if (bit_test_follows(page, PAGE_BYTES))
        return 1;  /* the page before may end with a lock prefix, and often a byte there just looks like one */
    const uint8_t *end = page + PAGE_BYTES;
    for (const uint8_t *p = page; (p = memchr(p, 0xf0, (size_t)(end - p))) != NULL; p++)
        if (bit_test_follows(p + 1, (size_t)(end - p - 1)))
            return 1;
    return 0;
}

/* --- more temporaries than the translator has ------------------------------------------------- */

/* An upper bound for what the instructions in the page need together. */
static unsigned all_temporaries(const uint8_t *page)
{
    unsigned sum = 0;
    for (size_t i = 0; i < PAGE_BYTES; i++) {
        uint8_t byte = page[i];
        sum += (byte & 0xf8) == 0xd8 ? 2
             : byte == 0x0f || byte == 0xce || byte == 0xd4 || byte == 0xd5 || byte == 0x8e || (byte & 0xc7) == 7;
    }
    return sum;
}

/* Of 512, a block of 460 instructions with one temporary each still fits; a block lies on two pages at most. */
enum { MOST_TEMPORARIES = 440, MOST_TEMPORARIES_ACROSS = MOST_TEMPORARIES / 2 };

static int overruns_temporaries(const uint8_t *page)
{
    uint16_t needed[PAGE_BYTES + 1] = {0};  /* by straight code from an offset on */
    uint8_t leaves_page[PAGE_BYTES + 1] = {[PAGE_BYTES] = 1};
    for (size_t at = PAGE_BYTES; at-- > 0;) {
        struct insn insn;
        decode_insn(page + at, PAGE_BYTES - at, &insn);
        size_t next = insn.flags & INSN_TRUNCATED ? PAGE_BYTES : at + insn.length;
        int ends = insn.flags & INSN_ENDS_BLOCK;
        needed[at] = (uint16_t)(insn.temporaries + (ends ? 0 : needed[next]));
        leaves_page[at] = !ends && leaves_page[next];
        int across = leaves_page[at] || at < INSN_MAX_BYTES;
        if (needed[at] > (across ? MOST_TEMPORARIES_ACROSS : MOST_TEMPORARIES))
            return 1;
    }
    return 0;
}

int decode_is_hazardous(const uint8_t page[PAGE_BYTES])
{
    return has_locked_bit_test(page) || (all_temporaries(page) > MOST_TEMPORARIES_ACROSS && overruns_temporaries(page));
}
