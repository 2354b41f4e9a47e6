"""The line that keeps changing while runs go on."""

from __future__ import annotations

import io
import os
import sys

import pytest

from l4lab.tools.common.progress import CampaignProgress, remaining


class Terminal(io.StringIO):
    """Shows what is written to it, and is as wide as it is."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.mark.parametrize("columns", [40, 80, 250])
def test_the_line_is_as_long_as_the_terminal_is_wide(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more and it would go over to the next, where it cannot be cleared."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 25)))
    CampaignProgress().going_on([f"run {number}" for number in range(99)], 0.5, 190)
    assert terminal.getvalue().startswith("\r\x1b[K50%, 3 min left: run 0, ")
    assert len(terminal.getvalue().removeprefix("\r\x1b[K")) == columns - 1


def test_a_width_that_nobody_knows_is_a_narrow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a serial line."""

    def refuse(_: int) -> os.terminal_size:
        raise OSError

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", refuse)
    CampaignProgress().going_on(["a run of a long name"] * 9, 0.5, None)
    assert len(terminal.getvalue().removeprefix("\r\x1b[K")) == 79


def test_nothing_keeps_changing_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is done gets a line there."""
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    CampaignProgress().going_on(["a run"], 0.5, None)
    assert file.getvalue() == ""


def test_the_time_left_is_for_people() -> None:
    assert (remaining(40), remaining(190)) == ("40 s", "3 min")
