/* Integer instructions that the shim executes. */
#ifndef L4LAB_INTEGER_H
#define L4LAB_INTEGER_H

#include <stdbool.h>

#include "operation.h"

#pragma GCC visibility push(hidden)

/* Sets what executes it; false: it is none of these. */
bool integer_classify(struct operation *op);

#pragma GCC visibility pop

#endif
