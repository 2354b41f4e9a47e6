"""What all tests share. Helpers to import are in `tests/support`."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from l4lab.tools.common.versions import versions
from l4lab.tools.native import build

# No deadlines: this measures correctness, on hosts that other work shares.
settings.register_profile("l4lab", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("l4lab")

# What a shell starts with & may have been told to ignore Ctrl-C, and with it all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The workers of pytest-xdist have the width of a terminal, which they are not.
os.environ.pop("COLUMNS", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two names for a choice of tests; what pyproject.toml has as `-m` is a third, and the default."""
    group = parser.getgroup("l4lab")
    group.addoption(
        "--all", action="store_const", dest="markexpr", const="not network", help="run slow tests, too"
    )


def pytest_report_header() -> list[str]:
    """What is tested: `.venv/bin/pytest`, unlike `./l4lab test`, takes native code as it was built last."""
    lines = ["l4lab: " + ", ".join(f"{name} {version}" for name, version in versions().items())]
    try:
        stale = build.out_of_date()
    except build.BuildError as error:
        stale = [str(error)]
    if stale:
        lines.append(f"l4lab: NOT UP TO DATE, run ./l4lab build: {', '.join(stale)}")
    return lines
