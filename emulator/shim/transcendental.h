/* The transcendental functions of the x87. Finite operands only; zeros as said. See transcendental.c for the errors. */
#ifndef L4LAB_TRANSCENDENTAL_H
#define L4LAB_TRANSCENDENTAL_H

#include "softfloat.h"

/* 2^x - 1 for -1 <= x <= 1; beyond, the manual leaves the result open: it is x. */
struct number transcendental_exponential(const struct number *x, struct float_env *env);

/* y * log2(x), x > 0; and y * log2(1 + x), -1 < x. x and y are not zero. */
struct number transcendental_log2(const struct number *y, const struct number *x, struct float_env *env);
struct number transcendental_log2_plus_one(const struct number *y, const struct number *x, struct float_env *env);

/* The angle of (x, y), -pi to pi. Zeros and infinities as well. */
struct number transcendental_arc_tangent(const struct number *y, const struct number *x, struct float_env *env);

/* 0 < |x| < 2^63. Any of the results may be NULL; flags are raised for those that are not. */
void transcendental_circular(const struct number *x, struct number *sine, struct number *cosine, struct number *tangent,
                             struct float_env *env);

/* What fldpi, fldl2t, fldl2e, fldlg2 and fldln2 load: pi, log2(10), log2(e), log10(2), ln(2), rounded; no flags. */
enum constant { CONSTANT_LOG2_10, CONSTANT_LOG2_E, CONSTANT_PI, CONSTANT_LOG10_2, CONSTANT_LN2 };
struct number transcendental_constant(enum constant which, enum rounding rounding);

#endif
