"""Sessions of the terminal interface, brought to where a test begins."""

from __future__ import annotations

from l4lab.emulator.debug.catching import CatchKind
from l4lab.tools.debug.tui.session import DebugSession

ON_ONE_CORE, ACROSS = "hello.0", "hello.1"
"""Programs of `pagefault`: on the core of their pager, and on the other."""


def to_first_fault(session: DebugSession, name: str) -> int:
    """To the first page fault of that thread. Which one of the run it is, from 1."""
    number = 0
    while session.thread is None or session.thread.name != name:
        session.next_event(CatchKind.FAULT)
        number += 1
        assert not session.moment.ended, f"{name} has no page fault"
    return number
