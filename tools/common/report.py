"""Results as tables for people, and as JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

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


def table(first: str, *numbers: str, whole: bool = False) -> Table:
    """An empty table: a column of names under the title `first`, and columns of numbers. `whole`: no cell is torn."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in (first, *numbers):
        made.add_column(title, justify="left" if title == first else "right", no_wrap=whole)
    return made


def console(*, soft_wrap: bool = False) -> Console:
    """For tables on stdout, whatever that is by now. `soft_wrap`: lines go on beyond the terminal's width."""
    return Console(highlight=False, file=sys.stdout, soft_wrap=soft_wrap)


def json_text(document: Any, *, sort_keys: bool = False) -> str:
    """As all commands print and keep it; keys stay in their order, or are sorted."""
    return json.dumps(document, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n"


def print_json(document: Any, *, sort_keys: bool = False) -> None:
    """One document, to stdout."""
    sys.stdout.write(json_text(document, sort_keys=sort_keys))


def print_tasks(result: RunResult, stream: TextIO) -> None:
    """What each task cost: a line per task, and the sums."""
    tasks = table("task", *_COLUMNS)
    for task in result.tasks:
        tasks.add_row(task.name, *_cells((task,)))
    tasks.add_section()
    tasks.add_row("all", *_cells(result.tasks), style="bold")
    Console(file=stream, highlight=False).print(tasks)
    print(_core_cycles(result), file=stream)


def _core_cycles(result: RunResult) -> str:
    """Where the clocks of all cores went, on one line."""
    kinds = ("user", "kernel", "idle")
    sums = [grouped(sum(getattr(core, f"{kind}_cycles") for core in result.cores)) for kind in kinds]
    return f"cycles of {counted(len(result.cores), 'core')}: " + ", ".join(
        f"{total} {kind}" for total, kind in zip(sums, kinds, strict=True)
    )


def _cells(tasks: Iterable[TaskStats]) -> list[str]:
    rows = [[getattr(task, field) for field in _COLUMNS.values()] for task in tasks]
    return [grouped(sum(column)) for column in zip(*rows, strict=True)]


def grouped(number: int) -> str:
    """Digits in groups of three: `1 234 567`."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, thing: str) -> str:
    """As in `1 core`, `2 cores`, `10,000 pages`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"
