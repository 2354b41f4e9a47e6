/* Reading static i386 executables. */
#ifndef L4_ELF_H
#define L4_ELF_H

#include <l4/types.h>

typedef struct {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version, entry, phoff, shoff, flags;
	uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
} l4_elf_header_t;

typedef struct {
	uint32_t type, offset, vaddr, paddr, filesz, memsz, flags, align;
} l4_elf_segment_t;

_Static_assert(sizeof(l4_elf_header_t) == 52, "ELF32 header");
_Static_assert(sizeof(l4_elf_segment_t) == 32, "ELF32 program header");

enum { L4_ELF_LOAD = 1, L4_ELF_X = 1, L4_ELF_W = 2, L4_ELF_R = 4 };

/** Null if the `bytes` at `image` are an executable whose segments lie within the file and below
 * L4_USER_LIMIT and share no page; otherwise what is wrong with it. */
const char *l4_elf_problem(const void *image, size_t bytes);

/** Segment `index` of a sound image, in address order, or null behind the last. Skips what is not loaded. */
const l4_elf_segment_t *l4_elf_segment(const void *image, unsigned index);

/** The loaded segment whose pages hold `address`, or null. */
const l4_elf_segment_t *l4_elf_segment_at(const void *image, l4_word_t address);

static inline l4_word_t l4_elf_entry(const void *image)
{
	return ((const l4_elf_header_t *)image)->entry;
}

#endif
