"""Tells a person at gdb the seven steps of one page fault after the other, a line for each as it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.catching import CatchKind
from l4lab.tools.debug.faults import MESSAGE, RESUME, Fault, Faults, Step
from l4lab.tools.debug.follower import FaultFollower

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Position
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.tools.runs.programs import Programs

_IN_FULL: Final = ((", by ", ", by the instruction at "), ("a frame is found", "the frame is found"))
"""What there is no room for on a screen."""


class FaultSteps(FaultFollower):
    """The teller of one conversation, which `follow`s nothing at first.

    `say`: gets the lines. `stops`: stop the machine at each, too. `everybody`: not only faults that a catchpoint
    stops at.
    """

    def __init__(self, debugger: Debugger, programs: Programs, say: Callable[[str], None]) -> None:
        super().__init__(debugger, programs)
        self._say = say
        self._described_at: Position | None = None
        self.stops = False
        self.everybody = False

    @property
    def under_way(self) -> bool:
        """Whether a fault is being followed now."""
        return any(not fault.outcome for fault in self.faults.values())

    def begin_at(self, stop: Stop) -> None:
        """Follow the fault that the machine stands at, before the kernel acts, however it has come there."""
        self.forget()
        self.follow()
        fault = self.fault_here(stop)
        if fault is not None:
            self.reset({fault.victim: fault})

    def tell(self, stop: Stop) -> bool:
        """Whether this stop has just been described, as step 1 of a fault."""
        return self.under_way and stop.position == self._described_at

    def forget(self) -> None:
        """Time was turned back: the fault that was followed is not under way any more."""
        self.reset({})
        self._described_at = None

    def begins(self) -> bool:
        """One at a time, of those that are wanted."""
        if self.under_way:
            return False
        stop = self._debugger.about_to_stop
        caught = stop is not None and stop.happening is not None and stop.happening.kind is CatchKind.FAULT
        return self.everybody or caught

    def learn(self, known: Faults, fault: Fault, position: Position) -> str | None:
        """Tells it."""
        before = known.get(fault.victim)
        told = len(before.steps) if before is not None and not before.outcome else 0
        lines = [_line(fault, step) for step in fault.steps[told:]]
        if not told:
            self._described_at = position
            lines.insert(0, f"cycle {fault.cycle}, core {fault.core}: page fault of {fault.name}")
        if fault.outcome and fault.steps[-1].number == RESUME:
            lines.append(f"  together {fault.cycles} cycles")
        elif fault.outcome:
            lines.append(f"  the page fault of thread {fault.victim} comes to nothing")
        for line in lines:
            self._say(line)
        return "" if self.stops and lines else None


def _line(fault: Fault, step: Step) -> str:
    text = step.text
    for short, full in _IN_FULL:
        text = text.replace(short, full, 1)
    if step.number == MESSAGE and step.entry != fault.cycle and step.core == fault.core:
        text += f", on core {step.core}"
    counted = f"{step.cycles:>7}" if step.cycles is not None else "      -"
    return f"  {step.number} {step.name:<8}{counted}  {text}"
