#include "memory.h"
const unsigned memory_usual_chunk = 0;
void memory_init(void) {}
l4_word_t memory_allocate(unsigned pages) { (void)pages; return 0; }
int memory_free(l4_word_t address, unsigned pages) { (void)address; (void)pages; return 0; }
