"""What was passed while a thread made steps alone, for whoever goes on with all threads afterwards.

gdb takes a breakpoint out, steps the thread that stands there, and puts it back. Meanwhile it accepts a stop of that
thread only; but time is one for all, so what others are to stop at happens meanwhile, too. It waits, and as a run can
be had again, it is had again from the first such stop on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from l4lab.emulator.debug.debugged import executed

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from l4lab.emulator.debug.debugged import Position
    from l4lab.emulator.debug.stops import Breakpoint, Stop
    from l4lab.kernel.thread import Thread


class _Told(NamedTuple):
    """What a thread stopped at up to `end`, and before it had executed `instructions` in its life, has been told."""

    instructions: int
    end: Position


class LoneSteps:
    """The steps since all threads went on last. Positions are those of one run.

    `stepping`: who makes a step now, and `frame` a copy of its frame as it entered the kernel last, which outlives it.
    `taken_out`: breakpoints that stop everybody else then. `leaves`: the place that is all it has to leave.
    `start`, `finish`: where the first step began and the last one was over. `waiting`: the first stop that a step has
    passed because it was about somebody else.
    """

    def __init__(self, frame: array[int]) -> None:
        self.stepping: Thread | None = None
        self.frame = frame
        self.leaves: int | None = None
        self.taken_out: frozenset[Breakpoint] = frozenset()
        self.start: Position | None = None
        self.finish: Position | None = None
        self.waiting: Position | None = None
        self._seen_before: Position | None = None
        self._told: dict[int, _Told] = {}  # by thread

    def begin(
        self,
        thread: Thread,
        here: Position,
        *,
        taken_out: Iterable[Breakpoint] = (),
        leaves: int | None = None,
    ) -> None:
        """`thread` is about to make a step."""
        self.stepping, self.taken_out, self.leaves = thread, frozenset(taken_out), leaves
        if self.waiting is None:
            self.start = here

    def end(self, here: Position) -> None:
        """It has been made, or as much of it as there will be."""
        thread = self.stepping
        assert thread is not None
        self._told[thread.number] = _Told(executed(thread), here)
        self.finish = here
        self.stepping = None

    def changed(self, here: Position) -> None:
        """Something was changed by hand: what comes behind `here` is not what it was."""
        self._told = {number: told._replace(end=min(told.end, here)) for number, told in self._told.items()}
        if self.finish is not None and here < self.finish:
            self.finish = None

    def has_taken_out(self, breakpoint_: Breakpoint, thread: Thread) -> bool:
        """Whether the breakpoint does not stop this thread now."""
        return thread is self.stepping and breakpoint_ in self.taken_out

    def passes(self, stop: Stop) -> bool:
        """Whether the machine is to go on over this stop: it waits for its turn, or has been told."""
        thread = stop.thread
        if self.stepping is not None and (thread is None or thread.number != self.stepping.number):
            if self.waiting is None and not self._was_told(stop):
                self.waiting = stop.position
            return True
        return self._was_told(stop)

    def _was_told(self, stop: Stop) -> bool:
        thread = stop.thread
        told = self._told.get(thread.number) if thread is not None else None
        if thread is None or told is None:
            return False
        return stop.position <= told.end or executed(thread) < told.instructions

    def run_again(self) -> None:
        """What waits gets its turn."""
        self._seen_before, self.waiting = self.waiting, None

    def shows(self, position: Position) -> bool:
        """Whether observers are to be shown what happens there: in order, and once."""
        if self.waiting is not None:
            return False
        return self._seen_before is None or position >= self._seen_before
