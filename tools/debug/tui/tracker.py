"""Knows the page faults of a machine again when time is turned back: what is known at each position of the run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.debugged import BEFORE_ENTRY, Position
from l4lab.tools.debug.faults import Fault, Faults, passed_between, telling
from l4lab.tools.debug.follower import FaultFollower

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Programs

_REMEMBERED: Final = 20_000
"""How many values are kept, at least half of that; before them nothing is known of faults."""
_BEHIND: Final = BEFORE_ENTRY + 1
"""As a position's phase: behind everything that has the same numbers."""


class FaultTracker(FaultFollower):
    """Follows all page faults of a machine while it runs forwards. To be asked while it stands still.

    `stops`: stop the machine whenever a step is over. `victim`: whose fault is followed, and stops it; None:
    everybody's.
    """

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        super().__init__(debugger, programs)
        self._positions: list[Position] = [debugger.machine.position]
        self._values: list[Faults] = [{}]
        self.stops = False
        self.victim: int | None = None
        self.follow()

    def of(self, thread: Thread | None) -> Fault | None:
        """The fault to show beside a thread: its own, else the one that has just passed a step, else the one that
        it serves, else the latest.
        """
        faults = self.faults
        caller = thread.reply.caller if thread is not None else None
        own = faults.get(thread.number) if thread is not None else None
        served = faults.get(caller.number) if caller is not None else None
        here = self.told_here(thread)
        if own is not None and not own.outcome:
            return own
        if here is not None:
            return here
        if served is not None and not served.outcome:
            return served
        unfinished = [fault for fault in faults.values() if not fault.outcome]
        return max(unfinished or faults.values(), key=lambda fault: fault.since, default=None)

    def told_here(self, thread: Thread | None = None) -> Fault | None:
        """The fault that has just passed a step; of several, the followed one or this thread's. None: there is none."""
        if len(self._values) < 2 or self._positions[-1] != self._debugger.machine.position:
            return None
        told = passed_between(self._values[-2], self._values[-1])
        for wanted in (self.victim, thread.number if thread is not None else None):
            for fault in told:
                if fault.victim == wanted:
                    return fault
        return told[0] if told else None

    def step_before(self, position: Position, victim: int | None) -> tuple[Position, str] | None:
        """Where the last step before `position` was over, and which; of this thread's fault, or of any.

        None: nothing is known of one.
        """
        for index in range(bisect_left(self._positions, position) - 1, 0, -1):
            for fault in passed_between(self._values[index - 1], self._values[index]):
                if victim in (None, fault.victim):
                    return self._positions[index], telling(fault)
        return None

    def rewind(self) -> None:
        """Time was turned back: forget what has not happened yet."""
        keep = max(bisect_right(self._positions, self._debugger.machine.position), 1)
        del self._positions[keep:], self._values[keep:]
        self.reset(self._values[-1])

    def follow(self, wanted: bool = True) -> None:
        """As that of `FaultFollower`; where nobody looks on, nothing is known."""
        if self.follows and not wanted:
            here = self._debugger.machine.position
            self._positions.append(Position(here.steps, here.retired, _BEHIND))
            self._values.append({})
        super().follow(wanted)

    def begin_here(self, stop: Stop) -> None:
        """The machine has been taken to the beginning of a fault that was not followed."""
        fault = self.fault_here(stop)
        if fault is not None:
            self.note(fault, BEFORE_ENTRY)

    def learn(self, known: Faults, fault: Fault, position: Position) -> str | None:
        """Keeps it with its position."""
        value = self.faults
        if self._positions[-1] == position:
            self._values[-1] = value
        else:
            self._positions.append(position)
            self._values.append(value)
            if len(self._positions) > _REMEMBERED:
                del self._positions[: _REMEMBERED // 2], self._values[: _REMEMBERED // 2]
        wanted = self.stops and self.victim in (None, fault.victim)
        return telling(fault) if wanted and passed_between(known, value) else None
