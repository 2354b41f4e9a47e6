"""A run's ledger, indexed: what a core did when, when a thread ran, and which operations there were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from l4lab.emulator.vcpu import MAX_CORES
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import HostStop
from l4lab.tools.ledger.accounts import UserSplitter, kernel_cycles
from l4lab.tools.runs.rundir import Integers, Records, Run, kinds_of

OPERATION_KINDS: Final = (events.FAULT, events.EXCEPTION, events.IPC)
KIND_WORDS: Final = {events.FAULT: "fault", events.EXCEPTION: "exception", events.IPC: "ipc"}
"""What a person calls them, with a number: `fault 17`."""

NOWHERE: Final = -1
_THREAD_SHIFT: Final = 34  # more rows than fit below would be a ledger of two terabytes


class Timeline:
    """All rows of a run without their causes, which stay in the file. About 60 bytes a row.

    The arrays have one value for each row, in the order of booking.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        splitter = UserSplitter(run)
        pieces: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in _COLUMNS}
        for rows in run.row_chunks():
            for name in _KEPT:
                pieces[name].append(rows[name].astype(np.int64))
            pieces["end"].append(rows["entry"].astype(np.int64) + kernel_cycles(rows))
            before = splitter.split(rows)
            pieces["tlb refill"].append(before["tlb refill"])
            pieces["fpu switch"].append(before["fpu switch"])
        columns = {name: np.concatenate([np.zeros(0, np.int64), *found]) for name, found in pieces.items()}
        self.start, self.entry, self.end = columns["start"], columns["entry"], columns["end"]
        self.core, self.thread, self.trap = columns["core"], columns["thread"], columns["trap"]
        self.request, self.served = columns["request"], columns["served"]
        self._refill, self._fpu = columns["tlb refill"], columns["fpu switch"]
        self._by_core = _groups(self.core)
        self._by_thread = _groups(self.thread)
        order = np.argsort(self.thread, kind="stable")
        self._thread_keys = self.thread[order] << _THREAD_SHIFT | order
        self._entry_order = np.lexsort((np.arange(len(self.core)), self.core, self.entry))
        self._entry_keys = (self.entry * MAX_CORES + self.core)[self._entry_order]

    def rows_of_core(self, core: int) -> Integers:
        """Row numbers, in time."""
        return self._by_core.get(core, np.zeros(0, np.int64))

    def rows_of_thread(self, thread: int) -> Integers:
        """Numbers of the rows with user code of `thread`, in time."""
        return self._by_thread.get(thread, np.zeros(0, np.int64))

    def entry_rows(self, cores: Integers, cycles: Integers) -> Integers:
        """The rows of the kernel entries on these cores at these cycles; NOWHERE if there is none."""
        keys = cycles * MAX_CORES + cores
        places = np.searchsorted(self._entry_keys, keys, side="right") - 1
        if not len(self._entry_keys):
            return np.full(len(keys), NOWHERE, np.int64)
        found = self._entry_order[np.maximum(places, 0)]
        return np.where((places >= 0) & (self._entry_keys[places] == keys), found, NOWHERE)

    def entry_row(self, core: int, cycle: int) -> int:
        """As `entry_rows`, for one."""
        return int(self.entry_rows(np.array([core]), np.array([cycle]))[0])

    def next_rows(self, threads: Integers, rows: Integers) -> Integers:
        """For each thread its first row behind the one given; NOWHERE if it never ran again."""
        keys = threads << _THREAD_SHIFT | rows
        places = np.searchsorted(self._thread_keys, keys, side="right")
        inside = np.minimum(places, len(self._thread_keys) - 1)
        if not len(self._thread_keys):
            return np.full(len(keys), NOWHERE, np.int64)
        found = self._thread_keys[inside]
        same = (places < len(self._thread_keys)) & (found >> _THREAD_SHIFT == threads)
        return np.where(same, found & (1 << _THREAD_SHIFT) - 1, NOWHERE)

    def row_at(self, core: int, cycle: int) -> int:
        """The row of `core` that covers `cycle`; NOWHERE before its first and behind its last."""
        rows = self.rows_of_core(core)
        place = int(np.searchsorted(self.start[rows], cycle, side="right")) - 1
        while place >= 0:
            row = int(rows[place])
            if cycle < self.end[row]:
                return row
            if self.end[row] > self.start[row]:
                return NOWHERE
            place -= 1
        return NOWHERE

    def user_causes(self, row: int) -> dict[str, int]:
        """What the time of a row before its kernel entry was, in cycles: user code, or the core idled."""
        if not self.thread[row]:
            return _nonzero({"idle": int(self.entry[row] - self.start[row])})
        refill, fpu = int(self._refill[row]), int(self._fpu[row])
        user = int(self.entry[row] - self.start[row]) - refill - fpu
        return _nonzero({"user": user, "tlb refill": refill, "fpu switch": fpu})

    def kernel_causes(self, row: int) -> dict[str, int]:
        """What the kernel entry of a row was, in cycles."""
        record = self.run.rows[row]
        return _nonzero({name: int(record[name]) for name in CAUSE_NAMES})

    def last_work(self, request: int, row: int) -> int:
        """When the last was done for `request`, from `row` on."""
        rows = np.flatnonzero((self.request[row:] == request) | (self.served[row:] == request)) + row
        return int(self.end[rows].max()) if len(rows) else int(self.end[row])


_KEPT: Final = ("start", "entry", "core", "thread", "trap", "request", "served")
_COLUMNS: Final = (*_KEPT, "end", "tlb refill", "fpu switch")


def _groups(values: Integers) -> dict[int, Integers]:
    """Value -> the places where it stands, in order."""
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0]) if len(values) else np.zeros(0, int)
    parts = np.split(order, firsts[1:]) if len(values) else []
    return {int(values[part[0]]): part for part in parts}


def _nonzero(causes: dict[str, int]) -> dict[str, int]:
    return {name: cycles for name, cycles in causes.items() if cycles}


# --- operations ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """A page fault, an exception or a send. `number`: among those of its kind, from 1.

    `request`: what it belongs to; `root`: it began that. `address`: of a fault; the trap number of an exception;
    the tag sent. `extra`: the processor's error code of a fault, and 16 if it fetched. `row`: its kernel entry's.
    `open_ended`: it only sends, and then waits for anybody, so it is over when the message has gone over.
    `resumed`: cycle at which its thread went on in user mode; None if it never did, or is `open_ended`.
    """

    kind: int
    number: int
    cycle: int
    core: int
    thread: int
    partner: int
    request: int
    root: bool
    address: int
    eip: int
    extra: int
    open_ended: bool
    row: int
    resumed: int | None

    @property
    def name(self) -> str:
        """`fault 17`."""
        return f"{KIND_WORDS[self.kind]} {self.number}"

    @property
    def latency_cycles(self) -> int | None:
        """From the kernel entry until the thread went on."""
        return self.resumed - self.cycle if self.resumed is not None else None


class Operations:
    """All operations of a run, as a table."""

    def __init__(self, timeline: Timeline) -> None:
        found = [np.zeros(0, timeline.run.events.dtype)]
        for chunk in timeline.run.event_chunks():
            found.append(chunk[np.isin(kinds_of(chunk), OPERATION_KINDS)])
        self._records: Records = np.concatenate(found)
        self._timeline = timeline
        self.kinds = kinds_of(self._records)
        self.rows = timeline.entry_rows(
            self._records["core"].astype(np.int64), self._records["cycle"].astype(np.int64)
        )
        following = timeline.next_rows(self._records["thread"].astype(np.int64), self.rows)
        known = (following != NOWHERE) & (self.rows != NOWHERE)
        self.latencies = np.full(len(self._records), NOWHERE, np.int64)
        """Cycles; NOWHERE for those that never went on, or are open-ended."""
        known &= ~self._open_ended()
        self.latencies[known] = timeline.start[following[known]] - self._records["cycle"][known].astype(
            np.int64
        )
        requests, roots = np.unique(self._records["request"], return_index=True)
        self._roots = dict(zip(requests.tolist(), roots.tolist(), strict=True))
        self._of_kind = {kind: np.flatnonzero(self.kinds == kind) for kind in OPERATION_KINDS}

    def _open_ended(self) -> npt.NDArray[np.bool_]:
        flags = self._records["kind"].astype(np.int64) >> events.EXTRA_SHIFT
        found: npt.NDArray[np.bool_] = (self.kinds == events.IPC) & (flags & events.OPEN_ENDED != 0)
        return found

    def __len__(self) -> int:
        return len(self._records)

    def count(self, kind: int) -> int:
        """How many there are of one kind."""
        return len(self._of_kind[kind])

    def roots(self, kind: int) -> int:
        """How many of a kind began a request."""
        return sum(int(self.kinds[place]) == kind for place in self._roots.values())

    def get(self, kind: int, number: int) -> Operation | None:
        """The operation `number` of `kind`; None if there are not so many."""
        places = self._of_kind[kind]
        return self.at(int(places[number - 1])) if 1 <= number <= len(places) else None

    def at(self, place: int) -> Operation:
        """The operation at a place of the table."""
        found, latency = events.event(self._records[place].item()), int(self.latencies[place])
        return Operation(
            kind=found.kind,
            number=int(np.searchsorted(self._of_kind[found.kind], place)) + 1,
            cycle=found.cycle,
            core=found.core,
            thread=found.thread,
            partner=found.partner,
            request=found.request,
            root=self._roots.get(found.request) == place,
            address=found.a,
            eip=found.b,
            extra=found.extra,
            open_ended=found.kind == events.IPC and bool(found.extra & events.OPEN_ENDED),
            row=int(self.rows[place]),
            resumed=found.cycle + latency if latency != NOWHERE else None,
        )

    def of_request(self, request: int) -> Operation | None:
        """The operation that began a request; None if that is nobody's."""
        place = self._roots.get(request)
        return self.at(place) if request and place is not None else None

    def slowest(self, kind: int, count: int) -> list[Operation]:
        """Those with the greatest latency, greatest first."""
        places = self._of_kind[kind]
        order = np.argsort(-self.latencies[places], kind="stable")[:count]
        return [self.at(int(place)) for place in places[order] if self.latencies[place] != NOWHERE]

    def unfinished(self, kind: int) -> int:
        """How many should have gone on in user mode, and never did."""
        places = self._of_kind[kind]
        return int(((self.latencies == NOWHERE) & ~self._open_ended())[places].sum())


def is_entry(trap: int) -> bool:
    """False for the rows that a stopped run was cut into."""
    return trap != HostStop.number
