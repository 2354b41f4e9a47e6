"""Where a person wants the machine to stop: in tasks there are, in one to come, in whichever has the function.

The debugger knows addresses in a task, or in every task. What is wanted of a task to come is set in every one,
and who lets the machine run asks at each breakpoint that is met whether it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.emulator.debug.stops import Breakpoint, StopKind
from l4lab.kernel.frame import EIP
from l4lab.kernel.inspect import task_name
from l4lab.tools.debug.tui.places import Wish, find_place, find_wish

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.kernel.objects import Task
    from l4lab.tools.runs.programs import Programs


class Breakpoints:
    """Those of one session."""

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        self._debugger = debugger
        self._machine = debugger.machine
        self._programs = programs
        self._wishes: tuple[Wish, ...] = ()

    def is_unwanted(self, stop: Stop) -> bool:
        """Whether the machine stands at a breakpoint that is not about the task that has met it."""
        thread = stop.thread
        if stop.kind is not StopKind.BREAKPOINT or thread is None or thread.task is None:
            return False
        return not self.holds(thread.task, thread.frame[EIP])

    def toggle(self, text: str, shown: Task | None) -> str:
        """Set or remove one: `FUNCTION` or `0xADDRESS` of the shown task, or `TASK:…`. Says which it was.

        A task may still be to come, and a function that the shown task does not have is looked for in all programs.
        """
        wish = find_wish(self._machine, self._programs, shown, text)
        if wish is not None:
            return self._toggle_wish(wish)
        task, place = find_place(self._machine, self._programs, shown, text)
        breakpoint_ = Breakpoint(place, task.number)
        own = [point for point in self._debugger.breakpoints if point.task is not None]
        where = f"{self._programs.function_at(self._machine, task, place)} in {task_name(task)}"
        if self.holds(task, place):
            met = [w for w in self._wishes if w.means(self._machine, self._programs, task, place)]
            self._wishes = tuple(w for w in self._wishes if w not in met)
            self._set([point for point in own if point != breakpoint_])
            return f"no breakpoint at {' or '.join(map(str, met)) if met else where} any more"
        self._set([*own, breakpoint_])
        return f"breakpoint at {where}"

    def holds(self, task: Task, address: int) -> bool:
        """Whether the machine is to stop there."""
        if Breakpoint(address, task.number) in self._debugger.breakpoints:
            return True
        return any(wish.means(self._machine, self._programs, task, address) for wish in self._wishes)

    def pending(self) -> list[str]:
        """The breakpoints that wait for a task to come, as a person names them."""
        return [str(wish) for wish in self._wishes if wish.is_pending(self._machine, self._programs)]

    def _toggle_wish(self, wish: Wish) -> str:
        own = [point for point in self._debugger.breakpoints if point.task is not None]
        if wish in self._wishes:
            self._wishes = tuple(known for known in self._wishes if known != wish)
            self._set(own)
            return f"no breakpoint at {wish} any more"
        self._wishes = (*self._wishes, wish)
        self._set(own)
        if wish.is_pending(self._machine, self._programs):
            return f"breakpoint at {wish}, pending: set when the task appears"
        return f"breakpoint at {wish} in {', '.join(program.name for program, _ in wish.places)}"

    def _set(self, own: list[Breakpoint]) -> None:
        """Those of tasks, and those of wishes: in every task, to be looked at when one is met."""
        addresses = dict.fromkeys(address for wish in self._wishes for _, address in wish.places)
        self._debugger.set_breakpoints((*own, *(Breakpoint(address) for address in addresses)))
