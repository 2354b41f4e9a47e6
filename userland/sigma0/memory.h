/* Who owns which page of physical memory. */
#ifndef SIGMA0_MEMORY_H
#define SIGMA0_MEMORY_H

#include <l4/kip.h>

/** Learns from the memory descriptors what is RAM, what is taken, and what belongs to the root task. */
void memory_init(const l4_kip_t *kip);

/** Gives `client` 2^order bytes of RAM at `address`: all of them are free, or already its own with at least the rights
 * `wanted`. `rights` gets those it has on them. */
bool memory_claim(l4_word_t client, l4_word_t address, unsigned order, l4_word_t wanted, l4_word_t *rights);

/** Gives `client` 2^order bytes of free RAM, the lowest there are. */
bool memory_claim_any(l4_word_t client, unsigned order, l4_word_t *address);

/** No RAM, nothing that the kernel uses: 2^order bytes that may be given to every driver. */
bool memory_is_device(l4_word_t address, unsigned order);

/** Prints runs of pages with the same owner. */
void memory_dump(void);

#endif
