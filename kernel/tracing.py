"""What is only logged in a trace: switches, mappings, lives of objects. Nothing here is called without one.

The causal part of the log, which is kept with every ledger, is in `requests`; what the records mean stands
in `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.events import (
    CREATE,
    DESTROY,
    ENTER,
    EXTRA_SHIFT,
    FLUSH,
    GATE,
    INVOKE,
    MAP,
    MAP_CAPABILITY,
    MIGRATE,
    NO_PAGER,
    RESOLVED,
    SAMPLE,
    SCHEDULE,
    SWITCH,
    UNMAP,
    UNMAP_CAPABILITY,
    object_kind,
)
from l4lab.kernel.frame import EIP, ESP

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.events import EventLog
    from l4lab.kernel.objects import Gate, Task
    from l4lab.kernel.state import FlushTlb, Kernel
    from l4lab.kernel.thread import Thread

_WORD = 0xFFFFFFFF
_PAGE_MASK = 0xFFF


def _log(
    kernel: Kernel, log: EventLog, kind: int, thread: int, partner: int, request: int, a: int, b: int
) -> None:
    log.pending += (kernel.now_cycles, kernel.here, kind, thread, partner, request, a, b)


def _number(obj: KernelObject | None) -> int:
    return obj.number if obj is not None else 0


def _running(kernel: Kernel) -> int:
    return _number(kernel.cores[kernel.here].current)


def entered(kernel: Kernel, log: EventLog, core: int, thread: Thread, trap: int, now_cycles: int) -> None:
    """`thread` is about to enter the kernel for the trap of this number."""
    eip = thread.frame[EIP]
    caller = 0
    if eip & ~_PAGE_MASK == kernel.interface.system_call_page and thread.task is not None:
        caller = _word_at(kernel, thread.task, thread.frame[ESP])
    extra = trap << EXTRA_SHIFT
    log.pending += (now_cycles, core, ENTER | extra, thread.number, 0, thread.request, eip, caller)


def gate_invoked(kernel: Kernel, log: EventLog, thread: Thread, gate: Gate) -> None:
    """`thread` sends through `gate`."""
    _log(kernel, log, GATE, thread.number, gate.number, thread.request, thread.send_tag, gate.label & _WORD)


def object_invoked(kernel: Kernel, log: EventLog, thread: Thread, obj: KernelObject) -> None:
    """`thread` has the kernel itself do something."""
    extra = object_kind(obj.kind) << EXTRA_SHIFT
    _log(kernel, log, INVOKE | extra, thread.number, obj.number, thread.request, thread.send_tag, 0)


def sampled(log: EventLog, core: int, thread: Thread, samples: list[int], now_cycles: int) -> None:
    """Where `thread` was before it enters the kernel now: (cycle, EIP, TLB misses), one after the other; emptied."""
    for place in range(0, len(samples), 3):
        cycle, eip, misses = samples[place : place + 3]
        log.pending += (
            now_cycles,
            core,
            SAMPLE,
            thread.number,
            misses,
            thread.request,
            eip,
            now_cycles - cycle,
        )
    samples.clear()


def _word_at(kernel: Kernel, task: Task, address: int) -> int:
    """What stands at a linear address; 0 if it cannot be read in one piece."""
    found = task.space.tables.translate(address)
    if found is None or address & 3:
        return 0
    place = found.physical >> 2
    return kernel.words[place] if place < len(kernel.words) else 0


def switch(kernel: Kernel, log: EventLog, before: Thread | None, after: Thread | None, space: bool) -> None:
    """The core goes on with another thread, or with none. `space`: in another address space."""
    request = after.request if after is not None else 0
    _log(kernel, log, SWITCH, _number(after), _number(before), request, space, 0)


def schedule(kernel: Kernel, log: EventLog, before: Thread | None, chosen: Thread | None) -> None:
    """The scheduler has looked at the ready queue."""
    priority = chosen.priority if chosen is not None else 0
    request = chosen.request if chosen is not None else 0
    _log(kernel, log, SCHEDULE, _number(chosen), _number(before), request, priority, 0)


def migrate(kernel: Kernel, log: EventLog, thread: Thread, old: int, new: int) -> None:
    """`thread` gets another core, or loses its own."""
    _log(kernel, log, MIGRATE, thread.number, old & _WORD, thread.request, new & _WORD, 0)


def resolved(
    kernel: Kernel, log: EventLog, thread: Thread, pager: Thread, address: int, refused: bool
) -> None:
    """A page fault of `thread` was answered."""
    _log(kernel, log, RESOLVED, thread.number, pager.number, pager.request, address, refused)


def no_pager(kernel: Kernel, log: EventLog, thread: Thread, address: int) -> None:
    """A page fault found nobody to be sent to."""
    _log(kernel, log, NO_PAGER, thread.number, 0, thread.request, address, 0)


def mapped(kernel: Kernel, log: EventLog, target: Task, source_vpn: int, vpn: int, pages: int) -> None:
    """`EventLog.actor` has mapped memory into `target`."""
    extra = pages << EXTRA_SHIFT
    _log(
        kernel, log, MAP | extra, log.actor, target.number, kernel.served, source_vpn << 12, vpn << 12 & _WORD
    )


def unmapped(kernel: Kernel, log: EventLog, task: Task, address: int, pages: int, rights: int) -> None:
    """`EventLog.actor` has taken rights from what was mapped from this memory of `task`, or from it too."""
    extra = rights << EXTRA_SHIFT
    _log(kernel, log, UNMAP | extra, log.actor, task.number, kernel.served, address & _WORD, pages)


def capabilities_mapped(
    kernel: Kernel, log: EventLog, target: Task, source_index: int, index: int, count: int
) -> None:
    """`EventLog.actor` has given capabilities to `target`."""
    extra = count << EXTRA_SHIFT
    _log(
        kernel,
        log,
        MAP_CAPABILITY | extra,
        log.actor,
        target.number,
        kernel.served,
        source_index,
        index & _WORD,
    )


def capabilities_unmapped(
    kernel: Kernel, log: EventLog, task: Task, index: int, count: int, rights: int
) -> None:
    """`EventLog.actor` has taken rights from capabilities of `task`."""
    extra = rights << EXTRA_SHIFT
    _log(kernel, log, UNMAP_CAPABILITY | extra, log.actor, task.number, kernel.served, index, count)


def created(kernel: Kernel, log: EventLog, obj: KernelObject) -> None:
    """The running thread has made `obj`."""
    _log(kernel, log, CREATE, _running(kernel), obj.number, kernel.served, object_kind(obj.kind), 0)


def destroyed(kernel: Kernel, log: EventLog, obj: KernelObject) -> None:
    """`obj` is no more."""
    _log(kernel, log, DESTROY, _running(kernel), obj.number, kernel.served, object_kind(obj.kind), 0)


def flushed(kernel: Kernel, log: EventLog, flush: FlushTlb) -> None:
    """Translations are to be forgotten."""
    extra = (len(flush.pages) if flush.pages is not None else 0) << EXTRA_SHIFT
    low, high = flush.cores & _WORD, flush.cores >> 32 & _WORD
    _log(kernel, log, FLUSH | extra, _running(kernel), 0, kernel.served, low, high)
