"""Follows the page faults of a machine, and knows them again when time is turned back.

What is known is a value (`faults`). Every kernel entry that tells something makes a new one, noted with its
position in the run; going back takes an earlier one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.catching import CatchKind, fault_text
from l4lab.emulator.debug.debugged import AFTER_ENTRY, BEFORE_ENTRY, IN_USER_CODE, Position
from l4lab.emulator.debug.debugging import read_memory
from l4lab.emulator.debug.stops import Breakpoint
from l4lab.kernel import costs, events
from l4lab.kernel.events import Event
from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EDX, EIP, ESP
from l4lab.kernel.inspect import thread_name
from l4lab.kernel.traps import PageFault, SystemCall
from l4lab.tools.debug.faultsteps import ALLOCATORS
from l4lab.tools.debug.tui.faults import (
    ITSELF,
    NO_MESSAGE,
    STEPS,
    WITH_PAGER,
    Fault,
    Faults,
    Step,
    mapped,
    passed_between,
    telling,
    told_by,
)

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Entry
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.kernel.entry import Decision
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Programs

_FAULT_CAUSES: Final = (costs.ENTRY, costs.FAULT)
_RESUME_CAUSES: Final = (costs.SWITCH, costs.SPACE_SWITCH, costs.SCHEDULE, costs.EXIT)
_REMEMBERED: Final = 20_000
"""How many values are kept, at least half of that; before them nothing is known of faults."""
_BEHIND: Final = BEFORE_ENTRY + 1
"""As a position's phase: behind everything that has the same numbers."""


def _is_served_by_kernel(fault: Fault, seen: Sequence[Event], running: int) -> bool:
    """Whether the kernel entry of a fault has ended it without a message."""
    own = [event.kind for event in seen if event.thread == fault.victim]
    if any(kind in (events.MESSAGE, events.NO_PAGER, events.EXCEPTION) for kind in own):
        return False
    return events.END in own or running == fault.victim


class FaultTracker:
    """Follows all page faults of a machine while it runs forwards. To be asked while it stands still.

    `stops`: stop the machine whenever a step is over. `victim`: whose fault is followed, and stops it; None:
    everybody's.
    """

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        self._debugger = debugger
        self._programs = programs
        self._positions: list[Position] = [debugger.machine.position]
        self._values: list[Faults] = [{}]
        self._probes: list[Breakpoint] = []
        self._text: str | None = None
        self.stops = False
        self.victim: int | None = None
        debugger.observers.append(self._observe)

    @property
    def faults(self) -> Faults:
        """Those of the present."""
        return self._values[-1]

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
        self._set_probes()

    def follow(self, wanted: bool) -> None:
        """Whether to look on from now on. Looking on costs host time, three times that of a run full of faults."""
        observers = self._debugger.observers
        if wanted and self._observe not in observers:
            observers.append(self._observe)
        elif not wanted and self._observe in observers:
            observers.remove(self._observe)
            here = self._debugger.machine.position
            self._positions.append(Position(here.steps, here.retired, _BEHIND))
            self._values.append({})
            self._set_probes()

    def begin_here(self, stop: Stop) -> None:
        """The machine has been taken to the beginning of a fault that was not followed."""
        happening, thread = stop.happening, stop.thread
        if happening is None or happening.kind is not CatchKind.FAULT or thread is None:
            return
        cycle = self._debugger.machine.cores[stop.core].clock_cycles
        known = self.faults.get(thread.number)
        if known is None or known.cycle != cycle:
            access = happening.text.partition("page fault: ")[2].rpartition(", at ")[0]
            self._begin(thread, happening.first or 0, stop.core, cycle, access)

    # --- what the debugger shows ------------------------------------------------------------------------

    def _observe(self, entry: Entry, seen: Sequence[Event], before: bool) -> str | None:
        self._text = None
        if before:
            self._before(entry)
        elif self.faults:
            self._after(entry, seen)
        return self._text

    def _note(self, fault: Fault, phase: int) -> None:
        """What is true of this fault from now on."""
        machine = self._debugger.machine
        position = Position(machine.steps, machine.retired, phase)
        known = self.faults
        value = {number: other for number, other in known.items() if not (fault.outcome and other.outcome)}
        value[fault.victim] = fault
        if self._positions[-1] == position:
            self._values[-1] = value
        else:
            self._positions.append(position)
            self._values.append(value)
            if len(self._positions) > _REMEMBERED:
                del self._positions[: _REMEMBERED // 2], self._values[: _REMEMBERED // 2]
        if self.stops and self.victim in (None, fault.victim) and passed_between(known, value):
            self._text = telling(fault)
        if fault.with_pager or fault.answered:
            self._set_probes()

    def _before(self, entry: Entry) -> None:
        thread = entry.core.decision.thread
        if thread is None:
            return
        now = entry.now
        if isinstance(entry.trap, PageFault):
            access = fault_text(entry.trap).removeprefix("page fault: ")
            self._begin(thread, entry.trap.address, entry.core.number, now, access)
        elif isinstance(entry.trap, SystemCall):
            fault = self._served_by(thread)
            if fault is None:
                return
            if thread.frame[EDX] & abi.OP_REPLY:
                self._note(fault.answering(now, thread_name(thread)), BEFORE_ENTRY)
            else:
                self._note(replace(fault, found=now), BEFORE_ENTRY)

    def _begin(self, thread: Thread, address: int, core: int, cycle: int, access: str) -> None:
        step = Step(1, None, f"{access}, by {self._where(thread)}")
        fault = Fault(thread.number, thread_name(thread), address, core, cycle, cycle, (step,))
        self._note(fault, BEFORE_ENTRY)

    def _served_by(self, thread: Thread) -> Fault | None:
        """The fault whose message the thread has, as a pager."""
        caller = thread.reply.caller
        fault = self.faults.get(caller.number) if caller is not None else None
        return fault if fault is not None and fault.with_pager and fault.pager == thread.number else None

    def _where(self, thread: Thread) -> str:
        """The thread's present instruction, for people."""
        machine, eip = self._debugger.machine, thread.frame[EIP]
        program = self._programs.of_task(machine, thread.task)
        if program is None:
            return f"{eip:#x}"
        place = program.place_at(eip)
        return f"{program.function_at(eip)}, {place}" if place is not None else program.function_at(eip)

    def _after(self, entry: Entry, seen: Sequence[Event]) -> None:
        for fault in [fault for fault in self.faults.values() if not fault.outcome]:
            now = self._advance(fault, entry, seen)
            if now is not fault:
                self._note(now, AFTER_ENTRY)

    def _advance(self, fault: Fault, entry: Entry, seen: Sequence[Event]) -> Fault:
        """The fault after a kernel entry; itself if that was nothing to it."""
        decision = entry.core.decision
        end = entry.now + decision.kernel_cycles
        running = decision.thread.number if decision.thread is not None else 0
        if len(fault.steps) == 1 and entry.core.number == fault.core:
            if _is_served_by_kernel(fault, seen, running):
                return self._served_by_kernel(fault, decision, running)
            own = sum(decision.bill[cause] for cause in _FAULT_CAUSES)
            fault = fault.passed(
                fault.cycle + own, "the processor enters the kernel, which makes a message of it"
            )
        for event in seen:
            fault = told_by(fault, event)
        if fault.outcome or len(fault.steps) == 1:
            return fault
        if fault.pager and len(fault.steps) == 2 and running == fault.pager:
            how = "" if entry.core.number == fault.core else f", on core {entry.core.number}"
            fault = fault.passed(end, f"the message is with {self._name(fault.pager)}{how}")
        if fault.answered and len(fault.steps) >= WITH_PAGER:
            return self._answer(fault, entry, seen, running)
        if running == fault.victim and not fault.pager:
            return replace(fault, outcome=NO_MESSAGE)
        return fault

    def _served_by_kernel(self, fault: Fault, decision: Decision, running: int) -> Fault:
        resume = sum(decision.bill[cause] for cause in _RESUME_CAUSES)
        end = fault.cycle + decision.kernel_cycles
        fault = fault.passed(end - resume, ITSELF)
        if running != fault.victim:
            return replace(fault, outcome=NO_MESSAGE)
        return self._resumed(fault, end)

    def _resumed(self, fault: Fault, end: int) -> Fault:
        fault = fault.passed(end, f"back to the instruction of {fault.name}", len(STEPS))
        return replace(fault, outcome=f"over, {fault.cycles} cycles after the touch")

    def _answer(self, fault: Fault, entry: Entry, seen: Sequence[Event], running: int) -> Fault:
        decision = entry.core.decision
        if len(fault.steps) == WITH_PAGER:  # it did not answer with a reply
            fault = fault.answering(entry.now, self._name(fault.pager))
        if len(fault.steps) == WITH_PAGER + 2:
            mapping = sum(cycles for cause, cycles in enumerate(decision.bill) if cause not in _RESUME_CAUSES)
            fault = fault.passed(entry.now + mapping, mapped(seen))
        if running == fault.victim:
            return self._resumed(fault, entry.now + decision.kernel_cycles)
        return fault

    def _name(self, number: int) -> str:
        thread = self._debugger.machine.kernel.threads.get(number)
        return thread_name(thread) if thread is not None else f"thread {number}"

    # --- the allocator ----------------------------------------------------------------------------------

    def _set_probes(self) -> None:
        """Notice when an allocator is entered or left for one of the present faults."""
        debugger = self._debugger
        for probe in self._probes:
            debugger.probes.pop(probe, None)
        self._probes.clear()
        for fault in self.faults.values():
            pager = debugger.machine.kernel.threads.get(fault.pager)
            if not fault.with_pager or pager is None or pager.task is None:
                continue
            program = self._programs.of_task(debugger.machine, pager.task)
            found = (program.symbols.address_of(name) for name in ALLOCATORS) if program is not None else ()
            for address in (*found, fault.back or None):
                if address is not None:
                    self._probes.append(Breakpoint(address, pager.task.number))
        debugger.probes.update(dict.fromkeys(self._probes, self._passes))

    def _passes(self, number: int) -> str | None:
        """A thread is about to execute an allocator's first instruction, or the one behind its call."""
        machine = self._debugger.machine
        thread = machine.kernel.threads[number]
        fault = self._served_by(thread)
        if fault is None or thread.task is None:
            return None
        self._text = None
        if thread.frame[EIP] == fault.back:
            clock = machine.cores[thread.core].vcpu.clock_cycles
            self._note(replace(fault, found=clock, back=0), IN_USER_CODE)
        else:
            word = read_memory(machine, thread.task, thread.frame[ESP], 4)
            self._note(replace(fault, back=int.from_bytes(word, "little")), IN_USER_CODE)
        return self._text
