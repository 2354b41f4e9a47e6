/* Says hello with its arguments, then touches fresh memory: each page comes through a fault that the kernel sends to
 * the pager of this task as a message. */
#include <l4/print.h>
#include <l4/program.h>
#include <l4/types.h>

enum { PAGES = 16, WORDS = L4_PAGE_BYTES / sizeof(l4_word_t) };

static bool is_zero(const l4_word_t *page)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (page[i] != 0)
			return false;
	return true;
}

/** Returns whether the page was zero and then keeps what is written to it. */
static bool check_page(volatile l4_word_t *page, l4_word_t mark)
{
	if (!is_zero((const l4_word_t *)page))
		return false;
	for (unsigned i = 0; i < WORDS; i++)
		page[i] = mark ^ i;
	for (unsigned i = 0; i < WORDS; i++)
		if (page[i] != (mark ^ i))
			return false;
	return true;
}

/** One line in one message to the log, so that programs on other processors cannot write into it. */
static void greet(int argc, char **argv)
{
	char line[L4_LOG_WRITE_MAX_BYTES];
	size_t length = snprintf(line, sizeof line, "Hello from %s!%s", argv[0], argc > 1 ? " Arguments:" : "");

	for (int i = 1; i < argc && length < sizeof line; i++)
		length += snprintf(line + length, sizeof line - length, " %s", argv[i]);
	printf("%s\n", line);
}

int main(int argc, char **argv)
{
	l4_word_t *heap = (l4_word_t *)L4_HEAP_START;
	int good = 0;

	greet(argc, argv);
	for (l4_word_t i = 0; i < PAGES; i++)
		good += check_page(heap + i * WORDS, 0x1000 * i);
	printf("%d of %d fresh pages were zero and keep what is written to them.\n", good, PAGES);
	return good == PAGES ? 0 : 1;
}
