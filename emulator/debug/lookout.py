"""What a debugger looks out for while a machine runs, and what it has found.

A `Lookout` is the `Control` of a `DebuggedMachine`: it is asked at every kernel entry, and where the shim has
stopped user code. It knows what a person wants to stop at (breakpoints, watchpoints, catchpoints, observers,
tasks that begin), how far the machine is to go if nothing of that happens (the goal), and where it has to stop
in any case (the place).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from l4lab.emulator.debug.catching import Catch, Happening, announced, happened, matches
from l4lab.emulator.debug.debugged import (
    AFTER_ENTRY,
    BEFORE_ENTRY,
    IN_USER_CODE,
    Count,
    DebuggedMachine,
    Entry,
    Position,
    executed,
)
from l4lab.emulator.debug.debugport import EVERY_SPACE, MAX_WATCHED_BYTES, MAX_WATCHPOINTS, Reason
from l4lab.emulator.debug.lonesteps import LoneSteps
from l4lab.emulator.debug.stops import TO_THE_END, Breakpoint, GoalKind, Stop, StopKind, Watchpoint
from l4lab.emulator.debug.watching import Watching
from l4lab.emulator.machine import NEVER
from l4lab.kernel import requests
from l4lab.kernel.events import Event, EventLog, decode
from l4lab.kernel.frame import EIP, FPU_CORE
from l4lab.kernel.inspect import task_name
from l4lab.kernel.thread import DEAD

if TYPE_CHECKING:
    from l4lab.emulator.machine import CoreState
    from l4lab.emulator.results import StopReason
    from l4lab.kernel.thread import Thread

Observer = Callable[[Entry, Sequence[Event], bool], str | None]
"""Is shown kernel entries: before the kernel acts (events empty, True) and after (False). A text stops."""

Probe = Callable[[int], str | None]
"""Is told the number of the thread that is about to execute the instruction at a place. A text stops."""


class Lookout:
    """Looks out over one machine.

    `breakpoints`, `watchpoints`, `catches`: what it stops at; to be replaced as a whole, by `set_*`.
    `observers`, `probes`: see `Observer`, `Probe`; only asked on the way forwards. `tells_new_tasks`: stop
    when a task is about to execute its first instruction, if it is not one of `known_tasks`.
    """

    def __init__(self, machine: DebuggedMachine) -> None:
        self.machine = machine
        self.breakpoints: tuple[Breakpoint, ...] = ()
        self.watchpoints: tuple[Watchpoint, ...] = ()
        self.catches: tuple[Catch, ...] = ()
        self.observers: list[Observer] = []
        self.probes: dict[Breakpoint, Probe] = {}
        self.tells_new_tasks = False
        self.known_tasks: set[int] = set(machine.kernel.tasks)
        machine.port.activate(True)
        self._goal = TO_THE_END
        self._step_count: Count | None = None
        self._place: Position | None = None
        self._snapshot_at_steps = NEVER
        self._stops = True
        self._forward = False
        self._found: Stop | None = None
        self._armed_for = (0, 0, 0)
        self._watching = Watching(machine)
        self._lone = LoneSteps(machine.kernel.frame_pool.blank)
        self._events: EventLog | None = None

    @property
    def about_to_stop(self) -> Stop | None:
        """For observers: the stop that this kernel entry is already going to be, if it is."""
        return self._found

    # --- what to stop at ------------------------------------------------------------------------------

    def set_breakpoints(self, breakpoints: Iterable[Breakpoint]) -> None:
        """Replace all breakpoints."""
        self.breakpoints = tuple(breakpoints)

    def set_watchpoints(self, watchpoints: Iterable[Watchpoint]) -> None:
        """Replace all watchpoints. ValueError, and nothing changed, if they are too many or too long."""
        wanted = tuple(watchpoints)
        pieces = [piece for watchpoint in wanted for piece in watchpoint.pieces()]
        if len(pieces) > MAX_WATCHPOINTS or any(size > MAX_WATCHED_BYTES for _, size in pieces):
            raise ValueError(
                f"found {len(pieces)} pieces to watch, expected at most {MAX_WATCHPOINTS} of "
                f"{MAX_WATCHED_BYTES} bytes"
            )
        self.watchpoints = wanted

    def set_catches(self, catches: Iterable[Catch]) -> None:
        """Replace all catchpoints."""
        self.catches = tuple(catches)

    # --- told by whoever lets the machine go on ----------------------------------------------------------

    def _set_place(self, place: Position | None) -> None:
        self._place = place
        halts = place is not None and place.phase == AFTER_ENTRY
        steps = place.steps if place is not None and halts else NEVER
        self.machine.halt_steps = min(steps, self._snapshot_at_steps)

    def _want_snapshot(self, steps: int) -> None:
        """Pause once so many steps are made, without a stop."""
        self._snapshot_at_steps = steps
        self._set_place(self._place)

    def _arm(self) -> None:
        """Tell shim and kernel what to look out for."""
        machine, goal = self.machine, self._goal
        machine.port.stop_at_clock(goal.core, goal.clock_cycles if goal.kind is GoalKind.CLOCK else None)
        self._set_breakpoints()
        self._watching.resolve(self.watchpoints if self._stops else ())
        if self._stops and (self.catches or self.observers):
            self._events = EventLog()
            requests.start(machine.kernel, self._events)
            machine.kernel.trace = self._events
            self._events.pending.clear()
            for thread in machine.kernel.threads.values():
                thread.request = thread.began = 0

    def _set_breakpoints(self) -> None:
        """Of tasks that there are; the others' are set as they come into being."""
        tasks = self.machine.kernel.tasks
        self._armed_for = self._arming()
        wanted = (*self.breakpoints, *(self.probes if self._forward else ())) if self._stops else ()
        places = []
        for breakpoint_ in wanted:
            if breakpoint_.task is None:
                places.append((breakpoint_.address, EVERY_SPACE))
            elif breakpoint_.task in tasks:
                places.append((breakpoint_.address, tasks[breakpoint_.task].space.tables.cr3))
        self.machine.port.set_breakpoints(places)

    def _arming(self) -> tuple[int, int, int]:
        """What the breakpoints that are set depend on, besides what a person asked for; changes with it."""
        tasks = self.machine.kernel.tasks
        return len(tasks), next(reversed(tasks), 0), len(self.probes)

    def _disarm(self) -> None:
        self.machine.kernel.events = self.machine.kernel.trace = self._events = None

    def _classify(self, core: CoreState) -> Stop | None:
        """Why user code has stopped; None: for nothing that anybody asked for."""
        why = self.machine.port.reason(core.vcpu)
        watched = self._stops and why is not None and why[0] is Reason.WATCHPOINT
        if self.machine.position == self._place and not watched:
            return self._stop_here(StopKind.PLACE)
        if why is None:
            return None
        reason, detail = why
        if reason is Reason.COUNT:
            thread = core.decision.thread
            stepping = thread is not None and thread.number == self._goal.thread
            return self._stop_here(StopKind.STEP) if stepping else None
        if reason is Reason.CLOCK:
            return self._stop_here(StopKind.PLACE)
        if not self._stops:
            return None
        if reason is Reason.BREAKPOINT:
            stop = self._at_breakpoint(core)
        else:
            watchpoint = self._watching.hit(detail)
            stop = self._stop_here(StopKind.WATCHPOINT, _watched_text(watchpoint), watchpoint=watchpoint)
        if stop is not None and self._lone.passes(stop):
            return self._stop_here(StopKind.PLACE) if self.machine.position == self._place else None
        return stop

    def _at_breakpoint(self, core: CoreState) -> Stop | None:
        thread = core.decision.thread
        assert thread is not None and thread.task is not None
        place = thread.frame[EIP]
        here = (Breakpoint(place, thread.task.number), Breakpoint(place))
        probe = next((self.probes[point] for point in here if point in self.probes), None)
        shown = self._forward and self._lone.shows(self.machine.position)
        text = probe(thread.number) if probe is not None and shown else None
        self._set_breakpoints()  # it may have set another
        if text is not None:
            return self._stop_here(StopKind.CATCHPOINT, text)
        hit = any(point in self.breakpoints and not self._lone.has_taken_out(point, thread) for point in here)
        return self._stop_here(StopKind.BREAKPOINT) if hit else None

    def _stop_here(
        self,
        kind: StopKind,
        text: str = "",
        *,
        thread: Thread | None = None,
        watchpoint: Watchpoint | None = None,
        catch: Catch | None = None,
        happening: Happening | None = None,
        result: StopReason | None = None,
    ) -> Stop:
        machine = self.machine
        core = machine.core
        if thread is None:
            thread = core.decision.thread
        return Stop(kind, machine.position, core.number, thread, text, watchpoint, catch, happening, result)

    # --- asked by the machine (`debugged.Control`) -----------------------------------------------------

    def count_for(self, thread: Thread) -> Count | None:
        """Where this stretch has to stop: at the place, or when the step is done."""
        place, machine = self._place, self.machine
        step = self._step_count if self._goal.thread == thread.number else None
        if place is None or place.phase != IN_USER_CODE or place.steps != machine.steps:
            return step
        count = executed(thread) + place.retired - machine.retired
        return step if step is not None and step.instructions < count else Count(count)

    def pauses_between(self) -> bool:
        """At the place; where a snapshot is wanted."""
        place, machine = self._place, self.machine
        if place is not None and place.phase == AFTER_ENTRY and place.steps == machine.steps:
            self._found = Stop(StopKind.PLACE, place, machine.core.number, machine.core.decision.thread)
            return True
        return machine.steps >= self._snapshot_at_steps

    def pauses_before(self, entry: Entry) -> bool:
        """At what catchpoints catch before the kernel acts; at the place."""
        thread = entry.core.decision.thread
        if thread is not None and thread is self._lone.stepping:
            self._keep_frame(thread)
            if self._lone.leaves not in (None, thread.frame[EIP]):
                return self._find(StopKind.STEP, entry, BEFORE_ENTRY)
        if self._stops and self._stops_before(entry):
            return True
        place = self._place
        if place is not None and place.phase == BEFORE_ENTRY and place.steps == self.machine.steps:
            return self._find(StopKind.PLACE, entry, BEFORE_ENTRY)
        return False

    def _keep_frame(self, thread: Thread) -> None:
        if thread.frame[FPU_CORE]:
            self.machine.engine.sync_fpu(thread.frame)
        self._lone.frame = thread.frame[:]

    def _stops_before(self, entry: Entry) -> bool:
        if self.watchpoints:
            self._watching.before_entry()
        caught = False
        if self.catches:
            happening = announced(self.machine.kernel, entry.core.decision.thread, entry.trap)
            caught = happening is not None and self._caught(happening, entry, BEFORE_ENTRY)
        return self._show_observers(entry, (), before=True) or caught

    def pauses_after(self, entry: Entry) -> bool:
        """At what has happened in this entry; at the place; at the goal."""
        if self._stops and self._stops_after(entry):
            return True
        place, machine = self._place, self.machine
        if place is not None and place.phase == AFTER_ENTRY and place.steps == machine.steps:
            return self._find(StopKind.PLACE, entry, AFTER_ENTRY)
        stepping = self._lone.stepping
        if stepping is not None and stepping.state == DEAD:
            return self._find(StopKind.NO_STEP, entry, AFTER_ENTRY, "it has ended", stepping)
        if self._goal.kind is GoalKind.ENTRY:
            return self._find(StopKind.ENTRY, entry, AFTER_ENTRY)
        goal = self._goal
        if goal.kind is GoalKind.CLOCK and machine.reached_cycles()[goal.core] >= goal.clock_cycles:
            return self._find(StopKind.PLACE, entry, AFTER_ENTRY)
        return False

    def _stops_after(self, entry: Entry) -> bool:
        hit = self._watching.written_by_kernel() if self.watchpoints else None
        found = hit is not None and self._found_watched(hit, entry)
        events: tuple[Event, ...] = ()
        if self._events is not None:
            events = tuple(decode(self._events.pending))
            self._events.pending.clear()
            found = found or any(
                self._caught(happening, entry, AFTER_ENTRY)
                for event in (events if self.catches else ())
                if (happening := happened(self.machine.kernel, event, entry.trap)) is not None
            )
            found = self._show_observers(entry, events, before=False) or found
        if found:
            return True
        if self._armed_for != self._arming():
            self._set_breakpoints()
        if self.watchpoints:
            self._watching.resolve(self.watchpoints)
        return self.tells_new_tasks and self._forward and self._new_task(entry)

    def _found_watched(self, hit: Watchpoint, entry: Entry) -> bool:
        text = f"the kernel wrote {_watched_text(hit)}"
        return self._find(StopKind.WATCHPOINT, entry, AFTER_ENTRY, text, watchpoint=hit, may_wait=True)

    def _show_observers(self, entry: Entry, events: Sequence[Event], *, before: bool) -> bool:
        """Every observer sees every entry; the text of the first that has one is the reason to stop."""
        machine, phase = self.machine, BEFORE_ENTRY if before else AFTER_ENTRY
        if not self._forward or not self._lone.shows(Position(machine.steps, machine.retired, phase)):
            return False
        texts = [observer(entry, events, before) for observer in self.observers]
        for text in texts:
            if text is not None:
                if self._found is None:
                    self._find(StopKind.CATCHPOINT, entry, phase, text)
                return True
        return False

    def _new_task(self, entry: Entry) -> bool:
        """A task whose first instruction is mapped now and comes next."""
        thread = entry.core.decision.thread
        task = thread.task if thread is not None else None
        if thread is None or task is None or task.number in self.known_tasks:
            return False
        if task.space.tables.translate(thread.frame[EIP]) is None:
            return False
        if not self._find(StopKind.NEW_TASK, entry, AFTER_ENTRY, task_name(task), may_wait=True):
            return False
        self.known_tasks.add(task.number)
        return True

    def _caught(self, happening: Happening, entry: Entry, phase: int) -> bool:
        kernel = self.machine.kernel
        for catch in self.catches:
            if matches(catch, happening, kernel):
                thread = kernel.threads.get(happening.thread) if happening.thread is not None else None
                return self._find(
                    StopKind.CATCHPOINT,
                    entry,
                    phase,
                    happening.text,
                    thread,
                    catch=catch,
                    happening=happening,
                    may_wait=True,
                )
        return False

    def _find(
        self,
        kind: StopKind,
        entry: Entry,
        phase: int,
        text: str = "",
        thread: Thread | None = None,
        *,
        watchpoint: Watchpoint | None = None,
        catch: Catch | None = None,
        happening: Happening | None = None,
        may_wait: bool = False,
    ) -> bool:
        """Note why the machine is about to pause at a kernel entry; False: it is not, because of a step alone."""
        machine = self.machine
        position = Position(machine.steps, machine.retired, phase)
        if thread is None:
            thread = entry.core.decision.thread
        stop = Stop(kind, position, entry.core.number, thread, text, watchpoint, catch, happening)
        if may_wait and self._lone.passes(stop):
            return False
        self._found = stop
        return True


def _watched_text(watchpoint: Watchpoint) -> str:
    return f"{watchpoint.size_bytes} bytes at {watchpoint.address:#x}"
