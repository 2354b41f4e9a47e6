/* Checks and finds the segments of an executable in memory. */
#include <l4/elf.h>
#include <l4/string.h>

enum { EXECUTABLE = 2, MACHINE_386 = 3, INTERPRETER = 3 };

static const l4_elf_segment_t *raw_segment(const void *image, unsigned index)
{
	const l4_elf_header_t *header = image;

	return (const l4_elf_segment_t *)((uintptr_t)image + header->phoff + index * header->phentsize);
}

static l4_word_t first_page(const l4_elf_segment_t *segment)
{
	return segment->vaddr >> L4_PAGE_SHIFT;
}

/** The page behind the last. */
static l4_word_t end_page(const l4_elf_segment_t *segment)
{
	return (segment->vaddr + segment->memsz + L4_PAGE_BYTES - 1) >> L4_PAGE_SHIFT;
}

static const char *header_problem(const l4_elf_header_t *header, size_t bytes)
{
	static const uint8_t expected[] = { 0x7f, 'E', 'L', 'F', 1, 1, 1 }; /* 32 bit, little endian, version 1 */

	if (bytes < sizeof *header || memcmp(header->ident, expected, 4) != 0)
		return "not an ELF file";
	if (memcmp(header->ident, expected, sizeof expected) != 0 || header->machine != MACHINE_386)
		return "not for i386";
	if (header->type != EXECUTABLE)
		return "not an executable";
	if (header->phentsize < sizeof(l4_elf_segment_t) || header->phoff % 4 != 0 || header->phoff > bytes ||
	    (size_t)header->phnum * header->phentsize > bytes - header->phoff)
		return "program headers outside of the file";
	return NULL;
}

static const char *segment_problem(const l4_elf_segment_t *segment, size_t bytes, l4_word_t from_page)
{
	if (segment->type == INTERPRETER)
		return "dynamically linked";
	if (segment->type != L4_ELF_LOAD || segment->memsz == 0)
		return NULL;
	if (segment->filesz > segment->memsz || /* a segment without bytes in the file has its offset anywhere */
	    (segment->filesz != 0 && (segment->offset > bytes || segment->filesz > bytes - segment->offset)))
		return "segment outside of the file";
	if (segment->vaddr >= L4_USER_LIMIT || segment->memsz > L4_USER_LIMIT - segment->vaddr)
		return "segment in the kernel's address space";
	if (first_page(segment) < from_page)
		return "segments that share a page or are not in order";
	return NULL;
}

const char *l4_elf_problem(const void *image, size_t bytes)
{
	const l4_elf_header_t *header = image;
	const char *problem = header_problem(header, bytes);
	l4_word_t page = 0;

	if (problem != NULL)
		return problem;
	for (unsigned i = 0; i < header->phnum; i++) {
		const l4_elf_segment_t *segment = raw_segment(image, i);
		problem = segment_problem(segment, bytes, page);
		if (problem != NULL)
			return problem;
		if (segment->type == L4_ELF_LOAD && segment->memsz != 0)
			page = end_page(segment);
	}
	return l4_elf_segment_at(image, header->entry) == NULL ? "entry point outside of all segments" : NULL;
}

const l4_elf_segment_t *l4_elf_segment(const void *image, unsigned index)
{
	for (unsigned i = 0; i < ((const l4_elf_header_t *)image)->phnum; i++) {
		const l4_elf_segment_t *segment = raw_segment(image, i);
		if (segment->type == L4_ELF_LOAD && segment->memsz != 0 && index-- == 0)
			return segment;
	}
	return NULL;
}

const l4_elf_segment_t *l4_elf_segment_at(const void *image, l4_word_t address)
{
	const l4_elf_segment_t *segment;
	l4_word_t page = address >> L4_PAGE_SHIFT;

	for (unsigned i = 0; (segment = l4_elf_segment(image, i)) != NULL; i++)
		if (page >= first_page(segment) && page < end_page(segment))
			return segment;
	return NULL;
}
