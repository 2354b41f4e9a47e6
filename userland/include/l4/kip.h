/* The kernel info page (ABI 10). */
#ifndef L4_KIP_H
#define L4_KIP_H

#include <l4/types.h>

/** A range of memory and what it is for; see l4_mem_* below. */
typedef struct {
	l4_word_t low, high;
} l4_mem_desc_t;

typedef struct {
	l4_word_t magic, version;
	uint8_t version_string; /* offset / 16 */
	uint8_t reserved_9[3];
	uint8_t system_calls; /* L4_KIP_SYS_CALLS_ABSOLUTE */
	uint8_t node;
	uint8_t reserved_e[2];
	uint64_t sigma0_ip, root_ip;
	volatile uint64_t clock_us; /* since boot; read it with l4_kip_clock_us */
	uint64_t frequency_khz;
	uint64_t acpi_rsdp, device_tree;
	uint64_t user_ptr; /* physical address of l4_modules_t */
	uint64_t reserved_48;
	uint32_t granularity_us;
	uint32_t mem_descs_offset, mem_descs_count;
	uint32_t reserved_5c[5];
	char platform[16];
	uint32_t is_mp;
	uint32_t reserved_84[3];
	l4_mem_desc_t mem_descs[L4_KIP_MEM_DESC_SLOTS];
} l4_kip_t;

_Static_assert(offsetof(l4_kip_t, version_string) == L4_KIP_OFF_VERSION_STRING, "version string");
_Static_assert(offsetof(l4_kip_t, system_calls) == L4_KIP_OFF_SYS_CALLS, "kip_sys_calls");
_Static_assert(offsetof(l4_kip_t, sigma0_ip) == L4_KIP_OFF_SIGMA0_IP, "sigma0 entry");
_Static_assert(offsetof(l4_kip_t, root_ip) == L4_KIP_OFF_ROOT_IP, "root entry");
_Static_assert(offsetof(l4_kip_t, clock_us) == L4_KIP_OFF_CLOCK, "clock");
_Static_assert(offsetof(l4_kip_t, frequency_khz) == L4_KIP_OFF_FREQUENCY_KHZ, "frequency");
_Static_assert(offsetof(l4_kip_t, user_ptr) == L4_KIP_OFF_USER_PTR, "user pointer");
_Static_assert(offsetof(l4_kip_t, granularity_us) == L4_KIP_OFF_GRANULARITY_US, "granularity");
_Static_assert(offsetof(l4_kip_t, mem_descs_offset) == L4_KIP_OFF_MEM_DESC_OFFSET, "descriptor offset");
_Static_assert(offsetof(l4_kip_t, mem_descs_count) == L4_KIP_OFF_MEM_DESC_COUNT, "descriptor count");
_Static_assert(offsetof(l4_kip_t, platform) == L4_KIP_OFF_PLATFORM, "platform");
_Static_assert(offsetof(l4_kip_t, is_mp) == L4_KIP_OFF_IS_MP, "is_mp");
_Static_assert(offsetof(l4_kip_t, mem_descs) == L4_KIP_OFF_MEM_DESCS, "descriptors");
_Static_assert(sizeof(l4_kip_t) == L4_KIP_OFF_STRINGS, "version string follows the descriptors");

/** Microseconds since boot, read by the kernel's own code in the page. */
static inline uint64_t l4_kip_clock_us(const l4_kip_t *kip)
{
	typedef uint64_t clock_t(void);

	return ((clock_t *)((uintptr_t)kip + L4_KIP_OFF_CLOCK_US_CODE))();
}

static inline const char *l4_kip_version(const l4_kip_t *kip)
{
	return (const char *)kip + kip->version_string * 16;
}

/** Whether the kernel names `feature` in the strings behind its version. */
bool l4_kip_has_feature(const l4_kip_t *kip, const char *feature);

/** The memory descriptors; later ones override earlier ones. */
static inline const l4_mem_desc_t *l4_kip_mem_descs(const l4_kip_t *kip)
{
	return (const l4_mem_desc_t *)((uintptr_t)kip + kip->mem_descs_offset);
}

static inline unsigned l4_mem_type(l4_mem_desc_t desc)
{
	return desc.low & 0xf;
}

static inline unsigned l4_mem_subtype(l4_mem_desc_t desc)
{
	return desc.low >> L4_MEM_SUBTYPE_SHIFT & 0xf;
}

static inline bool l4_mem_is_virtual(l4_mem_desc_t desc)
{
	return desc.low & L4_MEM_VIRTUAL;
}

/** First byte. */
static inline l4_word_t l4_mem_start(l4_mem_desc_t desc)
{
	return desc.low & ~0x3ffu;
}

/** Last byte. */
static inline l4_word_t l4_mem_last(l4_mem_desc_t desc)
{
	return desc.high | 0x3ffu;
}

#endif
