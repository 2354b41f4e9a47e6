/* What a program finds on its stack when it starts (ABI 14). */
#ifndef START_STACK_H
#define START_STACK_H

#include <l4/types.h>

/** Writes into `page`, which will be the one below L4_STACK_TOP: the words of `command_line`, the lists that point at
 * them, and auxiliary values. Returns the program's first ESP, or 0 if the page is too small. */
l4_word_t stack_fill(char *page, const char *command_line, const void *image);

#endif
