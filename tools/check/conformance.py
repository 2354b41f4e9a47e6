"""`l4lab conformance`: the suite of `userland/tests` on our kernel, as a table of operations and results.

The suite is a root task that prints `CONF <id> PASS|FAIL|SKIP <detail>` for each test and, asked for
it, `LIST <id> <operation:codes …> | <sentence>`. Which cells there have to be is in
`conformance_cells.txt`; a cell without a test has a reason there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.results import StopReason
from l4lab.tools.common.report import console, print_json
from l4lab.tools.common.versions import versions
from l4lab.tools.runs.execute import execute, image_with

IMAGE: Final = "conformance"
CORES: Final = 2
FORMAT: Final = 1
CELLS: Final = Path(__file__).resolve().parent / "conformance_cells.txt"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test's outcome: "PASS", "FAIL" or "SKIP"; `detail` says where and what for the latter two."""

    identifier: str
    outcome: str
    detail: str
    sentence: str
    cells: tuple[str, ...]


@dataclass(slots=True)
class Operation:
    """One row of the table. `tests`: code -> the tests that cover it. `excused`: code -> why none does."""

    name: str
    tests: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    excused: dict[str, str] = field(default_factory=dict)
    needed: list[str] = field(default_factory=list)

    @property
    def empty(self) -> list[str]:
        """Cells that have neither a test nor a reason."""
        return [code for code in self.needed if code not in self.tests]


def _suite(arguments: str, cores: int) -> list[str]:
    """The lines that the suite prints when its root task gets these arguments."""
    manifest = image_with(IMAGE, f"{IMAGE} {arguments}", cores=cores)
    result = execute(manifest)
    if result.reason is not StopReason.ROOT_ENDED:
        raise OperatorError(
            f"{manifest.roottask.path}: found that the suite stopped ({result.reason.value}), "
            "expected it to end by itself"
        )
    return result.console.decode(errors="replace").splitlines()


def run_suite(only: Iterable[str] = (), cores: int = CORES) -> list[Verdict]:
    """Run the suite, or the tests whose identifiers begin with one of `only`; the order is the suite's."""
    selection = " ".join(f"--only={prefix}" for prefix in only)
    sentences: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in _suite(f"--list {selection}".strip(), cores):
        if line.startswith("LIST "):
            head, _, sentence = line.partition(" | ")
            _, identifier, *cells = head.split()
            sentences[identifier] = sentence, tuple(cells)
    if not sentences:
        raise OperatorError(
            f"--only: found no test that begins with {' or '.join(only)}; without it all are run"
        )
    verdicts = []
    for line in _suite(selection, cores):
        if line.startswith("CONF ") and not line.startswith("CONF done"):
            _, identifier, outcome, *detail = line.split(" ", 3)
            verdicts.append(Verdict(identifier, outcome, " ".join(detail), *sentences[identifier]))
    missing = sentences.keys() - {verdict.identifier for verdict in verdicts}
    verdicts += [Verdict(name, "FAIL", "gave no verdict", *sentences[name]) for name in sorted(missing)]
    return verdicts


def table_of(verdicts: Iterable[Verdict]) -> dict[str, Operation]:
    """Operation -> its row, in the order of the cell file; only passed tests cover a cell."""
    operations = _read_cells()
    for verdict in verdicts:
        for cell in verdict.cells if verdict.outcome == "PASS" else ():
            name, _, codes = cell.partition(":")
            for code in codes.split(","):
                operations.setdefault(name, Operation(name)).tests[code].append(verdict.identifier)
    return operations


def _read_cells() -> dict[str, Operation]:
    operations: dict[str, Operation] = {}
    for line in CELLS.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        cells, _, reason = line.partition(" -- ")
        name, *codes = cells.split()
        operation = operations.setdefault(name, Operation(name))
        if reason:
            operation.excused.update(dict.fromkeys(codes, reason))
        else:
            operation.needed += codes
    return operations


# --- for people ---------------------------------------------------------------------------------


def run_conformance(*, as_json: bool, only: tuple[str, ...], list_tests: bool, cores: int) -> int:
    """Run and print. The exit code is 1 if a test failed or, in a full run, a cell is empty."""
    verdicts = run_suite(only, cores)
    operations = table_of(verdicts)
    counts = {outcome: sum(v.outcome == outcome for v in verdicts) for outcome in ("PASS", "FAIL", "SKIP")}
    empty = {} if only or cores < CORES else {op.name: op.empty for op in operations.values() if op.empty}
    if as_json:
        print_json(_document(verdicts, operations, counts, empty), sort_keys=True)
    else:
        _print(verdicts, operations, counts, empty, tests=list_tests or bool(only))
    return 1 if counts["FAIL"] or empty else 0


def _document(
    verdicts: list[Verdict],
    operations: dict[str, Operation],
    counts: dict[str, int],
    empty: dict[str, list[str]],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "versions": versions(),
        "passed": counts["PASS"],
        "failed": counts["FAIL"],
        "skipped": counts["SKIP"],
        "empty_cells": empty,
        "tests": [
            {
                "id": verdict.identifier,
                "outcome": verdict.outcome.lower(),
                "detail": verdict.detail,
                "sentence": verdict.sentence,
                "cells": list(verdict.cells),
            }
            for verdict in verdicts
        ],
        "operations": {
            op.name: {"tests": dict(op.tests), "excused": op.excused} for op in operations.values()
        },
    }


def _print(
    verdicts: list[Verdict],
    operations: dict[str, Operation],
    counts: dict[str, int],
    empty: dict[str, list[str]],
    *,
    tests: bool,
) -> None:
    out = console()
    if tests:
        for verdict in verdicts:
            out.print(f"{verdict.outcome}  {verdict.identifier}  {verdict.sentence}", markup=False)
    else:
        table = Table("operation", "results shown by tests (how many)", "not shown", box=None, pad_edge=False)
        for op in operations.values():
            shown = "  ".join(f"{code} {len(op.tests[code])}" for code in op.needed if code in op.tests)
            table.add_row(op.name, shown, "  ".join(op.excused))
        out.print(table)
        out.print("\nnot shown, because:")
        for op in operations.values():
            for code, reason in op.excused.items():
                out.print(f"  {op.name} {code}: {reason}", markup=False, soft_wrap=True)
    for verdict in verdicts:
        if verdict.outcome == "FAIL":
            out.print(f"FAILED  {verdict.identifier}  {verdict.sentence}: {verdict.detail}", markup=False)
    for name, codes in empty.items():
        out.print(f"EMPTY   {name}: {' '.join(codes)}", markup=False)
    out.print(f"\n{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
