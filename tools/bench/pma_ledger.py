"""Where the cycles of one page went, from the ledger of a run of the memory benchmark.

For each page that a process touches, and for each that it frees, there is a request (`kernel/requests.py`),
and the ledger says what every core did for it. What is left of the time that the process waited is time in
which nobody worked for it: its interrupts were under way, or the server worked for others, or was itself
waiting until others had its answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.ledger.accounts import USER_CAUSES, UserSplitter
from l4lab.tools.runs.rundir import Integers, Records, Run, kinds_of

PROTO_PAGER: Final = 0x4100
"""`userland/include/l4/pager.h`."""

UNDER_WAY: Final = "interrupts under way"
WAITING: Final = "waiting for the server"

GROUPS: Final = {
    "user code: process and server": ("user", "fpu switch"),
    "TLB refills": ("tlb refill",),
    "kernel entry and exit": ("kernel entry", "kernel exit"),
    "messages": ("decode", "ipc", "copy", "object", "fault"),
    "map and unmap": ("map", "unmap", "TLB flush and shootdown"),
    "switching": ("thread switch", "space switch", "schedule", "timer"),
    "interrupts: send, receive": ("interprocessor interrupt",),
    "wake-up of halted cores": ("leaving the halt",),
    "cache lines, locks": ("cache line transfer", "waiting for a lock"),
}
"""The ledger's causes, as few as a figure can show; each is in just one."""

BARS: Final = (*GROUPS, UNDER_WAY, WAITING)
"""What a page's cycles are divided into, in the order of drawing."""

Flags = npt.NDArray[np.bool_]


SERVER_CORE: Final = 0
IDLE: Final = "idle"


@dataclass(frozen=True, slots=True)
class PageCycles:
    """The mean over all pages of a run, in cycles.

    `parts`: by BARS; they add up to `elapsed` or to a little more, as servers tidy up after they have
    answered. `causes`: the work in them by the ledger's own causes.
    """

    count: int
    elapsed: float
    parts: dict[str, float]
    causes: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, a tenth of a cycle being enough."""
        return {
            "count": self.count,
            "elapsed": round(self.elapsed, 1),
            "parts": {name: round(cycles, 1) for name, cycles in self.parts.items()},
            "causes": {name: round(cycles, 1) for name, cycles in self.causes.items()},
        }


def page_cycles(run: Run, setup: PmaSetup) -> dict[str, PageCycles]:
    """Allocation and free in `run`, which is one of `setup`."""
    threads = _processes(run, setup)
    found = {"allocation": _Requests(), "free": _Requests()}
    for chunk in run.event_chunks():
        kinds = kinds_of(chunk)
        ours = np.isin(chunk["thread"], threads)
        to_pager = (chunk["a"] >> 16) == PROTO_PAGER
        found["allocation"].add(chunk[ours & (kinds == events.FAULT)])
        found["free"].add(chunk[ours & (kinds == events.IPC) & to_pager])
    return {name: _sum_up(run, requests) for name, requests in found.items()}


def server_core(run: Run, begin: int, end: int, pages: int) -> dict[str, float]:
    """What core 0 did between two cycles, by GROUPS and IDLE, divided by how many pages were allocated and freed."""
    sums = dict.fromkeys((IDLE, *USER_CAUSES, *CAUSE_NAMES), 0)
    splitter = UserSplitter(run)
    for rows in run.row_chunks():
        before = splitter.split(rows)
        ours = (rows["core"] == SERVER_CORE) & (rows["start"] >= begin) & (rows["entry"] <= end)
        for name in (IDLE, *USER_CAUSES):
            sums[name] += int(before[name][ours].sum())
        for name in CAUSE_NAMES:
            sums[name] += int(rows[name][ours].sum(dtype=np.int64))
    groups = {group: sum(sums[name] for name in names) / pages for group, names in GROUPS.items()}
    return {**{name: round(cycles, 1) for name, cycles in groups.items()}, IDLE: round(sums[IDLE] / pages, 1)}


def _processes(run: Run, setup: PmaSetup) -> Integers:
    """The numbers of the threads of all processes."""
    tasks = {number for number, name in run.names.items() if re.fullmatch(rf"{setup.program}\.\d+", name)}
    return np.array([thread for thread, task in run.homes.items() if task in tasks], np.int64)


class _Requests:
    """The requests of one kind: their numbers, whose they are, and at which cycle they began."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.begun: dict[int, list[int]] = {}

    def add(self, found: Records) -> None:
        self.numbers += found["request"].tolist()
        for thread in np.unique(found["thread"]).tolist():
            self.begun.setdefault(thread, []).extend(found["cycle"][found["thread"] == thread].tolist())


def _sum_up(run: Run, requests: _Requests) -> PageCycles:
    ours = np.zeros(max(requests.numbers, default=0) + 1, np.bool_)
    ours[requests.numbers] = True
    count = max(len(requests.numbers), 1)
    causes = {name: cycles / count for name, cycles in _work(run, ours).items()}
    under_way = _under_way(run, ours) / count
    elapsed = _elapsed(run, requests) / count
    parts = {group: sum(causes[name] for name in names) for group, names in GROUPS.items()}
    parts[UNDER_WAY] = under_way
    parts[WAITING] = max(elapsed - sum(parts.values()), 0.0)
    return PageCycles(len(requests.numbers), elapsed, parts, causes)


def _among(ours: Flags, numbers: Integers) -> Flags:
    """Which of the request numbers are ours."""
    return np.where(numbers < len(ours), ours[np.minimum(numbers, len(ours) - 1)], False)


def _work(run: Run, ours: Flags) -> dict[str, int]:
    """What all cores did for the requests, by cause."""
    sums = dict.fromkeys((*USER_CAUSES, *CAUSE_NAMES), 0)
    splitter = UserSplitter(run)
    for rows in run.row_chunks():
        before = splitter.split(rows)
        user, kernel = (_among(ours, rows[name].astype(np.int64)) for name in ("request", "served"))
        for name in USER_CAUSES:
            sums[name] += int(before[name][user].sum())
        for name in CAUSE_NAMES:
            sums[name] += int(rows[name][kernel].sum(dtype=np.int64))
    return sums


def _under_way(run: Run, ours: Flags) -> int:
    """How long interrupts for the requests travelled, or waited for the interconnect."""
    total = 0
    for chunk in run.event_chunks():
        sent = chunk[(kinds_of(chunk) == events.SENT) & _among(ours, chunk["request"].astype(np.int64))]
        total += int(sent["a"].sum(dtype=np.int64) + sent["b"].sum(dtype=np.int64))
    return total


def _elapsed(run: Run, requests: _Requests) -> int:
    """From the kernel entry that began each request until its thread ran on."""
    total = 0
    for thread, (starts, entries) in _stretches(run, requests.begun):
        begun = np.array(requests.begun[thread], np.int64)
        at = np.searchsorted(entries, begun)
        followed = at + 1 < len(starts)
        total += int((starts[at[followed] + 1] - begun[followed]).sum())
    return total


def _stretches(run: Run, threads: dict[int, list[int]]) -> Iterator[tuple[int, tuple[Integers, Integers]]]:
    """For each thread, when it began to run and when it then entered the kernel, in order."""
    wanted = np.array(list(threads), np.int64)
    kept = [rows[np.isin(rows["thread"], wanted)][["thread", "start", "entry"]] for rows in run.row_chunks()]
    rows = np.concatenate(kept)
    for thread in threads:
        mine = rows[rows["thread"] == thread]
        yield thread, (mine["start"].astype(np.int64), mine["entry"].astype(np.int64))
