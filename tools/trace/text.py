"""A run's events as text, one a line, in the words of the trace buffer of Fiasco's kernel debugger.

    cycle  core  event  what it says: the thread, then name=value as that debugger abbreviates them

`pfa` page fault address, `ip` instruction, `tag` and `label` of a message, `vpn`… are numbers as the kernel has
them; threads and objects are named with their numbers, page faults and IPCs as `l4lab why` counts them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from l4lab.emulator.costs import MILLICYCLES_PER_CYCLE
from l4lab.emulator.debug.catching import PROTOCOLS, protocol_name
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import events
from l4lab.kernel.events import DRQ_KINDS, KIND_NAMES, OBJECT_KINDS, Event
from l4lab.kernel.traps import TRAP_NAMES
from l4lab.tools.ledger.timeline import KIND_WORDS
from l4lab.tools.runs.rundir import Run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.source import Stretch

_OFF_LINE: Final = (1 << 32) - 1
_FETCH: Final = 16
_WRITE: Final = 2
_PRESENT: Final = 1


def text_lines(run: Run, symbols: Symbols, stretches: Iterable[Stretch]) -> Iterator[str]:
    """The events of some of `run`, by cycle, without samples; those of one cycle in the order of happening."""
    describe = Describer(run, symbols)
    for event, stretch in _by_cycle(stretches):
        if event.kind == events.SAMPLE:
            continue
        name, what = kind_name(event.kind), describe(event)
        if event.kind == events.ENTER and event.thread == stretch.thread:
            what += _spent(stretch, run.tlb_miss_millicycles)
        yield f"{event.cycle:>14} {event.core:>3}  {name:<24} {what}"


def _by_cycle(stretches: Iterable[Stretch]) -> Iterator[tuple[Event, Stretch]]:
    """Kernel entries come in the order of their beginning, but what one sends, it sends at its end.

    So an event waits until all that begin no later have come: as many as there are cores in the kernel.
    """
    waiting: list[tuple[int, int, Event, Stretch]] = []
    count = 0
    for stretch in stretches:
        while waiting and waiting[0][0] < stretch.entry:
            yield heapq.heappop(waiting)[2:]
        for event in stretch.events:
            count += 1
            heapq.heappush(waiting, (event.cycle, count, event, stretch))
    while waiting:
        yield heapq.heappop(waiting)[2:]


def kind_name(kind: int) -> str:
    """`page fault`; for what is no kind, a word that says so."""
    return KIND_NAMES[kind] if kind < len(KIND_NAMES) else f"event kind {kind}"


class Describer:
    """Says of an event what its columns mean."""

    def __init__(self, run: Run, symbols: Symbols) -> None:
        self._run = run
        self._symbols = symbols
        self._by_kind: dict[int, Callable[[Event], str]] = {
            events.FAULT: self._fault,
            events.EXCEPTION: self._exception,
            events.IPC: self._ipc,
            events.MESSAGE: self._message,
            events.IRQ: lambda e: (
                f"{self._run.object_name('irq', e.thread)} to {self.thread(e.partner)} label={e.b:#x}"
            ),
            events.END: lambda e: f"{self.thread(e.thread)} error={e.a:#x}",
            events.QUEUED: lambda e: f"{self.thread(e.thread)} at {self._target(e)}",
            events.SENT: self._sent,
            events.SERVED: lambda e: f"{_of(DRQ_KINDS, e.extra)} for {self.thread(e.thread)}",
            events.TIMEOUT: lambda e: self.thread(e.thread),
            events.OBTAINED: lambda e: (
                f"{self.thread(e.thread)} has {self._run.object_name('semaphore', e.partner)}"
            ),
            events.BOUND: lambda e: f"{self.thread(e.thread)} to {self._run.object_name('task', e.partner)}",
            events.SWITCH: self._switch,
            events.RESOLVED: self._resolved,
            events.MAP: self._map,
            events.UNMAP: self._unmap,
            events.CREATE: lambda e: (
                f"{self._run.object_name(_of(OBJECT_KINDS, e.a), e.partner)} by {self.thread(e.thread)}"
            ),
            events.DESTROY: lambda e: self._run.object_name(_of(OBJECT_KINDS, e.a), e.partner),
            events.MIGRATE: lambda e: f"{self.thread(e.thread)} {_core(e.partner)} -> {_core(e.a)}",
            events.SCHEDULE: lambda e: f"{self._runner(e.partner)} -> {self._runner(e.thread)} prio={e.a}",
            events.NO_PAGER: lambda e: f"{self.thread(e.thread)} pfa={e.a:#x}",
            events.FLUSH: lambda e: f"cores={e.b << 32 | e.a:#x} pages={e.extra or 'all'}",
            events.MAP_CAPABILITY: self._map_capability,
            events.UNMAP_CAPABILITY: self._unmap_capability,
            events.ENTER: self._enter,
            events.GATE: lambda e: (
                f"{self.thread(e.thread)} through {self._run.object_name('gate', e.partner)} label={e.b:#x} {_tag(e.a)}"
            ),
            events.INVOKE: lambda e: f"{self.thread(e.thread)} on {self._target(e)} {_tag(e.a)}",
            events.SAMPLE: lambda e: f"{self.thread(e.thread)} {self._at(e, e.a)}, {e.b} cycles before",
        }

    def __call__(self, event: Event) -> str:
        """`pma.0 #31 pfa=0x20000000 ip=0x8048367 (main) write: fault 17`."""
        describe = self._by_kind.get(event.kind)
        return describe(event) if describe is not None else "?"

    def thread(self, number: int) -> str:
        """What to call a thread."""
        return self._run.thread_name(number)

    def _target(self, event: Event) -> str:
        return self._run.object_name(_of(OBJECT_KINDS, event.extra), event.partner)

    def _at(self, event: Event, address: int) -> str:
        function = self._symbols.function(event.thread, address)
        return f"ip={address:#x}" if function.startswith("0x") else f"ip={address:#x} {function}"

    def _fault(self, event: Event) -> str:
        access = "write" if event.extra & _WRITE else "fetch" if event.extra & _FETCH else "read"
        why = "not allowed" if event.extra & _PRESENT else "not mapped"
        who = self.thread(event.thread)
        return f"{who} pfa={event.a:#x} {self._at(event, event.b)} ({access}, {why}): {_number(event)}"

    def _exception(self, event: Event) -> str:
        return f"{self.thread(event.thread)} trap={event.a} {self._at(event, event.b)}: {_number(event)}"

    def _ipc(self, event: Event) -> str:
        to = self._run.receiver_name(event.partner)
        how = "send, open wait" if event.extra & events.OPEN_ENDED else "send"
        return f"{self.thread(event.thread)} to {to} {_tag(event.a)} ({how}): {_number(event)}"

    def _message(self, event: Event) -> str:
        who = f"{self.thread(event.thread)} -> {self.thread(event.partner)}"
        return f"{who} {_tag(event.a)} badge={event.b:#x}"

    def _sent(self, event: Event) -> str:
        what = f"{_of(DRQ_KINDS, event.extra)} to core {event.partner}"
        whom = f" for {self.thread(event.thread)}" if event.thread else ""
        if not event.b:
            return f"{what}{whom}, with an interrupt that arrives in {event.a} cycles"
        return f"{what}{whom} waited={event.a} travels={event.b}"

    def _switch(self, event: Event) -> str:
        space = ", another address space" if event.a else ""
        return f"{self._runner(event.partner)} -> {self._runner(event.thread)}{space}"

    def _runner(self, number: int) -> str:
        return self.thread(number) if number else "idle"

    def _resolved(self, event: Event) -> str:
        result = "refused" if event.b else "mapped"
        return f"{self.thread(event.thread)} pfa={event.a:#x} by {self.thread(event.partner)}: {result}"

    def _map(self, event: Event) -> str:
        task = self._run.object_name("task", event.partner)
        who = self.thread(event.thread)
        return f"{who} to {task} {event.a:#x} -> {event.b:#x} pages={event.extra}"

    def _unmap(self, event: Event) -> str:
        task = self._run.object_name("task", event.partner)
        return f"{self.thread(event.thread)} from {task} {event.a:#x} pages={event.b} rights={event.extra:#x}"

    def _map_capability(self, event: Event) -> str:
        task = self._run.object_name("task", event.partner)
        slots = f"slot={event.a:#x} -> {event.b:#x} count={event.extra}"
        return f"{self.thread(event.thread)} to {task} {slots}"

    def _unmap_capability(self, event: Event) -> str:
        task = self._run.object_name("task", event.partner)
        slots = f"slot={event.a:#x} count={event.b} rights={event.extra:#x}"
        return f"{self.thread(event.thread)} from {task} {slots}"

    def _enter(self, event: Event) -> str:
        trap = _of(TRAP_NAMES, event.extra)
        place = event.b or event.a
        return f"{self.thread(event.thread)} {trap} {self._at(event, place)}"


def _spent(stretch: Stretch, tlb_miss_millicycles: int) -> str:
    """What the user code before a kernel entry took."""
    refill = stretch.user[1]
    cycles = f", after {stretch.entry - stretch.start} cycles"
    if not refill or not tlb_miss_millicycles:
        return cycles
    misses = max(round(refill * MILLICYCLES_PER_CYCLE / tlb_miss_millicycles), 1)
    return f"{cycles} with {misses} TLB miss{'es' * (misses > 1)}"


def _number(event: Event) -> str:
    return f"{KIND_WORDS[event.kind]} {event.number}"


def _of(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"#{number}"


def _core(number: int) -> str:
    return "off-line" if number == _OFF_LINE else f"core {number}"


def _tag(tag: int) -> str:
    label, words, items = INTERFACE.tag(tag)
    name = protocol_name(label) if label in PROTOCOLS.values() and label else ""
    return f"{name or f'label={label}'} words={words} items={items}"
