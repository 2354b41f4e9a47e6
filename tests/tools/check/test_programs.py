"""The random program as a root task: the same log every time, and how two logs are compared and reduced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.tools.check.fuzz import programs

SEED, FIRST, COUNT = 3, 4, 2


@pytest.fixture(scope="module")
def log() -> str:
    """Two episodes."""
    return programs.program_log(SEED, FIRST, COUNT)


def test_the_same_seed_gives_the_same_log(log: str) -> None:
    """Byte for byte; another seed does not."""
    assert programs.program_log(SEED, FIRST, COUNT) == log
    assert programs.program_log(SEED + 1, FIRST, COUNT) != log


def test_an_episode_does_not_depend_on_those_before(log: str) -> None:
    """So a difference is looked for in its episode alone."""
    both = programs.parse_log(log, "log")
    alone = programs.parse_log(programs.program_log(SEED, FIRST + 1, 1), "log")
    assert alone.episodes[FIRST + 1] == both.episodes[FIRST + 1]
    assert len(both.episodes) == COUNT and all(len(lines) > 40 for lines in both.episodes.values())


def test_equal_logs_are_equal(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What another kernel prints in between does not count."""
    file = tmp_path / "log"
    file.write_text("Welcome\n" + log.replace("\n", "\r\n\nKERNEL: Warning\n", 30))
    assert programs.compare_with(file) == 0
    assert "2 episodes" in capsys.readouterr().out


def test_the_first_difference_is_told_and_reduced(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the steps without which our line would not come."""
    lines = log.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(rf"{FIRST}\.1\d .* did ", line))
    step = int(lines[at].split()[0].split(".")[1])
    there = lines[at] + " otherwise"
    file = tmp_path / "log"
    file.write_text("\n".join([*lines[:at], there, *lines[at + 1 :]]))
    assert programs.compare_with(file) == 1
    told = capsys.readouterr().out
    assert (
        f"episode {FIRST}, step {step}:" in told
        and f"there: {there}" in told
        and f"here:  {lines[at]}" in told
    )
    steps = [int(step) for step in told.split("--steps=")[1].strip().split(",")]
    assert steps[-1] == step and len(steps) < step
    reduced = programs.program_log(SEED, FIRST, 1, steps)
    assert lines[at] in reduced.splitlines()


def test_a_log_that_ends_early_differs() -> None:
    """The line that is missing is the difference."""
    one, two = (1, "0.1 a"), (2, "0.2 b")
    found = programs.difference(0, [one], [one, two])
    assert found is not None and (found.step, found.theirs, found.ours, found.before) == (
        2,
        "",
        "0.2 b",
        [one],
    )
    assert programs.difference(0, [one, two], [one, two]) is None


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    """In one line that names it."""
    file = tmp_path / "none"
    with pytest.raises(OperatorError, match="none: found No such file"):
        programs.compare_with(file)
    file.write_text("Welcome\n")
    with pytest.raises(OperatorError, match="none: found no line of the random program"):
        programs.compare_with(file)
