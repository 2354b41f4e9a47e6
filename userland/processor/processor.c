/*
 * Runs code on the host's own processor, for `l4lab fuzz cpu`: a static executable for Linux on x86, no program for our
 * kernel. Reads batches of cases from its standard input and answers each batch on its standard output; what both are
 * made of is below, and in tools/check/fuzz/cpu/machines.py.
 *
 * Every case ends with an exception, at the latest by the `int 0x30` behind it, which Linux delivers as a signal. Its
 * handler has all registers, and goes on with the next case without returning.
 */
#include <stddef.h>
#include <stdint.h>

enum { CODE = 0x00400000, DATA = 0x00500000, PAGE_BYTES = 4096, CODE_PAGES = 4, DATA_PAGES = 2, MAX_CASES = 256 };
enum { READ = 1, WRITE = 2, EXECUTE = 4 };
enum { SYS_exit = 1, SYS_read = 3, SYS_write = 4, SYS_mprotect = 125, SYS_rt_sigaction = 174, SYS_sigaltstack = 186,
       SYS_mmap2 = 192, SYS_set_thread_area = 243 };
enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11 };

/* General registers in the order of their numbers. */
struct start {
    uint32_t general[8], eip, eflags, fs, gs, reserved[4];
    uint8_t fxsave[512];
    uint8_t memory[DATA_PAGES * PAGE_BYTES];
};

struct end {
    uint32_t general[8], eip, eflags, vector, error_code, address, reserved[3];
    uint8_t fxsave[512];
    uint8_t memory[DATA_PAGES * PAGE_BYTES];
};

struct batch {
    uint32_t count, reserved[3];
    uint8_t code[CODE_PAGES * PAGE_BYTES];
    struct start cases[MAX_CASES];
};

/* What Linux has on the stack of a signal handler (arch/x86/include/uapi/asm/sigcontext.h). */
struct fpstate {
    uint8_t legacy[112];
    uint8_t fxsave[512];
};

struct sigcontext {
    uint32_t gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error_code, eip, cs, eflags, esp_again, ss;
    const struct fpstate *fpstate;
    uint32_t oldmask, address;
};

struct ucontext {
    uint32_t flags, link, stack[3];
    struct sigcontext context;
};

static struct batch batch __attribute__((aligned(16)));
static struct end ends[MAX_CASES] __attribute__((aligned(16)));
static uint8_t signal_stack[1 << 16] __attribute__((aligned(16)));
static uint32_t case_number;

/* Seen by the assembler code below. */
uint32_t saved_esp, start_eip;

static int32_t system_call(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e)
{
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

static __attribute__((noreturn)) void stop(uint32_t status)
{
    for (;;)
        system_call(SYS_exit, status, 0, 0, 0, 0);
}

/* The compiler calls them for structs. */
void *memcpy(void *to, const void *from, size_t size)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return result;
}

void *memset(void *to, int value, size_t size)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return result;
}

/* run(start): enters the case. resume(): comes back from there, out of the signal handler. */
void run(const struct start *start);
__attribute__((noreturn)) void resume(void);

__asm__(
    ".text\n"
    "run:\n"
    "    pushl %ebp; pushl %ebx; pushl %esi; pushl %edi\n"
    "    movl 20(%esp), %ebp\n"
    "    movl %esp, saved_esp\n"
    "    .byte 0x0f, 0xae, 0x4d, 0x40\n"  /* fxrstor 64(%ebp) */
    "    movl 40(%ebp), %eax; movl %eax, %fs\n"
    "    movl 44(%ebp), %eax; movl %eax, %gs\n"
    "    movl 32(%ebp), %eax\n"
    "    movl %eax, start_eip\n"
    "    pushl 36(%ebp)\n"
    "    popfl\n"
    "    movl 0(%ebp), %eax; movl 4(%ebp), %ecx; movl 8(%ebp), %edx; movl 12(%ebp), %ebx\n"
    "    movl 16(%ebp), %esp; movl 24(%ebp), %esi; movl 28(%ebp), %edi; movl 20(%ebp), %ebp\n"
    "    jmp *start_eip\n"
    "resume:\n"
    "    movl saved_esp, %esp\n"
    "    popl %edi; popl %esi; popl %ebx; popl %ebp\n"
    "    ret\n");

static void on_signal(int number, void *information, const struct ucontext *u)
{
    (void)number, (void)information;
    const struct sigcontext *c = &u->context;
    struct end *end = &ends[case_number];
    const uint32_t general[8] = {c->eax, c->ecx, c->edx, c->ebx, c->esp, c->ebp, c->esi, c->edi};
    memcpy(end->general, general, sizeof general);
    end->eip = c->eip;
    end->eflags = c->eflags;
    end->vector = c->vector;
    end->error_code = c->error_code;
    end->address = c->address;
    if (c->fpstate == NULL)
        stop(3);
    memcpy(end->fxsave, c->fpstate->fxsave, sizeof end->fxsave);
    memcpy(end->memory, (const void *)DATA, sizeof end->memory);
    resume();
}

static void catch_signals(void)
{
    static const uint8_t numbers[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};
    static const uint32_t flags = 0x4 | 0x08000000 | 0x40000000;  /* SA_SIGINFO, SA_ONSTACK, SA_NODEFER */
    const uint32_t stack[3] = {(uint32_t)signal_stack, 0, sizeof signal_stack};
    const uint32_t action[5] = {(uint32_t)on_signal, flags, 0, 0, 0};
    system_call(SYS_sigaltstack, (uint32_t)stack, 0, 0, 0, 0);
    for (uint32_t i = 0; i < sizeof numbers; i++)
        system_call(SYS_rt_sigaction, numbers[i], (uint32_t)action, 0, 8, 0);
}

static void map(uint32_t address, uint32_t bytes, uint32_t protection)
{
    enum { PRIVATE_FIXED_ANONYMOUS = 0x32 };
    int32_t result;
    const int32_t no_file = -1;
    __asm__ volatile("pushl %%ebp; xorl %%ebp, %%ebp; int $0x80; popl %%ebp"
                     : "=a"(result)
                     : "a"(SYS_mmap2), "b"(address), "c"(bytes), "d"(protection), "S"(PRIVATE_FIXED_ANONYMOUS), "D"(no_file)
                     : "memory");
    if ((uint32_t)result != address)
        stop(2);
    for (uint32_t offset = 0; offset < bytes; offset += PAGE_BYTES)  /* present from now on */
        (void)*(volatile const uint8_t *)(address + offset);
}

/* All of it, or false at the end of the input. */
static int transfer(uint32_t call, uint32_t file, void *bytes, uint32_t size)
{
    while (size > 0) {
        int32_t done = system_call(call, file, (uint32_t)bytes, size, 0, 0);
        if (done <= 0)
            return 0;
        bytes = (uint8_t *)bytes + done;
        size -= (uint32_t)done;
    }
    return 1;
}

static void run_batch(void)
{
    system_call(SYS_mprotect, CODE, sizeof batch.code, READ | WRITE, 0, 0);
    memcpy((void *)CODE, batch.code, sizeof batch.code);
    system_call(SYS_mprotect, CODE, sizeof batch.code, READ | EXECUTE, 0, 0);
    for (case_number = 0; case_number < batch.count; case_number++) {
        memcpy((void *)DATA, batch.cases[case_number].memory, sizeof batch.cases[0].memory);
        run(&batch.cases[case_number]);
    }
}

/* Segments with limits, of base 0: up to the end of the first page of data, from there on, and all that cannot be written.
 * Returns the first's selector, which those of the others follow; 0: this Linux has none. */
static uint32_t make_segments(void)
{
    enum { BIG = 1, EXPANDS_DOWN = 2, READ_ONLY = 8, PAGES = 16 };
    static const uint32_t limits[][2] = {
        {DATA / PAGE_BYTES, BIG | PAGES}, {DATA / PAGE_BYTES, BIG | EXPANDS_DOWN | PAGES}, {0xfffff, BIG | READ_ONLY | PAGES},
    };
    uint32_t first = 0;
    for (uint32_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        volatile uint32_t description[4] = {UINT32_MAX, 0, limits[i][0], limits[i][1]};  /* of any number */
        if (system_call(SYS_set_thread_area, (uint32_t)description, 0, 0, 0, 0) != 0)
            return 0;
        uint32_t selector = description[0] << 3 | 3;
        first = i == 0 ? selector : first;
        if (selector != first + 8 * i)
            return 0;
    }
    return first;
}

/* The first answer: the selectors of this Linux. */
static void introduce(void)
{
    uint32_t selectors[3] = {0, 0, make_segments()};
    __asm__ volatile("movl %%ds, %0; movl %%cs, %1" : "=r"(selectors[0]), "=r"(selectors[1]));
    transfer(SYS_write, 1, selectors, sizeof selectors);
}

__attribute__((section(".text.start"), used, noreturn)) void serve(void)
{
    map(CODE, CODE_PAGES * PAGE_BYTES, READ | EXECUTE);
    map(DATA, DATA_PAGES * PAGE_BYTES, READ | WRITE);
    map(DATA + DATA_PAGES * PAGE_BYTES, PAGE_BYTES, READ);
    catch_signals();
    introduce();
    while (transfer(SYS_read, 0, &batch, offsetof(struct batch, cases))) {
        if (batch.count > MAX_CASES || !transfer(SYS_read, 0, batch.cases, batch.count * sizeof batch.cases[0]))
            break;
        run_batch();
        transfer(SYS_write, 1, ends, batch.count * sizeof ends[0]);
    }
    stop(0);
}

__asm__(".section .text.start, \"ax\"\n.globl _start\n_start: andl $-16, %esp\n    call serve\n");
