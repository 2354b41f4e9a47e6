/* The C library's string functions that the compiler relies on, and those that programs here need. */
#ifndef L4_STRING_H
#define L4_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t bytes);
char *strncpy(char *restrict to, const char *restrict from, size_t bytes);
char *strchr(const char *text, int character);
char *strrchr(const char *text, int character);

/** The number at the start of `text`, decimal or 0x..., or `otherwise` if it is not one up to its end, or too large. */
unsigned long l4_number(const char *text, unsigned long otherwise);

#endif
