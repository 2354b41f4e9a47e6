"""The door: what a member of the L4 family decides, and the mechanisms ask.

A member gives an object of a class derived from `Interface`; `kernel/fiasco/interface.py` is one. The
mechanisms of this package (everything outside such a member's folder) import none of its numbers and have
none of their own that must be equal to its: they hand on words they do not understand (tags, labels,
rights of capabilities), and ask here for everything else. The model is FreeBSD's `struct sysentvec`: vector,
system call table, signal codes and stack layout of one ABI in one object, asked by an otherwise common kernel.

A base class with methods, because the kernel is to be compiled from this source: calling a method of a known
class is cheap then, testing for a `typing.Protocol` is not. What every system call needs is bound once,
when the machine is built (`Kernel.system_call`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from l4lab.kernel.capability import Capability
    from l4lab.kernel.costs import KernelCosts
    from l4lab.kernel.objects import Gate, Irq
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread
    from l4lab.kernel.traps import CpuException, PageFault

# Why an operation ended without a message; the interface has a code for each, and for each phase.
TIMED_OUT: Final = 0
NOT_EXISTENT: Final = 1
CANCELLED: Final = 2

NEVER: Final = -1
"""A deadline: wait without end."""
EXPIRED: Final = -2
"""A deadline: zero or in the past."""


@dataclass(frozen=True, slots=True)
class Selectors:
    """Segment selectors of user code, as user code sees them: with privilege level 3.

    `code`: CS. `data`: SS, DS, ES. `utcb`: FS and GS, whose base is the frame's UTCB_BASE. `first_thread`: of the
    first of `thread_entries` descriptors that are a thread's own.
    """

    code: int
    data: int
    utcb: int
    first_thread: int
    thread_entries: int


@dataclass(frozen=True, slots=True)
class BootParameters:
    """What the boot loader found and placed. Addresses and frames are physical.

    `kip_pfn`: the frame of the kernel info page. `global_pages`: whether the processor can keep translations in
    its TLB when it loads CR3.
    """

    first_kernel_pfn: int
    kernel_frame_count: int
    cores: int
    mhz: int
    quantum_us: int
    kip_pfn: int
    sigma0_entry: int
    root_entry: int
    global_pages: bool = True


@dataclass(frozen=True, slots=True)
class BootModule:
    """A file that the boot loader has placed at `start .. end - 1`. `command_line`: as bytes, without an end."""

    command_line: bytes
    start: int
    end: int


class MemoryUse(Enum):
    """What the boot loader has found some memory to be, or has made of it."""

    RAM = "free for programs"
    NOBODYS = "given to nobody"
    FILES = "modules, and the list of them"
    INFO_PAGE = "what programs read about kernel and machine"
    SIGMA0 = "of the first program"
    ROOT = "of the root task"
    KERNEL = "the kernel's share"


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """The pages of bytes `start .. end - 1`. `writable`, `executable`: what the program there asks for."""

    use: MemoryUse
    start: int
    end: int
    writable: bool = True
    executable: bool = True


class Tag(NamedTuple):
    """A message's tag, taken apart: its signed label, how many words and how many typed items there are."""

    label: int
    words: int
    items: int


class InterfaceState:
    """What an interface keeps of a thread besides what the mechanisms do: handlers, modes. Theirs is to carry it."""

    __slots__ = ()


class KernelMessage(ABC):
    """A message that the kernel sends in a thread's name, because of a fault.

    `words`: what is sent instead of the thread's message registers. `fault`: (trap number, error code, address).
    """

    __slots__ = ("fault", "words")

    def __init__(self, words: tuple[int, ...], fault: tuple[int, int, int]) -> None:
        self.words = words
        self.fault = fault

    @abstractmethod
    def take_answer(self, kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
        """`sender` answered: `Interface.transfer` for a receiver with such a message in flight."""

    @abstractmethod
    def failed(self, kernel: Kernel, me: Thread, code: int) -> None:
        """The message of `me` did not get through; `code` is the interface's."""


class Interface(ABC):
    """One member of the family. Nothing here changes while a machine runs: one object may serve many kernels."""

    # --- numbers ------------------------------------------------------------------------------------

    name: str
    """For people."""
    system_call_vector: int
    """The interrupt that user code may raise to enter the kernel."""
    selectors: Selectors
    system_call_page: int
    """Address of the page that programs call to enter the kernel, the same in every space."""
    user_limit: int
    """The first byte address that user code does not own."""
    utcb_bytes: int
    tick_us: int
    """How often the clock that programs see goes on, and timeouts are looked at."""
    default_quantum_us: int
    max_cores: int
    """How many cores a program can name."""
    object_index_limit: int
    """Slots of a capability table."""
    irq_priority: int
    """Where an interrupt's message stands among a receiver's senders."""
    all_rights: int
    """To an object, of whoever made it."""
    all_extra_rights: int
    """Rights that mean something else for each kind of object."""
    delete_right: int
    """Who has it and lets go of the capability ends the object."""
    protocols: Mapping[str, int]
    """Name -> the signed label of messages, for all that it defines."""

    # --- beginning ----------------------------------------------------------------------------------

    @abstractmethod
    def module_list(self, address: int, modules: Sequence[BootModule]) -> bytes:
        """What programs read at `address` about the files: sigma0's, the root task's, all others.

        How many bytes it is depends on the command lines alone.
        """

    @abstractmethod
    def info_page(self, parameters: BootParameters, module_list: int, ranges: Sequence[MemoryRange]) -> bytes:
        """A page about kernel and machine. `ranges`: of RAM; later ones take out of earlier ones."""

    @abstractmethod
    def start(self, words: memoryview[int], parameters: BootParameters, costs: KernelCosts) -> Kernel:
        """A kernel whose first programs are ready to run on core 0.

        `words`: all of RAM, with programs, modules and the kernel info page in place.
        """

    @abstractmethod
    def thread_state(self) -> InterfaceState:
        """What is kept of a new thread."""

    # --- entries ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def system_call(self) -> Callable[[Kernel, Core, Thread], None]:
        """Serves a system call of the running thread, which then has its result, or waits; a plain function."""

    @abstractmethod
    def page_fault(self, kernel: Kernel, core: Core, me: Thread, trap: PageFault) -> None:
        """The running thread's access was refused."""

    @abstractmethod
    def cpu_exception(self, kernel: Kernel, core: Core, me: Thread, trap: CpuException) -> None:
        """Any other exception of the running thread."""

    @abstractmethod
    def raise_pending(self, kernel: Kernel, core: Core, me: Thread) -> None:
        """`me` is about to run, and `me.pending_exception` was set aside until then."""

    @abstractmethod
    def show_clock(self, kernel: Kernel) -> None:
        """`kernel.clock_us` has changed: tell the programs."""

    # --- messages -----------------------------------------------------------------------------------

    @abstractmethod
    def transfer(self, kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
        """Move the message of `sender` to `receiver`, who gets its result; False if part of it failed.

        On failure both have their error codes. The sender's own result is the caller's business.
        """

    @abstractmethod
    def tag(self, tag: int) -> Tag:
        """A message's tag, taken apart. A message with items may change spaces; only its sender's core moves it."""

    @abstractmethod
    def notify(self, kernel: Kernel, receiver: Thread, irq: Irq) -> None:
        """`receiver` gets the message of an IRQ object."""

    @abstractmethod
    def address_to(self, sender: Thread, gate: Gate) -> None:
        """The message of `sender` goes through `gate`: what the receiver sees of that."""

    @abstractmethod
    def send_deadline_us(self, kernel: Kernel, thread: Thread) -> int:
        """Until when `thread` is willing to wait for its partner, in microseconds since boot, or NEVER or EXPIRED."""

    @abstractmethod
    def receive_deadline_us(self, kernel: Kernel, thread: Thread) -> int:
        """Until when `thread` is willing to wait for a message, likewise."""

    # --- results ------------------------------------------------------------------------------------

    @abstractmethod
    def sent(self, kernel: Kernel, thread: Thread) -> None:
        """An operation without receive phase is done."""

    @abstractmethod
    def send_queued(self, thread: Thread) -> None:
        """The message of `thread` has to wait for its receiver."""

    @abstractmethod
    def send_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        """The send phase failed, and with it the operation: TIMED_OUT, NOT_EXISTENT or CANCELLED."""

    @abstractmethod
    def receive_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        """The receive phase ended without message."""

    @abstractmethod
    def down_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        """`thread` no longer waits for a semaphore, and has not got it."""

    @abstractmethod
    def down_done(self, thread: Thread) -> None:
        """`thread` waited for a semaphore, and has got it."""

    # --- UTCBs --------------------------------------------------------------------------------------

    @abstractmethod
    def utcb_bound(self, kernel: Kernel, thread: Thread) -> None:
        """`thread` has got its UTCB (`utcb`, `utcb_address`)."""

    @abstractmethod
    def utcb_released(self, kernel: Kernel, thread: Thread) -> None:
        """`thread` is dead and will not use its UTCB again."""

    # --- names, for people --------------------------------------------------------------------------

    @abstractmethod
    def answers(self, thread: Thread) -> bool:
        """Whether the system call that `thread` is about to make answers a caller."""

    @abstractmethod
    def named_slot(self, thread: Thread) -> int | None:
        """The capability index that the system call which `thread` is about to make names; None: none."""

    @abstractmethod
    def object_name(self, given: bytes) -> str:
        """What an object is called to which a program gives this name."""

    @abstractmethod
    def rights_text(self, cap: Capability) -> str:
        """A capability's rights in letters."""

    @abstractmethod
    def message_words(self, kernel: Kernel, thread: Thread) -> list[int]:
        """The message registers of `thread` that its last tag counts."""

    @abstractmethod
    def handlers(self, thread: Thread) -> list[tuple[str, int | None]]:
        """Who serves the thread's faults: (what for, capability index in its task; None: nobody was named)."""
