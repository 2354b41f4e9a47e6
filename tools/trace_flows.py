"""Messages as arrows: from the kernel entry with which a thread sent to the user code that the receiver runs next.

Arrows have numbers, for which this keeps two things for each thread: the arrow that its last kernel entry
may have begun, and those that have arrived and wait for it to run.
"""

from __future__ import annotations

from typing import Final

from l4lab.kernel import events
from l4lab.kernel.traps import CpuException, PageFault, SystemCall
from l4lab.tools.trace_source import Stretch

_OWN_TRAPS: Final = (SystemCall.number, PageFault.number, CpuException.number)


class Flows:
    """To be asked stretch by stretch, `arrived` before `leaving`."""

    def __init__(self) -> None:
        self._last = 0
        self._begun: dict[int, int] = {}
        self._arrived: dict[int, list[int]] = {}

    def arrived(self, thread: int) -> list[int]:
        """The arrows that end where `thread` runs now."""
        return self._arrived.pop(thread, [])

    def leaving(self, stretch: Stretch) -> list[int]:
        """The arrows that begin at the kernel entry of `stretch`.

        One for what its thread may send, now or as soon as the receiver takes it: if nothing comes of it, it has
        no other end. And one for each message that goes over here in the name of something else: a second one
        of the same thread, an IRQ.
        """
        found: list[int] = []
        own = stretch.thread if stretch.trap in _OWN_TRAPS else 0
        if own:
            found.append(self._new())
            self._begun[own] = found[0]
        for event in stretch.events:
            if event.kind not in (events.MESSAGE, events.IRQ):
                continue
            number = self._begun.pop(event.thread, 0) if event.kind == events.MESSAGE else 0
            if not number:
                number = self._new()
                found.append(number)
            self._arrived.setdefault(event.partner, []).append(number)
        return found

    def _new(self) -> int:
        self._last += 1
        return self._last
