"""Catchpoints: which events of a run a person wants to stop at.

The kernel's log (`kernel/events.py`) says what happened in each kernel entry. Page faults, processor
exceptions and system calls on capabilities that are not there are caught before the kernel acts, with
the thread still at its instruction; everything else right after it has happened.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import events
from l4lab.kernel.frame import EAX, EIP
from l4lab.kernel.inspect import task_name, thread_name
from l4lab.kernel.traps import CpuException, PageFault, SystemCall
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.events import Event
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread
    from l4lab.kernel.traps import Trap


PROTOCOLS: Final = INTERFACE.protocols
"""Name -> the tag's label, for all protocols of the interface."""


class CatchKind(enum.Enum):
    """What can be caught; the value is the word for it, and `meaning` the sentence."""

    FAULT = "fault"
    EXCEPTION = "exception"
    IPC = "ipc"
    IRQ = "irq"
    MAP = "map"
    UNMAP = "unmap"
    CAP = "cap"
    CREATE = "create"
    DESTROY = "destroy"
    MIGRATE = "migrate"

    @property
    def meaning(self) -> str:
        """What it stops at."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    CatchKind.FAULT: "page faults, before the kernel acts",
    CatchKind.EXCEPTION: "processor exceptions, and page faults that the pager refused",
    CatchKind.IPC: "messages, when they have gone over",
    CatchKind.IRQ: "interrupts that arrive as messages",
    CatchKind.MAP: "pages mapped into a task",
    CatchKind.UNMAP: "rights taken from a task's pages",
    CatchKind.CAP: "system calls on a capability that is not there",
    CatchKind.CREATE: "new kernel objects",
    CatchKind.DESTROY: "the end of kernel objects",
    CatchKind.MIGRATE: "threads that change cores",
}
_EVENT_KINDS: Final = {
    events.EXCEPTION: CatchKind.EXCEPTION,
    events.MESSAGE: CatchKind.IPC,
    events.IRQ: CatchKind.IRQ,
    events.MAP: CatchKind.MAP,
    events.UNMAP: CatchKind.UNMAP,
    events.CREATE: CatchKind.CREATE,
    events.DESTROY: CatchKind.DESTROY,
    events.MIGRATE: CatchKind.MIGRATE,
}


@dataclass(frozen=True, slots=True)
class Catch:
    """One catchpoint. A filter that is None lets everything through.

    `task`, `thread`: number or name, of anybody who takes part. `first`, `last`: addresses, both
    included. `protocol`: the tag's signed label.
    """

    number: int
    kind: CatchKind
    task: str | None = None
    thread: str | None = None
    first: int | None = None
    last: int | None = None
    protocol: int | None = None

    def __str__(self) -> str:
        parts = [self.kind.value]
        if self.task is not None:
            parts.append(f"task={self.task}")
        if self.thread is not None:
            parts.append(f"thread={self.thread}")
        if self.first is not None:
            parts.append(f"address={self.first:#x}" + (f"-{self.last:#x}" if self.last != self.first else ""))
        if self.protocol is not None:
            parts.append(f"protocol={self.protocol}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that catchpoints are held against. `thread`: where it is shown; None: nowhere in particular.

    `threads`, `tasks`: numbers of all that take part. `first`, `last`: the addresses concerned.
    """

    kind: CatchKind
    text: str
    thread: int | None
    threads: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()
    first: int | None = None
    last: int | None = None
    protocol: int | None = None
    event: Event | None = None


def matches(catch: Catch, happening: Happening, kernel: Kernel) -> bool:
    """Whether `catch` stops at it."""
    if catch.kind is not happening.kind:
        return False
    if catch.protocol is not None and catch.protocol != happening.protocol:
        return False
    if catch.thread is not None and not _named(catch.thread, happening.threads, kernel.threads):
        return False
    if catch.task is not None and not _named(catch.task, happening.tasks, kernel.tasks):
        return False
    if catch.first is None or catch.last is None:
        return True
    return (
        happening.first is not None
        and happening.last is not None
        and happening.first <= catch.last
        and catch.first <= happening.last
    )


def _named(wanted: str, numbers: tuple[int, ...], objects: Mapping[int, KernelObject]) -> bool:
    for number in numbers:
        if str(number) == wanted:
            return True
        found = objects.get(number)
        if found is not None and found.name == wanted:
            return True
    return False


# --- before the kernel acts ------------------------------------------------------------------------


def announced(kernel: Kernel, thread: Thread | None, trap: Trap) -> Happening | None:
    """What the kernel is about to be told by this trap of `thread`."""
    if thread is None:
        return None
    tasks = (thread.task.number,) if thread.task is not None else ()
    if isinstance(trap, PageFault):
        return Happening(
            CatchKind.FAULT,
            f"{thread_name(thread)}: {fault_text(trap)}, at {thread.frame[EIP]:#x}",
            thread.number,
            (thread.number,),
            tasks,
            trap.address,
            trap.address,
        )
    if isinstance(trap, CpuException):
        text = f"exception {trap.vector}, error code {trap.error_code:#x}, at {thread.frame[EIP]:#x}"
        eip = thread.frame[EIP]
        return Happening(
            CatchKind.EXCEPTION,
            f"{thread_name(thread)}: {text}",
            thread.number,
            (thread.number,),
            tasks,
            eip,
            eip,
        )
    if isinstance(trap, SystemCall):
        return _capability_fault(thread, tasks)
    return None


def _capability_fault(thread: Thread, tasks: tuple[int, ...]) -> Happening | None:
    index = INTERFACE.named_slot(thread)
    if index is None or thread.task is None:
        return None
    if index in thread.task.capability_table.slots:
        return None
    label = INTERFACE.tag(thread.frame[EAX]).label
    return Happening(
        CatchKind.CAP,
        f"{thread_name(thread)}: invokes capability {index:#x}, which it does not have",
        thread.number,
        (thread.number,),
        tasks,
        protocol=label,
    )


def fault_text(fault: PageFault) -> str:
    """`page fault: write to 0x1000, not mapped`, and the like."""
    what = "fetch from" if fault.fetch else "write to" if fault.write else "read from"
    return f"page fault: {what} {fault.address:#x}, {'not allowed' if fault.present else 'not mapped'}"


# --- what has happened -----------------------------------------------------------------------------


def happened(kernel: Kernel, event: Event, told: Trap) -> Happening | None:
    """What an event of the kernel entry for the trap `told` is for catchpoints; None: nothing."""
    kind = _EVENT_KINDS.get(event.kind)
    if kind is None or (kind is CatchKind.EXCEPTION and isinstance(told, CpuException)):
        return None
    if kind is CatchKind.IPC:
        return _message(kernel, event)
    if kind is CatchKind.MAP or kind is CatchKind.UNMAP:
        return _mapping(kernel, event, kind)
    who = _name_of(kernel, event.thread)
    threads = (event.thread,)
    if kind is CatchKind.EXCEPTION:
        text = f"{who}: exception {event.a}, at {event.b:#x}"
        return Happening(kind, text, event.thread, threads, _tasks(kernel, threads), event.b, event.b)
    if kind is CatchKind.IRQ:
        text = f"interrupt with label {event.b:#x} for {_name_of(kernel, event.partner)}"
        threads = (event.partner,)
        return Happening(kind, text, event.partner, threads, _tasks(kernel, threads), event=event)
    if kind is CatchKind.MIGRATE:
        where = f"core {event.a}" if event.a < len(kernel.cores) else "off-line"
        return Happening(kind, f"{who} goes to {where}", event.thread, threads, _tasks(kernel, threads))
    verb = "made" if kind is CatchKind.CREATE else "ended"
    what = f"{events.OBJECT_KINDS[event.a]} {event.partner}"
    by = f" by {who}" if event.thread else ""
    return Happening(kind, f"{what} was {verb}{by}", event.thread or None, threads, _tasks(kernel, threads))


def _message(kernel: Kernel, event: Event) -> Happening:
    threads = (event.thread, event.partner)
    label, words, items = INTERFACE.tag(event.a)
    text = (
        f"message from {_name_of(kernel, event.thread)} to {_name_of(kernel, event.partner)}: "
        f"{protocol_name(label)}, {words} words, {items} items, label {event.b:#x}"
    )
    return Happening(
        CatchKind.IPC, text, event.partner, threads, _tasks(kernel, threads), protocol=label, event=event
    )


def _mapping(kernel: Kernel, event: Event, kind: CatchKind) -> Happening:
    by = _name_of(kernel, event.thread)
    task = kernel.tasks.get(event.partner)
    name = task_name(task) if task is not None else f"task {event.partner}"
    tasks = tuple(dict.fromkeys((event.partner, *_tasks(kernel, (event.thread,)))))
    if kind is CatchKind.MAP:
        pages, at = event.extra, event.b
        text = f"{by} mapped {pages} page{'s' * (pages != 1)} from {event.a:#x} to {at:#x} of {name}"
    else:
        pages, at = event.b, event.a
        what = f"{pages} page{'s' * (pages != 1)} at {at:#x} of {name}"
        text = f"{by} took rights {event.extra:#x} from all that was mapped from {what}"
    last = at + pages * PAGE_BYTES - 1
    return Happening(kind, text, event.thread, (event.thread,), tasks, at, last, event=event)


def protocol_name(label: int) -> str:
    """The protocol of a tag's label, in words where it has any."""
    for name, value in PROTOCOLS.items():
        if value == label:
            return name.replace("_", " ")
    return f"protocol {label}"


def _name_of(kernel: Kernel, number: int) -> str:
    thread = kernel.threads.get(number)
    return thread_name(thread) if thread is not None else f"thread {number}"


def _tasks(kernel: Kernel, threads: tuple[int, ...]) -> tuple[int, ...]:
    found = []
    for number in threads:
        thread = kernel.threads.get(number)
        if thread is not None and thread.task is not None and thread.task.number not in found:
            found.append(thread.task.number)
    return tuple(found)
