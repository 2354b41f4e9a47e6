"""What happened in a run, event by event: the vocabulary, and the log that takes it.

The names are those of the real kernel's debugger where it has one (trace buffer of Fiasco's JDB). Two
kinds of events: the first ones are what it takes to tell *why* a page fault or an IPC took as long as it
did, and are logged whenever a ledger is kept (`Kernel.events`); the others are for looking on, and are
logged when a trace was asked for (`Kernel.trace`). Both are None otherwise, and testing for that is all
it costs then.

A record is eight columns: when (cycle at which the kernel was entered), where (core), what (kind), and five
whose meaning the kind gives; `MEANINGS` has them in words. What little more a kind has to say, `extra`,
stands in the kind's column from EXTRA_SHIFT on. Records are in the order of happening: kernel entries by
time, events inside one as they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from l4lab.kernel.thread import Thread

COLUMNS: Final = ("cycle", "core", "kind", "thread", "partner", "request", "a", "b")
EXTRA_SHIFT: Final = 8
KIND_MASK: Final = (1 << EXTRA_SHIFT) - 1
"""The kind alone in the kind's column; as EXTRA_SHIFT good for a whole array of that column, too."""

BEGINS: Final = 1
OPEN_ENDED: Final = 2
SENT_TO_SHIFT: Final = 2
"""See `EventLog`."""

FAULT: Final = 0
EXCEPTION: Final = 1
IPC: Final = 2
MESSAGE: Final = 3
IRQ: Final = 4
END: Final = 5
QUEUED: Final = 6
SENT: Final = 7
SERVED: Final = 8
TIMEOUT: Final = 9
OBTAINED: Final = 10
BOUND: Final = 11
FIRST_OF_TRACE: Final = 12
SWITCH: Final = 12
RESOLVED: Final = 13
MAP: Final = 14
UNMAP: Final = 15
CREATE: Final = 16
DESTROY: Final = 17
MIGRATE: Final = 18
SCHEDULE: Final = 19
NO_PAGER: Final = 20
FLUSH: Final = 21
MAP_CAPABILITY: Final = 22
UNMAP_CAPABILITY: Final = 23
ENTER: Final = 24
SAMPLE: Final = 25
GATE: Final = 26
INVOKE: Final = 27

KIND_NAMES: Final = (
    "page fault",
    "exception",
    "ipc",
    "message",
    "irq",
    "ipc end",
    "queued",
    "drq sent",
    "drq",
    "timeout",
    "semaphore",
    "bind",
    "context switch",
    "page fault result",
    "map",
    "unmap",
    "create",
    "destroy",
    "migration",
    "schedule",
    "page fault invalid pager",
    "tlb flush",
    "map capability",
    "unmap capability",
    "trap",
    "sample",
    "gate invoke",
    "object invoke",
)

MEANINGS: Final = (
    "thread touched address a at eip b; extra: error code of the processor, and 16 if it fetched",
    "thread raised trap number a at eip b",
    "thread starts to send tag a to partner, a thread or gate, at eip b, 0: not recorded; "
    "extra OPEN_ENDED: and then waits for anybody",
    "thread partner got tag a, label b, of thread",
    "thread partner got label b of IRQ object thread, which had fired a cycles before",
    "the operation of thread ended without answer; a: error code, 0: sent, nothing to be received",
    "thread waits to send to partner, an object of kind extra (OBJECT_KINDS)",
    "core sent a request about thread to core partner; extra: its kind (REQUEST_KINDS), "
    "a: cycles until the interconnect was free, b: cycles under way; b 0: it goes along with an interrupt "
    "that arrives in a cycles",
    "core serves a request about thread; extra: its kind (REQUEST_KINDS)",
    "the timeout of thread is over",
    "thread obtained semaphore partner, for which it had waited",
    "thread belongs to task partner",
    "core goes from thread partner to thread; a: 1 if the address space changes",
    "the page fault of thread at address a was answered by thread partner; b: 0 mapped or retry, 1 refused",
    "thread mapped extra pages to address b of task partner, from address a of what it maps from",
    "thread took rights extra from what was mapped from b pages at address a of task partner",
    "thread made object partner of kind a (OBJECT_KINDS)",
    "object partner of kind a (OBJECT_KINDS) ended",
    "thread goes from core partner to core a; 2**32 - 1: off-line",
    "core chooses thread, of priority a, after thread partner",
    "the page fault of thread at address a found no pager",
    "translations are flushed on the cores of bit mask b << 32 | a, of the first 64; extra: pages, 0: all",
    "thread gave extra capabilities to task partner, there from slot b on, from slot a on of its own",
    "thread took rights extra from b capabilities of task partner, from slot a on",
    "thread enters the kernel at eip a, for the trap extra (`kernel.traps`); b: of a system call through the "
    "system call page, whereto that returns, else 0",
    "thread was at eip a, b cycles before it entered the kernel, and had had partner TLB misses, modulo 2**32",
    "thread sends tag a through gate partner, whose label is b",
    "thread invokes object partner, of kind extra (OBJECT_KINDS), with tag a",
)
"""For each kind, what its columns say. Threads, tasks, objects: by number, 0: none."""

DRQ_KINDS: Final = ("look", "send", "wake", "receive", "place", "flush", "answer", "transfer", "release")
OBJECT_KINDS: Final = (
    "thread",
    "task",
    "gate",
    "irq",
    "semaphore",
    "factory",
    "icu",
    "log",
    "scheduler",
    "debugger",
)
_OBJECT_NUMBERS: Final = {name: number for number, name in enumerate(OBJECT_KINDS)}


def object_kind(name: str) -> int:
    """The number in OBJECT_KINDS of `KernelObject.kind`."""
    return _OBJECT_NUMBERS[name]


class Event(NamedTuple):
    """One record, taken apart; `MEANINGS` says what `thread` to `b` are for each kind.

    `number`: which of its kind it is in a run, from 1, where somebody has counted; else 0.
    """

    cycle: int
    core: int
    kind: int
    extra: int
    thread: int
    partner: int
    request: int
    a: int
    b: int
    number: int = 0

    @property
    def name(self) -> str:
        """The kind in words."""
        return KIND_NAMES[self.kind]


def event(values: Iterable[int], number: int = 0) -> Event:
    """One record of COLUMNS, as it stands in a log or in a run's file."""
    cycle, core, kind, thread, partner, request, a, b = values
    return Event(cycle, core, kind & KIND_MASK, kind >> EXTRA_SHIFT, thread, partner, request, a, b, number)


def decode(values: list[int]) -> Iterator[Event]:
    """All records in a flat list such as `EventLog.pending`."""
    columns = len(COLUMNS)
    return (event(values[first : first + columns]) for first in range(0, len(values), columns))


class EventLog:
    """Takes events: `pending` is extended by the values of a record, in the order of COLUMNS.

    Whoever keeps the log empties `pending` now and then. `requests`: how many there were so far.
    `names`: number -> name of every object that has or had one. `homes`: thread -> its task, by number.

    The commonest of all has no record of its own: a message that the thread which entered the kernel sends,
    before anything else has happened in that entry. The entry's row in the ledger has it: `sent_to` is the
    receiver's number, from SENT_TO_SHIFT on, with BEGINS if an operation begins with it (IPC) and
    OPEN_ENDED as an IPC record's extra; `sent_tag` is its tag. Whoever has kernel entries served sets
    `entered` to that thread before each, and `sent_to` to 0. In a trace all have records.

    `actor`: the thread in whose name something is mapped or unmapped, by number.
    """

    __slots__ = ("actor", "entered", "homes", "names", "pending", "requests", "sent_tag", "sent_to")

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.requests = 0
        self.entered: Thread | None = None
        self.actor = 0
        self.sent_to = 0
        self.sent_tag = 0
        self.names: dict[int, str] = {}
        self.homes: dict[int, int] = {}


assert len(KIND_NAMES) == len(MEANINGS) == INVOKE + 1
