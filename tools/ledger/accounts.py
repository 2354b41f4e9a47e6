"""What the ledger says, in numbers: do the books balance, and what was spent on what.

Everything works on the rows in pieces and carries over little, so that a ledger may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from l4lab.emulator.costs import MILLICYCLES_PER_CYCLE
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import DeadlineReached, HostStop, Interrupt
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.rundir import Integers, Records, Run

USER_CAUSES: Final = ("user", "tlb refill", "fpu switch")
ALL_CAUSES: Final = ("idle", *USER_CAUSES, *CAUSE_NAMES)
"""What a core's cycles can go to; for a row they add up to its length."""

_WRAP: Final = 1 << 32


# --- the balance --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The first place where the books do not balance: the core's row from `cycle` on, and why not."""

    core: int
    cycle: int
    problem: str

    def __str__(self) -> str:
        return f"the books do not balance: core {self.core}, cycle {self.cycle}: {self.problem}"


def kernel_cycles(rows: Records) -> Integers:
    """What the kernel entry of each row took."""
    total = np.zeros(len(rows), np.int64)
    for name in CAUSE_NAMES:
        total += rows[name]
    return total


def imbalance(chunks: Iterable[Records], cores: int, clocks: Sequence[int] | None) -> Imbalance | None:
    """The first gap, overlap or wrong sum in a ledger; None if every core's rows add up to its clock.

    `clocks`: of each core at the end; None if it is not known.
    """
    ends = np.zeros(cores, np.int64)
    for rows in chunks:
        found = _first_break(rows, ends)
        if found is not None:
            return found
    for core, clock in enumerate(clocks if clocks is not None else ()):
        if ends[core] != clock:
            return Imbalance(core, int(ends[core]), f"the rows end here, the clock stands at {clock}")
    return None


def balanced(run: Run) -> Run:
    """`run`, if its books balance. Raises RunError."""
    found = imbalance(run.row_chunks(), run.cores, run.clocks)
    if found is not None:
        raise RunError(f"{run.folder}: {found}")
    return run


def _first_break(rows: Records, ends: Integers) -> Imbalance | None:
    """Check one piece; `ends`: where each core's rows ended before it, and after it on return."""
    cores = rows["core"].astype(np.int64)
    unknown = np.flatnonzero(cores >= len(ends))
    if len(unknown):
        row = rows[unknown[0]]
        return Imbalance(int(row["core"]), int(row["start"]), f"there are only {len(ends)} cores")
    start, entry = rows["start"].astype(np.int64), rows["entry"].astype(np.int64)
    end = entry + kernel_cycles(rows)
    order = np.argsort(cores, kind="stable")
    before = np.empty(len(rows), np.int64)
    before[order[1:]] = end[order[:-1]]
    first_of_core = order[np.r_[True, cores[order[1:]] != cores[order[:-1]]]] if len(rows) else order
    before[first_of_core] = ends[cores[first_of_core]]
    wrong = np.flatnonzero((start != before) | (entry < start))
    if len(wrong):
        at = wrong[0]
        if start[at] != before[at]:
            problem = f"a row starts here, the one before ends at {before[at]}"
        else:
            problem = f"a row starts here and enters the kernel at {entry[at]}"
        return Imbalance(int(cores[at]), int(start[at]), problem)
    ends[cores[order]] = end[order]  # the last of each core counts
    return None


# --- what a row is made of ----------------------------------------------------------------------------


class UserSplitter:
    """Tells, for rows in the order of booking, what user mode spent on TLB refills and on FPU switches.

    A row has the thread's counts so far; the costs make cycles of them. The clock drops fractions of a
    cycle, so a refill at the end of a stretch may exceed it by one, which is then left out.
    """

    def __init__(self, run: Run) -> None:
        self._costs = {"tlb misses": run.tlb_miss_millicycles, "fpu switches": run.fpu_switch_millicycles}
        self._counts: dict[str, dict[int, int]] = {name: {} for name in self._costs}

    def split(self, rows: Records) -> dict[str, Integers]:
        """The columns of ALL_CAUSES that lie before the kernel entry, one value for each row."""
        length = rows["entry"].astype(np.int64) - rows["start"].astype(np.int64)
        threads = rows["thread"].astype(np.int64)
        user = np.where(threads > 0, length, 0)
        order = np.argsort(threads, kind="stable")
        refill = np.minimum(self._spent("tlb misses", rows, threads, order), user)
        fpu = np.minimum(self._spent("fpu switches", rows, threads, order), user - refill)
        return {"idle": length - user, "user": user - refill - fpu, "tlb refill": refill, "fpu switch": fpu}

    def _spent(self, column: str, rows: Records, threads: Integers, order: Integers) -> Integers:
        """Cycles that the new counts in `column` stand for. `order` sorts the rows by thread, stably."""
        if not len(rows):
            return np.zeros(0, np.int64)
        carried = self._counts[column]
        threads = threads[order]
        low = rows[column].astype(np.int64)[order]
        first = np.flatnonzero(np.r_[True, threads[1:] != threads[:-1]])
        sizes = np.diff(np.r_[first, len(low)])
        counts_before = np.array([carried.get(thread, 0) for thread in threads[first].tolist()], np.int64)
        low_before = np.r_[0, low[:-1]]
        low_before[first] = counts_before % _WRAP
        new = (low - low_before) % _WRAP
        # Idling, or the counts are gone: another core has ended the thread.
        new[(threads == 0) | (new >= _WRAP // 2)] = 0
        total = np.cumsum(new)
        total += np.repeat(counts_before - (total - new)[first], sizes)
        carried.update(zip(threads[first].tolist(), total[first + sizes - 1].tolist(), strict=True))
        cost = self._costs[column]
        spent = np.empty(len(rows), np.int64)
        spent[order] = total * cost // MILLICYCLES_PER_CYCLE - (total - new) * cost // MILLICYCLES_PER_CYCLE
        return spent


# --- sums ---------------------------------------------------------------------------------------------

INTERRUPTS: Final = -1
"""In place of a task: kernel entries for timer ticks and for other cores, which nobody asked for who ran."""
IDLE: Final = -2
NOT_ASKED_FOR: Final = (DeadlineReached.number, Interrupt.number)
"""Traps whose kernel entries are booked to INTERRUPTS."""


def account_name(run: Run, task: int) -> str:
    """What to call whom cycles are booked to: a task, INTERRUPTS or IDLE."""
    return {INTERRUPTS: "(timer, interrupts)", IDLE: "(idle)"}.get(task) or run.task_name(task)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Sums over a run, in cycles; causes in the order of ALL_CAUSES.

    `by_core[core][cause]`. `by_task[task][cause]`: task by number, or INTERRUPTS, IDLE. `entries`,
    `task_entries`: kernel entries of each core, of each task.
    """

    by_core: Integers
    by_task: dict[int, Integers]
    entries: Integers
    task_entries: dict[int, int]


def accounts(run: Run) -> Accounts:
    """Add up all rows of `run`, whose books must balance."""
    by_core = np.zeros((run.cores, len(ALL_CAUSES)), np.int64)
    by_task: dict[int, Integers] = {}
    entries = np.zeros(run.cores, np.int64)
    task_entries: dict[int, int] = {}
    splitter = UserSplitter(run)
    for rows in run.row_chunks():
        before = splitter.split(rows)
        values = np.stack([before.get(name, rows[name] if name not in before else 0) for name in ALL_CAUSES])
        values = values.astype(np.int64)
        cores = rows["core"].astype(np.int64)
        entered = rows["trap"] != HostStop.number
        np.add.at(entries, cores[entered], 1)
        for core in np.unique(cores):
            by_core[core] += values[:, cores == core].sum(axis=1)
        homes = _homes(run, rows)
        user_tasks = np.where(rows["thread"] == 0, IDLE, homes)
        kernel_tasks = np.where(np.isin(rows["trap"], NOT_ASKED_FOR), INTERRUPTS, homes)
        split_at = len(before)
        for tasks, part in ((user_tasks, slice(None, split_at)), (kernel_tasks, slice(split_at, None))):
            for task in np.unique(tasks).tolist():
                sums = by_task.setdefault(task, np.zeros(len(ALL_CAUSES), np.int64))
                sums[part] += values[part, tasks == task].sum(axis=1)
        for task, count in zip(*np.unique(kernel_tasks[entered], return_counts=True), strict=True):
            task_entries[int(task)] = task_entries.get(int(task), 0) + int(count)
    return Accounts(by_core, by_task, entries, task_entries)


def _homes(run: Run, rows: Records) -> Integers:
    """The number of the task that each row's thread belongs to; 0: none."""
    threads, which = np.unique(rows["thread"], return_inverse=True)
    return np.array([run.homes.get(thread, 0) for thread in threads.tolist()], np.int64)[which]
