"""docs/debugger.md, "Why, and traces": what it shows is what the commands print.

Cycles and addresses move whenever a program or a price changes, so numbers are not compared. With UPDATE_DOCS
set, the page is brought up to date instead: UPDATE_DOCS=1 .venv/bin/pytest tests/system/test_docs_why.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs/debugger.md"
LEFT_OUT = "…"
SHOWN = ("./l4lab why fault 17", "./l4lab why fault 28")
NUMBER = r"\b(?:0x[0-9a-f]+|\d+(?:[ .]\d+)*)\b"


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


def normal(text: str) -> str:
    """`text` without what moves with cycles and addresses: numbers, gaps, where a fault was, what took most."""
    lines = []
    for line in text.splitlines():
        line = re.sub(NUMBER, "0", line)
        line = re.sub(r"(?:wrote to|read|fetched from) 0, at 0( in \w+)?", "touched 0", line)
        line = re.sub(r"ip=0 \w+ \((?:write|read|fetch), ", "ip=0 (touch, ", line)
        head, colon, causes = line.partition("by cause: ")
        if colon:
            line = head + colon + " ".join(sorted(re.split("[,;] ", causes)))
        lines.append(line)
    return " ".join("\n".join(lines).split())


def expected_pattern(lines: list[str]) -> str:
    """A regular expression for `lines`, `normal`, in which LEFT_OUT stands for anything."""
    return re.escape(normal("\n".join(lines))).replace(re.escape(LEFT_OUT), ".*")


def updated(lines: list[str], printed: list[str]) -> list[str]:
    """What is printed now, with as much left out as in `lines`."""
    if LEFT_OUT not in lines:
        return printed
    before = lines.index(LEFT_OUT)
    after = len(lines) - before - 1
    return [*printed[:before], LEFT_OUT, *(printed[-after:] if after else [])]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `./l4lab`."""
    folder = tmp_path_factory.mktemp("docs")
    launcher = folder / "l4lab"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m l4lab.tools.cli "$@"\n')
    launcher.chmod(0o755)
    return folder


@pytest.mark.slow
def test_the_section_shows_what_is_printed(here: Path) -> None:
    commands = transcript()
    assert {*SHOWN} <= {command for command, _ in commands}
    page = PAGE.read_text("utf-8")
    for command, lines in commands:
        done = subprocess.run(command, shell=True, cwd=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if "UPDATE_DOCS" in os.environ:
            old = "\n".join(["$ " + command, *lines, ""])
            assert page.count(old) == 1
            new = updated(lines, done.stdout.splitlines())
            page = page.replace(old, "\n".join(["$ " + command, *new, ""]))
        else:
            assert re.fullmatch(expected_pattern(lines), normal(done.stdout)), (
                f"UPDATE_DOCS=1 will do, if this is as it should be: {command} prints:\n{done.stdout}"
            )
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(page, encoding="utf-8")


def test_numbers_may_differ_and_little_else() -> None:
    pattern = expected_pattern(["fault 17 of 4026: 3 519 cycles (1.60 us)", LEFT_OUT, "2 fault    0x18"])
    for printed, is_the_same in (
        ("fault 17 of 39: 12 cycles (0.01 us)\nmore\n\n2 fault   0x1234\n", True),
        ("fault 17 of 39: 12 cycles (0.01 ms)\nmore\n\n2 fault   0x1234\n", False),
        ("fault 17 of 39: 12 cycles (0.01 us)\nmore\n\n2 fault   0x1234\nmore\n", False),
        ("fault 17 of 39: 12 cycles (0.01 us)\nmore\n\n2 touch   0x1234\n", False),
    ):
        assert bool(re.fullmatch(pattern, normal(printed))) == is_the_same


def test_the_second_is_of_a_client_of_the_benchmark() -> None:
    """Its pager is that of its core, and its allocator was found at work."""
    text = "\n".join(dict(transcript())["./l4lab why fault 28"])
    client = re.match(r"fault 28 of \d+: pma\.(\d+) #\d+ ", text)
    assert client is not None
    assert re.search(rf"^5 frame  .* pager\.{client[1]} #\d+ +runs ", text, re.M)


@pytest.mark.parametrize("command", SHOWN)
def test_the_seven_hops_of_the_transcript_add_up(command: str) -> None:
    """Also by hand: the numbers in the page."""
    lines = dict(transcript())[command]
    steps = [re.match(r"([1-7]) \w+ +([\d ]+?)  ", line) for line in lines[lines.index("", 4) :]]
    cycles = [int(step[2].replace(" ", "")) for step in steps if step is not None]
    assert len(cycles) == 7
    latency = re.search(r", ([\d ]+) cycles \(", lines[1])
    assert latency is not None
    assert sum(cycles) == int(latency[1].replace(" ", ""))
