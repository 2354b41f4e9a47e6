"""A recorded run as a stream: stretch after stretch in the order of kernel entries, each with what happened in it.

Everything that shows a whole run reads it from here, once, in bounded memory: a run may be larger than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from l4lab.emulator.vcpu import MAX_CORES
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.events import Event, event
from l4lab.kernel.traps import HostStop
from l4lab.tools.ledger.accounts import USER_CAUSES, UserSplitter, balanced, kernel_cycles
from l4lab.tools.ledger.timeline import KIND_WORDS
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.rundir import Integers, Records, Run, kinds_of

_NS_PER_US: Final = 1000
_MAX_NS: Final = (1 << 63) - 1


class Stretch(NamedTuple):
    """A row of the ledger: a core idles or runs user code from `start` to `entry`, then is in the kernel to `end`.

    `trap`: why it entered; `entered`: False if it did not, because the run was stopped. `user`: cycles up to
    `entry` in the order of `accounts.USER_CAUSES`, nothing of an idle core. `kernel`: behind it, in the order of
    `CAUSE_NAMES`. `tlb_misses`: in the thread's user code, modulo 2**32 since it began. `events`: page faults,
    exceptions and IPCs numbered as `l4lab why` counts them.
    """

    core: int
    thread: int
    request: int
    served: int
    trap: int
    start: int
    entry: int
    end: int
    user: tuple[int, ...]
    kernel: tuple[int, ...]
    tlb_misses: int
    events: list[Event]

    @property
    def entered(self) -> bool:
        """Whether a kernel entry ended it."""
        return self.trap != HostStop.number


@dataclass(frozen=True, slots=True)
class Clock:
    """Cycles as nanoseconds, in whole numbers, rounded down."""

    mhz: int

    def ns(self, cycle: int) -> int:
        """When `cycle` is."""
        return cycle * _NS_PER_US // self.mhz


def checked(run: Run) -> Run:
    """`run`, if it can be shown. RunError if it is empty, does not balance, or lasts longer than formats can say."""
    if not len(run.rows):
        raise RunError(
            f"{run.folder}: nothing happened in this run, or it was killed before that was written"
        )
    balanced(run)
    last = max([int(run.rows["entry"][-1]), *(run.clocks or ())])
    if last * _NS_PER_US // run.mhz > _MAX_NS:
        raise RunError(f"{run.folder}: found cycle {last} at {run.mhz} MHz, expected less than 292 years")
    return run


def stretches(run: Run) -> Iterator[Stretch]:
    """All of `run`, which is `checked`. Events come with the stretch whose kernel entry they belong to."""
    splitter = UserSplitter(run)
    numbering = _Numbering()
    for rows, happened in _pieces(run):
        places = _places(rows, happened)
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], np.arange(len(rows) + 1))
        numbers = numbering.of(happened)
        split = splitter.split(rows)
        ends = rows["entry"].astype(np.int64) + kernel_cycles(rows)
        for first in range(0, len(rows), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            edges = bounds[first : first + _BLOCK_ROWS + 1]
            inside = order[edges[0] : edges[-1]]
            found = list(map(event, happened[inside].tolist(), numbers[inside].tolist()))
            user = zip(*(split[name][block].tolist() for name in USER_CAUSES), strict=True)
            offsets = (edges - edges[0]).tolist()
            columns = (rows[block].tolist(), user, ends[block].tolist(), offsets[:-1], offsets[1:])
            for values, before, end, begin, behind in zip(*columns, strict=True):
                start, entry, core, thread, request, trap, misses, _, served = values[:_BILL]
                kernel = values[-len(CAUSE_NAMES) :]
                here = found[begin:behind]
                yield Stretch(
                    core, thread, request, served, trap, start, entry, end, before, kernel, misses, here
                )


def within(found: Iterable[Stretch], first_cycle: int, last_cycle: int) -> Iterator[Stretch]:
    """Those that overlap the time from `first_cycle` up to and with `last_cycle`, with the events of that time.

    So of a run cut into such times, every event is in one of them.
    """
    for stretch in found:
        if stretch.end >= first_cycle and stretch.start <= last_cycle:
            yield stretch._replace(events=[e for e in stretch.events if first_cycle <= e.cycle <= last_cycle])


def _pieces(run: Run) -> Iterator[tuple[Records, Records]]:
    """Rows and their events, in pieces; what an interrupted run has no more rows for comes with the last."""
    chunks = run.event_chunks()
    left = len(run.rows)
    for rows in run.row_chunks():
        happened = next(chunks)
        left -= len(rows)
        yield rows, happened if left else np.concatenate([happened, *chunks])


_BLOCK_ROWS: Final = 2048
_BILL: Final = 9


class _Numbering:
    """Counts page faults, exceptions and IPCs as `timeline.Operations` does."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(KIND_WORDS, 0)

    def of(self, happened: Records) -> Integers:
        """The number of each event; 0 for other kinds."""
        kinds = kinds_of(happened)
        numbers = np.zeros(len(happened), np.int64)
        for kind, count in self._counts.items():
            places = np.flatnonzero(kinds == kind)
            numbers[places] = count + 1 + np.arange(len(places))
            self._counts[kind] += len(places)
        return numbers


def _places(rows: Records, happened: Records) -> Integers:
    """For each event the row of its kernel entry.

    Interrupts are sent when a kernel entry ends, and bear that cycle: they belong to the last entry of their core up
    to then, and before the one that the next event in the log is from.
    """
    keys = rows["entry"] * np.uint64(MAX_CORES) + rows["core"]
    order = np.argsort(keys, kind="stable")
    wanted = happened["cycle"] * np.uint64(MAX_CORES) + happened["core"]
    places: Integers = order[np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)]
    exact = keys[places] == wanted
    following = np.where(exact, places, len(rows))
    following = np.minimum.accumulate(following[::-1])[::-1]
    of_core = np.lexsort((np.arange(len(rows)), rows["core"]))
    cores = rows["core"][of_core].astype(np.int64)
    for core in np.unique(happened["core"][~exact]).tolist():
        mine = of_core[np.searchsorted(cores, core) : np.searchsorted(cores, core, side="right")]
        here = ~exact & (happened["core"] == core)
        if not len(mine):
            mine = np.arange(len(rows))
        until = np.searchsorted(rows["entry"][mine], happened["cycle"][here], side="right")
        before = np.searchsorted(mine, following[here])
        places[here] = mine[np.maximum(np.minimum(until, before) - 1, 0)]
    return places
