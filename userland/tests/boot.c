/* What a program finds when it starts: kernel info page, capabilities, registers, segments (ABI 1, 2, 3, 10, 13). */
#include "conf.h"

#include <l4/bootinfo.h>
#include <l4/string.h>

extern char l4_image_start[], l4_image_end[];

TEST(BOOT0001, "the kernel info page has its magic number, a version of this family and absolute system calls",
     "kip.page:OK")
{
	const l4_kip_t *kip = l4_kip();

	CHECK_EQ(kip->magic, L4_KIP_MAGIC);
	CHECK_EQ(kip->version >> 24, L4_KIP_VERSION >> 24);
	CHECK_EQ(kip->system_calls, L4_KIP_SYS_CALLS_ABSOLUTE);
	CHECK_EQ(kip->granularity_us, L4_TICK_US);
	CHECK(kip->frequency_khz > 0);
	CHECK(kip->sigma0_ip != 0);
	CHECK(kip->root_ip >= (l4_word_t)l4_image_start && kip->root_ip < (l4_word_t)l4_image_end);
}

TEST(BOOT0002, "the version string is followed by the features of the kernel", "kip.features:OK")
{
	CHECK(strlen(l4_kip_version(l4_kip())) > 0);
	CHECK(l4_kip_has_feature(l4_kip(), "mapdb"));
	CHECK(l4_kip_has_feature(l4_kip(), "segments"));
	CHECK(l4_kip_has_feature(l4_kip(), "pf_tramp"));
	CHECK(l4_kip_has_feature(l4_kip(), "kip_syscalls"));
	CHECK(!l4_kip_has_feature(l4_kip(), "no such feature"));
}

static bool described(l4_word_t first, l4_word_t last, unsigned type, bool is_virtual, l4_word_t subtype)
{
	for (unsigned i = 0; i < l4_kip()->mem_descs_count; i++) {
		l4_mem_desc_t desc = l4_kip_mem_descs(l4_kip())[i];
		if (l4_mem_type(desc) == type && l4_mem_is_virtual(desc) == is_virtual && l4_mem_start(desc) <= first &&
		    l4_mem_last(desc) >= last && (l4_mem_subtype(desc) & subtype) == subtype)
			return true;
	}
	return false;
}

TEST(BOOT0003, "memory descriptors tell of RAM, the root task's segments with their rights, and the user's address space",
     "kip.memory_descriptors:OK")
{
	l4_word_t text = (l4_word_t)l4_image_start, data = (l4_word_t)l4_image_end - 1;

	CHECK(described(text, text, L4_MEM_CONVENTIONAL, false, 0));
	CHECK(described(text, text, L4_MEM_BOOTLOADER, false, L4_RIGHT_R | L4_RIGHT_X));
	CHECK(described(data - L4_PAGE_BYTES, data - L4_PAGE_BYTES, L4_MEM_BOOTLOADER, false, L4_RIGHT_R | L4_RIGHT_W));
	CHECK(described(0, L4_USER_LIMIT - 1, L4_MEM_CONVENTIONAL, true, 0));
}

TEST(BOOT0004, "the clock in the page moves by the time that a thread sleeps, and its code reads it", "kip.clock:OK")
{
	uint64_t before = conf_now_us();

	l4_sleep_us(5000);
	uint64_t after = conf_now_us();
	CHECK(after - before >= 5000);
	CHECK(after - before < 60000);
	CHECK(l4_kip()->clock_us - after < 2 * CONF_TICK_US);
}

TEST(BOOT0005, "the page's second function reads the clock in nanoseconds", "kip.clock_ns:OK")
{
	typedef uint64_t clock_t(void);
	clock_t *nanoseconds = (clock_t *)((uintptr_t)l4_kip() + L4_KIP_OFF_CLOCK_NS_CODE);
	uint64_t before = conf_now_us(), ns = nanoseconds(), after = conf_now_us();

	CHECK(ns / 1000 >= before);
	CHECK(ns / 1000 <= after);
}

TEST(BOOT0006, "the root task starts with its task, factory, thread, pager, log, interrupt controller and scheduler",
     "boot.capabilities:OK")
{
	for (l4_word_t index = L4_BOOT_CAP_TASK; index <= L4_BOOT_CAP_SCHEDULER; index++)
		CHECK_EQ(l4_task_cap_valid(l4_own_task(), l4_cap(index)), 1);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), l4_cap(0)), 0);
	CHECK_EQ(l4_task_cap_valid(l4_own_task(), l4_cap(L4_BOOT_CAP_FIRST_FREE)), 0);
}

TEST(BOOT0007, "FS leads to the UTCB, whose own address stands in it", "utcb.address:OK")
{
	l4_utcb_t *utcb = l4_utcb();
	uint16_t fs, gs;

	__asm__("mov %%fs, %0\n\tmov %%gs, %1" : "=r"(fs), "=r"(gs));
	CHECK_EQ(fs, 0x43);
	CHECK_EQ(gs, 0x43);
	CHECK_EQ((l4_word_t)utcb, L4_BOOT_UTCB + L4_UTCB_BYTES);
	CHECK_EQ(utcb->address, (l4_word_t)utcb);
}

TEST(BOOT0008, "the module list names sigma0 and the root task with their command lines", "boot.modules:OK")
{
	const l4_modules_t *modules = l4_modules(l4_kip());
	const l4_module_t *root = l4_module_of_type(modules, L4_MODULE_TYPE_ROOT);
	const l4_module_t *sigma0 = l4_module_of_type(modules, L4_MODULE_TYPE_SIGMA0);

	CHECK(modules->count >= 2);
	CHECK(sigma0 != NULL && strlen(l4_module_command_line(sigma0)) > 0);
	CHECK(root != NULL && strlen(l4_module_command_line(root)) > 0);
}

TEST(BOOT0009, "the copy of the system call in the kernel info page works like the one in its own page",
     "kip.system_call:OK")
{
	l4_word_t tag = 0, selector = L4_CAP_INVALID | L4_OP_RECV, timeouts = l4_no_wait().raw, label = 0;
	l4_word_t stub = (l4_word_t)l4_kip() + L4_KIP_OFF_STUB;

	/* The compiler may not keep the address in EBX or EBP. */
	__asm__ volatile("pushl %%ebx\n\tpushl %%ebp\n\tcall *%%edi\n\tpopl %%ebp\n\tpopl %%ebx"
			 : "+a"(tag), "+d"(selector), "+c"(timeouts), "+S"(label), "+D"(stub)
			 :
			 : "cc", "memory");
	CHECK_EQ(tag, L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_RECEIVE_TIMEOUT);
}

/* --- a new thread's registers --------------------------------------------------------------------------- */

/* entry.S: a thread that stores its registers here. */
extern volatile struct {
	l4_word_t eax, ebx, ecx, edx, esi, edi, ebp, esp, eflags, cs, ds, es, ss, fs, gs;
} conf_start_registers;
void conf_record_registers(void *argument);

TEST(BOOT0010, "a new thread starts with cleared registers, flat segments and the UTCB segment in FS and GS",
     "thread.ex_regs:OK")
{
	conf_start_registers.eax = conf_start_registers.ebp = conf_start_registers.cs = 1;
	conf_thread(conf_record_registers, NULL, CONF_HIGHER);
	conf_settle();
	CHECK_EQ(conf_start_registers.eax | conf_start_registers.ebx | conf_start_registers.ecx | conf_start_registers.edx, 0);
	CHECK_EQ(conf_start_registers.esi | conf_start_registers.edi | conf_start_registers.ebp, 0);
	CHECK_EQ(conf_start_registers.eflags & 0x3ed7, 0x202);
	CHECK_EQ(conf_start_registers.cs & 0xffff, 0x1b);
	CHECK_EQ(conf_start_registers.ds & 0xffff, 0x23);
	CHECK_EQ(conf_start_registers.es & 0xffff, 0x23);
	CHECK_EQ(conf_start_registers.ss & 0xffff, 0x23);
	CHECK_EQ(conf_start_registers.fs & 0xffff, 0x43);
	CHECK_EQ(conf_start_registers.gs & 0xffff, 0x43);
}

TEST(BOOT0011, "user code may read the time stamp counter and identify the processor", "user.rdtsc:OK user.cpuid:OK")
{
	l4_word_t low, high, eax = 0, ebx, ecx, edx;
	uint64_t first, second;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	first = (uint64_t)high << 32 | low;
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	second = (uint64_t)high << 32 | low;
	CHECK(second > first);
	CHECK(eax >= 1);
	CHECK(ebx != 0 && ecx != 0 && edx != 0);
}
