"""Waiting for what another process or thread does: until it says so, never for a time.

Nothing here, nor in any test, passes or fails by how fast the host is (`tests/test_tests.py` looks after that).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

PATIENCE_SECONDS: Final = 600
"""Ends a test that would hang for ever. What passes at all does so in a small part of it, on any host."""


class Signpost:
    """A named pipe at which whoever knows the path leaves words, a line each, and a test waits for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR)  # so that a reader never finds that nobody is left
        self._data = b""

    def wait(self) -> str:
        """The next line."""
        while b"\n" not in self._data:
            self._data += read_some(self._end)
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Nobody will wait any more."""
        os.close(self._end)


def leave_word(path: Path, word: str) -> None:
    """At the signpost with that path."""
    with path.open("a", encoding="ascii") as post:
        post.write(f"{word}\n")


def read_some(descriptor: int) -> bytes:
    """What comes next; b"" at the end."""
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_SECONDS)
    assert ready, "nothing came"
    return os.read(descriptor, 1 << 16)


def read_until(stream: IO[str], wanted: str) -> str:
    """The lines that a process writes, up to and with the first that has `wanted` in it."""
    text = ""
    for line in stream:
        text += line
        if wanted in line:
            return text
    raise AssertionError(f"it ended without {wanted!r}, with {text!r}")


def spin_until(condition: Callable[[], bool]) -> None:
    """For what only shows in memory: looks again and again, while others run."""
    while not condition():
        os.sched_yield()
