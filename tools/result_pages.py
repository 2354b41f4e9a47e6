"""What a reproduction tells people: the page of a figure, the page of all figures, the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table

from l4lab.tools.versions import versions_with_drawing

if TYPE_CHECKING:
    from l4lab.tools.reproduce import Outcome, Residual

_COLUMNS: Final = ("published", "ours", "deviation", "reproduced")

Row = tuple[str, str, str, str, str]
"""What it is, and the columns."""


def as_page(outcome: Outcome, files: Sequence[str], command: str) -> str:
    """README.md of a figure's folder."""
    lines = [f"# {outcome.title}", ""]
    lines += [f"![{outcome.title}]({file})" for file in files if file.endswith(".png")]
    if outcome.residuals:
        lines += ["", *_table([_cells(residual) for residual in outcome.residuals])]
    lines += ["", *(f"{remark}\n" for remark in outcome.remarks)]
    if outcome.residuals:
        sources = dict.fromkeys(residual.source for residual in outcome.residuals)
        lines += ["Sources:", "", *(f"- {source}" for source in sources)]
    return "\n".join([*lines, "", *_made_by(command), ""])


def as_overview(results: Sequence[tuple[str, Outcome]], command: str) -> str:
    """README.md above the folders of several figures: every statement, every figure, why they differ."""
    lines = ["# Ours beside what is published", ""]
    lines += [*_table(_all_rows(results)), ""]
    for name, outcome in results:
        lines += [f"## {outcome.title}", "", f"![{outcome.title}]({name}/{name}.png)", ""]
        lines += [f"{remark}\n" for remark in outcome.remarks]
        lines += [f"More: [{name}]({name}/README.md), [numbers]({name}/data.json)", ""]
    return "\n".join([*lines, *_made_by(command), ""])


def print_outcome(name: str, outcome: Outcome, folder: Path) -> None:
    """The residuals, and where the figure is."""
    console = _console()
    console.print(outcome.title, soft_wrap=True)
    console.print()
    if outcome.residuals:
        console.print(_rich_table(name, [_cells(residual) for residual in outcome.residuals]))
        console.print()
    for remark in outcome.remarks:
        console.print(remark, soft_wrap=True)
    click.echo(f"{folder}/: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    click.echo()


def print_overview(results: Sequence[tuple[str, Outcome]], page: Path) -> None:
    """All residuals at a glance, and where to read on."""
    console = _console()
    console.print(_rich_table("all", _all_rows(results)))
    console.print()
    click.echo(f"{page}: all figures, and what explains the differences")


def _console() -> Console:
    return Console(highlight=False, file=sys.stdout)


def _all_rows(results: Sequence[tuple[str, Outcome]]) -> list[Row]:
    """The rows of all figures, each with its figure's name."""
    rows = [(name, _cells(residual)) for name, outcome in results for residual in outcome.residuals]
    return [(f"{name}: {cells[0]}", *cells[1:]) for name, cells in rows]


def _rich_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title, box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS[:-1]:
        table.add_column(column, justify="right")
    table.add_column(_COLUMNS[-1])
    for row in rows:
        table.add_row(*row)
    return table


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """In Markdown."""
    yield f"| | {' | '.join(_COLUMNS)} |"
    yield "|---" * (1 + len(_COLUMNS)) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _made_by(command: str) -> tuple[str, str]:
    made_with = ", ".join(f"{key} {value}" for key, value in versions_with_drawing().items())
    return (
        f"Made by `{command}` with {made_with}. `data.json` has every number and the resolved",
        "configuration, `SHA256SUMS` the hashes; the same inputs give the same bytes.",
    )


def _cells(residual: Residual) -> Row:
    deviation = residual.deviation_percent
    if residual.published is None:
        published = f"“{residual.statement}”"
    else:
        published = _number(residual.published, residual.unit)
    return (
        residual.what,
        published,
        _number(residual.ours, residual.unit),
        f"{deviation:+.1f} %" if deviation is not None else "",
        {True: "yes", False: "no", None: ""}[residual.within],
    )


def _number(value: float, unit: str) -> str:
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{shown} {unit}" if unit else shown
