/*
 * A vCPU: runs user code of one thread until something happens that the kernel must see.
 *
 * Plain C around one Unicorn engine, called from Python through ctypes (vcpu.py). Nothing below calls
 * back into Python. A run is
 *
 *   load()      registers, segments, address space and x87/SSE ownership from the thread's frame
 *   execute()   uc_emu_start, again and again, until the reason it stopped concerns the kernel
 *   store()     registers and counters back into the frame
 *
 * The books. The engine calls block_entered() before every block of straight code. The whole block is
 * charged there: instructions and cycles, from a cache of decoded blocks. If the block is left before
 * its end, settle() takes back what lies at and behind EIP. So at every exit the counters are those of
 * the instructions that completed, exactly. Fills of the modelled TLB are charged when they happen.
 *
 * A `rep` string instruction counts as one instruction per iteration, and as one if it iterates zero
 * times. The engine enters its block once per iteration, and once more to find the count at zero; that
 * last entry is free.
 *
 * Deadline: the core stops at the first block that would start at or after it. Blocks that only exist
 * because the shim itself left the engine (resuming) do not count as a start, so the stopping place
 * depends on the program alone.
 *
 * The slow way, one instruction at a time (step()), is taken where the engine cannot be trusted with a
 * whole block: instructions it would execute although user mode may not, loads of segment registers,
 * memory operands in a null segment, a store into the page that the instruction lies on, blocks whose
 * second page is not mapped (the engine would report that before executing the first page's part), and
 * pages with bytes that would abort it (decode_is_hazardous()).
 *
 * Ref: Intel SDM vol. 3, 6.5 to 6.15 (exceptions); Fiasco.OC ia32 for the selectors (kernel/frame.py).
 */
#define _DEFAULT_SOURCE  /* sigaction, MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE
#include "vcpu.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>


_Static_assert(sizeof(struct block) == 32, "two blocks per cache line");

enum { VECTOR_DE = 0, VECTOR_DB = 1, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_UD = 6, VECTOR_NM = 7, VECTOR_TS = 10, VECTOR_SS = 12,
       VECTOR_GP = 13, VECTOR_SYSTEM_CALL = 0x30 };

/* --- asked to stop from outside ---------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;
static struct vcpu *volatile running;
static struct sigaction replaced;

static void on_signal(int number)
{
    if (interrupted && replaced.sa_handler != SIG_IGN && replaced.sa_handler != SIG_DFL) {
        replaced.sa_handler(number);  /* asked twice: whoever was there before us decides */
        return;
    }
    interrupted = 1;
    struct vcpu *v = running;
    if (v != NULL)
        v->limit = INT64_MIN;
}

int vcpu_catch_interrupts(int number)
{
    struct sigaction action = {.sa_handler = on_signal};
    interrupted = 0;
    return sigaction(number, &action, &replaced);
}

void vcpu_release_interrupts(int number)
{
    sigaction(number, &replaced, NULL);
    interrupted = 0;
}

int vcpu_interrupted(void)
{
    return interrupted;
}

void vcpu_stop(struct vcpu *v)
{
    v->stop_requested = true;
    v->limit = INT64_MIN;
}

/* The engine did what it should not. Guests go on; tests expect this never to happen. */
static void note_anomaly(struct vcpu *v, const char *what)
{
    v->anomalies++;
    const struct block *block = v->block;
    snprintf(v->error, sizeof v->error, "%s at EIP %#x (event %d, vector %u, block %#x + %#x)", what, v->eip, v->event,
             v->vector, block ? block->eip : 0, block ? block->size : 0);
}

/* --- the books --------------------------------------------------------------------------------- */

static struct block *block_place(struct vcpu *v, uint32_t token, uint32_t eip)
{
    return &v->blocks[(eip ^ token) & (BLOCK_CACHE_SIZE - 1)];
}

/* The bytes of [eip, eip + size), as last fetched; gathered in `buffer` if they lie on two pages. */
static const uint8_t *fetched_bytes(struct vcpu *v, uint32_t eip, uint32_t size, uint8_t *buffer)
{
    uint8_t *ram = v->machine->ram;
    uint32_t offset = eip & ~PAGE_MASK;
    const uint8_t *first = ram + (size_t)v->code[eip >> 12].frame * PAGE_BYTES + offset;
    if (offset + size <= PAGE_BYTES)
        return first;
    uint32_t part = PAGE_BYTES - offset;
    uint32_t second = (eip + part) >> 12;
    memcpy(buffer, first, part);
    memcpy(buffer + part, ram + (size_t)v->code[second].frame * PAGE_BYTES, size - part);
    return buffer;
}

static void sum_block(struct vcpu *v, uint32_t eip, uint32_t size, struct block_sum *sum)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (size > PAGE_BYTES)
        size = PAGE_BYTES;
    decode_block(fetched_bytes(v, eip, size, buffer), size, v->machine->costs, sum);
}

/* The cached block at [eip, eip + size), decoded now if it is not the one in its place. */
static const struct block *find_block(struct vcpu *v, uint32_t eip, uint32_t size)
{
    uint32_t token = v->code[eip >> 12].token;
    bool crosses = (eip & ~PAGE_MASK) + size > PAGE_BYTES;
    uint32_t second = crosses ? v->code[(eip + size - 1) >> 12].token : 0;
    struct block *block = block_place(v, token, eip);
    if (block->eip == eip && block->token == token && (block->size & ~BLOCK_IS_SLOW) == size
        && block->second_token == second)
        return block;
    struct block_sum sum;
    sum_block(v, eip, size, &sum);
    uint32_t flags = sum.flags | (crosses ? INSN_CROSSES_PAGE : 0);
    if (UNLIKELY(v->machine->debug.breakpoint_count) && debug_marks_block(v->machine, eip, size))
        flags |= INSN_BREAKPOINT;
    *block = (struct block){
        .eip = eip, .token = token, .size = (uint16_t)(size | (flags & SLOW_FLAGS ? BLOCK_IS_SLOW : 0)),
        .instructions = (uint16_t)sum.instructions, .second_token = second, .cost = sum.cost,
        .flags = flags, .last = sum.last,
    };
    return block;
}

/* What of the block being executed lies before `eip`. */
static void sum_before(struct vcpu *v, uint32_t eip, struct block_sum *sum)
{
    const struct block *block = v->block;
    uint32_t size = eip - block->eip, whole = block->size & ~BLOCK_IS_SLOW;
    if (size == 0) {
        *sum = (struct block_sum){0};
    } else if (size >= whole) {
        if (size > whole)
            note_anomaly(v, "EIP is beyond the block");
        *sum = (struct block_sum){.instructions = block->instructions, .cost = block->cost};
    } else {
        sum_block(v, block->eip, size, sum);
        if (sum->flags & INSN_TRUNCATED)
            note_anomaly(v, "EIP is not where an instruction starts");
    }
}

/* The engine left the current block with `eip` as the next instruction. */
void settle(struct vcpu *v, uint32_t eip)
{
    if (v->block == NULL)
        return;
    struct block_sum done;
    sum_before(v, eip, &done);
    v->instructions -= v->block->instructions - done.instructions;
    v->clock -= v->block->cost - done.cost;
    v->block = NULL;
}

/* --- hooks ------------------------------------------------------------------------------------- */

void leave(struct vcpu *v, enum event event)
{
    v->event = event;
    engine.uc_emu_stop(v->uc);
}

void set_limit(struct vcpu *v)
{
    int64_t limit = v->look_from < v->deadline ? v->look_from : v->deadline;
    v->limit = v->resuming || v->stepping || v->null_segments ? INT64_MIN : limit;
    if (UNLIKELY(interrupted || v->stop_requested))  /* it may have been asked for just before */
        v->limit = INT64_MIN;
}

/* The next block goes on where the shim, not the program, stopped. */
void expect_resume(struct vcpu *v)
{
    v->resuming = true;
    set_limit(v);
}

/* Where the rep instruction lies that the block just executed ended with; 0 if it did not. */
static uint32_t repeating_at(const struct block *block)
{
    return block != NULL && block->flags & INSN_REPEAT ? block->eip + block->last : 0;
}

static bool count_is_zero(struct vcpu *v, const struct block *block)
{
    uint32_t count = engine_word(v, UC_X86_REG_ECX);
    return (block->flags & INSN_ADDRESS16 ? count & 0xffff : count) == 0;
}

static inline void charge(struct vcpu *v, const struct block *block)
{
    v->block = block;
    v->instructions += block->instructions;
    v->clock += block->cost;
}

static void block_entered_slowly(struct vcpu *v, uint32_t eip, uint32_t size)
{
    if (v->setup)
        return;
    if (v->stepping) {
        if (v->step_blocks > 0 && --v->step_blocks == 0)
            leave(v, EVENT_STEP);
        return;
    }
    uint32_t repeating = repeating_at(v->block);  /* before find_block(), which may overwrite it */
    const struct block *block = find_block(v, eip, size);
    v->block = NULL;
    if (block->flags & INSN_REPEAT && block->last == 0 && repeating == eip && count_is_zero(v, block))
        return;  /* the last round of a rep instruction: it only leaves */
    if (interrupted || v->stop_requested) {
        v->block_end = eip + size;
        leave(v, EVENT_STOP);
        return;
    }
    if (v->clock >= v->deadline && !v->resuming) {
        leave(v, EVENT_DEADLINE);
        return;
    }
    if (UNLIKELY(v->machine->debug.active) && debug_wants_block(v, block)) {
        v->block_end = eip + size;
        leave(v, EVENT_DEBUG);
        return;
    }
    if (v->resuming) {
        v->resuming = false;
        set_limit(v);
    }
    if (block->flags & (INSN_REFUSED | INSN_LOADS_SEGMENT | v->null_segments)) {
        leave(v, EVENT_STEP);
        return;
    }
    charge(v, block);
}

void block_entered(uc_engine *uc, uint64_t address, uint32_t size, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint32_t eip = (uint32_t)address;
    uint32_t token = v->code[eip >> 12].token;
    const struct block *block = block_place(v, token, eip);
    if (LIKELY(block->eip == eip && block->token == token && block->size == (uint16_t)size && v->clock < v->limit))
        charge(v, block);
    else
        block_entered_slowly(v, eip, size);
}

/* The engine raises some exceptions by the first bytes of an instruction, without reading the others.
   If those are on a page that is not mapped, hardware reports that. */
static bool may_be_unfetched(const struct vcpu *v, uint32_t eip)
{
    return !v->stepping && (eip & ~PAGE_MASK) > PAGE_BYTES - INSN_MAX_BYTES;
}

void interrupt_taken(uc_engine *uc, uint32_t vector, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    if (vector == VECTOR_NM && !v->setup && v->ts) {
        uint32_t eip = engine_word(v, UC_X86_REG_EIP);
        settle(v, eip);
        if (may_be_unfetched(v, eip)) {
            leave(v, EVENT_STEP);
            return;
        }
        fpu_switch(v);
        expect_resume(v);
        return;
    }
    v->vector = vector;
    leave(v, EVENT_INTERRUPT);
}

/* The clock as of the instruction at EIP, in cycles. */
static uint64_t clock_now(struct vcpu *v)
{
    int64_t now = v->clock;
    if (v->block != NULL) {
        struct block_sum done;
        sum_before(v, engine_word(v, UC_X86_REG_EIP), &done);
        now -= v->block->cost - done.cost;
    }
    return (uint64_t)(now / MILLICYCLES);
}

int rdtsc_executed(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint64_t now = clock_now(v);
    uint32_t low = (uint32_t)now, high = (uint32_t)(now >> 32);
    engine_write(v, UC_X86_REG_EAX, &low);
    engine_write(v, UC_X86_REG_EDX, &high);
    return 1;
}

int rdtscp_executed(uc_engine *uc, void *opaque)
{
    struct vcpu *v = opaque;
    engine_write(v, UC_X86_REG_ECX, &v->core);  /* TSC_AUX: the core's number */
    return rdtsc_executed(uc, opaque);
}

/* Basic or extended leaves beyond the highest one read as zero, as AMD does it. */
static const struct cpuid_leaf *find_leaf(const struct machine *m, uint32_t leaf, uint32_t subleaf)
{
    static const struct cpuid_leaf none;
    for (uint32_t i = 0; i < m->cpuid_leaves; i++)
        if (m->cpuid[i].leaf == leaf && (m->cpuid[i].subleaf == subleaf || m->cpuid[i].subleaf == UINT32_MAX))
            return &m->cpuid[i];
    return &none;
}

int cpuid_executed(uc_engine *uc, void *opaque)
{
    (void)uc;
    struct vcpu *v = opaque;
    uint32_t leaf = engine_word(v, UC_X86_REG_EAX);
    struct cpuid_leaf answer = *find_leaf(v->machine, leaf, engine_word(v, UC_X86_REG_ECX));
    if (leaf == 1)
        answer.ebx |= v->core << 24;  /* initial APIC id */
    engine_write(v, UC_X86_REG_EAX, &answer.eax);
    engine_write(v, UC_X86_REG_EBX, &answer.ebx);
    engine_write(v, UC_X86_REG_ECX, &answer.ecx);
    engine_write(v, UC_X86_REG_EDX, &answer.edx);
    return 1;
}

/* --- segments ---------------------------------------------------------------------------------- */

static const int segment_registers[6] = {
    UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS,
};

static uint32_t *frame_segment(struct thread_frame *frame, int segment)
{
    uint32_t *const words[6] = {&frame->es, &frame->cs, &frame->ss, &frame->ds, &frame->fs, &frame->gs};
    return words[segment];
}

void note_null_segments(struct vcpu *v)
{
    v->null_segments = 0;
    for (int i = 0; i < 6; i++)
        if ((v->segments[i] & ~3) == 0)
            v->null_segments |= 1u << i;
    set_limit(v);
}

static void load_segment(struct vcpu *v, int segment)
{
    uint16_t selector = (uint16_t)*frame_segment(v->frame, segment);
    if (engine.uc_reg_write(v->uc, segment_registers[segment], &selector) != UC_ERR_OK) {
        /* The kernel let a selector through that no longer loads: null, or flat where null cannot be. */
        selector = segment == X86_SS ? 0x23 : 0;
        engine_write(v, segment_registers[segment], &selector);
    }
    v->segments[segment] = selector;
}

static void put_descriptor(struct vcpu *v, uint32_t index, uint32_t low, uint32_t high, uint32_t *changed)
{
    uint32_t *entry = (uint32_t *)(v->private_page + index * 8);
    if (!(high & 0x1000))
        low = high = 0;  /* gates and other system descriptors: never for user code */
    if ((high & 0x9000) == 0x9000)
        high |= 0x100;  /* present code or data: accessed, as the load would set */
    if (entry[0] == low && entry[1] == high)
        return;
    entry[0] = low;
    entry[1] = high;
    *changed |= 1u << index;
}

static void load_segments(struct vcpu *v)
{
    const struct thread_frame *frame = v->frame;
    uint32_t base = frame->utcb_base, changed = 0;
    put_descriptor(v, UTCB_ENTRY, base << 16 | 0xffff, (base & 0xff000000) | 0xcff300 | (base >> 16 & 0xff), &changed);
    for (uint32_t i = 0; i < 4; i++)
        put_descriptor(v, FIRST_THREAD_ENTRY + i, frame->gdt[2 * i], frame->gdt[2 * i + 1], &changed);
    bool different = false;
    for (int i = 0; i < 6; i++) {
        uint32_t index = v->segments[i] >> 3;
        if (i == X86_CS || (v->segments[i] == (uint16_t)*frame_segment(v->frame, i)
                            && !(index < 32 && changed >> index & 1)))
            continue;
        load_segment(v, i);
        different = true;
    }
    if (different)
        note_null_segments(v);
}

static void read_segments(struct vcpu *v)
{
    for (int i = 0; i < 6; i++)
        engine_read(v, segment_registers[i], &v->segments[i]);
    note_null_segments(v);
}

/* --- load and store ---------------------------------------------------------------------------- */

static int general_registers[10] = {
    UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX, UC_X86_REG_ESP, UC_X86_REG_EBP,
    UC_X86_REG_ESI, UC_X86_REG_EDI, UC_X86_REG_EFLAGS, UC_X86_REG_EIP,
};

static void load(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    uint32_t *general = frame->general;
    uint32_t eflags = (frame->eflags & EFLAGS_USER) | EFLAGS_FIXED;
    void *const values[9] = {
        &general[0], &general[1], &general[2], &general[3], &general[4], &general[5], &general[6], &general[7], &eflags,
    };
    if (frame->cr3 != v->cr3) {
        v->cr3 = frame->cr3;
        tlb_flush(v, false);
    }
    engine.uc_reg_write_batch(v->uc, general_registers, values, 9);
    load_segments(v);
    fpu_set_ts(v, !fpu_owned(v, frame));
    v->eip = frame->eip;
}

static void store(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    uint32_t *general = frame->general;
    void *values[9] = {
        &general[0], &general[1], &general[2], &general[3], &general[4],
        &general[5], &general[6], &general[7], &frame->eflags,
    };
    engine.uc_reg_read_batch(v->uc, general_registers, values, 9);
    frame->eip = v->eip;
    for (int i = 0; i < 6; i++)
        *frame_segment(frame, i) = v->segments[i];
    frame->instructions += v->instructions;
    frame->tlb_misses += v->tlb_misses;
    frame->fpu_switches += v->fpu_switches;
}

/* --- one instruction at a time ----------------------------------------------------------------- */

static uint64_t exception(uint32_t vector, uint32_t error_code)
{
    return OUTCOME_EXCEPTION | vector << 8 | (uint64_t)error_code << 32;
}

static uint64_t page_fault(uint32_t address, bool write, bool fetch, bool present)
{
    return OUTCOME_PAGE_FAULT | (uint64_t)write << 8 | (uint64_t)fetch << 9 | (uint64_t)present << 10
         | (uint64_t)address << 32;
}

static uint64_t reported_fault(const struct vcpu *v)
{
    return page_fault(v->fault.address, v->fault.write, v->fault.fetch, v->fault.present);
}

static const uint8_t *frame_bytes(const struct vcpu *v, uint32_t frame, uint32_t address)
{
    return v->machine->ram + (size_t)frame * PAGE_BYTES + (address & ~PAGE_MASK);
}

/* Fetches and decodes the instruction at v->eip without the engine. GO_ON, or the page fault of that. */
static uint64_t peek(struct vcpu *v, struct insn *insn, uint32_t frames[2])
{
    uint8_t bytes[INSN_MAX_BYTES];
    uint32_t part = PAGE_BYTES - (v->eip & ~PAGE_MASK);
    uint32_t size = part < sizeof bytes ? part : sizeof bytes;
    struct mapping m;
    if (!access_page(v, v->eip, ACCESS_FETCH, &m))
        return reported_fault(v);
    frames[0] = frames[1] = m.frame;
    memcpy(bytes, frame_bytes(v, m.frame, v->eip), size);
    decode_insn(bytes, size, insn);
    if (!(insn->flags & INSN_TRUNCATED) || size == sizeof bytes)
        return GO_ON;
    if (!access_page(v, v->eip + part, ACCESS_FETCH, &m))
        return reported_fault(v);
    frames[1] = m.frame;
    memcpy(bytes + size, frame_bytes(v, m.frame, 0), sizeof bytes - size);
    decode_insn(bytes, sizeof bytes, insn);
    return GO_ON;
}

static int64_t insn_cost(const struct vcpu *v, const struct insn *insn)
{
    const int64_t *costs = v->machine->costs;
    return costs[insn->cost_class] + insn->loads * costs[COST_LOAD] + insn->stores * costs[COST_STORE]
         + insn->locked * costs[COST_LOCKED];
}

static uint64_t refuse_insn(struct vcpu *v, const struct insn *insn)
{
    if (insn->refusal == REFUSE_UD)
        return exception(VECTOR_UD, 0);
    if (insn->refusal == REFUSE_GP)
        return exception(VECTOR_GP, 0);
    v->eip += insn->length;  /* icebp: a trap */
    v->instructions++;
    v->clock += insn_cost(v, insn);
    return exception(VECTOR_DB, 0);
}

static uc_err run_engine(struct vcpu *v)
{
    if (v->engine_flush || (v->free_flush && !v->stepping)) {
        engine_flush_tlb(v);
        v->engine_flush = v->free_flush = false;
    }
    v->event = EVENT_NONE;
    v->block = NULL;
    uc_err err = engine.uc_emu_start(v->uc, v->eip, 0, 0, 0);
    v->eip = engine_word(v, UC_X86_REG_EIP);
    return err;
}

/* Goes on by single steps as long as EIP stays on this page, but not for more than so many. */
static void step_carefully(struct vcpu *v, uint32_t eip, uint32_t steps)
{
    v->careful_page = (eip & PAGE_MASK) + 1;
    v->careful_steps = steps;
}

/* pushf under our own TF: the flag must not show in what it pushed. */
static void clean_pushed_flags(struct vcpu *v)
{
    struct mapping m;
    uint32_t address = engine_word(v, UC_X86_REG_ESP) + 1;  /* TF is bit 8 */
    if (access_page(v, address, ACCESS_READ, &m))
        v->machine->ram[(size_t)m.frame * PAGE_BYTES + (address & ~PAGE_MASK)] &= (uint8_t)~(EFLAGS_TF >> 8);
}

static void *const *register_values(uint32_t values[9], void *pointers[9])
{
    for (int i = 0; i < 9; i++)
        pointers[i] = &values[i];
    return pointers;
}

/* A far transfer took effect, but code in any other segment than the flat one cannot be accounted for. */
static uint64_t undo_far_transfer(struct vcpu *v, uint32_t eip, uint32_t registers[9])
{
    void *pointers[9];
    uint32_t selector = v->segments[X86_CS];
    uint16_t flat = 0x1b;
    engine_write(v, UC_X86_REG_CS, &flat);
    engine.uc_reg_write_batch(v->uc, general_registers, register_values(registers, pointers), 9);
    v->segments[X86_CS] = flat;
    v->eip = eip;
    return exception(VECTOR_GP, selector & 0xfffc);
}

/* Reads 2 or 4 bytes, which may lie on two pages; false: see reported_fault(). */
static bool read_word(struct vcpu *v, uint32_t address, uint32_t size, uint32_t *word)
{
    *word = 0;
    for (uint32_t i = 0; i < size; i++) {
        struct mapping m;
        if (!access_page(v, address + i, ACCESS_READ, &m))
            return false;
        *word |= (uint32_t)*frame_bytes(v, m.frame, address + i) << 8 * i;
    }
    return true;
}

/*
 * iret, done here: the engine would enter virtual-8086 mode if the flags on the stack say so, which
 * user mode may not. Only to the flat code segment. Ref: Intel SDM vol. 2, IRET.
 */
static uint64_t interrupt_return(struct vcpu *v, const struct insn *insn, uint32_t old_flags)
{
    const uint32_t changeable = EFLAGS_USER & (insn->operand_bytes == 2 ? 0xffff : UINT32_MAX);
    uint32_t popped[3], esp = engine_word(v, UC_X86_REG_ESP);
    if (old_flags & EFLAGS_NT)
        return exception(VECTOR_TS, 0);  /* a task return, and there is no task to return to */
    for (uint32_t i = 0; i < 3; i++)
        if (!read_word(v, esp + i * insn->operand_bytes, insn->operand_bytes, &popped[i]))
            return reported_fault(v);
    if ((popped[1] & 0xffff) != 0x1b)
        return exception(VECTOR_GP, popped[1] & 0xfffc);
    uint32_t flags = (old_flags & ~changeable) | (popped[2] & changeable);
    esp += 3u * insn->operand_bytes;
    engine_write(v, UC_X86_REG_ESP, &esp);
    engine_write(v, UC_X86_REG_EFLAGS, &flags);
    v->eip = popped[0];
    return GO_ON;
}

static uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped);

static uint64_t complete_step(struct vcpu *v, const struct insn *insn, bool own_tf)
{
    v->instructions++;
    v->clock += insn_cost(v, insn);
    v->resuming = !(insn->flags & INSN_ENDS_BLOCK);
    set_limit(v);
    return own_tf && !(insn->flags & INSN_LOADS_SS) ? exception(VECTOR_DB, 0) : GO_ON;
}

/*
 * Executes the instruction at v->eip alone: under TF, which traps behind it. `shared`: it may write to the page it lies on.
 * GO_ON, or what the kernel must see.
 */
static uint64_t step(struct vcpu *v, bool shared)
{
    struct insn insn;
    uint32_t frames[2], registers[9];
    void *pointers[9];
    uint64_t outcome;
    if (UNLIKELY(v->machine->debug.active) && debug_stops_here(v, &outcome))
        return outcome;
    outcome = peek(v, &insn, frames);
    if (outcome != GO_ON)
        return outcome;
    if (insn.flags & INSN_REFUSED)
        return refuse_insn(v, &insn);
    uint32_t null = insn.flags & v->null_segments;
    if (null)
        return exception(null & 1 << X86_SS ? VECTOR_SS : VECTOR_GP, 0);

    uint32_t eip = v->eip;
    engine.uc_reg_read_batch(v->uc, general_registers, (void **)register_values(registers, pointers), 9);
    /* Where no trap follows, the engine ends a block: leave at the next one instead. */
    bool own_tf = registers[8] & EFLAGS_TF, by_block = insn.flags & (INSN_LOADS_SS | INSN_PAUSE);
    if (insn.flags & INSN_POPS_FLAGS && insn.flags & INSN_LOADS_SEGMENT) {
        outcome = interrupt_return(v, &insn, registers[8]);
        return outcome == GO_ON ? complete_step(v, &insn, own_tf) : outcome;
    }
    uint32_t flags = by_block ? registers[8] & ~EFLAGS_TF : registers[8] | EFLAGS_TF;
    engine_write(v, UC_X86_REG_EFLAGS, &flags);
    v->stepping = true;
    set_limit(v);
    v->step_blocks = by_block ? 2 : 0;
    if (shared)
        memcpy(v->shared_frames, frames, sizeof frames);
    uc_err err = run_engine(v);
    v->shared_frames[0] = v->shared_frames[1] = NO_FRAME;
    v->stepping = false;
    set_limit(v);
    if (shared) {
        forget_frame(v->machine, frames[0]);
        forget_frame(v->machine, frames[1]);
    }
    if ((v->machine->frame_flags[frames[0]] | v->machine->frame_flags[frames[1]]) & FRAME_HAZARDOUS) {
        v->free_flush = true;  /* it may now fetch there without asking */
        step_carefully(v, eip, UINT32_MAX);
    }

    bool completed = by_block ? v->event == EVENT_STEP : v->event == EVENT_INTERRUPT && v->vector == VECTOR_DB;
    if (!(completed && insn.flags & INSN_POPS_FLAGS)) {
        flags = (engine_word(v, UC_X86_REG_EFLAGS) & ~EFLAGS_TF) | (registers[8] & EFLAGS_TF);
        engine_write(v, UC_X86_REG_EFLAGS, &flags);
    }
    if (!completed)
        return report(v, err, &insn);
    if (insn.flags & INSN_PUSHES_FLAGS && !own_tf)
        clean_pushed_flags(v);
    if (insn.flags & INSN_LOADS_SEGMENT) {
        read_segments(v);
        if (v->segments[X86_CS] != 0x1b)
            return undo_far_transfer(v, eip, registers);
    }
    return complete_step(v, &insn, own_tf);
}

uint64_t step_one(struct vcpu *v)
{
    return step(v, false);
}

/* --- why the engine stopped -------------------------------------------------------------------- */

/* The software interrupt that just executed, if one did: EIP stands behind it. */
static bool software_interrupt(struct vcpu *v, const struct insn *stepped, struct insn *insn)
{
    uint8_t buffer[2 * PAGE_BYTES];
    if (stepped != NULL) {
        *insn = *stepped;
    } else {
        const struct block *block = v->block;
        uint32_t end = block == NULL ? 0 : block->size & ~BLOCK_IS_SLOW;
        if (block == NULL || v->eip != block->eip + end || !(block->flags & INSN_SOFTWARE_INT))
            return false;
        decode_insn(fetched_bytes(v, block->eip + block->last, end - block->last, buffer), end - block->last, insn);
    }
    return (insn->flags & INSN_SOFTWARE_INT) && insn->int_vector == v->vector;
}

/* The exception of the instruction at v->eip; or the page fault that fetching it takes, if it does. */
static uint64_t exception_once_fetched(struct vcpu *v, uint32_t vector, uint32_t error_code)
{
    struct insn insn;
    uint32_t frames[2];
    uint64_t outcome = may_be_unfetched(v, v->eip) ? peek(v, &insn, frames) : GO_ON;
    return outcome == GO_ON ? exception(vector, error_code) : outcome;
}

static uint64_t report_interrupt(struct vcpu *v, const struct insn *stepped)
{
    struct insn insn;
    uint32_t error_code = 0;
    if (!software_interrupt(v, stepped, &insn)) {
        if (v->vector == VECTOR_DB) {  /* TF: the instruction, a block of its own, is done; EIP may be anywhere */
            v->block = NULL;
            return exception(VECTOR_DB, 0);
        }
        settle(v, v->eip);
        engine_scrub(v, &error_code);
        bool has_code = (v->vector >= 10 && v->vector <= 14) || v->vector == 8 || v->vector == 17;
        if (v->vector == 8)
            note_anomaly(v, "double fault");
        return exception_once_fetched(v, v->vector, has_code ? error_code : 0);
    }
    bool allowed = v->vector == VECTOR_SYSTEM_CALL || v->vector == VECTOR_BP || v->vector == VECTOR_OF;
    if (!allowed)
        v->eip -= insn.length;
    settle(v, v->eip);
    if (!allowed)
        return exception(VECTOR_GP, v->vector << 3 | 2);
    if (stepped != NULL) {
        v->instructions++;
        v->clock += insn_cost(v, &insn);
    }
    return v->vector == VECTOR_SYSTEM_CALL ? OUTCOME_SYSTEM_CALL : exception(v->vector, 0);
}

static uint64_t report_fault(struct vcpu *v, const struct insn *stepped)
{
    if (v->fault.fetch) {
        v->block = NULL;  /* it ended; the next one was not found */
        if (((v->fault.address ^ v->eip) & PAGE_MASK) && stepped == NULL)
            return step(v, false);
        return page_fault(v->eip, false, true, v->fault.present);
    }
    settle(v, v->eip);
    uint32_t address = engine_fault_address(v);
    bool write = v->fault.write, present = v->fault.present;
    if (!write) {
        /* The engine reads first what the instruction will write; hardware asks for the write at once. */
        struct insn insn;
        uint32_t frames[2];
        write = peek(v, &insn, frames) == GO_ON && insn.flags & INSN_READ_WRITE;
    }
    return page_fault(address, write, false, present);
}

/* Code that writes to its own page may do so again. Each time, the engine translates what lies ahead
   anew, in milliseconds if that is long: then a few steps are cheaper. */
enum { LONG_BLOCK = 64 /* bytes */, STEPS_AFTER_OWN_WRITE = 16 };

/*
 * A store to an executed frame. The instruction is executed alone, whether or not it lies on that
 * frame: the block it is in may reach there, and would make the frame executed again every time.
 */
static uint64_t report_code_write(struct vcpu *v)
{
    struct insn insn;
    uint32_t frames[2];
    uint32_t ahead = v->block != NULL ? v->block->eip + (v->block->size & ~BLOCK_IS_SLOW) - v->eip : 0;
    settle(v, v->eip);
    forget_frame(v->machine, v->code_write_frame);
    uint64_t outcome = peek(v, &insn, frames);
    if (outcome != GO_ON)
        return outcome;
    bool own = frames[0] == v->code_write_frame || frames[1] == v->code_write_frame;
    if (own && (ahead > LONG_BLOCK || v->careful_steps > 0))
        step_carefully(v, v->eip, STEPS_AFTER_OWN_WRITE);
    return step(v, own);
}

static uint64_t report(struct vcpu *v, uc_err err, const struct insn *stepped)
{
    switch (v->event) {
    case EVENT_DEADLINE:
        return OUTCOME_DEADLINE;
    case EVENT_STOP:
        debug_suspend(v);
        return OUTCOME_HOST_STOP;
    case EVENT_STEP:
        v->block = NULL;  /* between two blocks */
        return step(v, false);
    case EVENT_DEBUG:
        v->block = NULL;
        return debug_step_block(v);
    case EVENT_INTERRUPT:
        return report_interrupt(v, stepped);
    case EVENT_PAGE_FAULT:
        if (err == UC_ERR_EXCEPTION)
            return report_fault(v, stepped);
        break;
    case EVENT_CODE_WRITE:
        if (err == UC_ERR_EXCEPTION)
            return report_code_write(v);
        break;
    case EVENT_WATCH:
        if (err == UC_ERR_EXCEPTION)
            return debug_watched_access(v);
        break;
    default:
        break;
    }
    settle(v, v->eip);
    if (err == UC_ERR_INSN_INVALID)
        return exception_once_fetched(v, VECTOR_UD, 0);
    /* Whatever the engine choked on, the thread gets it as a general protection fault. */
    note_anomaly(v, engine.uc_strerror(err));
    uint32_t unused;
    engine_scrub(v, &unused);
    return exception(VECTOR_GP, 0);
}

static uint64_t execute(struct vcpu *v)
{
    uint64_t outcome = GO_ON;
    if (UNLIKELY(v->block_end))
        outcome = debug_step_block(v);
    else if (v->frame->eflags & EFLAGS_TF)
        outcome = step(v, false);
    while (outcome == GO_ON) {
        if (interrupted || v->stop_requested) {
            debug_suspend(v);
            return OUTCOME_HOST_STOP;
        }
        if (!v->resuming && v->clock >= v->deadline)
            return OUTCOME_DEADLINE;
        if (v->careful_page == (v->eip & PAGE_MASK) + 1 && v->careful_steps > 0) {
            v->careful_steps--;
            outcome = step(v, false);
        } else {
            v->careful_page = v->careful_steps = 0;
            outcome = report(v, run_engine(v), NULL);
        }
    }
    return outcome;
}

static void drop_kernel_written(struct vcpu *v)
{
    while (v->dropped_count > 0)
        forget_frame(v->machine, v->dropped[--v->dropped_count]);
}

/* Runs v->frame until v->deadline_cycles. */
uint64_t vcpu_run(struct vcpu *v)
{
    struct thread_frame *frame = v->frame;
    if (v->uc == NULL && !engine_start(v))
        return OUTCOME_ENGINE_FAILURE;
    bool soon = v->deadline_cycles < INT64_MAX / MILLICYCLES;
    v->deadline = soon ? v->deadline_cycles * MILLICYCLES : INT64_MAX;
    v->resuming = debug_resume(v);
    if (v->clock >= v->deadline && !v->resuming)
        return OUTCOME_DEADLINE;
    int64_t start = v->clock;
    v->instructions = v->tlb_misses = v->fpu_switches = 0;
    v->careful_page = v->careful_steps = 0;
    running = v;
    debug_look_ahead(v);
    load(v);
    uint64_t outcome = execute(v);
    store(v);
    running = NULL;
    if (outcome == OUTCOME_HOST_STOP)
        v->stop_requested = false;
    frame->user_cycles += (uint64_t)(v->clock / MILLICYCLES - start / MILLICYCLES);
    if (UNLIKELY(v->dropped_count))
        drop_kernel_written(v);
    return outcome;
}

/* --- for vcpu.py ------------------------------------------------------------------------------- */

static const char *const function_names[] = {
#define X(name) #name,
    ENGINE_FUNCTIONS(X)
#undef X
    NULL,
};
static const char *const cost_names[] = {
#define X(upper, lower) #lower,
    COST_CLASSES(X)
#undef X
    NULL,
};

#define WORD(member) (offsetof(struct thread_frame, member) / 4)
/* For the test that kernel/frame.py has the same layout. */
const uint32_t vcpu_frame_layout[] = {
    WORD(general), WORD(eip), WORD(eflags), WORD(cs), WORD(ss), WORD(ds), WORD(es), WORD(fs), WORD(gs),
    WORD(utcb_base), WORD(cr3), WORD(gdt), WORD(fpu_core), WORD(fpu_valid), WORD(instructions),
    WORD(user_cycles), WORD(tlb_misses), WORD(fpu_switches), WORD(fpu), sizeof(struct thread_frame) / 4,
};

const char *const *vcpu_function_names(void)
{
    return function_names;
}

const char *const *vcpu_cost_names(void)
{
    return cost_names;
}

void vcpu_use_engine(const struct engine_functions *functions)
{
    engine = *functions;
}

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

struct machine *vcpu_new_machine(uint8_t *ram, uint64_t ram_bytes, const int64_t *costs,
                                 const struct cpuid_leaf *leaves, uint32_t leaf_count)
{
    struct machine *m = calloc(1, sizeof *m);
    if (m == NULL || leaf_count > MAX_CPUID_LEAVES)
        return NULL;
    m->ram = ram;
    m->frames = (uint32_t)(ram_bytes / PAGE_BYTES);
    memcpy(m->costs, costs, sizeof m->costs);
    memcpy(m->cpuid, leaves, leaf_count * sizeof *leaves);
    m->cpuid_leaves = leaf_count;
    m->frame_flags = reserve(m->frames);
    m->frame_writer = reserve(m->frames * sizeof *m->frame_writer);
    m->frame_token = reserve(m->frames * sizeof *m->frame_token);
    m->blocks = reserve(BLOCK_CACHE_SIZE * sizeof *m->blocks);
    m->frame_dirty = reserve(m->frames);
    m->debug.clock = INT64_MAX;
    return m->frame_flags && m->frame_writer && m->frame_token && m->blocks && m->frame_dirty ? m : NULL;
}

/* The core's number is the count of vCPUs made before. */
struct vcpu *vcpu_new(struct machine *m)
{
    if (m->vcpu_count == MAX_VCPUS)
        return NULL;
    struct vcpu *v = reserve(sizeof *v);  /* mostly never touched */
    if (v == NULL)
        return NULL;
    v->machine = m;
    v->core = m->vcpu_count;
    v->blocks = m->blocks;
    v->generation = v->global_generation = 1;
    v->cr3 = UINT32_MAX;
    v->look_from = INT64_MAX;
    v->shared_frames[0] = v->shared_frames[1] = NO_FRAME;
    v->private_page = reserve(PAGE_BYTES);
    v->executed = reserve(m->frames / 8 + 1);
    for (int side = 0; side < 2; side++) {
        v->slots[side] = reserve(PAGES * sizeof *v->slots[side]);
        v->super_slots[side] = reserve(1024 * sizeof *v->super_slots[side]);
        v->stamped[side] = calloc(1024, 1);
        if (!v->slots[side] || !v->super_slots[side] || !v->stamped[side])
            return NULL;
    }
    if (!v->private_page || !v->executed)
        return NULL;
    m->vcpus[m->vcpu_count++] = v;
    return v;
}

void vcpu_delete_machine(struct machine *m)
{
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = m->vcpus[i];
        if (v->uc != NULL) {
            engine.uc_free(v->scratch);
            engine.uc_close(v->uc);
        }
        munmap(v->private_page, PAGE_BYTES);
        munmap(v->executed, m->frames / 8 + 1);
        for (int side = 0; side < 2; side++) {
            munmap(v->slots[side], PAGES * sizeof *v->slots[side]);
            munmap(v->super_slots[side], 1024 * sizeof *v->super_slots[side]);
            free(v->stamped[side]);
        }
        free(v->dropped);
        munmap(v, sizeof *v);
    }
    munmap(m->frame_flags, m->frames);
    munmap(m->frame_dirty, m->frames);
    free(m->debug.breakpoints);
    munmap(m->frame_writer, m->frames * sizeof *m->frame_writer);
    munmap(m->frame_token, m->frames * sizeof *m->frame_token);
    munmap(m->blocks, BLOCK_CACHE_SIZE * sizeof *m->blocks);
    free(m);
}

/* clock, frame, deadline_cycles */
int64_t *vcpu_shared_words(struct vcpu *v)
{
    return &v->clock;
}

uint64_t vcpu_anomalies(const struct vcpu *v)
{
    return v->anomalies;
}

const char *vcpu_error(const struct vcpu *v)
{
    return v->error;
}

/* Makes the engine now rather than at the first run; false: see vcpu_error(). */
bool vcpu_prepare(struct vcpu *v)
{
    return v->uc != NULL || engine_start(v);
}

void vcpu_flush_tlb(struct vcpu *v)
{
    tlb_flush(v, false);
}

void vcpu_invalidate_page(struct vcpu *v, uint32_t address)
{
    tlb_invalidate(v, address);
}

void vcpu_forget_code(struct machine *m, uint32_t first, uint32_t count)
{
    for (uint32_t frame = first; frame - first < count && frame < m->frames; frame++)
        forget_frame(m, frame);
}

void vcpu_set_kernel_written(struct machine *m, uint32_t frame, bool flag)
{
    if (frame >= m->frames)
        return;
    forget_frame(m, frame);
    if (flag)
        m->frame_flags[frame] |= FRAME_KERNEL_WRITTEN;
    else
        m->frame_flags[frame] &= (uint8_t)~FRAME_KERNEL_WRITTEN;
}
