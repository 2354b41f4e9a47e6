"""What the kernel's own work costs, in cycles of the modelled processor.

The machine fills a `KernelCosts` from a profile (`images/profiles/*.toml`), where every number has
its source. A path charges its named cost when it passes its point of no return; the causes are
the ledger's categories (`Cause`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class KernelCosts:
    """Cycles for each piece of kernel work. Field names are the profile's keys under [cpu] and [kernel]."""

    kernel_entry: int = 0
    """int 0x30 up to the first useful instruction, on a system call."""
    kernel_exit: int = 0
    """From the last useful instruction back to user code."""
    exception_entry: int = 0
    """As kernel_entry, for faults, exceptions and interrupts."""
    halt_exit: int = 0
    """An idle core halts; what it takes until an interrupt or the timer has it executing again."""
    invalidate_page: int = 0
    """Taking one page out of this core's TLB."""
    cr3_load: int = 0
    """Loading another page directory; the refills that follow are the TLB's to charge."""
    ipi_send: int = 0
    """Sending an interrupt to another core; how long it travels is the machine's business."""
    ipi_receive: int = 0
    """Taking such an interrupt, beyond exception_entry."""
    syscall_decode: int = 0
    """Selector to capability: on every system call."""
    ipc_path: int = 0
    """One message from sender to receiver, without words and items."""
    ipc_block: int = 0
    """Putting a thread to wait for a message, a gate's thread or a semaphore; without its timeout."""
    ipc_abort: int = 0
    """Ending a wait otherwise than by a message: out of the queue, a result code."""
    copy_word: int = 0
    """Each message word."""
    map_item: int = 0
    """Each typed item: decoding it and its receive buffer, finding and locking the source."""
    map_page: int = 0
    """Tree node and page table entry, for each page or superpage mapped."""
    unmap_item: int = 0
    """Each flexpage to be unmapped: decoding it, finding and locking what is there."""
    unmap_page: int = 0
    """The same backwards, for each mapping removed."""
    map_capability: int = 0
    """Each capability mapped or unmapped, also by the end of its object or task."""
    map_port: int = 0
    """Each I/O port mapped or unmapped."""
    range_step: int = 0
    """Each place of a range, named to be mapped or unmapped, that was looked at and is empty."""
    clear_page: int = 0
    """Filling a page of the kernel's memory with zeros: page table, directory, kernel-user memory."""
    object_invoke: int = 0
    """A kernel object's operation, beyond decode."""
    create_object: int = 0
    """Making a kernel object, without its pages and its capability."""
    end_object: int = 0
    """Ending one, without its pages, its capabilities and whoever waits for it."""
    thread_switch: int = 0
    """Another thread's registers and stack, without the space."""
    schedule: int = 0
    """Choosing who runs, without changes to the ready queue."""
    ready_queue: int = 0
    """Each thread put into a ready queue, or taken out."""
    list_step: int = 0
    """Each entry of one of the kernel's lists that is gone through: senders, gates and interrupts of a thread, threads
    and tables of a task, requests that come with another core's interrupt after its first."""
    wake_up_queue: int = 0
    """Each timeout armed, cancelled or expired."""
    fault_path: int = 0
    """Turning a fault into a message."""
    timer_tick: int = 0
    """The tick's own work: clock, a look at the wake-up queue, quantum; without what expires."""


# Causes, the ledger's categories for kernel time: indices into a bill.
ENTRY: Final = 0
EXIT: Final = 1
DECODE: Final = 2
IPC: Final = 3
COPY: Final = 4
MAP: Final = 5
UNMAP: Final = 6
OBJECT: Final = 7
SWITCH: Final = 8
SPACE_SWITCH: Final = 9
SCHEDULE: Final = 10
FAULT: Final = 11
TIMER: Final = 12
IPI: Final = 13
CACHE: Final = 14
LOCK: Final = 15
SHOOTDOWN: Final = 16
HALT: Final = 17
CAUSES: Final = 18
CAUSE_NAMES: Final = (
    "kernel entry",
    "kernel exit",
    "decode",
    "ipc",
    "copy",
    "map",
    "unmap",
    "object",
    "thread switch",
    "space switch",
    "schedule",
    "fault",
    "timer",
    "interprocessor interrupt",
    "cache line transfer",
    "waiting for a lock",
    "TLB flush and shootdown",
    "leaving the halt",
)
