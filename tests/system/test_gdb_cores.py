"""gdb on 48 cores: every thread has a name, and breakpoints in code that all processes share stop the right one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.native.build import CHECKOUT
from support.real_gdb import answers, check_document, needs_gdb, section_of, session

DOCUMENT = CHECKOUT / "docs/debugger.md"
CORES = 48
CHOSEN = "pma.37"

pytestmark = needs_gdb


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The memory benchmark: 48 pagers and 48 processes, which execute the same program."""
    path = tmp_path_factory.mktemp("cores") / "pma.toml"
    path.write_text(PmaSetup(cores=CORES, pages=2, tasks=1).manifest(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def looked(manifest: Path) -> dict[str, str]:
    """What gdb shows when the first of them frees memory, and the others are about to."""
    commands = ["tbreak memory_free", "continue", "info threads", f"thread find {CHOSEN}$", "info inferiors"]
    return dict(session(manifest, commands, manifest.parent)[0])


def chosen_thread(looked: dict[str, str]) -> str:
    """gdb's number of the chosen process's thread; every session counts the same way."""
    match = re.search(
        rf"Thread ([0-9.]+) has target name '{re.escape(CHOSEN)}'", looked[f"thread find {CHOSEN}$"]
    )
    assert match is not None
    return match[1]


def test_every_thread_is_named_with_its_task_core_and_state(looked: dict[str, str]) -> None:
    lines = looked["info threads"].splitlines()[1:]
    shown = [re.match(r"[* ] [0-9.]+ +Thread (\d+)\.(\d+) \"([^\"]+)\" \(([^)]+)\)", line) for line in lines]
    assert all(shown)
    named = {match[3]: match[4] for match in shown if match is not None}
    expected = {"sigma0", "root", "coordinator"}
    expected |= {f"{name}{number}" for name in ("core ", "pager.", "pma.") for number in range(CORES)}
    assert set(named) == expected and len(lines) == len(expected)
    for number in range(CORES):
        assert named[f"pager.{number}"].startswith(f"core {number}, waits for anyone")
        assert named[f"pma.{number}"] == f"core {number}, running"
        assert named[f"core {number}"] == f"runs pma.{number}"
    tasks = {match[1] for match in shown if match is not None}
    assert len(tasks) == 2 * CORES + 4  # the cores are a process, too


def test_the_transcript_in_the_document_is_of_this_session(manifest: Path) -> None:
    """Numbers may differ. UPDATE_DOCS=1 brings it up to date."""
    commands = [command for command, _ in answers(section_of(DOCUMENT.read_text("utf-8"), "48 cores"))]
    assert "info threads" in commands
    check_document(DOCUMENT, "48 cores", session(manifest, commands, manifest.parent)[0])


def test_each_task_is_an_inferior_with_its_program(looked: dict[str, str]) -> None:
    programs = re.findall(r"^[* ] \d+ +process \d+ .*/(\S+) *$", looked["info inferiors"], flags=re.MULTILINE)
    assert programs.count("pager") == programs.count("pma") == CORES


@pytest.mark.parametrize("way", ["thread", pytest.param("inferior", marks=pytest.mark.slow)])
def test_a_breakpoint_for_one_of_48_stops_that_one(manifest: Path, looked: dict[str, str], way: str) -> None:
    """The others pass the same instruction before and after it."""
    thread = chosen_thread(looked)
    only = {"thread": f"thread {thread}", "inferior": f"if $_inferior == {thread.partition('.')[0]}"}[way]
    commands = [
        *("tbreak memory_free", "continue", f"break memory_free {only}", "continue", "p $_inferior", "bt 1"),
        *("info breakpoints", "continue", "p $cycles"),
    ]
    printed = [text for _, text in session(manifest, commands, manifest.parent)[0]]
    for hit in (printed[3], printed[7]):
        assert re.search(rf'Thread {re.escape(thread)} "{re.escape(CHOSEN)}" hit Breakpoint 2', hit)
        assert "memory_free (address=" in hit
    assert re.search(r"already hit 1 time", printed[6])
