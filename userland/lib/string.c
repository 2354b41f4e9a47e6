/* Freestanding C still needs these: the compiler calls the first four on its own. */
#include <l4/string.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
	void *target = to;
	size_t words = bytes / 4;

	__asm__ volatile("rep movsl" : "+D"(target), "+S"(from), "+c"(words) : : "memory");
	bytes %= 4;
	__asm__ volatile("rep movsb" : "+D"(target), "+S"(from), "+c"(bytes) : : "memory");
	return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
	if ((char *)to <= (const char *)from || (char *)to >= (const char *)from + bytes)
		return memcpy(to, from, bytes);
	char *target = (char *)to + bytes - 1;
	const char *source = (const char *)from + bytes - 1;
	__asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(target), "+S"(source), "+c"(bytes) : : "memory");
	return to;
}

void *memset(void *to, int byte, size_t bytes)
{
	void *target = to;
	size_t words = bytes / 4, rest = bytes % 4;
	unsigned pattern = (unsigned char)byte * 0x01010101u;

	__asm__ volatile("rep stosl" : "+D"(target), "+c"(words) : "a"(pattern) : "memory");
	__asm__ volatile("rep stosb" : "+D"(target), "+c"(rest) : "a"(pattern) : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const unsigned char *left = a, *right = b;

	for (; bytes > 0; bytes--, left++, right++)
		if (*left != *right)
			return *left - *right;
	return 0;
}

size_t strlen(const char *text)
{
	const char *end = text;

	while (*end != '\0')
		end++;
	return (size_t)(end - text);
}

int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, (size_t)-1);
}

int strncmp(const char *a, const char *b, size_t bytes)
{
	for (; bytes > 0; bytes--, a++, b++)
		if (*a != *b || *a == '\0')
			return (unsigned char)*a - (unsigned char)*b;
	return 0;
}

char *strncpy(char *restrict to, const char *restrict from, size_t bytes)
{
	size_t i = 0;

	for (; i < bytes && from[i] != '\0'; i++)
		to[i] = from[i];
	for (; i < bytes; i++)
		to[i] = '\0';
	return to;
}

char *strchr(const char *text, int character)
{
	for (;; text++) {
		if (*text == (char)character)
			return (char *)text;
		if (*text == '\0')
			return NULL;
	}
}

char *strrchr(const char *text, int character)
{
	const char *found = NULL;

	do {
		if (*text == (char)character)
			found = text;
	} while (*text++ != '\0');
	return (char *)found;
}

static int digit(char character)
{
	if (character >= '0' && character <= '9')
		return character - '0';
	if (character >= 'a' && character <= 'f')
		return character - 'a' + 10;
	return 16;
}

unsigned long l4_number(const char *text, unsigned long otherwise)
{
	unsigned long value = 0;
	int base = 10;

	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	if (*text == '\0')
		return otherwise;
	for (; *text != '\0'; text++) {
		if (digit(*text) >= base || __builtin_mul_overflow(value, (unsigned long)base, &value) ||
		    __builtin_add_overflow(value, (unsigned long)digit(*text), &value))
			return otherwise;
	}
	return value;
}
