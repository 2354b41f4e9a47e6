"""How far a campaign is, on stderr (`tools/runs/campaign.py`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from l4lab.tools.runs.campaign import Job

_COLUMNS_UNKNOWN: Final = 80


class Console:
    """Progress on stderr: a line for each job that is done; on a terminal, one more that keeps changing."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def finished(self, job: Job, seconds: float, done: float, left_seconds: float | None) -> None:
        """See Watcher."""
        self._clear()
        left = f", {remaining(left_seconds)} left" if done < 1 and left_seconds is not None else ""
        print(f"l4lab: {done:4.0%}  {job.name}: {seconds:.0f} s{left}", file=sys.stderr, flush=True)

    def going_on(self, names: Sequence[str], done: float, left_seconds: float | None) -> None:
        """See Watcher."""
        if self._live:
            left = f", {remaining(left_seconds)} left" if left_seconds is not None else ""
            self._clear()
            sys.stderr.write(f"{done:.0%}{left}: {', '.join(names)}"[: _columns() - 1])
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")


def _columns() -> int:
    """Of the terminal that stderr is, now: people drag their windows."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS_UNKNOWN
    except (OSError, ValueError):
        return _COLUMNS_UNKNOWN


def remaining(seconds: float | None) -> str:
    """`40 s`, `3 min`."""
    if seconds is None:
        return "an unknown time"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
