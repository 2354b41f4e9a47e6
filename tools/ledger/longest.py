"""`l4lab books --longest`: how long at worst. The longest kernel entries, and the way from an interrupt to its handler.

While the kernel is in an entry, nothing interrupts it: the longest one bounds every answer of the machine from below.
Source of the question: 001_1b920a6df003b76d.txt, on worst cases and preemption points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import CpuException, DeadlineReached, HostStop, Interrupt, PageFault, SystemCall
from l4lab.tools.common import plots
from l4lab.tools.common.report import grouped, table
from l4lab.tools.ledger.accounts import kernel_cycles
from l4lab.tools.ledger.timeline import NOWHERE, Timeline
from l4lab.tools.runs.rundir import Integers, Run, kinds_of

TRAP_NAMES: Final = {
    SystemCall.number: "system call",
    PageFault.number: "page fault",
    CpuException.number: "exception",
    DeadlineReached.number: "timer",
    Interrupt.number: "interrupt",
}
_CAUSES_SHOWN: Final = 3
_PICTURE: Final = "longest"


@dataclass(frozen=True, slots=True)
class Entry:
    """One kernel entry: where, when, how long, who ran, what it was entered for, and what it did (cause -> cycles)."""

    core: int
    cycle: int
    cycles: int
    thread: int
    trap: int
    causes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """`entries`: cycles of every kernel entry. `answers`: from each interrupt that fired to its handler's first
    instruction, of those whose handler ran."""

    longest: tuple[Entry, ...]
    entries: Integers
    answers: Integers


def lengths(run: Run, count: int) -> Lengths:
    """The `count` longest kernel entries of `run`, and all lengths; its books must balance."""
    pieces = [np.zeros(0, np.int64)]
    longest: list[Entry] = []
    for rows in run.row_chunks():
        entered = rows[rows["trap"] != HostStop.number]
        cycles = kernel_cycles(entered)
        pieces.append(cycles)
        for place in np.argsort(-cycles, kind="stable")[:count].tolist():
            row = entered[place]
            causes = {name: int(row[name]) for name in CAUSE_NAMES if row[name]}
            longest.append(
                Entry(
                    core=int(row["core"]),
                    cycle=int(row["entry"]),
                    cycles=int(cycles[place]),
                    thread=int(row["thread"]),
                    trap=int(row["trap"]),
                    causes=dict(sorted(causes.items(), key=lambda item: -item[1])),
                )
            )
        longest.sort(key=lambda entry: (-entry.cycles, entry.cycle, entry.core))
        del longest[count:]
    return Lengths(tuple(longest), np.concatenate(pieces), _answers(run))


def _answers(run: Run) -> Integers:
    """Cycles from each interrupt that was delivered to the first instruction of the thread that got it."""
    found = [chunk[kinds_of(chunk) == events.IRQ] for chunk in run.event_chunks()]
    fired = np.concatenate(found) if found else np.zeros(0, run.events.dtype)
    if not len(fired):
        return np.zeros(0, np.int64)
    timeline = Timeline(run)
    cycles, threads = fired["cycle"].astype(np.int64), fired["partner"].astype(np.int64)
    rows = timeline.entry_rows(fired["core"].astype(np.int64), cycles)
    following = timeline.next_rows(threads, rows)
    known = (rows != NOWHERE) & (following != NOWHERE)
    since: Integers = timeline.start[following[known]] - cycles[known] + fired["a"][known].astype(np.int64)
    return since


# --- shown --------------------------------------------------------------------------------------------


def as_document(run: Run, found: Lengths) -> dict[str, Any]:
    """As plain values."""
    return {
        "longest": [
            {
                "core": entry.core,
                "cycle": entry.cycle,
                "cycles": entry.cycles,
                "thread": entry.thread,
                "name": run.thread_name(entry.thread) if entry.thread else "",
                "trap": TRAP_NAMES[entry.trap],
                "causes": entry.causes,
            }
            for entry in found.longest
        ],
        "kernel_entries": _summary(found.entries),
        "interrupt_to_handler": _summary(found.answers),
    }


def _summary(values: Integers) -> dict[str, Any]:
    """Mean and maximum are of whole cycles; None if there is nothing."""
    some = len(values) > 0
    return {
        "count": len(values),
        "mean_cycles": int(values.sum()) // len(values) if some else None,
        "max_cycles": int(values.max()) if some else None,
        "histogram": [{"from_cycles": low, "count": count} for low, count in _histogram(values)],
    }


def _histogram(values: Integers) -> list[tuple[int, int]]:
    """(least cycles, how many) for each power of two that holds some, and those between."""
    if not len(values):
        return []
    order = np.array([int(value).bit_length() for value in values.tolist()])
    counts = np.bincount(order, minlength=int(order.max()) + 1)
    first = int(order.min())
    return [(1 << power >> 1, int(counts[power])) for power in range(first, len(counts))]


def tables(run: Run, found: Lengths) -> tuple[Table, Table]:
    """For people: the longest entries, and the sums of both kinds of lengths."""
    rows = table("longest entries", "core", "at cycle")
    for title in ("entered for", "by"):
        rows.add_column(title, no_wrap=True)
    rows.add_column("what it did, cycles")
    for entry in found.longest:
        causes = [f"{name} {grouped(cycles)}" for name, cycles in list(entry.causes.items())[:_CAUSES_SHOWN]]
        more = len(entry.causes) - len(causes)
        rows.add_row(
            f"{grouped(entry.cycles)} cycles",
            str(entry.core),
            grouped(entry.cycle),
            TRAP_NAMES[entry.trap],
            run.thread_name(entry.thread) if entry.thread else "idle",
            ", ".join(causes) + (f", {more} more" if more else ""),
        )
    sums = table("", "how many", "mean", "maximum", "maximum, us", whole=True)
    for name, values in (("kernel entry", found.entries), ("interrupt to handler", found.answers)):
        if not len(values):
            sums.add_row(name, "0")
            continue
        most = int(values.max())
        mean = grouped(int(values.sum()) // len(values))
        sums.add_row(name, grouped(len(values)), mean, grouped(most), f"{most / run.mhz:.1f}")
    return rows, sums


def draw(run: Run, found: Lengths, folder: Path) -> tuple[str, ...]:
    """Both histograms as a picture in `folder`; the files' names. Raises PlotError."""
    parts: Sequence[tuple[str, Integers, str]] = [
        ("Kernel entries", found.entries, plots.BLUE),
        ("From an interrupt to its handler", found.answers, plots.VERMILION),
    ]
    parts = [part for part in parts if len(part[1])]
    with plots.canvas(7.0, 2.6 * max(len(parts), 1)) as figure:
        for number, (title, values, colour) in enumerate(parts, 1):
            axes = figure.add_subplot(len(parts), 1, number)
            bars = _histogram(values)
            axes.bar(range(len(bars)), [count for _, count in bars], width=0.9, color=colour)
            axes.set_xticks(range(len(bars)), [f"{low:,}" for low, _ in bars], rotation=45, ha="right")
            axes.set_yscale("log")
            plots.plain_numbers(axes)
            axes.set_title(f"{title}: {len(values):,}, at most {int(values.max()):,} cycles")
            axes.set_xlabel("cycles, from")
            axes.set_ylabel("how many")
        return plots.save(figure, folder, _PICTURE)
