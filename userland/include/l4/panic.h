/* Ends a program that found itself wrong. */
#ifndef L4_PANIC_H
#define L4_PANIC_H

/** Prints a line and ends the program with exit code 1. */
__attribute__((format(printf, 1, 2))) _Noreturn void l4_panic(const char *format, ...);

_Noreturn void l4_assertion_failed(const char *condition, const char *file, int line);

#define assert(condition) ((condition) ? (void)0 : l4_assertion_failed(#condition, __FILE__, __LINE__))

#endif
