/* SSE floating point: what sse.c has in general and sse_quick.c in the usual cases. */
#ifndef L4LAB_SSE_H
#define L4LAB_SSE_H

#include "floating.h"
#include "operation.h"

#pragma GCC visibility push(hidden)

/* The function that executes the usual cases of an instruction at once, and has one of those below do the others; or NULL. */
executor sse_quick(const struct operation *op);

enum ending sse_arithmetic(struct vcpu *v, const struct operation *op);
enum ending sse_compare(struct vcpu *v, const struct operation *op);
enum ending sse_compare_to_eflags(struct vcpu *v, const struct operation *op);
enum ending sse_convert_integers(struct vcpu *v, const struct operation *op);
enum ending sse_convert_to_integers(struct vcpu *v, const struct operation *op);
enum ending sse_convert_formats(struct vcpu *v, const struct operation *op);

#pragma GCC visibility pop

#endif
