#include "stack.h"

#include <l4/elf.h>
#include <l4/program.h>
#include <l4/string.h>

enum { AUX_END = 0, AUX_PAGE_BYTES = 6, AUX_ENTRY = 9, AUX_L4_KIP = 0xf2, MAX_WORDS = 256 };

/** Turns the blanks of `text` into ends of words; `starts` gets where each word begins. */
static unsigned split(char *text, l4_word_t address, l4_word_t *starts)
{
	unsigned count = 0;

	for (char *at = text; *at != '\0' && count < MAX_WORDS;) {
		if (*at == ' ') {
			*at++ = '\0';
			continue;
		}
		starts[count++] = address + (l4_word_t)(at - text);
		while (*at != ' ' && *at != '\0')
			at++;
	}
	return count;
}

l4_word_t stack_fill(char *page, const char *command_line, const void *image)
{
	l4_word_t auxiliary[] = { AUX_PAGE_BYTES, L4_PAGE_BYTES, AUX_ENTRY, l4_elf_entry(image),
				  AUX_L4_KIP, (l4_word_t)l4_kip(), AUX_END, 0 };
	l4_word_t words[MAX_WORDS];
	size_t text_bytes = (strlen(command_line) + 1 + 3) & ~(size_t)3;

	if (text_bytes > L4_PAGE_BYTES / 4)
		return 0;
	l4_word_t text = L4_STACK_TOP - text_bytes;
	char *text_here = page + L4_PAGE_BYTES - text_bytes;
	memcpy(text_here, command_line, strlen(command_line) + 1);
	unsigned count = split(text_here, text, words);

	/* argc, argv, 0, no environment, 0, auxiliary values */
	size_t list_bytes = (1 + count + 1 + 1) * sizeof(l4_word_t) + sizeof auxiliary;
	l4_word_t esp = (text - list_bytes) & ~15u;
	l4_word_t *list = (l4_word_t *)(page + (esp - (L4_STACK_TOP - L4_PAGE_BYTES)));
	list[0] = count;
	memcpy(&list[1], words, count * sizeof(l4_word_t));
	list[1 + count] = 0;
	list[2 + count] = 0;
	memcpy(&list[3 + count], auxiliary, sizeof auxiliary);
	return esp;
}
