"""One machine under a debugger, and what a person can do with it. Knows nothing of terminals.

Every command returns when the machine stands still again; meanwhile only `pause` may be called, from another
thread. What is shown is read while it stands still, so who looks, and when, cannot make a difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from l4lab.emulator.debug.catching import Catch, CatchKind
from l4lab.emulator.debug.debugging import executed
from l4lab.emulator.debug.stops import TO_THE_END, Goal, GoalKind, Stop, StopKind, step
from l4lab.emulator.machine import NEVER
from l4lab.kernel.frame import EIP
from l4lab.kernel.inspect import thread_name
from l4lab.kernel.thread import DEAD, DORMANT
from l4lab.kernel.traps import CpuException, Interrupt, PageFault, SystemCall
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.named import DebugError
from l4lab.tools.debug.tui.breakpoints import Breakpoints
from l4lab.tools.debug.tui.code import line_range
from l4lab.tools.debug.tui.tracker import FaultTracker
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.replay import boot_to_debug

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Entry
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.emulator.machine import CoreState
    from l4lab.kernel.events import Event
    from l4lab.kernel.objects import Task
    from l4lab.kernel.thread import Thread
    from l4lab.kernel.traps import Trap
    from l4lab.tools.debug.faults import Fault

Move = Callable[[], Stop]


@dataclass(frozen=True, slots=True)
class Moment:
    """Why the machine stands still. `core`: where; `clock`: its cycle there."""

    text: str
    core: int
    clock: int
    ended: bool


class DebugSession:
    """See the module's header.

    `selected`: number of the thread that is shown; 0: none, an idle core is. `core`: the core that is shown,
    where instructions are stepped. `moment`: why the machine stands still.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        max_cycles: int | None = None,
        console: Callable[[bytes], None] | None = None,
    ) -> None:
        """`console`: called with what guests print for the first time, on another thread, while the machine runs."""
        self.manifest = manifest
        self.debugger = boot_to_debug(manifest, max_cycles, console)
        self.machine = self.debugger.machine
        self.programs = Programs(manifest)
        self.breakpoints = Breakpoints(self.debugger, self.programs)
        self.faults = FaultTracker(self.debugger, self.programs)
        self.selected = 0
        self.core = 0
        self._start = self.machine.position
        self._pausing = threading.Event()
        self._last_entry = ""
        self.last_stop = self.debugger.last_stop
        self.moment = Moment("at the start", 0, 0, ended=False)

    # --- what is shown ----------------------------------------------------------------------------------

    @property
    def thread(self) -> Thread | None:
        """The thread that is shown."""
        return self.machine.kernel.threads.get(self.selected)

    @property
    def task(self) -> Task | None:
        """Whose address space is shown."""
        thread = self.thread
        return thread.task if thread is not None else None

    @property
    def fault(self) -> Fault | None:
        """The page fault that is shown."""
        return self.faults.of(self.thread)

    def threads(self) -> list[Thread]:
        """Those that have been started and are not dead."""
        return [t for t in self.machine.kernel.threads.values() if t.state not in (DEAD, DORMANT)]

    def running(self, core: int) -> Thread | None:
        """Who runs on a core."""
        return self.machine.cores[core].decision.thread

    def select_thread(self, number: int) -> None:
        """Show this thread, and step the core that it is on."""
        self.selected = number
        thread = self.thread
        if thread is not None and 0 <= thread.core < len(self.machine.cores):
            self.core = thread.core

    def select_core(self, core: int) -> None:
        """Show this core and who runs there."""
        self.core = core
        running = self.running(core)
        self.selected = running.number if running is not None else 0

    # --- going on ---------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Interrupt the command that is under way."""
        self._pausing.set()

    def step(self) -> Stop:
        """One instruction on the shown core, or the kernel entry that comes instead or with it."""
        core = self.core
        thread = self.running(core)
        goal = step(thread.number) if thread is not None else TO_THE_END

        def entered(entry: Entry, _: Sequence[Event], before: bool) -> str | None:
            if before or entry.core.number != core:
                return None
            now = entry.core.decision.thread
            alike = now is thread and not isinstance(entry.trap, SystemCall | PageFault | CpuException)
            return None if alike and thread is not None else _entry_text(entry)

        with self._observing(entered):
            return self._forward(goal)

    def step_line(self) -> Stop:
        """To another line of the source, or out of the function; of the thread that is shown."""
        thread = self.thread
        if thread is None:
            raise DebugError("the core is idle: expected a thread to step")
        found = line_range(self.programs.of_task(self.machine, thread.task), thread.frame[EIP])
        if found is None:
            return self.step()
        return self._forward(step(thread.number, found[0], found[1] - found[0]))

    def next_entry(self) -> Stop:
        """To right after the next kernel entry, of any core."""

        def remember(entry: Entry, _: Sequence[Event], before: bool) -> None:
            if not before:
                self._last_entry = _entry_text(entry)

        with self._observing(remember):
            self.faults.follow(True)
            stop = self._run(lambda: self._resume(Goal(GoalKind.ENTRY)))
        if stop.kind is StopKind.ENTRY:
            stop = replace(stop, text=self._last_entry)
        return self._arrived(stop)

    def next_event(self, kind: CatchKind) -> Stop:
        """To the next event of that kind."""
        self.faults.victim = None
        with self._catching(kind):
            return self._forward(TO_THE_END)

    def next_fault_step(self) -> Stop:
        """To the end of the next step of the fault that is shown; if it is over, to the next fault."""
        fault = self.fault
        self.faults.victim = fault.victim if fault is not None and not fault.outcome else None
        self.faults.stops = True
        try:
            return self._forward(TO_THE_END)
        finally:
            self.faults.stops = False

    def go_on(self) -> Stop:
        """To a breakpoint, or the end of the run."""
        return self._forward(TO_THE_END, following=bool(self.debugger.breakpoints))

    def _forward(self, goal: Goal, *, following: bool = True) -> Stop:
        self.faults.follow(following)
        return self._arrived(self._run(lambda: self._resume(goal)))

    def _resume(self, goal: Goal) -> Stop:
        """On until something that is wanted stops it. An address may be another program's place, too."""
        thread = self.machine.kernel.threads[goal.thread] if goal.thread is not None else None
        done = executed(thread) if thread is not None else 0
        while True:
            stop = self._unless_paused(self.debugger.resume(goal, self._pausing.is_set))
            if not self.breakpoints.is_unwanted(stop):
                return stop
            line = range(goal.first, goal.first + goal.size_bytes)
            moved = thread is not None and stop.thread is thread and executed(thread) > done
            if thread is not None and moved and thread.frame[EIP] not in line:
                return replace(stop, kind=StopKind.STEP)

    def _unless_paused(self, stop: Stop) -> Stop:
        """An unwanted stop as the interruption that somebody has asked for, if so."""
        if self._pausing.is_set() and self.breakpoints.is_unwanted(stop):
            return replace(stop, kind=StopKind.INTERRUPTED, text="interrupted")
        return stop

    # --- going back -------------------------------------------------------------------------------------

    def step_back(self) -> Stop:
        """One instruction of the shown thread back."""
        thread = self.thread
        if thread is None:
            raise DebugError("the core is idle: expected a thread to step back")
        number = thread.number
        text = f"one instruction of {thread_name(thread)} back"
        return self._back(lambda: self.debugger.step_back(number, self._pausing.is_set), text)

    def last_event(self, kind: CatchKind) -> Stop:
        """To the last event of that kind before now."""
        self.faults.victim = None
        with self._catching(kind):
            return self._back(self._resume_back)

    def last_fault_step(self) -> Stop:
        """To where the last step of a page fault was over, as far as faults were followed."""
        fault = self.fault
        self.faults.victim = fault.victim if fault is not None and len(fault.steps) > 1 else None
        found = self.faults.step_before(self.machine.position, self.faults.victim)
        if found is None:
            return self.last_event(CatchKind.FAULT)
        position, text = found
        return self._back(lambda: self.debugger.go_to(position, self._pausing.is_set), text)

    def go_back(self) -> Stop:
        """To a breakpoint before now, or the start of the run."""
        return self._back(self._resume_back)

    def _resume_back(self) -> Stop:
        while True:
            stop = self._unless_paused(self.debugger.continue_back(self._pausing.is_set))
            self.programs.forget()
            if not self.breakpoints.is_unwanted(stop):
                return stop

    def restart(self) -> Stop:
        """To the start of the run."""
        return self._back(lambda: self.debugger.go_to(self._start), "the start of the run")

    def go_to(self, cycle: int) -> Stop:
        """To the first moment at which the shown core is at or beyond a cycle."""
        if not 0 <= cycle < NEVER:
            raise DebugError(f"found cycle {cycle}, expected 0 to {NEVER - 1}")
        core = self.core
        if cycle > self.machine.cores[core].clock_cycles:
            self.faults.follow(False)
        text = f"core {core} is at cycle {grouped(cycle)} or beyond"
        stop = self._back(lambda: self.debugger.go_to_clock(core, cycle, self._pausing.is_set), text)
        self.select_core(core)
        return stop

    def _back(self, move: Move, text: str = "") -> Stop:
        """`text`: what to say if nothing else can be said of where it stops."""
        stop = self._run(move)
        self.programs.forget()
        plain = stop.kind in (StopKind.PLACE, StopKind.STEP)
        return self._arrived(replace(stop, text=text) if plain else stop)

    # --- breakpoints ------------------------------------------------------------------------------------

    def toggle_breakpoint(self, text: str) -> str:
        """Set or remove one: `FUNCTION` or `0xADDRESS` of the shown task, or `TASK:…`. Says which it was."""
        return self.breakpoints.toggle(text.strip(), self.task)

    # --- helpers ----------------------------------------------------------------------------------------

    def _run(self, move: Move) -> Stop:
        self._pausing.clear()
        return move()

    def _arrived(self, stop: Stop) -> Stop:
        """The machine stands still: show where."""
        self.faults.rewind()
        self.faults.begin_here(stop)
        self._show(stop)
        self.last_stop = stop
        core = self.machine.cores[stop.core]
        ended = stop.kind in (StopKind.END, StopKind.BUG)
        self.moment = Moment(self._why(stop), stop.core, core.clock_cycles, ended)
        return stop

    def _why(self, stop: Stop) -> str:
        """Why the machine stands still, in a few words."""
        if stop.happening is not None:
            return stop.happening.text
        if stop.kind is StopKind.END:
            return f"the run is over: {stop.text}"
        if stop.text:
            return stop.text.strip()
        thread = stop.thread
        if thread is None:
            return str(stop.kind.value)
        if stop.kind is StopKind.BREAKPOINT:
            function = self.programs.function_at(self.machine, thread.task, thread.frame[EIP])
            return f"breakpoint: {thread_name(thread)} at {function}"
        return (
            f"{thread_name(thread)} is one step further"
            if stop.kind is StopKind.STEP
            else str(stop.kind.value)
        )

    def _show(self, stop: Stop) -> None:
        """Select whom a stop concerns; on an idle core, whose page fault has passed a step, or who was shown."""
        self.core = stop.core
        running = self.running(stop.core)
        thread = stop.thread if stop.thread is not None and stop.thread.state != DEAD else running
        if thread is not None and thread.number in self.machine.kernel.threads:
            self.selected = thread.number
        elif (fault := self.faults.told_here(self.thread)) is not None:
            self.selected = fault.victim
        elif self.thread is None or self.thread.state == DEAD:
            self.selected = 0

    @contextmanager
    def _catching(self, kind: CatchKind) -> Iterator[None]:
        self.debugger.set_catches((Catch(1, kind),))
        try:
            yield
        finally:
            self.debugger.set_catches(())

    @contextmanager
    def _observing(self, observer: Callable[[Entry, Sequence[Event], bool], str | None]) -> Iterator[None]:
        self.debugger.observers.append(observer)
        try:
            yield
        finally:
            self.debugger.observers.remove(observer)


def _entry_text(entry: Entry) -> str:
    """A kernel entry, in a few words. To be asked after it, or before."""
    core = entry.core
    return f"kernel entry on core {core.number} at cycle {grouped(entry.now)}: {_trap_text(core, entry.trap)}"


def _trap_text(core: CoreState, trap: Trap) -> str:
    thread = core.decision.thread
    if isinstance(trap, PageFault):
        return f"page fault at {trap.address:#x}"
    if isinstance(trap, SystemCall):
        return "system call"
    if isinstance(trap, CpuException):
        return f"exception {trap.vector}"
    if isinstance(trap, Interrupt):
        return "interrupt of another core"
    return f"time, {thread_name(thread)} runs" if thread is not None else "time"
