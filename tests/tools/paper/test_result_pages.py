"""What a reproduction prints and writes for people, from a result that is made up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from l4lab.tools.bench.published import Residual
from l4lab.tools.paper.result_pages import as_overview, as_page, print_made, print_outcome, print_overview

CELLS = [[f"{1_000_000 * row + column:,}" for column in range(6)] for row in (1, 2)]
TABLE = "\n".join(
    [
        "| cycles, by cause | "
        + " | ".join(f"a pager on each core: part {column}" for column in range(6))
        + " |",
        "|---|" + "---:|" * 6,
        *(f"| cause [{row}] | " + " | ".join(cells) + " |" for row, cells in enumerate(CELLS)),
    ]
)
WORDS = "That is how it is, and this is why it is so. " * 5
RESIDUALS = (
    Residual("allocation", "25 times", "a paper", 25.0, 22.5, 27.5, 26.0, "times"),
    Residual("loss", "4 %", "a paper", 4.0, 2.0, 6.0, 0.0123, "%"),
    Residual("lower bound", "172 cycles", "a paper", 172, 171.5, 172.5, 172.0, "cycles"),
    Residual("degrades", "a few", "a paper", None, None, None, 12_345.6, ""),
)
ROWS = (
    "| allocation | 25 times | 26.0 times | +4.0 % | 22.5 to 27.5 times | yes |",
    "| loss | 4 % | 0.01 % | -99.7 % | 2 to 6 % | no |",
    "| lower bound | 172 cycles | 172 cycles | +0.0 % | 171.5 to 172.5 cycles | yes |",
    "| degrades | “a few” | 12,346 |  |  |  |",
)


@dataclass
class MadeUp:
    """The outcome; see `reproduce.Outcome`."""

    title: str = "Figure 0: what was made up"
    residuals: tuple[Residual, ...] = RESIDUALS
    remarks: tuple[str, ...] = (TABLE, WORDS)
    data: dict[str, Any] = field(default_factory=dict)
    configurations: tuple[dict[str, Any], ...] = ()

    def draw(self, folder: Path, stem: str) -> tuple[str, ...]:
        raise AssertionError((folder, stem))


@pytest.fixture(params=[80, 100, 200])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of that width, as people set one for what is no terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    width: int = request.param
    return width


def test_pages_tell_what_counts_as_reproduced() -> None:
    """And where the numbers are: the page above all folders has none beside it."""
    page = as_page(MadeUp(), ["fig0.png"], "l4lab reproduce fig0")
    overview = as_overview([("fig0", MadeUp())], "l4lab reproduce all")
    for text in (page, overview):
        assert "| reproduced if | reproduced |" in text
        assert TABLE in text
    assert ". `data.json` has every number" in page
    assert ". Each folder's `data.json` has every number" in overview
    assert [line for line in page.splitlines() if line in ROWS] == list(ROWS)


def test_the_terminal_shows_tables_as_such(
    tmp_path: Path, columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not their Markdown; within its width, each number whole."""
    print_outcome("fig0", MadeUp(), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    words = [word for line in lines for word in line.split()]
    for cells in CELLS:
        assert [words.count(cell) for cell in cells] == [1] * len(cells)
    assert "|" not in words and "…" not in "".join(words)
    assert any(line.startswith("cause [0]") for line in lines)
    tables = [line for line in lines if WORDS not in line and str(tmp_path) not in line]
    assert max(map(len, tables)) <= columns
    assert WORDS in lines  # whoever reads a file breaks lines as they like
    for word in ("22.5", "171.5", "reproduced"):
        assert word in words


def test_of_several_the_terminal_shows_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, then every statement once; what explains them is on the page."""
    results = [(name, MadeUp(title=f"Figure {name}")) for name in ("fig0", "fig1")]
    for name, outcome in results:
        print_made(outcome, tmp_path / name, 1 + len(str(tmp_path / "fig0")))
    print_overview(results, tmp_path / "README.md")
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[:3] == [f"{tmp_path}/fig0/  Figure fig0", f"{tmp_path}/fig1/  Figure fig1", ""]
    assert lines[-1].startswith(f"{tmp_path}/README.md: all figures")
    for name, _ in results:
        for residual in RESIDUALS:
            assert len(re.findall(f"^{name}: {residual.what}[ ,]", text, re.M)) == 1
    rows = [" ".join(line.split()) for line in lines]
    assert rows.count("fig1: lower bound cycles 172 172 +0.0 % 171.5 to 172.5 yes") == 1
    assert "how it is" not in text and "cycles, by cause" not in text


def test_words_end_where_the_terminal_does(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a real one, lines end between words."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print_outcome("fig0", MadeUp(), tmp_path)
    plain = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line.rstrip() for line in plain.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= columns
    assert WORDS.strip() in " ".join(lines)
    assert WORDS.strip() not in lines
