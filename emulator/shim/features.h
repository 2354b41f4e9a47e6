/* What the processor has, by its cpuid leaves: an instruction that they do not promise is #UD. */
#ifndef L4LAB_FEATURES_H
#define L4LAB_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answers.h"
#include "decode.h"

#pragma GCC visibility push(hidden)

struct machine_features {
    uint32_t bits;  /* of enum feature */
    bool is_amd;
};

void features_init(struct machine_features *f, const struct machine_answers *answers);

static inline bool features_are_amds(const struct machine_features *f)
{
    return f->is_amd;
}

/* Whether an instruction that requires these must not execute. lzcnt may: without its feature, it is bsr. */
static inline bool features_refuse(const struct machine_features *f, uint32_t required)
{
    return required & ~f->bits & ~(uint32_t)FEATURE_ABM;
}

/* Whether one that the engine would execute on other processors is the shim's: lzcnt where it is bsr. */
static inline bool features_make_ours(const struct machine_features *f, uint32_t required)
{
    return required & ~f->bits & FEATURE_ABM;
}

/* As decode_insn(), on this processor. */
void features_decode(const struct machine_features *f, const uint8_t *code, size_t available, struct insn *insn);

#pragma GCC visibility pop

#endif
