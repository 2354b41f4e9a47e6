"""Results as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from l4lab.emulator.results import RunResult, TaskStats

_COLUMNS: Final = {
    "page faults": "page_faults",
    "system calls": "system_calls",
    "instructions": "instructions",
    "user cycles": "user_cycles",
    "TLB misses": "tlb_misses",
}


def print_tasks(result: RunResult, stream: TextIO) -> None:
    """What each task cost: a line per task, and the sums."""
    table = Table("task", box=None, pad_edge=False, header_style="bold")
    for title in _COLUMNS:
        table.add_column(title, justify="right")
    for task in result.tasks:
        table.add_row(task.name, *_cells((task,)))
    table.add_section()
    table.add_row("all", *_cells(result.tasks), style="bold")
    Console(file=stream, highlight=False).print(table)
    print(_core_cycles(result), file=stream)


def _core_cycles(result: RunResult) -> str:
    """Where the clocks of all cores went, on one line."""
    kinds = ("user", "kernel", "idle")
    sums = [grouped(sum(getattr(core, f"{kind}_cycles") for core in result.cores)) for kind in kinds]
    cores = f"{len(result.cores)} core{'s' * (len(result.cores) > 1)}"
    return f"cycles of {cores}: " + ", ".join(
        f"{total} {kind}" for total, kind in zip(sums, kinds, strict=True)
    )


def _cells(tasks: Iterable[TaskStats]) -> list[str]:
    rows = [[getattr(task, field) for field in _COLUMNS.values()] for task in tasks]
    return [grouped(sum(column)) for column in zip(*rows, strict=True)]


def grouped(number: int) -> str:
    """Digits in groups of three: `1 234 567`."""
    return f"{number:,}".replace(",", " ")
