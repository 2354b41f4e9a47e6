"""The kernel objects, as data. What they do on a message is in `protocols/`, one file for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.capability import CapabilityTable, KernelObject
from l4lab.kernel.frame import INSTRUCTIONS, TLB_MISSES, USER_CYCLES, read_counter
from l4lab.kernel.quota import Quota
from l4lab.kernel.thread import ReplySlot

if TYPE_CHECKING:
    from l4lab.kernel.memory import Space
    from l4lab.kernel.ports import PortMapping
    from l4lab.kernel.thread import SenderQueue, Thread


class Totals:
    """What threads have done, summed up; a task keeps the sums of those that have ended."""

    __slots__ = ("instructions", "page_faults", "system_calls", "tlb_misses", "user_cycles")

    def __init__(self) -> None:
        self.instructions = 0
        self.user_cycles = 0
        self.tlb_misses = 0
        self.page_faults = 0
        self.system_calls = 0

    def add(self, thread: Thread) -> None:
        """Add one thread's counters."""
        self.instructions += read_counter(thread.frame, INSTRUCTIONS)
        self.user_cycles += read_counter(thread.frame, USER_CYCLES)
        self.tlb_misses += read_counter(thread.frame, TLB_MISSES)
        self.page_faults += thread.page_faults
        self.system_calls += thread.system_calls

    def copy(self) -> Totals:
        """An independent copy."""
        other = Totals()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class Task(KernelObject):
    """An address space and a capability table.

    `threads`: those bound here, in the order of binding. `reply_slots`: index -> explicit reply slot.
    `ports`: I/O port -> its mapping here. `reply_pages`: which pages of those the task has paid for.
    `totals`: of the threads that are gone.
    """

    __slots__ = ("capability_table", "ports", "reply_pages", "reply_slots", "space", "threads", "totals")

    kind = "task"

    def __init__(self, number: int, quota: Quota, charged_bytes: int, space: Space) -> None:
        super().__init__(number, quota, charged_bytes)
        self.space = space
        self.capability_table = CapabilityTable(quota)
        self.threads: dict[Thread, None] = {}
        self.totals = Totals()
        self.ports: dict[int, PortMapping] = {}
        self.reply_slots: dict[int, ReplySlot] = {}
        self.reply_pages: set[int] = set()  # membership only


class Gate(KernelObject):
    """An IPC gate: messages to it go to `thread`, labelled.

    `waiting`: senders that found no thread bound. While `thread` is dead every message fails.
    """

    __slots__ = ("label", "thread", "waiting")

    kind = "gate"

    def __init__(self, number: int, quota: Quota, charged_bytes: int, waiting: SenderQueue) -> None:
        super().__init__(number, quota, charged_bytes)
        self.label = 0
        self.thread: Thread | None = None
        self.waiting = waiting


class Irq(KernelObject):
    """A source of asynchronous notifications: edge triggered, at most one kept.

    `pending`: triggered while no thread could take it. `queued`: stands in `thread`'s sender queue, with
    `queued_priority`.
    `fired_cycles`: when, by the clock of the core that triggered it.
    `pin`: (interrupt controller, pin number) that triggers it, if any.
    `notifies`: the thread whose gates' end it reports, if registered for that.
    """

    __slots__ = ("fired_cycles", "label", "notifies", "pending", "pin", "queued", "queued_priority", "thread")

    kind = "irq"

    def __init__(self, number: int, quota: Quota, charged_bytes: int) -> None:
        super().__init__(number, quota, charged_bytes)
        self.label = 0
        self.thread: Thread | None = None
        self.pending = False
        self.queued = False
        self.queued_priority = 0
        self.fired_cycles = 0
        self.pin: tuple[Icu, int] | None = None
        self.notifies: Thread | None = None


class Semaphore(KernelObject):
    """A counting semaphore. `waiting`: threads in down, by priority."""

    __slots__ = ("count", "notifies", "pin", "waiting")

    kind = "semaphore"

    def __init__(self, number: int, quota: Quota, charged_bytes: int, waiting: SenderQueue) -> None:
        super().__init__(number, quota, charged_bytes)
        self.count = 0
        self.waiting = waiting
        self.notifies: Thread | None = None
        self.pin: tuple[Icu, int] | None = None


class Factory(KernelObject):
    """Creates objects and pays for them: `budget` is what it may still spend."""

    __slots__ = ("budget",)

    kind = "factory"

    def __init__(self, number: int, quota: Quota, charged_bytes: int, budget: Quota) -> None:
        super().__init__(number, quota, charged_bytes)
        self.budget = budget


class Icu(KernelObject):
    """An interrupt controller. `pins`: pin -> what it triggers; `pin_count` of them exist."""

    __slots__ = ("masked", "pin_count", "pins")

    kind = "icu"

    def __init__(self, number: int, quota: Quota, pin_count: int) -> None:
        super().__init__(number, quota, 0)
        self.pin_count = pin_count
        self.pins: dict[int, Irq | Semaphore] = {}
        self.masked: set[int] = set()  # membership only


class Log(Icu):
    """The console. Its one interrupt pin says that input has come.

    `attributes`: input, output and local flags as last set; kept, not interpreted.
    """

    __slots__ = ("attributes", "input")

    kind = "log"

    def __init__(self, number: int, quota: Quota) -> None:
        super().__init__(number, quota, pin_count=1)
        self.attributes: tuple[int, int, int] = (0, 0, 0)
        self.input = bytearray()


class Scheduler(Icu):
    """Puts threads on cores. Its one interrupt pin would report that a core comes or goes."""

    __slots__ = ()

    kind = "scheduler"

    def __init__(self, number: int, quota: Quota) -> None:
        super().__init__(number, quota, pin_count=1)


class Debugger(KernelObject):
    """Names for objects, and output that needs no rights."""

    __slots__ = ()

    kind = "debugger"
