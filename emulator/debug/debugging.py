"""Stop and go over a machine, forwards and backwards, all cores together.

Forwards is `ReplaySession`. Backwards is forwards again: the last snapshot before the wanted moment is
restored, and the machine runs up to it, as it did. So every way back has one criterion for both: which
snapshot lies before the moment, and where to stop. It is a property of the run; when snapshots were taken, which
depends on the host, decides only how long it takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.debugged import AFTER_ENTRY, BEFORE_ENTRY, IN_USER_CODE, Count, Position
from l4lab.emulator.debug.debugged import executed as executed
from l4lab.emulator.debug.guestmemory import read_memory as read_memory
from l4lab.emulator.debug.lonesteps import LoneSteps
from l4lab.emulator.debug.replaying import Poll as Poll
from l4lab.emulator.debug.replaying import ReplaySession
from l4lab.emulator.debug.stops import TO_THE_END, Breakpoint, Edit, Goal, GoalKind, Stop, StopKind
from l4lab.emulator.machine import NEVER
from l4lab.kernel.frame import EIP, INSTRUCTIONS, read_counter
from l4lab.kernel.thread import DEAD

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from l4lab.emulator.debug.debugged import DebuggedMachine
    from l4lab.emulator.debug.history import Snapshot

STEPS_TO_SNAPSHOT: Final = 32
"""Whoever steps back once does so again: a snapshot is taken so many kernel entries and stretches before."""


class Debugger(ReplaySession):
    """Control over one machine, in both directions of time."""

    def __init__(self, machine: DebuggedMachine) -> None:
        super().__init__(machine)
        start = machine.position
        self._before_aside = self._lone
        self._stops_known: tuple[Position, Position, object, list[Stop]] = (start, start, None, [])

    def edit(self, edit: Edit) -> None:
        """As it is; what would have stopped the machine is unknown again."""
        super().edit(edit)
        here = self.machine.position
        self._stops_known = (here, here, None, [])

    # --- one thread alone -----------------------------------------------------------------------------

    def go_alone(
        self, thread: int, goal: Goal, taken_out: Iterable[Breakpoint] = (), poll: Poll | None = None
    ) -> Stop:
        """Let a thread make the step `goal`, or go on, and be told of nothing but that thread.

        What others are to stop at meanwhile waits for `go_to_waiting`. `taken_out`: breakpoints that are only for
        others. NO_STEP: the thread ends before it has made the step, or the run does and something waits; a thread
        that has left its instruction for a system call by then has made the step.
        """
        alone, lone = self.machine.kernel.threads[thread], self._lone
        lone.begin(alone, self.machine.position, taken_out=taken_out)
        self._keep_frame(alone)
        place = lone.frame[EIP]
        try:
            stop = self.resume(goal, poll)
        finally:
            lone.end(self.machine.position)
        if goal.kind is GoalKind.STEP:
            if stop.kind is StopKind.END and lone.waiting is not None:
                # What waits may be what ends the waiting of this thread, if only by hand.
                self._go_to(lone.waiting)
                stop = self._stop_here(StopKind.NO_STEP, "the run ends before")
            if stop.kind is StopKind.NO_STEP and lone.frame[EIP] != place:
                stop = replace(stop, kind=StopKind.STEP, text="")  # it was a system call
        self.last_stop = replace(stop, thread=self.machine.kernel.threads.get(thread, alone))
        return self.last_stop

    @property
    def frame_of_lone(self) -> array[int]:
        """That of the thread that was stepped alone last, as it entered the kernel last; it outlives the thread."""
        return self._lone.frame

    def go_to_waiting(self, poll: Poll | None = None) -> Stop | None:
        """Go back to the first stop that steps alone have passed, if it still is one; None: there is none.

        Then the machine is where the last of the steps has left it, and all the way was seen by the observers.
        """
        lone = self._lone
        if lone.waiting is None:
            return None
        assert lone.start is not None
        self._go_to(lone.start)
        lone.run_again()
        self._forward = True
        try:
            stop = self._towards(TO_THE_END, None, poll, lone.finish)
        finally:
            self._forward = False
        if stop.kind is not StopKind.PLACE:
            return stop
        self._pass_breakpoint_here()
        return None

    def forget_waiting(self) -> None:
        """What steps alone have passed is nobody's business any more."""
        self._lone = LoneSteps(self._lone.frame)

    def come_back(self, position: Position) -> Stop:
        """To where `step_aside` began; what has waited then waits again."""
        stop = self._go_to(position)
        self._lone = self._before_aside
        return stop

    @property
    def has_waiting(self) -> bool:
        """Whether steps alone have passed what others are to stop at, which observers have not seen either."""
        return self._lone.waiting is not None

    def step_aside(self, goal: Goal, poll: Poll | None = None) -> Stop:
        """Let a thread leave its instruction, if only for the kernel. Nothing is told, and nothing stops.

        STEP, or NO_STEP: it does not leave it; or INTERRUPTED. Whoever asks for this is about to go elsewhere, or to
        `come_back`.
        """
        assert goal.thread is not None
        self._before_aside = self._lone
        thread, lone = self.machine.kernel.threads[goal.thread], LoneSteps(self._lone.frame)
        self._lone = lone
        place = thread.frame[EIP]
        lone.begin(thread, self.machine.position, leaves=place)
        self._keep_frame(thread)
        try:
            count = Count(executed(thread) + 1, goal.first, goal.size_bytes)
            stop = self._quietly(goal, count, poll)
        finally:
            lone.stepping = None
        left = thread.frame[EIP] if thread.state != DEAD else lone.frame[EIP]
        if stop.kind is not StopKind.INTERRUPTED:
            stop = replace(stop, kind=StopKind.STEP if left != place else StopKind.NO_STEP)
        self.last_stop = replace(stop, thread=thread)
        return self.last_stop

    # --- back in time ---------------------------------------------------------------------------------

    def go_to(self, position: Position, poll: Poll | None = None) -> Stop:
        """Back or forward to a position that the run has passed."""
        self.forget_waiting()
        return self._go_to(position, poll)

    def _go_to(self, position: Position, poll: Poll | None = None) -> Stop:
        snapshot = self.history.last_before(position)
        if self._bug is not None or not snapshot.position <= self.machine.position <= position:
            self._restore(snapshot)
        if self.machine.position == position:
            stop = self._stop_here(StopKind.PLACE)
        else:
            stop = self._quietly(TO_THE_END, None, poll, position)
        self._pass_breakpoint_here()
        self.last_stop = stop
        return stop

    def _pass_breakpoint_here(self) -> None:
        thread = self.machine.core.decision.thread
        if self.machine.phase == IN_USER_CODE and thread is not None:
            self.machine.port.pass_breakpoint(thread.frame, executed(thread))

    def go_to_clock(self, core: int, clock_cycles: int, poll: Poll | None = None) -> Stop:
        """To the first point of the run at which `core` is at or beyond a cycle, nothing else stopping.

        While the core is idle, that is behind the last kernel entry of any core before that cycle.
        """
        self.forget_waiting()
        machine = self.machine
        snapshot = self.history.last_with(lambda snapshot: snapshot.reached_cycles[core] < clock_cycles)
        ahead = machine.reached_cycles()[core] < clock_cycles
        if self._bug is not None or not ahead or machine.position < snapshot.position:
            self._restore(snapshot)
        if machine.reached_cycles()[core] >= clock_cycles:
            return self._to_start()
        return self._quietly(Goal(GoalKind.CLOCK, core=core, clock_cycles=clock_cycles), None, poll)

    def step_back(self, thread: int, poll: Poll | None = None) -> Stop:
        """To before the last instruction that the thread completed; to the start if there is none.

        It may have ended, if it went on alone then.
        """
        found = self.machine.kernel.threads.get(thread)
        count = read_counter(found.frame if found is not None else self._lone.frame, INSTRUCTIONS) - 1
        self.forget_waiting()
        if count < 0:
            return self._to_start()
        here = self.machine.position
        snapshot = self.history.last_with(
            lambda snapshot: snapshot.position < here and snapshot.executed_by(thread) < count
        )
        if here.steps - snapshot.position.steps > 2 * STEPS_TO_SNAPSHOT:
            self._snapshot_at_steps = here.steps - STEPS_TO_SNAPSHOT
        self._restore(snapshot)
        try:
            return self._quietly(Goal(GoalKind.STEP, thread), Count(count), poll)
        finally:
            self._snapshot_at_steps = NEVER

    def continue_back(self, poll: Poll | None = None) -> Stop:
        """To the last time before now that anything would have stopped the machine; else to the start.

        At a watchpoint that is before the access: whoever goes back sees the bytes change.
        """
        self.forget_waiting()
        here = end = self.machine.position
        snapshot: Snapshot | None = self.history.last_before(here)
        while snapshot is not None:
            found = self._stops_between(snapshot, end, poll)
            if found and found[-1].kind is StopKind.INTERRUPTED:
                self.go_to(here)
                self.last_stop = found[-1]
                return found[-1]
            behind = [stop for stop in found if _lies_behind(stop, here)]
            if behind:
                return self._back_at(behind[-1], poll)
            end = snapshot.position
            snapshot = self.history.earlier(snapshot)
        return self._to_start()

    def _back_at(self, stop: Stop, poll: Poll | None) -> Stop:
        """Go to where `stop` shows when time runs backwards; `stop`, as it is there."""
        number = stop.thread.number if stop.thread is not None else 0
        before_it = stop.position
        if stop.kind is StopKind.WATCHPOINT and stop.position.phase == AFTER_ENTRY:
            before_it = Position(stop.position.steps - 1, stop.position.retired, BEFORE_ENTRY)
        self.go_to(before_it, poll)
        if stop.kind is StopKind.WATCHPOINT and stop.position.phase == IN_USER_CODE:
            self.step_back(number, poll)
        threads = self.machine.kernel.threads
        self.last_stop = replace(stop, position=self.machine.position, thread=threads.get(number))
        return self.last_stop

    def _stops_between(self, snapshot: Snapshot, end: Position, poll: Poll | None) -> list[Stop]:
        """All stops behind `snapshot` and up to `end`, and perhaps more; the last is INTERRUPTED if somebody did.

        Remembers the answer: going back over many stops asks again and again.
        """
        asked = (self.breakpoints, self.watchpoints, self.catches)
        first, last, known, stops = self._stops_known
        if known == asked and first <= snapshot.position and end <= last:
            return stops
        found: list[Stop] = []
        if snapshot.position < end:
            self._restore(snapshot)
        while self.machine.position < end:
            stop = self._towards(TO_THE_END, None, poll, end)
            if stop.kind is StopKind.INTERRUPTED:
                return [*found, stop]
            if stop.kind is StopKind.PLACE:
                break
            found.append(stop)
        self._stops_known = (snapshot.position, end, asked, found)
        return found

    def _to_start(self) -> Stop:
        self._restore(self.history.snapshots[0])
        self.last_stop = self._stop_here(StopKind.START, "the start of the run")
        return self.last_stop

    def _quietly(
        self, goal: Goal, count: Count | None, poll: Poll | None, place: Position | None = None
    ) -> Stop:
        """Run on with nothing stopping the machine but this."""
        self._stops = False
        try:
            return self._towards(goal, count, poll, place)
        finally:
            self._stops = True


def _lies_behind(stop: Stop, here: Position) -> bool:
    """Whether one comes past `stop` on the way back from `here`. An access has been made where it stops."""
    return stop.position < here or (stop.position == here and stop.kind is StopKind.WATCHPOINT)
