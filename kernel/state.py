"""All mutable kernel state, in one object that the other modules operate on."""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from l4lab.kernel.costs import CAUSES, KernelCosts
from l4lab.kernel.frame import FramePool
from l4lab.kernel.sched import Core

if TYPE_CHECKING:
    from collections.abc import Callable

    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.contention import Shared
    from l4lab.kernel.drq import Drq
    from l4lab.kernel.events import EventLog
    from l4lab.kernel.interface import Interface
    from l4lab.kernel.memory import Memory
    from l4lab.kernel.objects import Task
    from l4lab.kernel.pageframes import KernelFrames
    from l4lab.kernel.ports import PortMapping
    from l4lab.kernel.quota import Quota
    from l4lab.kernel.thread import Thread


WARNINGS_KEPT: Final = 1000


class End(enum.Enum):
    """Why a system stops for good."""

    ROOT_ENDED = "root task ended"
    ROOT_KILLED = "root task killed"


@dataclass(frozen=True, slots=True)
class KernelWritten:
    """From now on (`active`) the kernel itself writes these frames; or no longer, and they are free."""

    first_pfn: int
    count: int
    active: bool


@dataclass(frozen=True, slots=True)
class ConsoleOutput:
    """Bytes for the person watching, line feeds as the guest wrote them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ipi:
    """Interrupt core `core`; the DRQ goes along and comes back in `traps.Interrupt`."""

    core: int
    drq: Drq | None


@dataclass(frozen=True, slots=True, eq=False)
class CopyFpu:
    """The x87/SSE state of one thread becomes another's; only the machine knows where it is."""

    source: array[int]
    target: array[int]


@dataclass(frozen=True, slots=True)
class TimerSet:
    """A timeout was armed on another core, which may be idle."""

    core: int


class TlbPolicy(enum.Enum):
    """What unmap does to TLBs; the value is the manifest's word.

    Source of the question: 000_1be4d2f6ae8bebbc.txt, section 3.2, "TLB issue".

    FULL: flush this core's TLB whole, and that of every other core on which the space is live; the
    real kernel's way. PAGE: invalidate just the pages taken, where they can be. SWITCH: flush a core
    only if the space is live there; elsewhere the coming space switch does it anyway.
    """

    FULL = "full"
    PAGE = "page"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class FlushTlb:
    """Translations were taken away. `cores`: bit mask of those that may hold them.

    `pages`: the page numbers, to be invalidated one by one; None: flush everything.
    `waits_for`: bit mask of the other cores, whose answers this core waits for.
    """

    cores: int
    pages: tuple[int, ...] | None
    waits_for: int


Effect = KernelWritten | ConsoleOutput | Ipi | CopyFpu | TimerSet | FlushTlb


@dataclass(slots=True, eq=False)
class Kernel:
    """The kernel of one machine. Only `kernel` modules change it.

    `interface`: what its programs see of it; `system_call`: the same object's, bound once.
    `words`: guest RAM as 32-bit words; `kip_word`: where in them the kernel info page is. `tasks`, `threads`:
    number -> object, live ones, by age. `fast_path`: the interface may take short cuts. `fixed_frames`: kernel
    frames taken at boot for good. `clock_us`: the clock that programs see. `here`: the core that is being served.
    `bill`: cycles spent in this kernel entry, by cause.
    `line_cycles[a][b]`: what a cache line costs that core a has and core b wants. `held`: locks of this
    entry. `effects`: what the machine must do before any user code runs. `dying`: objects whose last
    capability went in this operation; `lifecycle.reap` ends them. `events`, `trace`: where to log what
    happens, None: nowhere (see `events`). `served`: the request that this entry is booked to, 0: none.
    """

    interface: Interface
    words: memoryview[int]
    memory: Memory
    frames: KernelFrames
    root_quota: Quota
    costs: KernelCosts
    mhz: int
    cores: list[Core]
    scratch_utcb: int
    kip_word: int
    blank_directory_pfn: int
    quantum_cycles: int
    frame_pool: FramePool
    fixed_frames: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    threads: dict[int, Thread] = field(default_factory=dict)
    fast_path: bool = True
    tlb_policy: TlbPolicy = TlbPolicy.FULL
    line_cycles: list[list[int]] = field(default_factory=list)
    held: list[Shared] = field(default_factory=list)
    next_number: int = 1
    clock_us: int = 0
    now_cycles: int = 0
    here: int = 0
    bill: list[int] = field(default_factory=lambda: [0] * CAUSES)
    effects: list[Effect] = field(default_factory=list)
    dying: list[KernelObject] = field(default_factory=list)
    end: End | None = None
    exit_code: int = 0
    root_task: Task | None = None
    events: EventLog | None = None
    trace: EventLog | None = None
    served: int = 0
    port_roots: dict[int, dict[PortMapping, None]] = field(default_factory=dict)
    ended_tasks: list[Task] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    system_call: Callable[[Kernel, Core, Thread], None] = field(init=False)

    def __post_init__(self) -> None:
        self.system_call = self.interface.system_call

    def new_number(self) -> int:
        """A number that no other object of this machine has or had."""
        number = self.next_number
        self.next_number = number + 1
        return number

    def warn(self, text: str) -> None:
        """Something a guest's programmer would want to know; one line, kept for `-v`. The first ones only."""
        if len(self.warnings) < WARNINGS_KEPT:
            self.warnings.append(text)
        elif len(self.warnings) == WARNINGS_KEPT:
            self.warnings.append("and so on: no more warnings are kept")
