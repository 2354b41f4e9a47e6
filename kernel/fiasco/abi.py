"""Fiasco.OC on ia32: every number that user code can see.

Ref: Fiasco (L4Re microkernel) ia32 user ABI fact sheet, kernkonzept/fiasco 245fce53 and
kernkonzept/l4re-core b6f7495b, June 2026. Section numbers in comments are the sheet's.
`userland/include/l4/abi.h` is generated from this module (`l4lab.tools.native.abigen`).
Mechanisms (rendezvous, mapping tree, capability table, ready queues) do not import it.
"""

from __future__ import annotations

from typing import Final

# --- 1, 2: kernel entry and address space ----------------------------------------------------

SYSTEM_CALL_VECTOR: Final = 0x30
SYSTEM_CALL_PAGE: Final = 0xEACFF000  # callable in every address space
SYSTEM_CALL_STUB: Final = bytes((0xCD, 0x30, 0xC3))  # int 0x30; ret
USER_LIMIT: Final = 0xC0000000  # first byte that user code does not own

# --- 3: UTCB ---------------------------------------------------------------------------------

UTCB_BYTES: Final = 0x200
UTCB_MR: Final = 0x000
UTCB_MR_WORDS: Final = 63
UTCB_ADDRESS: Final = 0x0FC  # own user address; target of the FS base
UTCB_BDR: Final = 0x100
UTCB_BR: Final = 0x104
UTCB_BR_WORDS: Final = 58
UTCB_ERROR: Final = 0x1EC
UTCB_FREE_MARKER: Final = 0x1F0
UTCB_USER: Final = 0x1F4
UTCB_USER_WORDS: Final = 3
BDR_MEMORY_SHIFT: Final = 0
BDR_IO_SHIFT: Final = 5
BDR_OBJECT_SHIFT: Final = 10
BDR_INDEX_MASK: Final = 0x1F
BDR_ACCEPT_FPU: Final = 1 << 24
BOOT_UTCB: Final = 0xBFF00000  # first UTCB of sigma0 and of the root task

# --- 4: message tag, timeouts, errors --------------------------------------------------------

TAG_WORDS_MASK: Final = 0x3F
TAG_ITEMS_SHIFT: Final = 6
TAG_ITEMS_MASK: Final = 0x3F
TAG_FPU: Final = 0x1000
TAG_SCHEDULE: Final = 0x2000
TAG_PROPAGATE: Final = 0x4000
TAG_ERROR: Final = 0x8000
TAG_LABEL_SHIFT: Final = 16

TIMEOUT_NEVER: Final = 0
TIMEOUT_ZERO: Final = 0x0400
TIMEOUT_ABSOLUTE: Final = 0x8000
TIMEOUT_MANTISSA_MASK: Final = 0x3FF
TIMEOUT_EXPONENT_SHIFT: Final = 10
TIMEOUT_EXPONENT_MASK: Final = 0x1F
TIMEOUT_BR_MASK: Final = 0x3F
TIMEOUT_BR_MAX: Final = 56  # the kernel clamps the index of an absolute time

# IPC error codes in UTCB_ERROR. Bit 0: the receive phase failed.
IPC_SEND_TIMEOUT: Final = 2
IPC_RECEIVE_TIMEOUT: Final = 3
IPC_NOT_EXISTENT: Final = 4
IPC_RECEIVE_NOT_EXISTENT: Final = 5
IPC_SEND_CANCELLED: Final = 6
IPC_RECEIVE_CANCELLED: Final = 7
IPC_SEND_OVERFLOW: Final = 8
IPC_RECEIVE_OVERFLOW: Final = 9
IPC_SEND_ABORTED: Final = 0xE
IPC_RECEIVE_ABORTED: Final = 0xF
IPC_SEND_MAP_FAILED: Final = 0x10
IPC_RECEIVE_MAP_FAILED: Final = 0x11
IPC_NO_REPLY_SLOT: Final = 0x13
IPC_ERROR_BASE: Final = 2000  # user libraries report -(2000 + code)

# errno values; kernel objects answer with label = -value.
EPERM: Final = 1
ENOENT: Final = 2
ENOMEM: Final = 12
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
ENODEV: Final = 19
EINVAL: Final = 22
ERANGE: Final = 34
ENOSYS: Final = 38
EBADPROTO: Final = 39
EADDRNOTAVAIL: Final = 99
ENOREPLY: Final = 1000
EMSGTOOSHORT: Final = 1001
EMSGTOOLONG: Final = 1002
EMSGMISSARG: Final = 1003

# Protocol labels (signed).
PROTO_NONE: Final = 0
PROTO_ALLOW_SYSCALL: Final = 1
PROTO_IRQ: Final = -1
PROTO_PAGE_FAULT: Final = -2
PROTO_EXCEPTION: Final = -5
PROTO_SIGMA0: Final = -6
PROTO_IO_PAGE_FAULT: Final = -8
PROTO_KOBJECT: Final = -10
PROTO_TASK: Final = -11
PROTO_THREAD: Final = -12
PROTO_LOG: Final = -13
PROTO_SCHEDULER: Final = -14
PROTO_FACTORY: Final = -15
PROTO_VM: Final = -16
PROTO_DMA_SPACE: Final = -17
PROTO_IRQ_SENDER: Final = -18
PROTO_SEMAPHORE: Final = -20
PROTO_META: Final = -21
PROTO_IOMMU: Final = -22
PROTO_DEBUGGER: Final = -23
PROTO_VCPU_CONTEXT: Final = -25

# --- 5: capability selector ------------------------------------------------------------------

CAP_SHIFT: Final = 12
CAP_INDEX_LIMIT: Final = 1 << 20
CAP_INVALID_BIT: Final = 1 << 11
CAP_EXPLICIT_REPLY_BIT: Final = 1 << 10
CAP_INVALID: Final = 0xFFFFF800
OP_SEND: Final = 1
OP_RECV: Final = 2
OP_OPEN_WAIT: Final = 4
OP_REPLY: Final = 8
OP_CALL: Final = 3
OP_WAIT: Final = 6
OP_SEND_AND_WAIT: Final = 7
OP_REPLY_AND_RECV: Final = 0xB
OP_REPLY_AND_WAIT: Final = 0xF

# --- 6: items, flexpages, buffers ------------------------------------------------------------

ITEM_COMPOUND: Final = 1 << 0
ITEM_GRANT: Final = 1 << 1
ITEM_MAP: Final = 1 << 3
ITEM_CACHE_SET: Final = 1 << 4
ITEM_CACHE_MASK: Final = 0x70
ITEM_CACHE_UNCACHED: Final = 0x10
ITEM_CACHE_CACHED: Final = 0x30
ITEM_CACHE_BUFFERED: Final = 0x50
ITEM_WEAK: Final = 0x10
ITEM_OBJECT_RIGHTS_MASK: Final = 0xE0
ITEM_SEND_BASE_MASK: Final = 0xFFFFF000
ITEM_CONTROL_KEPT: Final = ~0x0FF6 & 0xFFFFFFFF  # control bits that reach the receiver
ITEM_FPAGE_KEPT: Final = 0x0FF0  # flexpage bits that reach the receiver
ITEM_KIND_MAPPED: Final = 0
ITEM_KIND_NOTHING: Final = 2
ITEM_KIND_LOCAL_ID: Final = 4
ITEM_KIND_FLEXPAGE: Final = 6

FPAGE_RIGHTS_MASK: Final = 0xF
FPAGE_TYPE_SHIFT: Final = 4
FPAGE_TYPE_MASK: Final = 3
FPAGE_TYPE_SPECIAL: Final = 0
FPAGE_TYPE_MEMORY: Final = 1
FPAGE_TYPE_IO: Final = 2
FPAGE_TYPE_OBJECT: Final = 3
FPAGE_ORDER_SHIFT: Final = 6
FPAGE_ORDER_MASK: Final = 0x3F
FPAGE_ADDRESS_SHIFT: Final = 12
FPAGE_ALL: Final = 0xFC0
FPAGE_ALL_ORDER: Final = 63
FPAGE_MIN_MEMORY_ORDER: Final = 12

RIGHT_X: Final = 1
RIGHT_W: Final = 2
RIGHT_R: Final = 4
MEMORY_RIGHTS: Final = 7
PORT_RIGHTS: Final = 14  # any of them passes a port on
OBJECT_RIGHT_W: Final = 1
OBJECT_RIGHT_S: Final = 2
OBJECT_RIGHT_R: Final = 4
OBJECT_RIGHT_D: Final = 8
OBJECT_RIGHTS: Final = 0xF
OBJECT_RIGHT_SERVER: Final = 0x20  # IPC gate: bind, get info, server view
LABEL_RIGHTS_MASK: Final = 3

BUFFER_ITEM: Final = 1 << 3
BUFFER_LOCAL_ID: Final = 1 << 2
BUFFER_SMALL: Final = 1 << 1
BUFFER_FORWARD: Final = 1 << 0

# --- 7: unmap --------------------------------------------------------------------------------

UNMAP_SELF: Final = 1 << 31
UNMAP_DELETE: Final = 1 << 30
ACCESS_REFERENCED: Final = 1
ACCESS_DIRTY: Final = 2

# --- 8, 9: faults and exceptions -------------------------------------------------------------

FAULT_PRESENT: Final = 1
FAULT_WRITE: Final = 2
FAULT_FETCH: Final = 4
FAULT_ADDRESS_MASK: Final = 0xFFFFFFF8

EXCEPTION_WORDS: Final = 19
# Order of the exception state in the message registers.
EXC_ES: Final = 0
EXC_DS: Final = 1
EXC_GS: Final = 2
EXC_FS: Final = 3
EXC_EDI: Final = 4
EXC_ESI: Final = 5
EXC_EBP: Final = 6
EXC_PFA: Final = 7
EXC_EBX: Final = 8
EXC_EDX: Final = 9
EXC_ECX: Final = 10
EXC_EAX: Final = 11
EXC_TRAPNO: Final = 12
EXC_ERR: Final = 13
EXC_EIP: Final = 14
EXC_CS: Final = 15
EXC_EFLAGS: Final = 16
EXC_ESP: Final = 17
EXC_SS: Final = 18
TRAP_EX_REGS: Final = 0xFF
ALIEN_BEFORE: Final = 0x30 << 3 | 2
ALIEN_AFTER: Final = 0x30 << 3 | 6

TRAMPOLINE_BYTES: Final = 0x60
TRAMPOLINE_HANDLER: Final = 0x00
TRAMPOLINE_USER_DATA: Final = 0x04
TRAMPOLINE_SAVED_MR0: Final = 0x0C
TRAMPOLINE_FLAGS: Final = 0x10
TRAMPOLINE_STATE: Final = 0x14
TRAMPOLINE_IN_PROGRESS: Final = 1
TRAMPOLINE_EXCEPTION_PENDING: Final = 2

# --- 10: kernel info page --------------------------------------------------------------------

KIP_MAGIC: Final = 0x4BE6344C
KIP_VERSION: Final = 0x87034444
KIP_OFF_MAGIC: Final = 0x00
KIP_OFF_VERSION: Final = 0x04
KIP_OFF_VERSION_STRING: Final = 0x08
KIP_OFF_SYS_CALLS: Final = 0x0C
KIP_SYS_CALLS_ABSOLUTE: Final = 2
KIP_OFF_SIGMA0_IP: Final = 0x10
KIP_OFF_ROOT_IP: Final = 0x18
KIP_OFF_CLOCK: Final = 0x20
KIP_OFF_FREQUENCY_KHZ: Final = 0x28
KIP_OFF_USER_PTR: Final = 0x40
KIP_OFF_GRANULARITY_US: Final = 0x50
KIP_OFF_MEM_DESC_OFFSET: Final = 0x54
KIP_OFF_MEM_DESC_COUNT: Final = 0x58
KIP_OFF_PLATFORM: Final = 0x70
KIP_OFF_IS_MP: Final = 0x80
KIP_OFF_MEM_DESCS: Final = 0x90
KIP_MEM_DESC_SLOTS: Final = 64
KIP_OFF_STRINGS: Final = 0x290
KIP_OFF_STUB: Final = 0x800
KIP_OFF_CLOCK_US_CODE: Final = 0x900
KIP_OFF_CLOCK_NS_CODE: Final = 0x980
TICK_US: Final = 1000
KIP_FEATURES: Final = ("segments", "pf_tramp", "abiver:3", "mapdb", "kip_syscalls", "jdb")

MEM_UNUSED: Final = 0
MEM_CONVENTIONAL: Final = 1
MEM_RESERVED: Final = 2
MEM_DEDICATED: Final = 3
MEM_SHARED: Final = 4
MEM_INFO: Final = 0xD
MEM_BOOTLOADER: Final = 0xE
MEM_ARCH: Final = 0xF
MEM_EAGER: Final = 1 << 8
MEM_VIRTUAL: Final = 1 << 9
MEM_SUBTYPE_SHIFT: Final = 4
MEM_RESERVED_IMAGE: Final = 0
MEM_RESERVED_HEAP: Final = 1
MEM_RESERVED_MMIO: Final = 2

# --- 11: kernel object operations ------------------------------------------------------------

VARG_UNSIGNED: Final = 1
VARG_SIGNED: Final = 0x81
VARG_STRING: Final = 2
VARG_FPAGE: Final = 3

TASK_MAP: Final = 0
TASK_UNMAP: Final = 1
TASK_CAP_INFO: Final = 2
TASK_ADD_KU_MEM: Final = 3
TASK_LDT_SET: Final = 0x11
KU_MEM_MIN_ORDER: Final = 12
KU_MEM_MAX_ORDER: Final = 17

THREAD_CONTROL: Final = 0
THREAD_EX_REGS: Final = 1
THREAD_SWITCH: Final = 2
THREAD_STATS: Final = 3
THREAD_VCPU_RESUME: Final = 4
THREAD_REGISTER_DELETE_IRQ: Final = 5
THREAD_MODIFY_SENDERS: Final = 6
THREAD_VCPU_CONTROL: Final = 7
THREAD_REGISTER_DOORBELL: Final = 8
THREAD_PF_TRAMP_CONTROL: Final = 9
THREAD_GDT: Final = 0x10
THREAD_OP_MASK: Final = 0xFFFF
CONTROL_SET_PAGER: Final = 0x10000
CONTROL_BIND_TASK: Final = 0x200000
CONTROL_ALIEN: Final = 0x400000
CONTROL_SET_EXCEPTION_HANDLER: Final = 0x1000000
EX_REGS_CANCEL: Final = 0x10000
EX_REGS_TRIGGER_EXCEPTION: Final = 0x20000
EX_REGS_RESERVED: Final = 0xFF000000
EX_REGS_KEEP: Final = 0xFFFFFFFF
HANDLER_NEVER_SET: Final = 0xFFFFF000
PF_TRAMP_SETUP: Final = 0x00000
PF_TRAMP_RESUME: Final = 0x10000
PF_TRAMP_REFLECT: Final = 0x20000
PF_TRAMP_DISABLE: Final = 0x30000
PF_TRAMP_ENABLE: Final = 0x40000
GDT_FIRST_USER_ENTRY: Final = 9
GDT_USER_ENTRIES: Final = 4
GDT_FIRST_USER_SELECTOR: Final = 0x4B

SCHEDULER_INFO: Final = 0
SCHEDULER_RUN_THREAD: Final = 1
SCHEDULER_IDLE_TIME: Final = 2
SCHEDULER_MAX_CPUS: Final = 64
SCHEDULER_CLASS_FIXED_PRIORITY: Final = 2
SCHEDULER_PARAM_CLASS_FIXED_PRIORITY: Final = -1
SCHEDULER_PARAM_BYTES: Final = 24  # CPU set, class, length, quantum, priority
PRIORITY_MAX: Final = 255
PRIORITY_DEFAULT: Final = 1
QUANTUM_DEFAULT_US: Final = 10000
CPU_SET_OFFSET_MASK: Final = 0xFFFFFF
CPU_SET_GRANULARITY_SHIFT: Final = 24
CPU_SET_GRANULARITY_MAX: Final = 24

KOBJECT_DEC_REFCNT: Final = 0
ENDPOINT_BIND: Final = 0x10
GATE_GET_INFO: Final = 0x11
IRQ_SENDER_DETACH: Final = 1
IRQ_SENDER_BIND_VCPU: Final = 2
IRQ_TRIGGER: Final = 2
IRQ_UNMASK: Final = 4
IRQ_OP_MASK: Final = 0xFFFF
IRQ_QUEUE_PRIORITY: Final = 255
SEMAPHORE_DOWN: Final = 0
ICU_BIND: Final = 0
ICU_UNBIND: Final = 1
ICU_INFO: Final = 2
ICU_MSI_INFO: Final = 3
ICU_UNMASK: Final = 4
ICU_MASK: Final = 5
ICU_SET_MODE: Final = 6

LOG_WRITE: Final = 0
LOG_READ: Final = 1
LOG_SET_ATTR: Final = 2
LOG_GET_ATTR: Final = 3
LOG_WRITE_MAX_BYTES: Final = 244
LOG_READ_MAX_BYTES: Final = 248
LOG_READ_DRAINED: Final = 1 << 31
LOG_NEW_LINE_RETURNS: Final = 4  # always set among the output flags
LOG_INITIAL_ATTR: Final = (0x100, 4, 8)

DEBUGGER_ENTER: Final = 0
DEBUGGER_OUTCHAR: Final = 1
DEBUGGER_OUTNSTRING: Final = 2
DEBUGGER_OUTHEX32: Final = 3
DEBUGGER_OUTHEX20: Final = 4
DEBUGGER_OUTHEX16: Final = 5
DEBUGGER_OUTHEX12: Final = 6
DEBUGGER_OUTHEX8: Final = 7
DEBUGGER_OUTDEC: Final = 8
DEBUGGER_GROUP_SHIFT: Final = 8
DEBUGGER_SET_NAME: Final = 0x100
DEBUGGER_GLOBAL_ID: Final = 0x101
DEBUGGER_KOBJ_TO_ID: Final = 0x102
DEBUGGER_ADD_IMAGE_INFO: Final = 0x107
DEBUGGER_GET_NAME: Final = 0x108
DEBUGGER_OBJ_INFO: Final = 0x110

# --- 12: sigma0 protocol (user level; here because the C side is generated from this file) -----

SIGMA0_REQUEST: Final = 0xFFFFFF00
SIGMA0_RAM: Final = 0x60
SIGMA0_IO_UNCACHED: Final = 0x70
SIGMA0_IO_CACHED: Final = 0x80
SIGMA0_ANY: Final = 0x90
SIGMA0_KIP: Final = 0xA0
SIGMA0_DUMP: Final = 0xC0

# --- 13: boot environment --------------------------------------------------------------------

BOOT_CAP_TASK: Final = 1
BOOT_CAP_FACTORY: Final = 2
BOOT_CAP_THREAD: Final = 3
BOOT_CAP_PAGER: Final = 4
BOOT_CAP_LOG: Final = 5
BOOT_CAP_ICU: Final = 6
BOOT_CAP_SCHEDULER: Final = 7
BOOT_CAP_IOMMU: Final = 8
BOOT_CAP_DEBUGGER: Final = 10
BOOT_CAP_FIRST_FREE: Final = 12
ROOT_SIGMA0_LABEL: Final = 0x40

MODULE_INFO_FLAGS: Final = 0
MODULE_INFO_CMDLINE: Final = 8
MODULE_INFO_MODULES: Final = 16
MODULE_INFO_COUNT: Final = 24
MODULE_INFO_BYTES: Final = 48
MODULE_FLAGS: Final = 0
MODULE_START: Final = 8
MODULE_END: Final = 16
MODULE_CMDLINE: Final = 24
MODULE_BYTES: Final = 32
MODULE_TYPE_NORMAL: Final = 0
MODULE_TYPE_KERNEL: Final = 1
MODULE_TYPE_SIGMA0: Final = 2
MODULE_TYPE_ROOT: Final = 3
