/* What the files of the vCPU shim share. The whole picture is at the top of vcpu.c. */
#ifndef L4LAB_VCPU_H
#define L4LAB_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <unicorn/unicorn.h>

#include "decode.h"
#include "floating.h"

/* Nothing in here is for others: no detour over the global offset table. */
#pragma GCC visibility push(hidden)

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define PAGE_BYTES 4096u
#define PAGE_MASK 0xfffff000u
#define PAGES (1u << 20)  /* virtual pages of an address space */
#define MILLICYCLES 1000

/* The engine's functions. The shim is not linked against libunicorn: Python passes their addresses. */
#define ENGINE_FUNCTIONS(X)                                                                       \
    X(uc_open) X(uc_close) X(uc_emu_start) X(uc_emu_stop) X(uc_hook_add) X(uc_hook_del) X(uc_mem_map_ptr) \
    X(uc_reg_read) X(uc_reg_write) X(uc_reg_read_batch) X(uc_reg_write_batch) X(uc_ctl)           \
    X(uc_context_alloc) X(uc_context_save) X(uc_context_restore) X(uc_context_size) X(uc_free)    \
    X(uc_strerror)

struct engine_functions {
#define X(name) __typeof__(name) *name;
    ENGINE_FUNCTIONS(X)
#undef X
};
extern struct engine_functions engine;

/* The thread frame of kernel/frame.py; a test compares the offsets. */
struct thread_frame {
    uint32_t general[8];  /* in the order the instruction set encodes them */
    uint32_t eip, eflags;
    uint32_t cs, ss, ds, es, fs, gs;
    uint32_t utcb_base, cr3;
    uint32_t gdt[8];
    uint32_t fpu_core, fpu_valid;
    uint32_t reserved[4];
    uint64_t instructions, user_cycles, tlb_misses, fpu_switches;
    uint32_t reserved_for_kernel[24];
    uint8_t fpu[512];
};

/* What fxsave stores, and a frame keeps. */
struct fxsave_area {
    uint16_t control, status;
    uint8_t tags, reserved0;
    uint16_t opcode;
    uint32_t ip;
    uint16_t cs, reserved1;
    uint32_t dp;
    uint16_t ds, reserved2;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[8][16];
    uint8_t rest[224];
};
_Static_assert(sizeof(struct fxsave_area) == 512, "FXSAVE area");

/* --- what all vCPUs of a machine share --------------------------------------------------------- */

/* One block of straight code, as last seen at some place. Found by (token, eip), see find_block(). */
struct block {
    uint32_t eip;
    uint32_t token;         /* of the page it starts on: names the page's content */
    uint16_t size;          /* bytes; with the bits below, to keep block_entered() from taking it */
    uint16_t instructions;
    uint32_t second_token;  /* of the page it ends on, if that is another one; else 0 */
    int64_t cost;           /* thousandths of a cycle */
    uint32_t flags;         /* of decode.h */
    uint32_t last;          /* offset of the last instruction */
};
#define BLOCK_IS_SLOW 0x8000u
#define BLOCK_HAS_OPERATIONS 0x4000u /* in `size`: instructions of the shim at its start, or one at its end */
#define BLOCK_SIZE_MASK 0x3fffu
/* What in a block block_entered() cannot deal with. */
#define SLOW_FLAGS (INSN_REPEAT | INSN_CROSSES_PAGE | INSN_REFUSED | INSN_LOADS_SEGMENT | INSN_BREAKPOINT \
                    | INSN_POPS_FLAGS | 1u << (WRITES_SHIFT + X86_CS))
#define BLOCK_CACHE_SIZE (1u << 14)

enum {
    FRAME_EXECUTED = 1,
    FRAME_KERNEL_WRITTEN = 2,
    FRAME_HAZARDOUS = 4,  /* see decode_is_hazardous() */
    FRAME_WATCHED = 8,    /* see debug.c */
    FRAME_SHADOWED = 32,  /* engines fetch from a copy: see patch.c */
    FRAME_MARKED_SPACE = 16,  /* a page directory whose space has breakpoints */
};
enum { WRITER_NONE = 0, WRITER_MANY = 0xffff };
#define MAX_VCPUS 1024

struct cpuid_leaf {
    uint32_t leaf, subleaf, eax, ebx, ecx, edx;
};
#define MAX_CPUID_LEAVES 64

struct breakpoint {
    uint32_t address, cr3;  /* cr3 0: in every address space */
};
struct watchpoint {
    uint32_t first, last;  /* physical bytes */
    uint32_t kinds;        /* enum watch_kind */
};
enum watch_kind { WATCH_WRITE = 1, WATCH_READ = 2 };
#define MAX_WATCHPOINTS 16
#define MAX_TOUCHED_PAGES 8 /* two for each of the operands that an instruction can have */

/* Where user code has to stop for the debugger; see debug.c. */
struct debug {
    bool active;
    struct breakpoint *breakpoints;
    uint32_t breakpoint_count;
    struct watchpoint watchpoints[MAX_WATCHPOINTS];
    uint32_t watchpoint_count;
    struct thread_frame *counted;  /* stop when it has executed `instructions` in all; NULL: nobody is */
    uint64_t instructions;
    uint32_t range_first, range_size;  /* but not while EIP is in there */
    bool everywhere;               /* there are breakpoints of every address space */
    struct block *marked_blocks;   /* in place of the machine's: of spaces with breakpoints */
    struct block *range_blocks;    /* and of the thread that is kept to the range */
    uint32_t clocked;              /* stop core `clocked` at the first instruction at or after `clock` */
    int64_t clock;                 /* thousandths of a cycle; INT64_MAX: never */
    struct thread_frame *passed;   /* breakpoints do not stop its instruction number `passed_at` */
    uint64_t passed_at;
};

struct machine {
    uint8_t *ram;
    uint32_t frames;  /* of PAGE_BYTES */
    uint8_t *frame_flags;
    uint16_t *frame_writer;  /* 1 + core whose engine may have a writable translation; or WRITER_* */
    uint32_t *frame_token;   /* names the frame's present content as code; a new one after every change */
    uint32_t tokens;         /* given out so far */
    struct block *blocks;
    struct run *runs;  /* by place, as `blocks`: see operation.c */
    uint8_t *shadow;   /* of RAM: copies of pages, for the engines to fetch from */
    uint8_t **claims;  /* by frame: what its copy has been found to be, see patch.c; or NULL */
    uint32_t features; /* of enum feature */
    int64_t costs[COST_CLASS_COUNT];
    struct cpuid_leaf cpuid[MAX_CPUID_LEAVES];
    uint32_t cpuid_leaves;
    struct vcpu *vcpus[MAX_VCPUS];
    uint32_t vcpu_count;
    uint8_t *frame_dirty;  /* an engine could write there since state.c looked last */
    struct debug debug;
};

/* --- one vCPU ---------------------------------------------------------------------------------- */

enum event {
    EVENT_NONE,
    EVENT_DEADLINE,
    EVENT_STOP,         /* asked for from outside */
    EVENT_PAGE_FAULT,
    EVENT_CODE_WRITE,   /* a store to a frame that has been executed */
    EVENT_INTERRUPT,    /* the engine reports a vector */
    EVENT_STEP,         /* the next instruction needs a look before the engine may have it */
    EVENT_DEBUG,        /* the debugger wants to stop in the next block */
    EVENT_WATCH,        /* an access to a frame with a watchpoint */
    EVENT_EXCEPTION,    /* an instruction of the shim raised v->vector */
    EVENT_PATCH,        /* the next block must be translated anew, from a changed copy of its page */
};

/* What run() returns, in bits 0..7; the rest depends on it. Decoded by vcpu.py. */
enum outcome {
    OUTCOME_DEADLINE,
    OUTCOME_SYSTEM_CALL,
    OUTCOME_PAGE_FAULT,  /* bit 8 write, 9 fetch, 10 present; 32..63 address */
    OUTCOME_EXCEPTION,   /* 8..15 vector; 32..63 error code */
    OUTCOME_HOST_STOP,
    OUTCOME_ENGINE_FAILURE,
    OUTCOME_DEBUG_STOP,  /* bits 8..15: enum debug_reason; 32..63: number of the watchpoint */
};

struct code_page {
    uint32_t token, frame;
};

struct mapping {
    uint32_t frame;
    bool writable;  /* and dirty: a store needs no further walk */
    bool global, super;
};

/* A translation in the modelled TLB. */
struct tlb_slot {
    uint32_t stamp;  /* a generation; with GLOBAL_STAMP, one of global pages */
    uint32_t word;   /* number of the (first) frame << 12, SLOT_WRITABLE */
};
#define GLOBAL_STAMP 0x80000000u
#define SLOT_WRITABLE 2u  /* and dirty: a store need not look at the page tables */

struct vcpu {
    /* Seen by vcpu.py through a memoryview: cheaper than arguments of a foreign call. */
    int64_t clock;            /* thousandths of a cycle */
    struct thread_frame *frame;
    int64_t deadline_cycles;

    /* Read and written for every block, with `clock`. */
    volatile int64_t limit;   /* at or above it, block_entered() takes the slow way */
    uint64_t instructions;    /* of this run */
    const struct block *block; /* charged, but perhaps not yet executed to its end; or NULL */
    struct block *blocks;
    uint32_t null_segments;   /* 1 << X86_ES, ...: accesses there are refused */
    uint32_t read_only_segments;  /* and writes there; CS always is */

    bool setup;       /* bringing up the engine: no guest yet */
    bool forgetting;  /* inside engine_forget_page(): the engine looks up what a page holds */
    bool stepping;    /* one instruction, charged by step() itself */
    uint8_t step_blocks; /* if not 0: that instruction is a block; what is left until the next */
    bool resuming;    /* the next block continues one that was left: no deadline there */
    bool entering;    /* the engine is about to enter a block: no deadline before it has fetched that */
    bool engine_flush;/* the engine's TLB must be flushed before it runs again */
    bool free_flush;  /* the same, but not before it runs for one step */
    uint32_t careful_page;  /* 1 + linear address of a page being stepped through; or 0 */
    uint32_t careful_steps; /* that many more, unless it is left before */
    bool ts;          /* CR0.TS as the engine has it */
    volatile bool stop_requested;

    uc_engine *uc;
    uc_context *scratch;
    struct machine *machine;
    uint32_t core;
    uint8_t *private_page;  /* GDT and ring-3 stub */
    int64_t deadline;  /* as `clock` */

    enum event event;
    uint32_t vector;
    struct {
        uint32_t address;  /* in tlb_fill(): of the page only */
        bool write, fetch, present;
    } fault;
    uint32_t code_write_frame;
    uint32_t shared_frames[2];  /* while stepping: may be executed and written; or NO_FRAME */

    uint32_t eip;
    uint16_t segments[6];   /* selectors the engine has; index as X86_ES .. */

    /* Modelled TLB: a page is in it if its stamp is the current one. Data and instructions apart. */
    struct tlb_slot *slots[2];       /* [PAGES] */
    struct tlb_slot *super_slots[2]; /* [1024] */
    uint32_t generation, global_generation;
    uint32_t cr3;
    uint64_t tlb_misses;

    uint8_t *executed;  /* bit per frame: this engine may hold translations of it */
    uint32_t *dropped;  /* frames whose translations end with this run */
    uint32_t dropped_count, dropped_size;

    struct thread_frame *fpu_frame;  /* whose state the engine has, if its fpu_core agrees */
    uint64_t fpu_switches;
    struct fpu_state fpu;
    bool pending_shown;   /* the engine has the pending exception of `fpu`, or that there is none */

    /* Instructions that the shim executes; see operation.c. */
    uint64_t *general;    /* the engine's general registers and, at ENGINE_EIP, EIP; see native.c */
    uint8_t *xmm;         /* its XMM registers */
    size_t xmm_stride;
    uint32_t segment_bases[6];
    bool in_engine;       /* inside uc_emu_start */
    const struct operation *pending;  /* ended the block just executed, and is executed before the next; or NULL */
    int64_t limit_before;             /* `limit` is INT64_MIN while an operation is pending */
    bool stopped_at_operation;        /* an operation did not end well: EIP is stopped_eip */
    uint32_t stopped_eip;
    bool fault_is_exact;  /* v->fault.address is that of the byte */
    bool trap_next;       /* EFLAGS.TF has just been set: the next instruction is stepped */
    uint32_t patch_eip, patch_size;  /* the block that EVENT_PATCH is about */

    /* Debugging. A run that stopped in the middle of a block goes on as if it had not. */
    struct {
        struct thread_frame *frame;  /* NULL: none */
        uint32_t eip, block_end;
        bool resuming, entering, block_goes_on;
    } suspended;
    uint32_t block_end;       /* of the block that debug.c executes step by step; 0: none */
    bool block_goes_on;       /* it ends with an instruction of the shim: the next is no start of the program's own */
    int64_t look_from;        /* clock from which on debug.c must see every block */
    bool watching;            /* that instruction may access watched frames */
    uint32_t watch_hits;      /* bit per watchpoint: accessed by that instruction */
    struct {
        uint32_t page, frame;
    } touched[MAX_TOUCHED_PAGES];  /* by that instruction */
    uint32_t touched_count;
    uint32_t crossed_bytes;   /* behind the end of a page, of an access that crossed it; 0: none did */
    uint8_t *stamped[2];      /* [1024] 4 MiB regions with a stamp, ever */

    uint64_t anomalies;  /* things the engine should not do; tests expect zero */
    char error[160];

    struct code_page code[PAGES];  /* what fetches from a page read; part of the struct, to save a load */
};
#define NO_FRAME 0xffffffffu

/*
 * The 4 GiB of linear addresses from here on show physical memory, to the engine's own helpers only:
 * data addresses that guest instructions form are cut to 32 bits. (Instruction addresses are not
 * always: a near jcc adds its offset with sign. So fetches from here are the shim's own or truncated.)
 */
#define WINDOW (UINT64_C(1) << 36)
#define SHADOW_WINDOW (WINDOW + (UINT64_C(1) << 32))  /* and from here on the copies of pages */
#define SHADOW_PHYSICAL (UINT64_C(1) << 32)
#define ENGINE_EIP 16
#define PRIVATE_PHYSICAL UINT64_C(0xfffff000)
#define GDT_ENTRIES_COUNT 13
#define FIRST_THREAD_ENTRY 9
#define UTCB_ENTRY 8

#define CR0_USER 0x80010033u  /* PG WP NE ET MP PE */
#define CR0_TS 8u
#define CR4_USER 0x690u  /* PSE PGE OSFXSR OSXMMEXCPT */
#define EFLAGS_TF 0x100u
#define EFLAGS_NT 0x4000u
#define EFLAGS_USER 0x254dd5u
#define EFLAGS_FIXED 0x202u

static inline void engine_read(struct vcpu *v, int reg, void *value)
{
    engine.uc_reg_read(v->uc, reg, value);
}
static inline void engine_write(struct vcpu *v, int reg, const void *value)
{
    engine.uc_reg_write(v->uc, reg, value);
}
static inline uint32_t engine_word(struct vcpu *v, int reg)
{
    uint32_t word = 0;
    engine_read(v, reg, &word);
    return word;
}

/* engine.c */
bool engine_start(struct vcpu *v);
void engine_scrub(struct vcpu *v, uint32_t *error_code);
uint32_t engine_fault_address(struct vcpu *v);
void engine_flush_tlb(struct vcpu *v);
void engine_forget_page(struct vcpu *v, uint64_t physical);
void engine_forget_code(struct vcpu *v, uint64_t physical, uint32_t size);

/* What the parts of a run return if it has not ended. */
#define GO_ON UINT64_MAX

static inline uint64_t exception(uint32_t vector, uint32_t error_code)
{
    return OUTCOME_EXCEPTION | vector << 8 | (uint64_t)error_code << 32;
}
static inline uint64_t page_fault(uint32_t address, bool write, bool fetch, bool present)
{
    return OUTCOME_PAGE_FAULT | (uint64_t)write << 8 | (uint64_t)fetch << 9 | (uint64_t)present << 10
         | (uint64_t)address << 32;
}
enum {
    VECTOR_DB = 1,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_TS = 10,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_MF = 16,
    VECTOR_XM = 19,
    VECTOR_SYSTEM_CALL = 0x30,
};

/* vcpu.c */
extern int general_registers[10];  /* in the order of the frame, then EFLAGS and EIP */
bool stop_wanted(const struct vcpu *v);
void set_limit(struct vcpu *v);
uc_err run_engine(struct vcpu *v);

/* books.c */
void block_entered(uc_engine *uc, uint64_t eip, uint32_t size, void *opaque);
void settle(struct vcpu *v, uint32_t eip);
void leave(struct vcpu *v, enum event event);
void expect_resume(struct vcpu *v);
const uint8_t *fetched_bytes(struct vcpu *v, uint32_t eip, uint32_t size, uint8_t *buffer);
int64_t insn_cost(const struct vcpu *v, const struct insn *insn);
uint64_t clock_now(struct vcpu *v);
void note_anomaly(struct vcpu *v, const char *what);

/* answers.c */
int rdtsc_executed(uc_engine *uc, void *opaque);
int rdtscp_executed(uc_engine *uc, void *opaque);
int cpuid_executed(uc_engine *uc, void *opaque);

/* native.c */
bool native_find(struct vcpu *v);

/* operation.c, operand.c, x87.c, sse.c, simd.c: see floating.h */
const struct run *operations_of(struct vcpu *v, const struct block *block);
bool operations_begin(struct vcpu *v, const struct block *block);
bool operations_finish(struct vcpu *v);
uint64_t operation_outcome(struct vcpu *v, enum ending ending);
enum ending operand_probe_write(struct vcpu *v, uint32_t address, uint32_t size);
void simd_enter_mmx(struct vcpu *v);

/* patch.c */
bool patch_block_is_ready(struct vcpu *v, uint32_t eip, uint32_t size);
void patch_block(struct vcpu *v);
bool patch_ends_block(struct vcpu *v, uint32_t eip);
void patch_check_step(struct vcpu *v, const struct insn *insn, const uint32_t frames[2]);
void patch_forget(struct machine *m, uint32_t frame);

/* features.c */
uint32_t features_of(const struct machine *m);
void decode_for(const struct machine *m, const uint8_t *code, size_t available, struct insn *insn);

/* segments.c */
uint32_t *frame_segment(struct thread_frame *frame, int segment);
void note_null_segments(struct vcpu *v);
void load_segments(struct vcpu *v);
void read_segments(struct vcpu *v);

/* step.c */
uint64_t peek(struct vcpu *v, struct insn *insn, uint32_t frames[2]);
uint64_t step(struct vcpu *v, bool shared);
uint64_t step_one(struct vcpu *v);
void step_carefully(struct vcpu *v, uint32_t eip, uint32_t steps);

/* report.c */
void interrupt_taken(uc_engine *uc, uint32_t vector, void *opaque);
uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped);

/* debug.c */
enum debug_reason { DEBUG_COUNT, DEBUG_CLOCK, DEBUG_BREAKPOINT, DEBUG_WATCHPOINT };
bool debug_marks_block(const struct vcpu *v, uint32_t eip, uint32_t size);
void debug_choose_blocks(struct vcpu *v);
bool debug_wants_block(struct vcpu *v, const struct block *block);
bool debug_stops_here(struct vcpu *v, uint64_t *outcome);
uint64_t debug_step_block(struct vcpu *v);
uint64_t debug_watched_access(struct vcpu *v);
void debug_suspend(struct vcpu *v);
bool debug_resume(struct vcpu *v);
void debug_note_page(struct vcpu *v, uint32_t address, uint32_t frame);
void debug_note_access(struct vcpu *v, uint32_t address, uint32_t frame, uint32_t size);
void debug_look_ahead(struct vcpu *v);

/* pager.c */
enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };
enum walk_result { WALK_OK, WALK_NOT_PRESENT, WALK_DENIED };
enum walk_result walk(const struct vcpu *v, uint32_t address, enum access access, bool mark, struct mapping *m);
bool tlb_fill(uc_engine *uc, uint64_t address, uc_mem_type type, uc_tlb_entry *entry, void *opaque);
bool access_page(struct vcpu *v, uint32_t address, enum access access, struct mapping *m);
void forget_frame(struct machine *m, uint32_t frame);
void tlb_flush(struct vcpu *v, bool global);
void tlb_invalidate(struct vcpu *v, uint32_t address);

/* fpu.c */
bool fpu_owned(const struct vcpu *v, const struct thread_frame *frame);
void fpu_switch(struct vcpu *v);
void fpu_save(struct vcpu *v);
void fpu_set_ts(struct vcpu *v, bool ts);
void fpu_adopt(struct vcpu *v, struct thread_frame *frame);
void fpu_write_pending(struct vcpu *v);
void fpu_image(struct vcpu *v, struct fxsave_area *area);
void fpu_load_image(struct vcpu *v, const struct fxsave_area *area);

/* fwait is a single byte, too short to be replaced: the engine executes it, and must know whether it traps. */
static inline void fpu_show_pending(struct vcpu *v)
{
    if (UNLIKELY(v->pending_shown != ((v->fpu.status & STATUS_ES) != 0)))
        fpu_write_pending(v);
}

#pragma GCC visibility pop

#endif
