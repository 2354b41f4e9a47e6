"""What a reproduction tells people: the page of a figure, the page of all figures, the terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table

from l4lab.tools.common.versions import versions_with_drawing

if TYPE_CHECKING:
    from l4lab.tools.bench.published import Residual
    from l4lab.tools.paper.outcome import Outcome

_COLUMNS: Final = ("published", "ours", "deviation", "reproduced if", "reproduced")
_FILE_WIDTH: Final = 120
_WIDE: Final = 105
_FIRST_WIDTH: Final = 24
_NUMBER_WIDTH: Final = 12

Row = tuple[str, tuple[str, ...]]
"""A name, a unit and the columns."""


def as_page(outcome: Outcome, files: Sequence[str], command: str) -> str:
    """README.md of a figure's folder."""
    lines = [f"# {outcome.title}", ""]
    lines += [f"![{outcome.title}]({file})" for file in files if file.endswith(".png")]
    if outcome.residuals:
        lines += ["", *_table(_named(outcome))]
    lines += ["", *(f"{remark}\n" for remark in outcome.remarks)]
    if outcome.residuals:
        sources = dict.fromkeys(residual.source for residual in outcome.residuals)
        lines += ["Sources:", "", *(f"- {source}" for source in sources)]
    return "\n".join([*lines, "", *_made_by(command, "`data.json`"), ""])


def as_overview(results: Sequence[tuple[str, Outcome]], command: str) -> str:
    """README.md above the folders of several figures: every statement, every figure, why they differ."""
    lines = ["# Ours beside what is published", ""]
    lines += [*_table(_all_named(results)), ""]
    for name, outcome in results:
        lines += [f"## {outcome.title}", "", f"![{outcome.title}]({name}/{name}.png)", ""]
        lines += [f"{remark}\n" for remark in outcome.remarks]
        lines += [f"More: [{name}]({name}/README.md), [numbers]({name}/data.json)", ""]
    return "\n".join([*lines, *_made_by(command, "Each folder's `data.json`"), ""])


def print_outcome(name: str, outcome: Outcome, folder: Path) -> None:
    """The residuals, what explains them, and where the figure is."""
    console = _console()
    _print_paragraph(console, outcome.title)
    if outcome.residuals:
        _print_residuals(console, name, _named(outcome))
    for remark in outcome.remarks:
        if remark.startswith("|"):
            _print_markdown_table(console, remark)
        else:
            _print_paragraph(console, remark)
    click.echo(f"{folder}/: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def print_made(outcome: Outcome, folder: Path, folder_width: int) -> None:
    """One of several: what it is and where, on one line."""
    _console().print(f"{f'{folder}/':{folder_width}}  {outcome.title}", soft_wrap=True)


def print_overview(results: Sequence[tuple[str, Outcome]], page: Path) -> None:
    """All residuals at a glance, and where to read on."""
    console = _console()
    console.print()
    _print_residuals(console, "all", _all_named(results))
    click.echo(f"{page}: all figures, and what explains the differences")


# --- the terminal -------------------------------------------------------------------------------------


def _console() -> Console:
    """As wide as the terminal, or as COLUMNS says; what goes to a file has no width of its own."""
    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    width = _FILE_WIDTH if fixed else None
    return Console(highlight=False, markup=False, emoji=False, file=sys.stdout, width=width)


def _print_paragraph(console: Console, text: str) -> None:
    """On a terminal, lines end between words."""
    console.print(text, soft_wrap=not console.is_terminal)
    console.print()


def _print_residuals(console: Console, title: str, residuals: Sequence[tuple[str, Residual]]) -> None:
    """As on the pages, but in the room that there is: on a narrow terminal, numbers stand below their names."""
    rows = []
    for name, residual in residuals:
        published, *cells = _cells(residual, "")
        if residual.published is None:
            name, published = f"{name}, {published}", ""
        rows.append((name, (residual.unit, published, *cells)))
    if console.width >= _WIDE:
        console.print(_wide_table(title, rows))
    else:
        _print_narrow(console, title, rows)
    console.print()


def _wide_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title, "", box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _print_narrow(console: Console, title: str, rows: Sequence[Row]) -> None:
    lines = [("", *_COLUMNS), *(cells for _, cells in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    header, *numbers = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    console.print(f"{title}\n  {header}", style="bold", soft_wrap=True)
    for (name, _), line in zip(rows, numbers, strict=True):
        console.print(name)
        console.print(f"  {line}", soft_wrap=True)


def _print_markdown_table(console: Console, text: str) -> None:
    """In as many parts, side by side on the page, as it takes to keep every number whole."""
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    widths = [
        max(_NUMBER_WIDTH, *(len(word) for cell in column for word in cell.split(" ")))
        for column in zip(header, *rows, strict=True)
    ]
    for begin, end in _parts(widths[1:], console.width - _FIRST_WIDTH):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(header[0], overflow="fold")
        for title, width in zip(header[begin + 1 : end + 1], widths[begin + 1 : end + 1], strict=True):
            table.add_column(title, justify="right", width=width)
        for row in rows:
            table.add_row(row[0], *row[begin + 1 : end + 1])
        console.print(table)
        console.print()


def _parts(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """(first, one behind the last) column of each part, of equal numbers of columns."""
    fitting = max(room // (max(widths) + 1), 1)
    parts = math.ceil(len(widths) / fitting)
    size = math.ceil(len(widths) / parts)
    for begin in range(0, len(widths), size):
        yield begin, min(begin + size, len(widths))


# --- tables -------------------------------------------------------------------------------------------


def _named(outcome: Outcome) -> list[tuple[str, Residual]]:
    return [(residual.what, residual) for residual in outcome.residuals]


def _all_named(results: Sequence[tuple[str, Outcome]]) -> list[tuple[str, Residual]]:
    """The residuals of all figures, each with its figure's name."""
    return [(f"{name}: {what}", one) for name, outcome in results for what, one in _named(outcome)]


def _table(residuals: Sequence[tuple[str, Residual]]) -> Iterator[str]:
    """In Markdown."""
    yield f"| | {' | '.join(_COLUMNS)} |"
    yield "|---" * (1 + len(_COLUMNS)) + "|"
    for name, residual in residuals:
        yield f"| {name} | {' | '.join(_cells(residual, f' {residual.unit}'.rstrip()))} |"


def _made_by(command: str, data: str) -> tuple[str, str]:
    made_with = ", ".join(f"{key} {value}" for key, value in versions_with_drawing().items())
    return (
        f"Made by `{command}` with {made_with}. {data} has every number and the",
        "resolved configuration, `SHA256SUMS` the hashes; the same inputs give the same bytes.",
    )


def _cells(residual: Residual, unit: str) -> tuple[str, ...]:
    """By _COLUMNS; `unit` is put behind numbers."""
    deviation = residual.deviation_percent
    return (
        _quoted(residual) if residual.published is None else _as_stated(residual.published) + unit,
        _measured(residual.ours) + unit,
        "" if deviation is None else f"{deviation:+z,.{int(abs(deviation) < 1000)}f} %",
        "" if residual.within is None else _band(residual) + unit,
        {True: "yes", False: "no", None: ""}[residual.within],
    )


def _quoted(residual: Residual) -> str:
    return f"“{residual.statement}”"


def _band(residual: Residual) -> str:
    """What counts as reproduced."""
    return " to ".join(_as_stated(bound) for bound in (residual.low, residual.high) if bound is not None)


def _as_stated(value: float) -> str:
    """Without zeros behind the point: nobody states, or asks for, that much."""
    whole = len(f"{abs(value):.0f}")
    shown = f"{value:,.{max(4 - whole, 0)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _measured(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:z.2f}"
