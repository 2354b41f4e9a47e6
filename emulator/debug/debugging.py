"""Stop and go over a machine, forwards and backwards, all cores together.

A `Debugger` lets a `DebuggedMachine` run until something of interest: a breakpoint, a watchpoint, a
catchpoint, a step that is done, a clock, somebody who interrupts. It takes snapshots on the way, so
that every earlier moment can be reached again: going back is restoring the last snapshot before it
and running forward to the `Position`. Nothing here changes a run, but for `edit`: what a person
changes by hand becomes part of the run's history at that position.

Longer than most files, because going on and going back are the same run with other stops in force: a
reader of either needs both.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from l4lab.emulator.debug.catching import Catch, Happening, announced, happened, matches
from l4lab.emulator.debug.debugged import (
    AFTER_ENTRY,
    BEFORE_ENTRY,
    IN_USER_CODE,
    Count,
    Entry,
    Pause,
    Position,
)
from l4lab.emulator.debug.debugport import EVERY_SPACE, MAX_WATCHED_BYTES, MAX_WATCHPOINTS, Reason
from l4lab.emulator.debug.guestmemory import read_memory as read_memory
from l4lab.emulator.debug.history import History
from l4lab.emulator.debug.stops import (
    TO_THE_END,
    Breakpoint,
    Edit,
    Goal,
    GoalKind,
    Stop,
    StopKind,
    Watchpoint,
)
from l4lab.emulator.debug.watching import Watching
from l4lab.emulator.machine import NEVER
from l4lab.kernel import requests
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.events import Event, EventLog, decode
from l4lab.kernel.frame import EIP, INSTRUCTIONS, read_counter
from l4lab.kernel.inspect import task_name

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import DebuggedMachine
    from l4lab.emulator.debug.history import Snapshot
    from l4lab.emulator.machine import CoreState
    from l4lab.emulator.results import StopReason
    from l4lab.kernel.thread import Thread

Poll = Callable[[], bool]
"""Asked every POLL_SECONDS while the machine runs, and may look at nothing of it; True interrupts."""

POLL_SECONDS: Final = 0.02


class Pace(NamedTuple):
    """When a snapshot is due: after so many seconds, and so many times as long as the last one took."""

    seconds: float
    share: int


FORWARD: Final = Pace(0.1, 20)
REPLAY: Final = Pace(0.05, 4)
"""Whoever goes back often goes back a little more next."""

STEPS_TO_SNAPSHOT: Final = 32
"""Whoever steps back once does so again: a snapshot is taken so many kernel entries and stretches before."""

Observer = Callable[[Entry, Sequence[Event], bool], str | None]
"""Is shown kernel entries: before the kernel acts (events empty, True) and after (False). A text stops."""

Probe = Callable[[int], str | None]
"""Is told the number of the thread that is about to execute the instruction at a place. A text stops."""


def executed(thread: Thread) -> int:
    """Instructions that the thread has completed in its life."""
    return read_counter(thread.frame, INSTRUCTIONS)


class Debugger:
    """Control over one machine. All methods are called while it stands still.

    `breakpoints`, `watchpoints`, `catches`: what it stops at; to be replaced as a whole, by `set_*`.
    `observers`, `probes`: see `Observer`, `Probe`; only asked on the way forwards. `tells_new_tasks`: stop
    when a task is about to execute its first instruction. `last_stop`: where it is and why.
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
        machine.control = self
        machine.port.activate(True)
        self.history = History(machine, Debugger)
        self._goal = TO_THE_END
        self._step_count: Count | None = None
        self._place: Position | None = None
        self._note_at_steps = NEVER
        self._stops = True
        self._forward = False
        self._interrupted = False
        self._snapshot_at = 0.0
        self._found: Stop | None = None
        self._bug: Stop | None = None
        self._armed_for = (0, 0, 0)
        self._watching = Watching(machine)
        self._events: EventLog | None = None
        start = machine.position
        self._stops_known: tuple[Position, Position, object, list[Stop]] = (start, start, None, [])
        self._edits: list[tuple[Position, Edit]] = []
        self._edits_done = 0
        self.last_stop = self._stop_here(StopKind.START, "the start of the run")

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

    # --- going on -------------------------------------------------------------------------------------

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
            return self._towards(goal, count, poll, FORWARD)
        finally:
            self._forward = False

    def edit(self, edit: Edit) -> None:
        """Change memory or registers now. Whatever was to come after this will not come that way."""
        position = self.machine.position
        self._edits[self._edits_done :] = [(position, edit)]
        self._edits_done += 1
        self.history.forget_after(position)
        self._stops_known = (position, position, None, [])
        edit.apply(self.machine)
        self.history.edited_frames(edit.frames())

    # --- going back -----------------------------------------------------------------------------------

    def go_to(self, position: Position, poll: Poll | None = None) -> Stop:
        """Back or forward to a position that the run has passed."""
        snapshot = self.history.last_before(position)
        if self._bug is not None or not snapshot.position <= self.machine.position <= position:
            self._restore(snapshot)
        if self.machine.position == position:
            stop = self._stop_here(StopKind.PLACE)
        else:
            stop = self._quietly(TO_THE_END, None, poll, position)
        core = self.machine.paused_core
        thread = core.decision.thread
        if self.machine.phase == IN_USER_CODE and thread is not None:
            self.machine.port.pass_breakpoint(thread.frame, executed(thread))
        self.last_stop = stop
        return stop

    def go_to_clock(self, core: int, clock_cycles: int, poll: Poll | None = None) -> Stop:
        """To the first point of the run at which `core` is at or beyond a cycle, nothing else stopping.

        While the core is idle, that is behind the last kernel entry of any core before that cycle.
        """
        machine = self.machine
        snapshot = self.history.last_with(lambda snapshot: snapshot.reached_cycles[core] < clock_cycles)
        ahead = machine.reached_cycles(machine.paused_core)[core] < clock_cycles
        if self._bug is not None or not ahead or machine.position < snapshot.position:
            self._restore(snapshot)
        if machine.reached_cycles(machine.paused_core)[core] >= clock_cycles:
            return self._to_start()
        return self._quietly(Goal(GoalKind.CLOCK, core=core, clock_cycles=clock_cycles), None, poll)

    def step_back(self, thread: int, poll: Poll | None = None) -> Stop:
        """To before the last instruction that the thread completed; to the start if there is none."""
        count = executed(self.machine.kernel.threads[thread]) - 1
        if count < 0:
            return self._to_start()
        here = self.machine.position
        snapshot = self.history.last_with(
            lambda snapshot: snapshot.position < here and snapshot.executed_by(thread) < count
        )
        if here.steps - snapshot.position.steps > 2 * STEPS_TO_SNAPSHOT:
            self._note_at_steps = here.steps - STEPS_TO_SNAPSHOT
        self._restore(snapshot)
        try:
            return self._quietly(Goal(GoalKind.STEP, thread), Count(count), poll)
        finally:
            self._note_at_steps = NEVER

    def continue_back(self, poll: Poll | None = None) -> Stop:
        """To the last time before now that anything would have stopped the machine; else to the start.

        At a watchpoint that is before the access: whoever goes back sees the bytes change.
        """
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
            stop = self._towards(TO_THE_END, None, poll, REPLAY, end)
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

    def _restore(self, snapshot: Snapshot) -> None:
        kernel = self.machine.kernel
        self.history.restore(snapshot)
        kernel.events = kernel.trace = None
        self.machine.port.pass_breakpoint(None)
        self._bug = self._found = None
        self._edits_done = bisect_left(self._edits, snapshot.position, key=lambda made: made[0])

    # --- the run --------------------------------------------------------------------------------------

    def _quietly(
        self, goal: Goal, count: Count | None, poll: Poll | None, place: Position | None = None
    ) -> Stop:
        """Run on with nothing stopping the machine but this."""
        self._stops = False
        try:
            return self._towards(goal, count, poll, REPLAY, place)
        finally:
            self._stops = True

    def _towards(
        self,
        goal: Goal,
        count: Count | None,
        poll: Poll | None,
        pace: Pace,
        place: Position | None = None,
    ) -> Stop:
        """Run until a stop, or until `place`; edits that lie ahead are made on the way."""
        self._goal, self._step_count = goal, count
        self._make_edits()
        self._arm()
        self._interrupted = False
        try:
            while True:
                self._set_place(self._nearer(place))
                stop = self._run_on(poll, pace)
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

    def _set_place(self, place: Position | None) -> None:
        self._place = place
        halts = place is not None and place.phase == AFTER_ENTRY
        steps = place.steps if place is not None and halts else NEVER
        self.machine.halt_steps = min(steps, self._note_at_steps)

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

    def _run_on(self, poll: Poll | None, pace: Pace) -> Stop | None:
        """Until the machine pauses; None if nobody has to know."""
        snapshot_at = time.monotonic() + max(pace.seconds, pace.share * self.history.seconds_per_snapshot)
        machine = self.machine

        def look_around() -> None:
            if poll is not None and poll():
                self._interrupted = True
                machine.breathe()
                machine.stop()
            elif time.monotonic() >= snapshot_at:
                machine.breathe()

        try:
            pause = machine.go_on(look_around, POLL_SECONDS)
        except KernelBug as bug:
            self._bug = self._stop_here(StopKind.BUG, f"bug in l4lab's kernel: {bug.detail}")
            return self._bug
        if pause is Pause.ENDED:
            assert machine.ended is not None
            return self._stop_here(StopKind.END, machine.ended.value, result=machine.ended)
        if pause is Pause.BETWEEN_TURNS:
            if self._interrupted:
                return self._stop_here(StopKind.INTERRUPTED, "interrupted")
            self.history.take()
            return None
        if machine.phase == IN_USER_CODE:
            return self._classify(machine.paused_core)
        found, self._found = self._found, None
        return found

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
            return self._stop_here(StopKind.INTERRUPTED, "interrupted") if self._interrupted else None
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
            return self._at_breakpoint(core)
        watchpoint = self._watching.hit(detail)
        return self._stop_here(StopKind.WATCHPOINT, _watched_text(watchpoint), watchpoint=watchpoint)

    def _at_breakpoint(self, core: CoreState) -> Stop | None:
        thread = core.decision.thread
        assert thread is not None and thread.task is not None
        place = thread.frame[EIP]
        here = (Breakpoint(place, thread.task.number), Breakpoint(place))
        probe = next((self.probes[point] for point in here if point in self.probes), None)
        text = probe(thread.number) if probe is not None and self._forward else None
        self._set_breakpoints()  # it may have set another
        if text is not None:
            return self._stop_here(StopKind.CATCHPOINT, text)
        return (
            self._stop_here(StopKind.BREAKPOINT) if any(point in self.breakpoints for point in here) else None
        )

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
        core = machine.paused_core
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

    def pauses_between(self, core: CoreState) -> bool:
        """At the place. Where a snapshot is wanted, one is due."""
        place, machine = self._place, self.machine
        if machine.steps >= self._note_at_steps:
            self._note_at_steps = NEVER
            self._set_place(place)
            machine.breathe()
        if place is None or place.phase != AFTER_ENTRY or place.steps != machine.steps:
            return False
        self._found = Stop(StopKind.PLACE, place, core.number, core.decision.thread)
        return True

    def pauses_before(self, entry: Entry) -> bool:
        """At what catchpoints catch before the kernel acts; at the place."""
        if self._stops and self._stops_before(entry):
            return True
        place = self._place
        if place is not None and place.phase == BEFORE_ENTRY and place.steps == self.machine.steps:
            return self._find(StopKind.PLACE, entry, BEFORE_ENTRY)
        return False

    def _stops_before(self, entry: Entry) -> bool:
        if self.watchpoints:
            self._watching.before_entry()
        caught = False
        if self.catches:
            happening = announced(self.machine.kernel, entry.core.decision.thread, entry.trap)
            caught = happening is not None and self._caught(happening, entry, BEFORE_ENTRY)
        return self._show_observers(entry, (), before=True) or caught

    def pauses_after(self, entry: Entry) -> bool:
        """At what has happened in this entry; at the place; when somebody interrupts."""
        if self._stops and self._stops_after(entry):
            return True
        place, machine = self._place, self.machine
        if place is not None and place.phase == AFTER_ENTRY and place.steps == machine.steps:
            return self._find(StopKind.PLACE, entry, AFTER_ENTRY)
        if self._goal.kind is GoalKind.ENTRY:
            return self._find(StopKind.ENTRY, entry, AFTER_ENTRY)
        goal = self._goal
        if goal.kind is GoalKind.CLOCK and machine.reached_cycles(entry.core)[goal.core] >= goal.clock_cycles:
            return self._find(StopKind.PLACE, entry, AFTER_ENTRY)
        return self._interrupted and self._find(StopKind.INTERRUPTED, entry, AFTER_ENTRY, "interrupted")

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
        return self._find(StopKind.WATCHPOINT, entry, AFTER_ENTRY, text, watchpoint=hit)

    def _show_observers(self, entry: Entry, events: Sequence[Event], *, before: bool) -> bool:
        """Every observer sees every entry; the text of the first that has one is the reason to stop."""
        if not self._forward:
            return False
        texts = [observer(entry, events, before) for observer in self.observers]
        for text in texts:
            if text is not None:
                if self._found is None:
                    self._find(StopKind.CATCHPOINT, entry, BEFORE_ENTRY if before else AFTER_ENTRY, text)
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
        self.known_tasks.add(task.number)
        return self._find(StopKind.NEW_TASK, entry, AFTER_ENTRY, task_name(task))

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
    ) -> bool:
        """Note why the machine is about to pause at a kernel entry. True."""
        machine = self.machine
        position = Position(machine.steps, machine.retired, phase)
        if thread is None:
            thread = entry.core.decision.thread
        self._found = Stop(kind, position, entry.core.number, thread, text, watchpoint, catch, happening)
        return True


def _watched_text(watchpoint: Watchpoint) -> str:
    return f"{watchpoint.size_bytes} bytes at {watchpoint.address:#x}"


def _lies_behind(stop: Stop, here: Position) -> bool:
    """Whether one comes past `stop` on the way back from `here`. An access has been made where it stops."""
    return stop.position < here or (stop.position == here and stop.kind is StopKind.WATCHPOINT)
