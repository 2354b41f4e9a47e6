"""`l4lab debug`: from the command line to the screen and back."""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.errors import OperatorError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.runs.replay import find_source

_KEPT_PIECES: Final = 10_000
"""Of what guests print while one command runs: what the screen has not shown yet."""


def debug(word: str, *, image: str | None, max_cycles: int | None) -> int:
    """`l4lab debug IMAGE|RUN`. Returns the exit code; raises OperatorError, and KernelBug if that is where it ended."""
    try:
        from l4lab.tools.debug.tui.app import DebugApp
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "textual":
            raise
        raise OperatorError("debug: found no package textual, expected it: pip install textual") from None
    source = find_source(word, image)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise OperatorError("debug: found no terminal, expected one; without: `l4lab boot IMAGE --gdb ADDR`")
    printed: deque[bytes] = deque(maxlen=_KEPT_PIECES)
    limit = max_cycles if max_cycles is not None else source.max_cycles
    session = DebugSession(source.manifest, max_cycles=limit, console=printed.append)
    app = DebugApp(session, printed)
    app.run()
    if session.last_stop.kind is StopKind.BUG:
        raise KernelBug(f"{session.last_stop.text}\n{session.machine.describe()}")
    return app.return_code or 0
