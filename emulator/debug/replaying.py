"""Letting a machine go on until something of interest, from wherever it is.

A `ReplaySession` lets a `DebuggedMachine` run until a breakpoint, a watchpoint, a catchpoint, a step that is
done, a clock, somebody who interrupts. It takes snapshots on the way (`history`). Nothing here changes a run,
but for `edit`: what a person changes by hand becomes part of the run's history at that position, and is
changed again whenever the run passes there.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from l4lab.emulator.debug.debugged import (
    AFTER_ENTRY,
    IN_USER_CODE,
    Count,
    DebuggedMachine,
    Pause,
    Position,
    executed,
)
from l4lab.emulator.debug.history import History, Snapshot
from l4lab.emulator.debug.lookout import Lookout
from l4lab.emulator.debug.stops import TO_THE_END, Edit, Goal, GoalKind, Stop, StopKind
from l4lab.emulator.machine import NEVER
from l4lab.emulator.vcpu import catch_interrupts
from l4lab.kernel.errors import KernelBug

Poll = Callable[[], bool]
"""Asked about every POLL_SECONDS while the machine runs; True interrupts."""

POLL_SECONDS: Final = 0.02


class Pace(NamedTuple):
    """When a snapshot is due: after so many seconds, and so many times as long as the last one took."""

    seconds: float
    share: int


FORWARD: Final = Pace(0.1, 20)
REPLAY: Final = Pace(0.05, 4)
"""Whoever goes back often goes back a little more next."""


class ReplaySession(Lookout):
    """The way forwards through a run. All methods are called while the machine stands still.

    `last_stop`: where it is and why.
    """

    def __init__(self, machine: DebuggedMachine) -> None:
        super().__init__(machine)
        self.history = History(machine)
        self._snapshot_at = 0.0
        self._bug: Stop | None = None
        self._edits: list[tuple[Position, Edit]] = []
        self._edits_done = 0
        self.last_stop = self._stop_here(StopKind.START, "the start of the run")

    def resume(self, goal: Goal = TO_THE_END, poll: Poll | None = None) -> Stop:
        """Run until the goal is reached or something stops the machine."""
        if self._bug is not None:
            return self._bug
        if goal.kind is GoalKind.STEP:
            assert goal.thread is not None
            done = executed(self.machine.kernel.threads[goal.thread])
            count = Count(done + 1, goal.first, goal.size_bytes)
        else:
            count = None
        self._forward = True
        try:
            return self._towards(goal, count, poll)
        finally:
            self._forward = False

    def edit(self, edit: Edit) -> None:
        """Change memory or registers now. Whatever was to come after this will not come that way."""
        position = self.machine.position
        self._lone.changed(position)
        self._edits[self._edits_done :] = [(position, edit)]
        self._edits_done += 1
        self.history.forget_after(position)
        edit.apply(self.machine)
        self.history.edited_frames(edit.frames())

    def _restore(self, snapshot: Snapshot) -> None:
        kernel = self.machine.kernel
        self.history.restore(snapshot)
        kernel.events = kernel.trace = None
        self.machine.port.pass_breakpoint(None)
        self._bug = self._found = None
        self._edits_done = bisect_left(self._edits, snapshot.position, key=lambda made: made[0])

    def _towards(
        self, goal: Goal, count: Count | None, poll: Poll | None, place: Position | None = None
    ) -> Stop:
        """Run until a stop, or until `place`; edits that lie ahead are made on the way."""
        self._goal, self._step_count = goal, count
        self._make_edits()
        self._arm()
        self._pace_snapshots()
        try:
            while True:
                self._set_place(self._nearer(place))
                stop = self._run_on(poll)
                if stop is None:
                    continue
                edited = self._make_edits()
                if edited and stop.kind is StopKind.PLACE and stop.position != place:
                    self.machine.port.pass_breakpoint(None)
                    continue
                self.last_stop = stop
                return stop
        finally:
            self._set_place(None)
            self._goal, self._step_count = TO_THE_END, None
            self._disarm()

    def _nearer(self, place: Position | None) -> Position | None:
        """Where to stop next: `place`, or at an edit before it."""
        if self._edits_done == len(self._edits):
            return place
        edit = self._edits[self._edits_done][0]
        return edit if place is None or edit < place else place

    def _make_edits(self) -> bool:
        """Make the edits that were made at this position; False if there are none."""
        position, first = self.machine.position, self._edits_done
        while self._edits_done < len(self._edits) and self._edits[self._edits_done][0] == position:
            edit = self._edits[self._edits_done][1]
            edit.apply(self.machine)
            self.history.edited_frames(edit.frames())
            self._edits_done += 1
        return self._edits_done > first

    def _run_on(self, poll: Poll | None) -> Stop | None:
        """Until the machine pauses; None if nobody has to know."""
        machine = self.machine
        try:
            with _ctrl_c_between_steps():
                pause = machine.go_on(self, POLL_SECONDS)
        except KernelBug as bug:
            self._bug = self._stop_here(StopKind.BUG, f"bug in l4lab's kernel: {bug.detail}")
            return self._bug
        if pause is Pause.ENDED:
            assert machine.ended is not None
            return self._stop_here(StopKind.END, machine.ended.value, result=machine.ended)
        found, self._found = self._found, None
        if pause is Pause.CONTROL and machine.phase == IN_USER_CODE:
            found = self._classify(machine.core)
        elif pause is Pause.BREATH and poll is not None and poll():
            found = self._stop_here(StopKind.INTERRUPTED, "interrupted")
        if found is None and machine.phase == AFTER_ENTRY and self._snapshot_is_due():
            self.history.take()
            self._want_snapshot(NEVER)
            self._pace_snapshots()
        return found

    def _snapshot_is_due(self) -> bool:
        return time.monotonic() >= self._snapshot_at or self.machine.steps >= self._snapshot_at_steps

    def _pace_snapshots(self) -> None:
        """Say when the next one is due."""
        pace = FORWARD if self._forward else REPLAY
        self._snapshot_at = time.monotonic() + max(
            pace.seconds, pace.share * self.history.seconds_per_snapshot
        )


@contextmanager
def _ctrl_c_between_steps() -> Iterator[None]:
    """KeyboardInterrupt comes behind what is done inside, not in the middle of the kernel."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with catch_interrupts() as pressed:
        yield
        was_pressed = bool(pressed)
    if was_pressed:
        raise KeyboardInterrupt
