"""What a person can see of the kernel: its objects as tables, between two kernel entries.

Nothing here changes anything. The views are those of the real kernel's debugger (Fiasco's JDB), whose
commands are named with each; a `View` is data first, so that gdb, the command line and the terminal
interface can show it as each likes. Address spaces and RAM are in `inspect_memory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4lab.kernel.capability import KernelObject
from l4lab.kernel.drq import FlushDrq, PlaceDrq, SendDrq, TransferDrq
from l4lab.kernel.events import OBJECT_KINDS
from l4lab.kernel.frame import EIP, INSTRUCTIONS, USER_CYCLES, read_counter
from l4lab.kernel.objects import Factory, Gate, Icu, Irq, Semaphore, Task
from l4lab.kernel.requests import thread_of
from l4lab.kernel.thread import (
    LATE,
    NO_CORE,
    READY,
    RECEIVING,
    REMOTE,
    SENDING,
    TAKING,
    WAITING,
    Thread,
)
from l4lab.kernel.traps import VECTOR_PAGE_FAULT

if TYPE_CHECKING:
    from l4lab.kernel.drq import Drq
    from l4lab.kernel.state import Kernel

Cell = str | int


@dataclass(frozen=True, slots=True)
class View:
    """A table. `columns`: their names; every row has as many cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def lines(self) -> list[str]:
        """As text, columns aligned: numbers to the right, the title first."""
        cells = [self.columns, *(tuple(str(cell) for cell in row) for row in self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        numeric = [
            bool(self.rows) and all(isinstance(row[i], int) for row in self.rows) for i in range(len(widths))
        ]
        lines = [self.title]
        for row in cells:
            padded = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ]
            lines.append("  ".join(padded).rstrip())
        return lines

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}


def counted(number: int, word: str, several: str = "") -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {word if number == 1 else several or word + 's'}"


# --- names ----------------------------------------------------------------------------------------


def task_name(task: KernelObject) -> str:
    """The task's name, or its number."""
    return task.name or f"task {task.number}"


def thread_name(thread: Thread) -> str:
    """The thread's name, with the task's before it if that says more."""
    task = thread.task
    if task is None:
        return thread.name or f"thread {thread.number}"
    home = task_name(task)
    return home if thread.name == home else f"{home}/{thread.name or thread.number}"


def object_name(obj: KernelObject) -> str:
    """Kind, number and name of any object."""
    if isinstance(obj, Thread):
        return thread_name(obj)
    return f"{obj.kind} {obj.number}" + (f" {obj.name}" if obj.name and obj.name != obj.kind else "")


# --- threads (JDB: lp, s, t) ------------------------------------------------------------------------


def threads(kernel: Kernel) -> View:
    """All threads, where they are, what each waits for."""
    rows = [
        (
            thread.number,
            thread_name(thread),
            "-" if thread.core == NO_CORE else str(thread.core),
            thread.priority,
            state_text(kernel, thread),
            f"{thread.frame[EIP]:#010x}",
            read_counter(thread.frame, INSTRUCTIONS),
            read_counter(thread.frame, USER_CYCLES),
        )
        for thread in kernel.threads.values()
    ]
    columns = ("thread", "name", "core", "priority", "state", "eip", "instructions", "user cycles")
    return View(counted(len(rows), "thread"), columns, tuple(rows))


def state_text(kernel: Kernel, thread: Thread) -> str:
    """The thread's state, and for whom or what it waits."""
    partner = thread.partner
    who = object_name(partner) if partner is not None else "anyone"
    state = thread.state
    if state == READY:
        if thread.core != NO_CORE and kernel.cores[thread.core].current is thread:
            text = "running"
        elif thread.in_flight:
            text = "ready, its core does not know yet"
        else:
            text = "ready"
    elif state == SENDING:
        text = "page fault, waits for itself" if partner is thread else f"sends to {who}"
    elif state in (RECEIVING, LATE):
        text = f"waits for an answer of {who}" if thread.held_by is not None else f"waits for {who}"
    elif state == WAITING:
        text = f"waits for {who}"
    elif state == REMOTE:
        text = f"asks the core of {who} to take its message"
    elif state == TAKING:
        text = f"takes a message from {who}"
    else:
        text = thread.state_name
    if thread.kernel_message is not None and state in (SENDING, RECEIVING, LATE, REMOTE):
        number, _, address = thread.kernel_message.fault
        text += f" (page fault at {address:#x})" if number == VECTOR_PAGE_FAULT else f" (exception {number})"
    if thread.timeout is not None and thread.timeout.thread is thread:
        text += f", until {thread.timeout.deadline_us} us"
    return text


def thread_details(kernel: Kernel, thread: Thread) -> View:
    """One thread, everything (JDB: t)."""
    task = thread.task

    def handler(index: int | None) -> str:
        if index is None:
            return "none"
        cap = task.capability_table.slots.get(index) if task is not None else None
        return f"cap {index:#x}: {object_name(cap.object) if cap is not None else 'empty'}"

    caller = thread.reply.caller
    rows: list[tuple[Cell, ...]] = [
        ("task", task_name(task) if task is not None else "none"),
        ("state", state_text(kernel, thread)),
        ("core", "off-line" if thread.core == NO_CORE else thread.core),
        ("priority", thread.priority),
        ("quantum left", f"{thread.quantum_left_cycles} of {thread.quantum_cycles} cycles"),
        ("UTCB", f"{thread.utcb_address:#x}"),
        *((what, handler(index)) for what, index in kernel.interface.handlers(thread)),
        ("owes an answer to", thread_name(caller) if caller is not None else "nobody"),
        ("senders queued", ", ".join(object_name(sender) for sender in thread.senders) or "none"),
        ("system calls", thread.system_calls),
        ("page faults", thread.page_faults),
        ("exceptions", thread.exceptions),
        ("messages sent", thread.ipc_count),
    ]
    return View(f"thread {thread.number}: {thread_name(thread)}", ("what", "value"), tuple(rows))


def senders(kernel: Kernel) -> View:
    """Who is queued where (JDB: ls)."""
    rows: list[tuple[Cell, ...]] = []
    for thread in kernel.threads.values():
        for place, sender in enumerate(thread.senders, 1):
            rows.append((thread_name(thread), place, object_name(sender)))
    for obj in all_objects(kernel):
        if isinstance(obj, Gate | Semaphore):
            rows += [(object_name(obj), place, object_name(s)) for place, s in enumerate(obj.waiting, 1)]
    return View(f"{len(rows)} queued", ("receiver", "place", "sender"), tuple(rows))


def message(kernel: Kernel, thread: Thread) -> View:
    """The message registers of a thread, as its last tag counts them, or all that it sends now."""
    sent: Sequence[int]
    if thread.kernel_message is not None:
        sent = thread.kernel_message.words
    else:
        sent = kernel.interface.message_words(kernel, thread)
    label = kernel.interface.tag(thread.send_tag).label
    title = f"{thread_name(thread)}: tag {thread.send_tag:#x}, protocol {label}, label {thread.send_label:#x}"
    return View(
        title, ("register", "word"), tuple((f"MR{i}", f"{word:#010x}") for i, word in enumerate(sent))
    )


# --- tasks and capabilities (JDB: s, K, O) ------------------------------------------------------------


def tasks(kernel: Kernel) -> View:
    """All tasks and what each has."""
    rows = [
        (
            task.number,
            task_name(task),
            len(task.threads),
            len(task.space.pages) + 1024 * len(task.space.superpages),
            len(task.space.tables.table_pfns) + 1,
            len(task.space.ku_pages),
            len(task.capability_table.slots),
        )
        for task in kernel.tasks.values()
    ]
    columns = ("task", "name", "threads", "pages", "page tables", "UTCB pages", "capabilities")
    return View(counted(len(rows), "task"), columns, tuple(rows))


def capabilities(kernel: Kernel, task: Task) -> View:
    """A task's capability table (JDB: O)."""
    rows = [
        (
            f"{index:#x}",
            cap.object.kind,
            object_name(cap.object)
            if isinstance(cap.object, Thread)
            else cap.object.name or str(cap.object.number),
            kernel.interface.rights_text(cap),
            f"{cap.extra:#04x}",
            "counted" if cap.counted else "weak",
            _target_text(cap.object),
        )
        for index, cap in sorted(task.capability_table.slots.items())
    ]
    columns = ("index", "kind", "object", "rights", "extra", "reference", "leads to")
    return View(
        f"{task_name(task)}: {counted(len(rows), 'capability', 'capabilities')}", columns, tuple(rows)
    )


def _target_text(obj: KernelObject) -> str:
    if isinstance(obj, Gate):
        bound = thread_name(obj.thread) if obj.thread is not None else "nobody"
        return f"{bound}, label {obj.label:#x}"
    if isinstance(obj, Irq):
        bound = thread_name(obj.thread) if obj.thread is not None else "nobody"
        return f"{bound}, label {obj.label:#x}{', pending' if obj.pending or obj.queued else ''}"
    if isinstance(obj, Semaphore):
        return f"count {obj.count}"
    if isinstance(obj, Factory):
        return f"{obj.budget.used_bytes} bytes used"
    return ""


def all_objects(kernel: Kernel) -> list[KernelObject]:
    """Every object that a living capability, the kernel's lists or a binding leads to, by number."""
    found: dict[int, KernelObject] = {}
    for task in kernel.tasks.values():
        found[task.number] = task
        for cap in task.capability_table.slots.values():
            found[cap.object.number] = cap.object
    for thread in kernel.threads.values():
        found[thread.number] = thread
        for obj in (*thread.bound_irqs, *thread.bound_gates):
            found[obj.number] = obj
    return [found[number] for number in sorted(found)]


def objects(kernel: Kernel, kind: str = "") -> View:
    """All kernel objects, or those of one kind (JDB: K)."""
    rows = [
        (
            obj.number,
            obj.kind,
            thread_name(obj) if isinstance(obj, Thread) else obj.name,
            len(obj.capabilities),
            _target_text(obj),
        )
        for obj in all_objects(kernel)
        if kind in ("", obj.kind)
    ]
    return View(
        counted(len(rows), "object"), ("number", "kind", "name", "capabilities", "details"), tuple(rows)
    )


def interrupts(kernel: Kernel) -> View:
    """Interrupt controllers, and what their pins trigger (JDB: R)."""
    rows: list[tuple[Cell, ...]] = []
    for obj in all_objects(kernel):
        if isinstance(obj, Icu):
            for pin, target in sorted(obj.pins.items()):
                masked = "masked" if pin in obj.masked else "unmasked"
                rows.append((object_name(obj), pin, object_name(target), masked, _target_text(target)))
    return View(
        f"{counted(len(rows), 'pin')} bound",
        ("controller", "pin", "triggers", "mask", "details"),
        tuple(rows),
    )


# --- cores (JDB: lr, and on each CPU) -------------------------------------------------------------------


def ready_queues(kernel: Kernel) -> View:
    """What runs on each core and what could (JDB: lr)."""
    rows: list[tuple[Cell, ...]] = []
    for core in kernel.cores:
        current, context = core.current, core.context
        if current is not None:
            donated = (
                "" if context is current or context is None else f"on the time of {thread_name(context)}"
            )
            rows.append((core.number, "running", current.priority, thread_name(current), donated))
        else:
            rows.append((core.number, "idle", 0, "", ""))
        rows += [(core.number, "ready", t.priority, thread_name(t), "") for t in core.ready.threads()]
    return View("ready queues", ("core", "state", "priority", "thread", "remarks"), tuple(rows))


def timeouts(kernel: Kernel) -> View:
    """Armed timeouts by core, soonest first (JDB: lt)."""
    rows: list[tuple[Cell, ...]] = []
    for core in kernel.cores:
        for timeout in core.wake_ups.armed():
            thread = timeout.thread
            if thread is not None:
                rows.append((core.number, timeout.deadline_us, thread_name(thread)))
    return View(
        f"{counted(len(rows), 'timeout')}, clock {kernel.clock_us} us",
        ("core", "at us", "thread"),
        tuple(rows),
    )


def pending_interrupts(pending: MappingOf[int, Iterable[tuple[int, Drq | None]]]) -> View:
    """Interrupts between cores that are on their way. `pending`: core -> (cycle of arrival, DRQ)."""
    rows = [(core, arrival, drq_text(drq)) for core, arrivals in pending.items() for arrival, drq in arrivals]
    return View(
        f"{counted(len(rows), 'interrupt')} under way", ("to core", "arrives at cycle", "for"), tuple(rows)
    )


def drq_text(drq: Drq | None) -> str:
    """What one core asks of another, in words."""
    if drq is None:
        return "look"
    if isinstance(drq, FlushDrq):
        return f"flush {drq.pages or 'all'} translations"
    name = type(drq).__name__.removesuffix("Drq").lower()
    thread = thread_of(drq)
    who = thread_name(thread) if thread is not None else ""
    if isinstance(drq, SendDrq | TransferDrq):
        return f"{name} from {who} to {thread_name(drq.partner)}"
    if isinstance(drq, PlaceDrq):
        return f"{name} {who} on core {drq.core}, priority {drq.priority}"
    return f"{name} {who}".rstrip()


KINDS = OBJECT_KINDS
"""What `objects` can be asked for."""
