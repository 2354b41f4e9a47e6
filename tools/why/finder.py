"""How the chain of one page fault or IPC is found: along the messages of its request.

Found backwards: the last message to its thread, who sent that and what had woken *that* thread, and so on. Work that a
request causes beside its chain (a server that tidies up after its answer) is not in it; the ledger has that, too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from l4lab.kernel import events
from l4lab.kernel.events import OBJECT_KINDS, Event
from l4lab.kernel.traps import DeadlineReached
from l4lab.tools.ledger.accounts import NOT_ASKED_FOR
from l4lab.tools.ledger.timeline import NOWHERE, Operation, Operations, Timeline
from l4lab.tools.why.chain import KERNEL, USER, Chain, Hop, Segment, check
from l4lab.tools.why.waits import CARRYING, Waits

_TELLING: Final = (
    events.MESSAGE,
    events.IRQ,
    events.TIMEOUT,
    events.OBTAINED,
    events.QUEUED,
    events.SENT,
    events.SERVED,
)
"""Events that tell what a thread waits for, or that it no longer does."""


class _Message(NamedTuple):
    """A message that hands the chain on; `row`: its kernel entry's."""

    sender: int
    receiver: int
    row: int


def find_chain(timeline: Timeline, operations: Operations, operation: Operation) -> Chain:
    """The chain of `operation`. KernelBug if it does not add up."""
    return ChainFinder(timeline, operations, operation).chain()


class ChainFinder:
    """One chain in the making."""

    def __init__(self, timeline: Timeline, operations: Operations, operation: Operation) -> None:
        self.timeline = timeline
        self._operations = operations
        self._operation = operation
        self._run = timeline.run
        if operation.resumed is not None:
            self._end = operation.resumed
        else:
            self._end = timeline.last_work(operation.request, operation.row)
        found = list(map(events.event, self._run.events_between(operation.cycle, self._end).tolist()))
        if operation.open_ended:
            self._end = self._taken(found)
        self._messages_to: dict[int, list[tuple[int, Event]]] = {}
        self._happened_to: dict[int, list[Event]] = {}
        for place, event in enumerate(found):
            if event.kind == events.MESSAGE:
                self._messages_to.setdefault(event.partner, []).append((place, event))
            if event.kind in _TELLING:
                self._happened_to.setdefault(_concerned(event), []).append(event)

    def _taken(self, found: list[Event]) -> int:
        """When the message of an open-ended operation had gone over."""
        sender = self._operation.thread
        for event in found:
            if event.kind == events.MESSAGE and event.thread == sender:
                row = self.timeline.entry_row(event.core, event.cycle)
                if row != NOWHERE:
                    return int(self.timeline.end[row])
        return self._end

    def chain(self) -> Chain:
        timeline, operation = self.timeline, self._operation
        hops = []
        holder, at = operation.thread, operation.cycle
        since = operation.cycle
        for message in self._messages():
            end = int(timeline.end[message.row])
            if end > at:  # else it was handed on twice in one entry
                segments = self._cover(holder, since, at, end, message.row)
                hops.append(Hop(holder, message.receiver, tuple(segments)))
            holder, at, since = message.receiver, max(at, end), int(timeline.entry[message.row])
        if at < self._end:
            hops.append(Hop(holder, 0, tuple(self._cover(holder, since, at, self._end, NOWHERE))))
        chain = Chain(operation, tuple(hops), self._end)
        check(chain)
        return chain

    def _messages(self) -> list[_Message]:
        """The messages that hand the chain on, found backwards: who woke the last holder, and who woke that."""
        operation = self._operation
        path: list[_Message] = []
        holder, before = operation.thread, len(self._run.events) + len(self._run.rows)
        while True:
            for place, event in reversed(self._messages_to.get(holder, [])):
                if place >= before or (holder != operation.thread and event.request != operation.request):
                    continue
                row = self.timeline.entry_row(event.core, event.cycle)
                if row != NOWHERE and self.timeline.end[row] <= self._end:
                    break
            else:
                path.reverse()
                return path
            path.append(_Message(event.thread, event.partner, row))
            holder, before = event.thread, place

    # --- covering a stretch of time ---------------------------------------------------------------

    def _cover(self, holder: int, since: int, start: int, end: int, last_row: int) -> list[Segment]:
        """Segments from `start` to `end`, in which `holder` has the chain; `last_row` hands it on.

        The holder's own rows are on the way wherever they are; between them it waited. `since`: the
        cycle of the kernel entry that ends at `start`, and may have told what it waits for.
        """
        timeline = self.timeline
        segments: list[Segment] = []
        at = start
        rows = timeline.rows_of_thread(holder)
        first = max(int(np.searchsorted(timeline.start[rows], start, side="right")) - 1, 0)
        behind = int(np.searchsorted(timeline.start[rows], end))
        for row in [*rows[first:behind].tolist(), last_row]:
            if row == NOWHERE or at >= end or timeline.end[row] <= at:
                continue
            begin, entry = int(timeline.start[row]), int(timeline.entry[row])
            own = int(timeline.thread[row]) == holder
            if at < (begin if own else entry):
                until = min(begin if own else entry, end)
                segments += self._gap(holder, since, at, until, row)
                at = until
            if own and at < min(entry, end):
                segments.append(self._user(row, at, min(entry, end)))
                at = min(entry, end)
            if at < min(int(timeline.end[row]), end):
                segments.append(self.kernel(row, at, min(int(timeline.end[row]), end)))
                at = min(int(timeline.end[row]), end)
            since = entry
        if at < end:
            after = int(rows[behind]) if behind < len(rows) else NOWHERE
            segments += self._gap(holder, since, at, end, after)
        return segments

    def _user(self, row: int, start: int, end: int) -> Segment:
        timeline = self.timeline
        causes = timeline.user_causes(row)
        if sum(causes.values()) != end - start:
            causes = {"user": end - start}  # cut short by the end of the run
        thread = int(timeline.thread[row])
        what = f"{self._run.thread_name(thread)} runs"
        return Segment(USER, start, end, int(timeline.core[row]), thread, what, causes, row=row)

    def kernel(self, row: int, start: int, end: int) -> Segment:
        """A kernel entry, or the part of it from `start` to `end`, by the causes that fall into that.

        The ledger does not tell in which order they came; that of its columns is taken.
        """
        timeline = self.timeline
        causes: dict[str, int] = {}
        at = int(timeline.entry[row])
        for cause, cycles in timeline.kernel_causes(row).items():
            inside = min(at + cycles, end) - max(at, start)
            if inside > 0:
                causes[cause] = inside
            at += cycles
        thread = int(timeline.thread[row])
        return Segment(
            KERNEL, start, end, int(timeline.core[row]), thread, self._entry_words(row), causes, row=row
        )

    def _entry_words(self, row: int) -> str:
        timeline = self.timeline
        trap, served = int(timeline.trap[row]), int(timeline.served[row])
        if trap not in NOT_ASKED_FOR:
            return "kernel"
        if trap == DeadlineReached.number:
            return "kernel: timer"
        if served == self._operation.request:
            return "kernel: takes the interrupt"
        return f"kernel: interrupt {self._request_words(served)}"

    # --- waiting ----------------------------------------------------------------------------------

    def _gap(self, holder: int, since: int, start: int, end: int, next_row: int) -> list[Segment]:
        """The holder does not run from `start` to `end`; `next_row`: where the chain goes on, NOWHERE: it does not.

        What is known to have happened to it meanwhile tells what it waited for.
        """
        timeline = self.timeline
        core = int(timeline.core[next_row]) if next_row != NOWHERE else NOWHERE
        waiting = Waits(self, holder, start, end, core)
        for event in self._happened_to.get(holder, []):
            if since <= event.cycle <= end:
                self._happens(waiting, event, next_row)
        return waiting.finish()

    def _happens(self, waiting: Waits, event: Event, next_row: int) -> None:
        if event.kind == events.SENT:
            if event.extra in CARRYING:
                waiting.flight(event)
            return
        row = self.timeline.entry_row(event.core, event.cycle)
        over = int(self.timeline.end[row]) if row != NOWHERE else event.cycle
        if event.kind == events.QUEUED:
            waiting.queued(over, event)
        elif over > waiting.at:  # else it has led to where this begins
            if event.kind != events.SERVED:
                waiting.woken(over, event)
            elif event.extra in CARRYING and row != next_row:
                waiting.served(row)

    def activity(self, core: int, start: int, end: int) -> dict[str, int]:
        """What `core` did, cycles by description, greatest first; empty if that is not in the books."""
        timeline = self.timeline
        found: dict[str, int] = {}
        at = start
        while at < end:
            row = timeline.row_at(core, at)
            if row == NOWHERE:
                break
            entry, behind = int(timeline.entry[row]), int(timeline.end[row])
            if at < entry:
                until = min(entry, end)
                thread = int(timeline.thread[row])
                words = self._user_words(thread, int(timeline.request[row])) if thread else "idle"
            else:
                until = min(behind, end)
                words = f"kernel {self._request_words(int(timeline.served[row]))}"
            found[words] = found.get(words, 0) + until - at
            at = until
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _user_words(self, thread: int, request: int) -> str:
        name = self._run.thread_name(thread)
        return f"{name} {self._request_words(request)}" if request else name

    def _request_words(self, request: int) -> str:
        if request == self._operation.request:
            return "for this"
        root = self._operations.of_request(request)
        return f"for {root.name}" if root is not None else "for nobody"

    def name(self, event: Event) -> str:
        """Whom or what a QUEUED event waits for."""
        kind = OBJECT_KINDS[event.extra] if event.extra < len(OBJECT_KINDS) else "object"
        return self._run.object_name(kind, event.partner)

    def waited_for(self, event: Event) -> str:
        """What ended a wait, as what was waited for."""
        if event.kind == events.MESSAGE:
            return f"waits for a message from {self._run.thread_name(event.thread)}"
        if event.kind == events.IRQ:
            return f"waits for an interrupt (IRQ #{event.thread}, label {event.b:#x})"
        if event.kind == events.OBTAINED:
            return f"waits for semaphore #{event.partner}"
        return "waits for its timeout"

    def core_of(self, thread: int, cycle: int) -> int:
        """Where `thread` ran around `cycle`; NOWHERE if it never did."""
        timeline = self.timeline
        rows = timeline.rows_of_thread(thread)
        before = [int(row) for row in rows if timeline.start[row] <= cycle]
        nearest = before[-1] if before else (int(rows[0]) if len(rows) else NOWHERE)
        return int(timeline.core[nearest]) if nearest != NOWHERE else NOWHERE


def _concerned(event: Event) -> int:
    """The thread whose waiting an event tells about."""
    return event.partner if event.kind in (events.MESSAGE, events.IRQ) else event.thread
