/*
 * x87 arithmetic and comparisons. Ref: Intel SDM vol. 1, 8.3.5, 8.3.6; 8.5 (exception conditions and masked responses).
 */
#include "x87.h"

#include "operand.h"
#include "softfloat.h"
#include "vcpu.h"

static struct number compute(unsigned which, const struct number *a, const struct number *b, struct float_env *env)
{
    switch (which) {
    case 0:
        return number_add(*a, *b, false, env->precision, &format_extended, env);
    case 1:
        return number_multiply(*a, *b, env->precision, &format_extended, env);
    case 4:
        return number_add(*a, *b, true, env->precision, &format_extended, env);
    case 5:
        return number_add(*b, *a, true, env->precision, &format_extended, env);
    case 6:
        return number_divide(*a, *b, env->precision, &format_extended, env);
    default:
        return number_divide(*b, *a, env->precision, &format_extended, env);
    }
}

void x87_arithmetic(struct floating *f, unsigned which, const struct number *b, bool missing, unsigned to, bool pops)
{
    struct extended result = DEFAULT_NAN;
    if (missing) {
        if (!stack_fault(f, false))
            return;
    } else {
        struct float_env env = x87_environment(f);
        struct number a = number_at(f, 0), computed = compute(which, &a, b, &env);
        if (!x87_conclude(f, &env))
            return;
        result = pack_extended(&computed);
    }
    put(f, to, result);
    if (pops)
        pop(f);
}

static enum ordering ordering_of(struct floating *f, const struct number *b, bool missing, bool signal, bool *happened)
{
    if (missing) {
        *happened = stack_fault(f, false);
        return UNORDERED;
    }
    struct float_env env = x87_environment(f);
    struct number a = number_at(f, 0);
    enum ordering order = number_compare(&a, b, signal, &env);
    set_c1(f, false);
    raise_flags(f, env.flags);
    *happened = !prevented(&env);
    return prevented(&env) && env.flags & FE_I ? UNORDERED : order;
}

void x87_compare(struct floating *f, const struct number *b, bool missing, bool signal, unsigned pops)
{
    static const uint16_t codes[] = {
        [LESS] = STATUS_C0, [EQUAL] = STATUS_C3, [GREATER] = 0, [UNORDERED] = STATUS_C0 | STATUS_C2 | STATUS_C3,
    };
    bool happened;
    enum ordering order = ordering_of(f, b, missing, signal, &happened);
    f->status = (uint16_t)((f->status & ~(STATUS_C0 | STATUS_C2 | STATUS_C3)) | codes[order]);
    if (!happened)
        return;
    while (pops-- > 0)
        pop(f);
}

void x87_compare_to_eflags(struct vcpu *v, unsigned i, bool signal, bool pops)
{
    static const uint32_t flags[] = {[LESS] = CF, [EQUAL] = ZF, [GREATER] = 0, [UNORDERED] = CF | PF | ZF};
    struct floating *f = &v->floating;
    struct number b = number_at(f, i);
    uint16_t c1 = f->status & STATUS_C1;
    bool happened, missing = is_empty(f, 0) || is_empty(f, i);
    enum ordering order = ordering_of(f, &b, missing, signal, &happened);
    if (!missing)
        f->status = (uint16_t)((f->status & ~STATUS_C1) | c1);
    operand_set_arithmetic_flags(v, flags[order]);
    if (happened && pops)
        pop(f);
}
