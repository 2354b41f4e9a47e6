/* Printing through the log. A call writes a line as one message where it fits, and keeps the message registers
 * and the last IPC error: it may stand between receiving a message and reading it. */
#ifndef L4_PRINT_H
#define L4_PRINT_H

#include <l4/types.h>
#include <stdarg.h>

/** Knows %d %i %u %x %X %p %s %c %%, l and ll, width, `-` and zero fill, and a precision for %s. */
__attribute__((format(printf, 1, 2))) void printf(const char *format, ...);
__attribute__((format(printf, 1, 0))) void vprintf(const char *format, va_list arguments);

/** Writes at most `bytes`, the final 0 included; returns the length that the whole text has. */
__attribute__((format(printf, 3, 4))) size_t snprintf(char *to, size_t bytes, const char *format, ...);

#endif
