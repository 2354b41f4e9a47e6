"""How far something is, on stderr: one line that keeps changing, the same for every command that takes its time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from l4lab.tools.common.say import say

Tell = Callable[[float], None]
"""Is told from time to time which part of something is done, 0 to 1."""

_COLUMNS_UNKNOWN: Final = 80


class Line:
    """The line. On a terminal it is as long as there is room; elsewhere nothing is written."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def show(self, what: str, done: float | None = None, left_seconds: float | None = None) -> None:
        """`what` goes on; `done`: which part of it, 0 to 1. What is not known is not told."""
        if not self._live:
            return
        left = f", {remaining(left_seconds)} left" if left_seconds is not None else ""
        line = f"{done:.0%}{left}: {what}" if done is not None else what
        sys.stderr.write(f"\r\x1b[K{line[: _columns() - 1]}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take it away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class Progress:
    """One thing that goes on, in a `with`: the line shows what, and of `total` steps how many are done."""

    def __init__(self, what: str, total: float | None = None) -> None:
        self._line = Line()
        self._what = what
        self._total = total
        self._done = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.clear()

    def tell(self, what: str) -> None:
        """Another part of it begins."""
        self._what = what
        self._show()

    def advance(self) -> None:
        """One more step is done."""
        self.reach(self._done + 1)

    def reach(self, done: float) -> None:
        """So many steps are done."""
        self._done = done
        self._show()

    def _show(self) -> None:
        done = self._done / self._total if self._total else None
        elapsed = time.monotonic() - self._start
        self._line.show(self._what, done, elapsed / done - elapsed if done else None)


class CampaignProgress:
    """Of many runs (`tools/runs/campaign.py`): what is done gets a line that stays, what is running the one above."""

    def __init__(self) -> None:
        self._line = Line()

    def finished(self, name: str, seconds: float, done: float, left_seconds: float | None) -> None:
        """See Watcher."""
        self._line.clear()
        left = f", {remaining(left_seconds)} left" if done < 1 and left_seconds is not None else ""
        say(f"{done:4.0%}  {name}: {seconds:.0f} s{left}")

    def going_on(self, names: Sequence[str], done: float, left_seconds: float | None) -> None:
        """See Watcher."""
        self._line.show(", ".join(names), done, left_seconds)


@contextmanager
def every(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` every so often, between two instructions of whatever runs meanwhile; 0: never."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        tell()

    if seconds <= 0:
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _columns() -> int:
    """Of the terminal that stderr is, now: people drag their windows."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS_UNKNOWN
    except (OSError, ValueError):
        return _COLUMNS_UNKNOWN


def remaining(seconds: float) -> str:
    """`40 s`, `3 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
