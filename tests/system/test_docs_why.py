"""docs/debugger.md, "Why, and traces": what it shows is what the commands print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/debugger.md"
LEFT_OUT = "…"


def transcript() -> list[tuple[str, list[str]]]:
    """(command, lines that it prints) of the section, in order."""
    section = re.search(r"^## Why, and traces$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)
    assert section is not None
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", section[1], re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def expected_pattern(lines: list[str]) -> str:
    """A regular expression for `lines`, in which LEFT_OUT stands for any lines."""
    return "".join("(?:.*\n)*" if line == LEFT_OUT else re.escape(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `./l4lab`."""
    folder = tmp_path_factory.mktemp("docs")
    launcher = folder / "l4lab"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m l4lab.tools.cli "$@"\n')
    launcher.chmod(0o755)
    return folder


def test_the_section_shows_what_is_printed(here: Path) -> None:
    commands = transcript()
    assert "./l4lab why fault 17" in [command for command, _ in commands]
    for command, lines in commands:
        done = subprocess.run(command, shell=True, cwd=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(expected_pattern(lines), done.stdout), f"{command} prints:\n{done.stdout}"


def test_the_seven_hops_of_the_transcript_add_up() -> None:
    """Also by hand: the numbers in the page."""
    lines = dict(transcript())["./l4lab why fault 17"]
    steps = [re.match(r"([1-7]) \w+ +([\d ]+?)  ", line) for line in lines[lines.index("", 4) :]]
    cycles = [int(step[2].replace(" ", "")) for step in steps if step is not None]
    assert len(cycles) == 7
    latency = re.search(r", ([\d ]+) cycles \(", lines[1])
    assert latency is not None
    assert sum(cycles) == int(latency[1].replace(" ", ""))
