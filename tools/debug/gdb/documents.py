"""Documents that gdb reads in pieces with `qXfer`: threads, memory map, kernel objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import inspect, inspect_memory
from l4lab.kernel.inspect import View

if TYPE_CHECKING:
    from pathlib import Path

    from l4lab.emulator.machine import Machine
    from l4lab.tools.debug.gdb.ids import ThreadId
    from l4lab.tools.debug.gdb.target import GdbThread

MEMORY_MAP: Final = (
    '<?xml version="1.0"?>\n<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
    '"http://sourceware.org/gdb/gdb-memory-map.dtd">\n'
    '<memory-map>\n <memory type="ram" start="0x0" length="0x100000000"/>\n</memory-map>\n'
)
"""All of every address space: what is mapped changes all the time, and reading says so."""


def threads(all_threads: Iterable[tuple[ThreadId, GdbThread, str]]) -> str:
    """Names, cores and, as a text, states."""
    lines = [
        f' <thread id="{number.encode().decode()}" core="{thread.core}" name={quoteattr(thread.name)}>'
        f"{escape(text)}</thread>"
        for number, thread, text in all_threads
    ]
    return "\n".join(('<?xml version="1.0"?>', "<threads>", *lines, "</threads>", ""))


def libraries(kernel_page: Path) -> str:
    """What every address space has besides its program: a page of the kernel's, as a library in `kernel_page`."""
    return (
        '<?xml version="1.0"?>\n<library-list>\n'
        f' <library name={quoteattr(str(kernel_page))}><segment address="{INTERFACE.system_call_page:#x}"/></library>\n'
        "</library-list>\n"
    )


def pending_interrupts(machine: Machine) -> View:
    """Interrupts between cores that are under way, by arrival and, of the same cycle, as they were sent."""
    under_way = {core.number: sorted(core.interrupts, key=lambda item: item[:2]) for core in machine.cores}
    return inspect.pending_interrupts(
        {core: [(arrival, what.drq) for arrival, _, what in found] for core, found in under_way.items()}
    )


def cores(machine: Machine) -> View:
    """Clocks, and what each core does."""
    rows = []
    for core in machine.cores:
        thread = core.decision.thread
        doing = inspect.thread_name(thread) if thread is not None else "idle"
        trap = type(core.trap).__name__ if core.trap is not None else ""
        counts = (core.kernel_cycles, core.idle_cycles, len(core.interrupts))
        rows.append((core.number, core.clock_cycles, doing, trap, *counts))
    columns = ("core", "cycle", "thread", "trap pending", "kernel cycles", "idle cycles")
    return View(f"{len(rows)} cores", (*columns, "interrupts under way"), tuple(rows))


JDB_LETTERS: Final = {
    "s": "tasks",
    "lp": "threads",
    "lr": "ready",
    "lt": "timeouts",
    "ls": "senders",
    "K": "objects",
    "R": "irqs",
    "O": "caps",
    "p": "ptable",
    "m": "mapdb",
    "t": "thread",
}
"""What the real kernel's debugger calls its views."""

VIEWS: Final[dict[str, tuple[str, Callable[[Machine], View]]]] = {
    "threads": ("Threads, and what each waits for", lambda machine: inspect.threads(machine.kernel)),
    "tasks": ("Tasks, and what each has", lambda machine: inspect.tasks(machine.kernel)),
    "objects": ("Kernel objects", lambda machine: inspect.objects(machine.kernel)),
    "senders": ("Who is queued where", lambda machine: inspect.senders(machine.kernel)),
    "ready": ("Ready queues", lambda machine: inspect.ready_queues(machine.kernel)),
    "timeouts": ("Armed timeouts", lambda machine: inspect.timeouts(machine.kernel)),
    "memory": ("Memory by owner", lambda machine: inspect_memory.memory(machine.kernel)),
    "irqs": ("Interrupt pins", lambda machine: inspect.interrupts(machine.kernel)),
    "ipis": ("Interrupts between cores under way", pending_interrupts),
    "cores": ("Cores and their clocks", cores),
}
"""Views of the whole machine: name -> (what it is, how to get it)."""


def osdata(annex: str, machine: Machine) -> str | None:
    """`info os` and `info os NAME`; None: no such view."""
    if annex in ("", "types"):
        columns = ("Type", "Description", "Title")
        rows = [(name, what, what) for name, (what, _) in VIEWS.items()]
        return _table("types", columns, rows)
    if annex not in VIEWS:
        return None
    view = VIEWS[annex][1](machine)
    return _table(annex, view.columns, view.rows)


def _table(kind: str, columns: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> str:
    items = [
        "<item>"
        + "".join(
            f"<column name={quoteattr(name)}>{escape(str(cell))}</column>"
            for name, cell in zip(columns, row, strict=True)
        )
        + "</item>"
        for row in rows
    ]
    return "\n".join(
        (
            '<?xml version="1.0"?>',
            '<!DOCTYPE osdata SYSTEM "osdata.dtd">',
            f'<osdata type="{kind}">',
            *items,
            "</osdata>",
            "",
        )
    )
