"""`l4lab books`: do the books of a run balance, and where did the cycles go."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from l4lab.tools.common.report import counted, grouped, print_json, table
from l4lab.tools.common.say import say
from l4lab.tools.ledger import longest as how_long
from l4lab.tools.ledger.accounts import (
    ALL_CAUSES,
    IDLE,
    USER_CAUSES,
    Accounts,
    account_name,
    accounts,
    imbalance,
)
from l4lab.tools.runs.rundir import Run, open_run

BOOKS_FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

EXIT_UNBALANCED: Final = 1
_FIRST_KERNEL_CAUSE: Final = 1 + len(USER_CAUSES)


def show_books(
    folder: Path | None, *, as_json: bool, longest: int | None = None, picture: Path | None = None
) -> int:
    """`l4lab books`. Returns the exit code: 1 if the books do not balance. Raises RunError, PlotError.

    `longest`: also that many of the longest kernel entries; `picture`: a folder for histograms of them all.
    """
    run = open_run(folder)
    found = imbalance(run.row_chunks(), run.cores, run.clocks)
    if found is not None:
        say(f"{run.folder}: {found}")
    if as_json:
        document: dict[str, Any] = {"format": BOOKS_FORMAT, "balanced": found is None, "imbalance": None}
        if found is not None:
            document["imbalance"] = {"core": found.core, "cycle": found.cycle, "problem": found.problem}
        else:
            document |= as_document(run, accounts(run))
            if longest is not None:
                document |= how_long.as_document(run, lengths := how_long.lengths(run, longest))
        print_json(document)
    elif found is None:
        if longest is None:
            _print(run, accounts(run))
        else:
            _print_longest(run, lengths := how_long.lengths(run, longest))
    if found is None and longest is not None and picture is not None:
        names = how_long.draw(run, lengths, picture)
        say(f"drawn: {', '.join(str(picture / name) for name in names)}")
    return 0 if found is None else EXIT_UNBALANCED


def as_document(run: Run, sums: Accounts) -> dict[str, Any]:
    """The sums as plain values; every core's and every task's causes add up to its `cycles`."""
    return {
        "profile": run.profile,
        "mhz": run.mhz,
        "ended": run.clocks is not None,
        "cores": [
            {
                "core": core,
                "cycles": int(values.sum()),
                "entries": int(sums.entries[core]),
                "causes": dict(zip(ALL_CAUSES, values.tolist(), strict=True)),
            }
            for core, values in enumerate(sums.by_core)
        ],
        "tasks": [
            {
                "number": max(task, 0),
                "name": account_name(run, task),
                "cycles": int(values.sum()),
                "entries": sums.task_entries.get(task, 0),
                "causes": dict(zip(ALL_CAUSES, values.tolist(), strict=True)),
            }
            for task, values in sorted(sums.by_task.items())
        ],
    }


# --- for people ---------------------------------------------------------------------------------------


def _print(run: Run, sums: Accounts) -> None:
    console = wide_console()
    total = int(sums.by_core.sum())
    ended = "" if run.clocks is not None else ", as far as a run came that did not end"
    console.print(
        f"the books balance: {grouped(total)} cycles on {counted(run.cores, 'core')}, "
        f"{grouped(int(sums.entries.sum()))} kernel entries{ended}\n",
        soft_wrap=True,
    )
    console.print(_by_core(sums))
    console.print()
    console.print(_by_cause(sums))
    console.print()
    console.print(_by_task(run, sums))


def _print_longest(run: Run, lengths: how_long.Lengths) -> None:
    console = wide_console()
    for rows in how_long.tables(run, lengths):
        console.print(rows)
        console.print()


def _by_core(sums: Accounts) -> Table:
    rows = table(
        *("core", "clock", "user", "TLB refill", "FPU switch", "kernel", "idle", "busy", "entries"),
        whole=True,
    )
    for core, values in enumerate([*sums.by_core, sums.by_core.sum(axis=0)]):
        is_sum = core == len(sums.by_core)
        if is_sum:
            rows.add_section()
        clock, idle = int(values.sum()), int(values[0])
        kernel = int(values[_FIRST_KERNEL_CAUSE:].sum())
        rows.add_row(
            "all" if is_sum else str(core),
            *(grouped(value) for value in (clock, *values[1:_FIRST_KERNEL_CAUSE].tolist(), kernel, idle)),
            percentage(clock - idle, clock),
            grouped(int(sums.entries.sum() if is_sum else sums.entries[core])),
            style="bold" if is_sum else None,
        )
    return rows


def _by_cause(sums: Accounts) -> Table:
    rows = table("cause", "cycles", "of all", "of busy", "for each entry", whole=True)
    values = sums.by_core.sum(axis=0)
    total, idle, entries = int(values.sum()), int(values[0]), max(int(sums.entries.sum()), 1)
    for cause, cycles in sorted(zip(ALL_CAUSES, values.tolist(), strict=True), key=lambda pair: -pair[1]):
        if cycles:
            busy = percentage(cycles, total - idle) if cause != "idle" else ""
            kernel = ALL_CAUSES.index(cause) >= _FIRST_KERNEL_CAUSE
            each = f"{cycles / entries:.1f}" if kernel else ""
            rows.add_row(cause, grouped(cycles), percentage(cycles, total), busy, each)
    return rows


def _by_task(run: Run, sums: Accounts) -> Table:
    rows = table(
        *("task", "cycles", "user", "TLB refill", "FPU switch", "kernel", "of busy", "entries"), whole=True
    )
    busy = int(sums.by_core[:, 1:].sum())
    for task, values in sorted(sums.by_task.items(), key=lambda item: (item[0] < 0, -int(item[1].sum()))):
        cycles = int(values.sum())
        if cycles and task != IDLE:
            parts = (*values[1:_FIRST_KERNEL_CAUSE].tolist(), int(values[_FIRST_KERNEL_CAUSE:].sum()))
            rows.add_row(
                account_name(run, task),
                *(grouped(value) for value in (cycles, *parts)),
                percentage(cycles, busy),
                grouped(sums.task_entries.get(task, 0)),
            )
    return rows


def wide_console() -> Console:
    """One on which tables of numbers keep their lines, whatever is at the other end."""
    console = Console(highlight=False)
    return Console(highlight=False, width=max(console.width, 120))


def percentage(part: int, whole: int) -> str:
    """`part` of `whole`, in per cent with one digit; nothing if there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else ""
