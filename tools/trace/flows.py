"""Messages as arrows: from the kernel entry with which a thread sent to the user code that the receiver runs next.

Arrows have numbers, for which this keeps two things for each thread: the arrow that its last kernel entry
may have begun, and those that have arrived and wait for it to run.
"""

from __future__ import annotations

from typing import Final

from l4lab.kernel import events
from l4lab.kernel.events import Event
from l4lab.kernel.traps import CpuException, PageFault, SystemCall
from l4lab.tools.trace.source import Stretch

_OWN_TRAPS: Final = (SystemCall.number, PageFault.number, CpuException.number)
_SENDING: Final = (events.MESSAGE, events.IPC, events.FAULT, events.EXCEPTION, events.SENT, events.QUEUED)
"""What an entry has of its own thread from which a message comes, now or later."""
_INTERRUPTED: Final = (events.SWITCH, events.SCHEDULE)
"""What it may have of any, if its thread gets to send later."""


class Flows:
    """To be asked stretch by stretch: who arrives, what may leave, and then for each event what it sends."""

    def __init__(self) -> None:
        self._last = 0
        self._begun: dict[int, int] = {}
        self._arrived: dict[int, list[int]] = {}

    def arrived(self, thread: int) -> list[int]:
        """The arrows that end where `thread` runs now."""
        return self._arrived.pop(thread, [])

    def leaving(self, stretch: Stretch) -> int:
        """The arrow that may begin at the kernel entry of `stretch`; 0: none can.

        It stands for what the thread sends, now or as soon as the receiver takes it. If nothing comes of it, which
        is rare, it has no other end.
        """
        if not stretch.thread or stretch.trap not in _OWN_TRAPS:
            return 0
        if not any(_may_send(event, stretch.thread) for event in stretch.events):
            self._begun.pop(stretch.thread, None)
            return 0
        number = self._begun[stretch.thread] = self._new()
        return number

    def sent(self, event: Event) -> int:
        """The arrow that begins at `event` itself, which sends something; 0: none does, or one that has begun already.

        It is so with an IRQ, and with what the kernel sends in the name of a thread that did not enter it for that.
        """
        if event.kind not in (events.MESSAGE, events.IRQ):
            return 0
        begun = self._begun.pop(event.thread, 0) if event.kind == events.MESSAGE else 0
        number = begun or self._new()
        self._arrived.setdefault(event.partner, []).append(number)
        return number if not begun else 0

    def _new(self) -> int:
        self._last += 1
        return self._last


def _may_send(event: Event, thread: int) -> bool:
    """Whether `event`, in a kernel entry of `thread`, is a sign that a message of it comes of that."""
    return event.kind in _INTERRUPTED or (event.thread == thread and event.kind in _SENDING)
