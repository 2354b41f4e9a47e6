"""What a stretch of time on one core was spent on, followed back through whatever it waited for.

`critical_path` goes backwards from the end: user code to the kernel entry that started it, an interrupt to
the core that sent it and what that did before. So work that runs at the same time on other cores does not
count, but waiting for it does; the pieces follow one another without gap, and add up to the stretch exactly.

Two causes stand for what no core's row has: being under way between cores, and waiting at the far end
or for the interconnect.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES, SHOOTDOWN
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.traps import Interrupt
from l4lab.tools.ledger.accounts import USER_CAUSES, UserSplitter, kernel_cycles
from l4lab.tools.runs.rundir import Integers, Run, kinds_of

IN_FLIGHT: Final = "in flight"
WAITING: Final = "waiting"
IDLE: Final = "idle"
PATH_CAUSES: Final = (*USER_CAUSES, *CAUSE_NAMES, IN_FLIGHT, WAITING, IDLE)
"""What `critical_path` books to. Idling is on the path only where nothing is known to end it."""

GROUPS: Final = {
    "user": ("user", "fpu switch"),
    "TLB refill": ("tlb refill",),
    "entry": ("kernel entry",),
    "exit": ("kernel exit",),
    "path": ("decode", "ipc", "object", "fault"),
    "copy": ("copy",),
    "map": ("map", "unmap", "TLB flush and shootdown"),
    "switch": ("thread switch", "schedule"),
    "space switch": ("space switch",),
    "IPI": ("interprocessor interrupt", IN_FLIGHT),
    "wake-up": ("leaving the halt",),
    "cache lines": ("cache line transfer",),
    "waiting": (WAITING, "waiting for a lock", IDLE),
    "timer": ("timer",),
}
"""The causes, as few as a table for people can show; each is in just one."""


class _Sent(NamedTuple):
    """An interrupt: when it arrived, got the interconnect and was sent, in cycles; the core it came from."""

    arrival: int
    left: int
    sent: int
    source: int


_AS_SPENT: Final = [USER_CAUSES.index(cause) for cause in ("tlb refill", "fpu switch", "user")]


@dataclass(frozen=True, slots=True)
class _CoreRows:
    """The rows of one core, in time. `user`, `kernel`: cycles before and in the kernel entry, by cause."""

    starts: list[int]
    entries: list[int]
    ends: list[int]
    threads: list[int]
    user: Integers
    kernel: Integers
    causes: dict[int, _Sent]
    """Index of an interrupt row -> what brought it."""


class PathFinder:
    """All rows of a run, ready for questions about the paths in it. Reads the whole ledger into memory."""

    def __init__(self, run: Run) -> None:
        rows = np.concatenate([np.asarray(run.rows[:0]), *run.row_chunks()])
        split = UserSplitter(run).split(rows)
        user = np.stack([split[name] for name in USER_CAUSES], axis=1)
        kernel = np.stack([rows[name] for name in CAUSE_NAMES], axis=1).astype(np.int64)
        sent = _sent(run)
        self._cores: list[_CoreRows] = []
        for core in range(run.cores):
            here = rows["core"] == core
            mine = rows[here]
            entries = mine["entry"].astype(np.int64)
            interrupts = np.flatnonzero(mine["trap"] == Interrupt.number).tolist()
            self._cores.append(
                _CoreRows(
                    starts=mine["start"].tolist(),
                    entries=entries.tolist(),
                    ends=(entries + kernel_cycles(mine)).tolist(),
                    threads=mine["thread"].tolist(),
                    user=user[here],
                    kernel=kernel[here],
                    causes=_brought(sent.get(core, []), interrupts, entries.tolist()),
                )
            )

    def critical_path(self, core: int, start: int, end: int) -> dict[str, int]:
        """Cycles by PATH_CAUSES on the path to user code of `core` at cycle `end`, from `start` on."""
        path = _Path(start)
        rows = self._cores[core]
        row = bisect_right(rows.starts, end) - 1
        path.user_part(rows, row, end)
        while path.at > start:
            core, row = self._step_back(path, core, row - 1)
        total = dict(zip((*USER_CAUSES, *CAUSE_NAMES), path.sums.tolist(), strict=True))
        total |= {IN_FLIGHT: path.in_flight, WAITING: path.waiting, IDLE: path.idle}
        if sum(total.values()) != end - start:
            raise KernelBug(f"a path of {end - start} cycles on core {core} was broken down to {total}")
        return total

    def _step_back(self, path: _Path, core: int, row: int) -> tuple[int, int]:
        """Book the kernel entry of `row`, which led to what is booked, and what led to it in turn.

        Returns where to go on: core, and row behind the one to step back over next.
        """
        rows = self._cores[core]
        if row < 0 or not rows.entries[row] <= path.at <= rows.ends[row]:
            raise KernelBug(f"nothing on core {core} leads to cycle {path.at}")
        path.kernel_part(rows, row)
        brought = rows.causes.get(row)
        resumed = row + 1 < len(rows.threads) and rows.threads[row] == rows.threads[row + 1] != 0
        if brought is None or resumed or path.at <= path.start:
            path.user_part(rows, row, path.at)
            return core, row
        path.wait(brought.arrival)
        path.fly(brought.left)
        path.wait(brought.sent)
        return brought.source, bisect_left(self._cores[brought.source].ends, brought.sent) + 1


class _Path:
    """A path in the making, backwards: everything from `at` on is booked."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.at = start
        self.sums = np.zeros(len(USER_CAUSES) + len(CAUSE_NAMES), np.int64)
        self.in_flight = self.waiting = self.idle = 0

    def user_part(self, rows: _CoreRows, row: int, end: int) -> None:
        """From the start of the row to `end`, which is at most its kernel entry."""
        begin = max(rows.starts[row], self.start)
        self.at = begin
        if begin >= rows.entries[row]:
            return
        if rows.threads[row] == 0:
            self.idle += end - begin
            return
        # A new turn begins with refilling the TLB: of a part of it, that is what lies in front.
        values = rows.user[row][_AS_SPENT].tolist()
        _cut(values, begin - rows.starts[row])
        values.reverse()
        _cut(values, rows.entries[row] - end)
        values.reverse()
        self.sums[_AS_SPENT] += values

    def kernel_part(self, rows: _CoreRows, row: int) -> None:
        """The kernel entry at the end of the row, up to here: interrupts leave before it waits."""
        values = rows.kernel[row].tolist()
        values[SHOOTDOWN] -= rows.ends[row] - self.at
        begin = max(rows.entries[row], self.start)
        _cut(values, begin - rows.entries[row])
        self.sums[len(USER_CAUSES) :] += values
        self.at = begin

    def wait(self, since: int) -> None:
        """Nothing goes on from `since` to here, but something is waited for."""
        since = min(max(since, self.start), self.at)
        self.waiting += self.at - since
        self.at = since

    def fly(self, since: int) -> None:
        """An interrupt is under way from `since` to here."""
        since = min(max(since, self.start), self.at)
        self.in_flight += self.at - since
        self.at = since


def _cut(values: list[int], cycles: int) -> None:
    """Take `cycles` away from the front."""
    for index, value in enumerate(values):
        cut = min(value, cycles)
        values[index] -= cut
        cycles -= cut


def _brought(sent: list[_Sent], rows: list[int], entries: list[int]) -> dict[int, _Sent]:
    """Which interrupt led to which of the core's interrupt `rows`; the first of all was sent by nobody."""
    found: dict[int, _Sent] = {}
    next_ = 0
    for row in rows:
        if next_ < len(sent) and sent[next_].arrival <= entries[row]:
            found[row] = sent[next_]
            next_ += 1
    return found


def _sent(run: Run) -> dict[int, list[_Sent]]:
    """Core -> its interrupts in the order of arrival."""
    found: dict[int, list[_Sent]] = {}
    for chunk in run.event_chunks():
        sent_on_its_own = (kinds_of(chunk) == events.SENT) & (chunk["b"] > 0)
        for event in map(events.event, chunk[sent_on_its_own].tolist()):
            left = event.cycle + event.a
            interrupt = _Sent(left + event.b, left, event.cycle, event.core)
            found.setdefault(event.partner, []).append(interrupt)
    for interrupts in found.values():
        interrupts.sort(key=lambda interrupt: interrupt.arrival)
    return found


def grouped_causes(path: dict[str, int]) -> dict[str, int]:
    """A path's causes summed up by GROUPS."""
    return {name: sum(path[cause] for cause in causes) for name, causes in GROUPS.items()}
