/* The processor's cycle counter. Each processor has its own; they started together. */
#ifndef L4_TSC_H
#define L4_TSC_H

#include <stdint.h>

static inline uint64_t l4_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

#endif
