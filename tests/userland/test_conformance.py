"""The conformance suite on our kernel, and the table of operations and results that it has to fill."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import l4lab
from l4lab.emulator.manifest import Manifest, Module
from l4lab.emulator.results import StopReason
from l4lab.tools.build import CHECKOUT

CELLS = CHECKOUT / "userland" / "tests" / "cells.txt"


def suite(command_line: str, cores: int = 2) -> Manifest:
    """The bundled image with another command line."""
    manifest = l4lab.load_manifest("conformance")
    return replace(manifest, cores=cores, roottask=Module(manifest.roottask.path, command_line))


def lines_of(manifest: Manifest) -> list[str]:
    """What the suite prints. It must come to its end by itself."""
    result = l4lab.Machine(manifest).run()
    assert result.reason is StopReason.ROOT_ENDED
    return result.console.decode(errors="replace").splitlines()


def read_cells(path: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Operation → codes to cover, and operation → codes that a reason excuses."""
    needed: dict[str, set[str]] = defaultdict(set)
    excused: dict[str, set[str]] = defaultdict(set)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            cells, _, reason = line.partition(" -- ")
            operation, *codes = cells.split()
            (excused if reason else needed)[operation].update(codes)
    return needed, excused


def covered_cells(listing: list[str]) -> dict[str, set[str]]:
    """Operation → codes that some test says it covers."""
    covered: dict[str, set[str]] = defaultdict(set)
    for line in listing:
        if line.startswith("LIST "):
            for cell in line.partition(" | ")[0].split()[2:]:
                operation, _, codes = cell.partition(":")
                covered[operation].update(codes.split(","))
    return covered


def test_every_test_passes() -> None:
    """Two cores, so that none has to be skipped."""
    lines = [line for line in lines_of(suite("conformance")) if line.startswith("CONF ")]
    assert [line for line in lines if " FAIL" in line or " SKIP" in line] == []
    assert len(lines) > 450


def test_one_core_skips_only_what_needs_two() -> None:
    """The rest does not depend on how many cores there are."""
    lines = [line for line in lines_of(suite("conformance", cores=1)) if line.startswith("CONF ")]
    assert [line for line in lines if " FAIL" in line] == []
    assert {line.split()[1][:3] for line in lines if " SKIP" in line} == {"SMP"}


def test_a_single_test_is_run_by_its_identifier() -> None:
    """--only takes the beginning of identifiers and may be given several times."""
    lines = lines_of(suite("conformance --only=SEM0001 --only=LOG000"))
    names = [line.split()[1] for line in lines if line.startswith("CONF ")]
    assert names == [*(f"LOG000{number}" for number in range(1, 10)), "SEM0001", "done:"]


def test_table_of_operations_and_results_is_full() -> None:
    """Each cell is covered by a test or excused with a reason, and no test covers a cell outside of it."""
    needed, excused = read_cells(CELLS)
    covered = covered_cells(lines_of(suite("conformance --list")))
    assert {name: codes - covered[name] for name, codes in needed.items() if codes - covered[name]} == {}
    assert {name: codes - needed[name] for name, codes in covered.items() if codes - needed[name]} == {}
    assert {name: codes & covered[name] for name, codes in excused.items() if codes & covered[name]} == {}


def test_identifiers_are_unique_and_sentences_are_in_their_group() -> None:
    """A group's letters and four digits; a sentence that no other test of the group has."""
    rows = [line for line in lines_of(suite("conformance --list")) if line.startswith("LIST ")]
    names = [row.split()[1] for row in rows]
    sentences = [(name[:-4], row.partition(" | ")[2]) for name, row in zip(names, rows, strict=True)]
    assert len(set(names)) == len(names)
    assert len(set(sentences)) == len(sentences)
    assert all(name[:-4].isalpha() and name[-4:].isdigit() for name in names)
