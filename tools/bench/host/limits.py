"""What is promised of the host's speed, and `--check`, which holds measurements against it.

Tests do not: they run beside other work, on hosts of any speed. A promise is checked by whoever has a quiet one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.stutter import VARIABLE
from l4lab.tools.common.report import print_json
from l4lab.tools.common.say import say

TRIES: Final = 3
"""Other work on the host can only make a figure worse, so a promise counts as kept if one of so many runs keeps it."""
EXIT_MISSED: Final = 1

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """By name of a figure: the least, and the most, that it may be."""

    at_least: dict[str, float]
    at_most: dict[str, float]

    def missed(self, runs: list[Figures]) -> list[str]:
        """A line for each figure that none of the runs has within its limit."""
        lines = []
        for name, least in self.at_least.items():
            best = max(run[name] for run in runs)
            if best < least:
                lines.append(f"{name}: measured {best:.3f}, promised at least {least:g}")
        for name, most in self.at_most.items():
            best = min(run[name] for run in runs)
            if best > most:
                lines.append(f"{name}: measured {best:.3f}, promised at most {most:g}")
        return lines


def run_bench(name: str, *, as_json: bool, check: bool) -> int:
    """`l4lab bench NAME`, of the module of that name here: its `measure`, `show` and LIMITS. Returns the exit code."""
    module = importlib.import_module(f"l4lab.tools.bench.host.{name}")
    return run(module.measure, module.show, module.LIMITS, as_json=as_json, check=check)


def run(
    measure: Callable[[], Figures],
    show: Callable[[Figures], None],
    limits: Limits,
    *,
    as_json: bool,
    check: bool,
) -> int:
    """Measure and show, or print as JSON; the exit code. With `check`, measure again while a limit is missed.

    So up to TRIES times; what is shown is the last run. The figures that no run has within their limits come on
    stderr, one a line.
    """
    if seed := os.environ.get(VARIABLE):
        raise OperatorError(
            f"{VARIABLE}: found {seed!r}, expected it unset for what measures the host: it slows it down"
        )
    runs = [measure()]
    while check and limits.missed(runs) and len(runs) < TRIES:
        runs.append(measure())
    if as_json:
        print_json(runs[-1], sort_keys=True)
    else:
        show(runs[-1])
    missed = limits.missed(runs) if check else []
    for line in missed:
        say(line)
    return EXIT_MISSED if missed else 0
