"""What all tests share. Helpers to import are in `tests/support`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from l4lab.tools.common.versions import versions
from l4lab.tools.native import build

TESTS = Path(__file__).parent
NOT_QUICK = {
    "emulator/debug",
    "emulator/test_machine_end.py",
    "emulator/test_stutter.py",
    "kernel/test_planted_bugs.py",
    "system",
    "test_launcher.py",
    "test_programs.py",
    "test_wheel.py",
    "tools/cli",
    "tools/debug",
    "tools/paper",
    "tools/runs",
    "tools/trace",
    "userland/test_library.py",
    "userland/test_pma.py",
    "userland/test_root.py",
}
"""What `--quick` leaves out. What it keeps: the kernel by itself, the vCPU, files, ledgers, the conformance suite."""

# Nothing that measures time: this is about correctness, on hosts that other work shares.
settings.register_profile("l4lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("l4lab"), derandomize=True)
# For `l4lab check mutation`: the first failure is enough, and always the same one.
settings.register_profile(
    "judge", parent=settings.get_profile("ci"), database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("l4lab")

# What a shell starts with & may have been told to ignore Ctrl-C, and with it all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and of hangups, by nohup


# The workers of pytest-xdist have the width of a terminal, which they are not.
os.environ.pop("COLUMNS", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two more choices of tests; the default is what pyproject.toml has as `-m`."""
    group = parser.getgroup("l4lab")
    group.addoption(
        "--all", action="store_const", dest="markexpr", const="not network", help="run slow tests, too"
    )
    group.addoption(
        "--quick",
        action="store_true",
        help="leave out whole folders, of what starts processes, debugs, or boots whole systems: NOT_QUICK in "
        "tests/conftest.py",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """So that --quick does not even read what it leaves out."""
    if config.getoption("quick") and collection_path.relative_to(TESTS).as_posix() in NOT_QUICK:
        return True
    return None


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
