"""The time in which the holder of a chain does not run: what it waits for, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import events
from l4lab.kernel.events import DRQ_KINDS
from l4lab.tools.ledger.timeline import NOWHERE
from l4lab.tools.why.chain import FLIGHT, WAIT, Segment

if TYPE_CHECKING:
    from l4lab.kernel.events import Event
    from l4lab.tools.why.finder import ChainFinder

CARRYING: Final = tuple(DRQ_KINDS.index(name) for name in ("send", "transfer", "wake", "receive", "place"))
"""Requests between cores that bring a message on its way."""


class Waits:
    """The time in which a holder does not run, in the making. `at`: what is before is told.

    `state`: what it waits for from `at` on, and the core where that is; "" for not known yet, which
    what ends the wait will tell.
    """

    def __init__(self, finder: ChainFinder, holder: int, start: int, end: int, core: int) -> None:
        self._finder = finder
        self.holder = holder
        self.at = start
        self._end = end
        self._core = core
        self._state = ""
        self._where = NOWHERE
        self._segments: list[Segment] = []

    def flight(self, event: Event) -> None:
        """An interrupt about the holder leaves; it may have to wait for the interconnect first.

        One that takes no time goes along with another: it was spared the cycles of sending.
        """
        left, arrival = event.cycle + event.a, event.cycle + event.a + event.b
        if event.b:
            self._advance(event.cycle)
        else:
            along = f"goes along with an interrupt to core {event.partner}"
            self._append(FLIGHT, arrival, NOWHERE, along, "in flight")
            self._state, self._where = f"core {event.partner} has not taken the interrupt yet", event.partner
            return
        self._append(WAIT, left, event.core, "waits for the interconnect", "waiting for the interconnect")
        path = f"interrupt from core {event.core} to core {event.partner}"
        self._append(FLIGHT, arrival, NOWHERE, path, "in flight")
        self._state, self._where = f"core {event.partner} has not taken the interrupt yet", event.partner

    def served(self, row: int) -> None:
        """A core takes an interrupt about the holder."""
        entry, end = int(self._finder.timeline.entry[row]), int(self._finder.timeline.end[row])
        self._advance(entry)
        begin, end = max(entry, self.at), min(end, self._end)
        if begin < end and begin == self.at:
            self._segments.append(self._finder.kernel(row, begin, end))
            self.at = end
        self._state, self._where = "", NOWHERE

    def queued(self, cycle: int, event: Event) -> None:
        """From `cycle` on the holder stands in a queue."""
        self._advance(cycle)
        self._state = f"queued at {self._finder.name(event)}"
        self._where = self._finder.core_of(event.partner, cycle)

    def woken(self, cycle: int, event: Event) -> None:
        """What the holder waited for has come."""
        if not self._state:
            self._state = self._finder.waited_for(event)
            self._where = (
                self._finder.core_of(event.thread, cycle) if event.kind == events.MESSAGE else NOWHERE
            )
        self._advance(cycle)
        self._state, self._where = "", NOWHERE

    def finish(self) -> list[Segment]:
        """All segments, up to the end."""
        if not self._state and self._core != NOWHERE:
            self._state, self._where = f"ready, core {self._core} is busy", self._core
        elif not self._state:
            self._state = "waits for what never comes"
        self._advance(self._end)
        return self._segments

    def _advance(self, until: int) -> None:
        state = self._state or "waits"
        self._append(WAIT, until, self._where, state, _cause(state))

    def _append(self, kind: str, until: int, core: int, what: str, cause: str) -> None:
        start, until = self.at, min(until, self._end)
        if until > start:
            meanwhile = self._finder.activity(core, start, until) if kind == WAIT and core != NOWHERE else {}
            causes = {cause: until - start}
            self._segments.append(Segment(kind, start, until, core, self.holder, what, causes, meanwhile))
            self.at = until


def _cause(state: str) -> str:
    """Under what a wait is summed up."""
    if state.startswith("queued at "):
        return "queued"
    if state.startswith(("ready, core", "core ")):
        return "waiting for a core"
    return "waiting"
