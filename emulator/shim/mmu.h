/* The memory management unit: page walker and modelled TLB, from which the engine's own TLB is filled. */
#ifndef L4LAB_MMU_H
#define L4LAB_MMU_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "x86.h"

struct vcpu;

#pragma GCC visibility push(hidden)

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

struct mapping {
    uint32_t pfn;
    bool writable;  /* and dirty: a store needs no further walk */
    bool global, super;
};

/* A translation in the modelled TLB. */
struct tlb_slot {
    uint32_t stamp;  /* a generation; with GLOBAL_STAMP, one of global pages */
    uint32_t word;   /* the (first) pfn << 12, SLOT_WRITABLE */
};
#define GLOBAL_STAMP 0x80000000u
#define SLOT_WRITABLE 2u  /* and dirty: a store need not look at the page tables */

/* What fetches from a virtual page read last. */
struct code_page {
    uint32_t token, pfn;  /* for the token see coherence.h */
};

struct mmu {
    /* A page is in the TLB if its stamp is the current one. Data and instructions apart. */
    struct tlb_slot *slots[2];        /* [PAGES] */
    struct tlb_slot *super_slots[2];  /* [REGIONS] */
    uint8_t *stamped[2];              /* [REGIONS] with a stamp, ever */
    uint32_t generation, global_generation;
    uint32_t cr3;
    struct code_page code[PAGES];     /* part of the struct, to save a load */
};

static inline const struct code_page *mmu_code(const struct mmu *mmu, uint32_t eip)
{
    return &mmu->code[eip >> 12];
}

/* Whether data of a page can be read, or written, without a walk; then its pfn. Of global and of large pages it is not
   known here. */
static inline bool mmu_finds(const struct mmu *mmu, uint32_t address, bool write, uint32_t *pfn)
{
    const struct tlb_slot *slot = &mmu->slots[0][address >> 12];
    *pfn = slot->word >> 12;
    return slot->stamp == mmu->generation && (!write || slot->word & SLOT_WRITABLE);
}

bool mmu_init(struct mmu *mmu);
void mmu_free(struct mmu *mmu);

/* A load of CR3 flushes, if it changes it. */
void mmu_load_cr3(struct vcpu *v, uint32_t cr3);

/* Forgets all translations; those of global pages only if `global`. */
void mmu_flush(struct vcpu *v, bool global);

/* The engine's TLB misses. False: it must not have the page now, and v->report says why. */
bool mmu_fill(uc_engine *uc, uint64_t address, uc_mem_type type, uc_tlb_entry *entry, void *opaque);

/* What the shim accesses itself on behalf of an instruction, booked as if the engine did. False, with
   the fault in v->report, if it faults. */
bool mmu_access(struct vcpu *v, uint32_t address, enum access access, struct mapping *m);

/* --- for state.c: CR3, and the TLB's translations in force as pairs of words ---------------------- */

struct saved_translation {
    uint32_t place;  /* page number and flags */
    uint32_t word;   /* of struct tlb_slot */
};

static inline uint32_t mmu_cr3(const struct mmu *mmu)
{
    return mmu->cr3;
}

/* Fills `into` as long as there is room, and returns how many there are. */
uint32_t mmu_save(const struct mmu *mmu, struct saved_translation *into, uint32_t room);

void mmu_restore(struct vcpu *v, uint32_t cr3, const struct saved_translation *from, uint32_t count);

#pragma GCC visibility pop

#endif
