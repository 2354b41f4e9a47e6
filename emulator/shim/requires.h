/* What an instruction requires to be executed as hardware does: features of the processor, or the shim. For decode.c. */
#ifndef L4LAB_REQUIRES_H
#define L4LAB_REQUIRES_H

#include <stdint.h>

#include "opcodes.h"

#pragma GCC visibility push(hidden)

/* Of enum feature. */
uint32_t requires_features(const struct decoding *s);

/* Whether the engine cannot be trusted with it, see operation.h: x87, MMX, SSE arithmetic, operands of 16 bytes in memory. */
int requires_shim(const struct decoding *s);

#pragma GCC visibility pop

#endif
