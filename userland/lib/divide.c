/* 64-bit division: the compiler calls these two for `/` and `%` of uint64_t, and there is no compiler runtime. */
#include <stdint.h>

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor);
uint64_t __umoddi3(uint64_t dividend, uint64_t divisor);

/** high:low / divisor, for high < divisor: what the DIV instruction does. */
static uint32_t divide_step(uint32_t high, uint32_t low, uint32_t divisor, uint32_t *remainder)
{
	uint32_t quotient;

	__asm__("divl %4" : "=a"(quotient), "=d"(*remainder) : "a"(low), "d"(high), "r"(divisor));
	return quotient;
}

static uint64_t divide_by_word(uint64_t dividend, uint32_t divisor, uint64_t *remainder)
{
	uint32_t rest;
	uint32_t high = divide_step(0, (uint32_t)(dividend >> 32), divisor, &rest);
	uint32_t low = divide_step(rest, (uint32_t)dividend, divisor, &rest);

	*remainder = rest;
	return (uint64_t)high << 32 | low;
}

/** Shift and subtract, for divisors of more than a word: the quotient has at most 32 bits. */
static uint64_t divide(uint64_t dividend, uint64_t divisor, uint64_t *remainder)
{
	uint64_t rest = dividend >> 32, quotient = 0;

	if (divisor >> 32 == 0)
		return divide_by_word(dividend, (uint32_t)divisor, remainder);
	for (int bit = 31; bit >= 0; bit--) {
		rest = rest << 1 | (dividend >> bit & 1);
		if (rest >= divisor) {
			rest -= divisor;
			quotient |= (uint64_t)1 << bit;
		}
	}
	*remainder = rest;
	return quotient;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor)
{
	uint64_t remainder;

	return divide(dividend, divisor, &remainder);
}

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor)
{
	uint64_t remainder;

	divide(dividend, divisor, &remainder);
	return remainder;
}
