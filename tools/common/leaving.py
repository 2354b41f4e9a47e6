"""Leaving in order when somebody outside ends the process: what is temporary goes, too."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)


def leave(number: int, _: FrameType | None) -> None:
    """A signal handler: SystemExit, with the exit code that a shell gives a process that this signal ended."""
    sys.exit(128 + number)


@contextlib.contextmanager
def leaving_in_order() -> Iterator[None]:
    """Inside, SIGTERM and a hangup of the terminal unwind the stack, so that folders and sockets are removed.

    A signal that was ignored stays so, as under nohup. Does nothing outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
