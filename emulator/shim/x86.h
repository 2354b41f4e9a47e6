/* What the processor fixes: pages, control registers, flags, vectors. Ref: Intel SDM vol. 3, 2.3, 2.5, 4.3, 6.3. */
#ifndef L4LAB_X86_H
#define L4LAB_X86_H

#define PAGE_BYTES 4096u
#define PAGE_MASK 0xfffff000u
#define PAGES (1u << 20)   /* virtual pages of an address space */
#define REGIONS (1u << 10) /* of 4 MiB: what an entry of a page directory covers */

#define CR0_USER 0x80010033u  /* PG WP NE ET MP PE */
#define CR0_TS 8u
#define CR4_USER 0x690u  /* PSE PGE OSFXSR OSXMMEXCPT */

enum { CF = 1, PF = 4, AF = 16, ZF = 64, SF = 128, OF = 2048, ARITHMETIC_FLAGS = 0x8d5 };  /* of EFLAGS */
#define EFLAGS_TF 0x100u
#define EFLAGS_NT 0x4000u
#define EFLAGS_USER 0x254dd5u  /* what user code can set */
#define EFLAGS_FIXED 0x202u

enum {
    VECTOR_DB = 1,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_XM = 19,
};

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
