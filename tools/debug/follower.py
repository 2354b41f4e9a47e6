"""Follows page faults of a machine that runs under a debugger, and watches allocators at work.

What is known of a fault is a value (`tools/debug/faults.py`), and each kernel entry that tells something makes a
new one: whoever wants to tell people, or to know it again after going back in time, is shown each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from l4lab.emulator.debug.catching import CatchKind, fault_text
from l4lab.emulator.debug.debugged import AFTER_ENTRY, BEFORE_ENTRY, IN_USER_CODE, Position
from l4lab.emulator.debug.guestmemory import read_memory
from l4lab.emulator.debug.stops import Breakpoint
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.frame import EIP, ESP
from l4lab.kernel.inspect import thread_name
from l4lab.kernel.traps import PageFault, SystemCall
from l4lab.tools.debug.faults import (
    ALLOCATORS,
    FAULT,
    GOES_ON,
    MAP,
    MAPS_ITSELF,
    MESSAGE,
    NO_MESSAGE,
    TOUCH,
    Fault,
    Faults,
    Step,
    mapping_text,
)

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Entry
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.kernel.events import Event
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Programs


class AllocatorWatch(ABC):
    """Notices when some threads enter an allocator and leave it. A subclass has what is to happen then.

    It is no function that is handed over: that would refer to whoever has this, and neither would ever go by itself.
    """

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        self._debugger = debugger
        self._programs = programs
        self._probes: list[Breakpoint] = []
        self._inside: Mapping[int, int] = {}

    def watch(self, inside: Mapping[int, int]) -> None:
        """From now on these threads and no others. `inside`: number -> where its allocator returns to; 0: in none."""
        machine = self._debugger.machine
        for probe in self._probes:
            self._debugger.probes.pop(probe, None)
        self._probes, self._inside = [], inside
        for number, back in inside.items():
            thread = machine.kernel.threads.get(number)
            program = self._programs.of_task(machine, thread.task) if thread is not None else None
            if thread is None or thread.task is None:
                continue
            found = (program.symbols.address_of(name) for name in ALLOCATORS) if program is not None else ()
            for address in (*found, back or None):
                if address is not None:
                    self._probes.append(Breakpoint(address, thread.task.number))
        self._debugger.probes.update(dict.fromkeys(self._probes, self._passes))

    @abstractmethod
    def passed(self, thread: Thread, back: int) -> str | None:
        """The thread has entered, and will return to address `back`; 0: it has left. A text stops the machine."""

    def _passes(self, number: int) -> str | None:
        """A thread is about to execute an allocator's first instruction, or the one behind its call."""
        thread = self._debugger.machine.kernel.threads[number]
        back = self._inside.get(number)
        if back is None or thread.task is None:
            return None
        if thread.frame[EIP] == back:
            return self.passed(thread, 0)
        word = read_memory(self._debugger.machine, thread.task, thread.frame[ESP], 4)
        return self.passed(thread, int.from_bytes(word, "little"))


class FaultFollower(AllocatorWatch):
    """Follows page faults while the machine runs forwards. To be asked while it stands still.

    `faults`: those of the present.
    """

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        super().__init__(debugger, programs)
        self._text: str | None = None
        self.faults: Faults = {}

    @abstractmethod
    def learn(self, known: Faults, fault: Fault, position: Position) -> str | None:
        """More is known of `fault` than in `known`; `position`: where in the run that is. A text stops there."""

    def begins(self) -> bool:
        """Whether the fault that the kernel is about to be told of is one to follow."""
        return True

    @property
    def follows(self) -> bool:
        """Whether it looks on."""
        return self._observe in self._debugger.observers

    def follow(self, wanted: bool = True) -> None:
        """Whether to look on from now on. Looking on costs host time, three times that of a run full of faults."""
        if wanted and not self.follows:
            self._debugger.observers.append(self._observe)
        elif not wanted and self.follows:
            self._debugger.observers.remove(self._observe)
            self.reset({})

    def reset(self, faults: Faults) -> None:
        """These are the faults of the present, which time was turned back to, or which was come to otherwise."""
        self.faults = faults
        self._watch_allocators()

    def fault_here(self, stop: Stop) -> Fault | None:
        """The fault whose beginning the machine was taken to; None: there is none, or it is known."""
        happening, thread = stop.happening, stop.thread
        if happening is None or happening.kind is not CatchKind.FAULT or thread is None:
            return None
        cycle = self._debugger.machine.cores[stop.core].clock_cycles
        known = self.faults.get(thread.number)
        if known is not None and known.cycle == cycle:
            return None
        access = happening.text.partition("page fault: ")[2].rpartition(", at ")[0]
        return self._fault(thread, happening.first or 0, stop.core, cycle, access)

    def note(self, fault: Fault, phase: int) -> None:
        """What is true of this fault from here on; `phase`: of this place's position."""
        machine = self._debugger.machine
        known = self.faults
        value = {number: other for number, other in known.items() if not (fault.outcome and other.outcome)}
        value[fault.victim] = fault
        self.faults = value
        text = self.learn(known, fault, Position(machine.steps, machine.retired, phase))
        self._text = text if text is not None else self._text
        if fault.with_pager or fault.answered or fault.outcome:
            self._watch_allocators()

    # --- what the debugger shows ------------------------------------------------------------------------

    def _observe(self, entry: Entry, seen: Sequence[Event], before: bool) -> str | None:
        self._text = None
        if before:
            self._before(entry)
        elif self.faults:
            for fault in [fault for fault in self.faults.values() if not fault.outcome]:
                now = self._advance(fault, entry, seen)
                if now is not fault:
                    self.note(now, AFTER_ENTRY)
        return self._text

    def _before(self, entry: Entry) -> None:
        thread = entry.core.decision.thread
        if thread is None:
            return
        now, core = entry.now, entry.core.number
        if isinstance(entry.trap, PageFault):
            if self.begins():
                access = fault_text(entry.trap).removeprefix("page fault: ")
                self.note(self._fault(thread, entry.trap.address, core, now, access), BEFORE_ENTRY)
        elif isinstance(entry.trap, SystemCall):
            fault = self._served_by(thread)
            if fault is None:
                return
            if self._debugger.machine.kernel.interface.answers(thread):
                self.note(fault.answering(now, thread_name(thread), core), BEFORE_ENTRY)
            else:
                self.note(replace(fault, found=now), BEFORE_ENTRY)

    def _fault(self, thread: Thread, address: int, core: int, cycle: int, access: str) -> Fault:
        text = f"{access}, by {self._where(thread)}"
        step = Step(TOUCH, None, text, end=cycle, entry=cycle, core=core)
        return Fault(thread.number, thread_name(thread), address, core, cycle, cycle, (step,))

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

    def _advance(self, fault: Fault, entry: Entry, seen: Sequence[Event]) -> Fault:
        """The fault after a kernel entry; itself if that was nothing to it."""
        core = entry.core.number
        bill = dict(zip(CAUSE_NAMES, entry.core.decision.bill, strict=True))
        end = entry.now + entry.core.decision.kernel_cycles
        thread = entry.core.decision.thread
        running = thread.number if thread is not None else 0
        if len(fault.steps) == TOUCH and core == fault.core:
            if fault.is_served_by_kernel(seen, running):
                fault = fault.entered(bill, MAPS_ITSELF if self._is_sigma0s(fault) else GOES_ON)
                if running != fault.victim:
                    return replace(fault, outcome=NO_MESSAGE)
                return fault.resumed(end, entry.now, core)
            fault = fault.entered(bill)
        for event in seen:
            fault = fault.told_by(event)
        if fault.outcome or len(fault.steps) == TOUCH:
            return fault
        if fault.pager and len(fault.steps) == FAULT and running == fault.pager:
            how = "" if core == fault.core else f", on core {core}"
            text = f"the message is with {self._name(fault.pager)}{how}"
            fault = fault.passed(end, text, entry.now, core)
        if fault.answered and len(fault.steps) >= MESSAGE:
            if len(fault.steps) == MESSAGE:  # it did not answer with a reply
                fault = fault.answering(entry.now, self._name(fault.pager), core)
            if len(fault.steps) < MAP:
                fault = fault.mapped(entry.now, core, bill, mapping_text(seen))
            return fault.resumed(end, entry.now, core) if running == fault.victim else fault
        if running == fault.victim and not fault.pager:
            return replace(fault, outcome=NO_MESSAGE)
        return fault

    def _is_sigma0s(self, fault: Fault) -> bool:
        kernel = self._debugger.machine.kernel
        thread = kernel.threads.get(fault.victim)
        return thread is not None and thread.task is not None and thread.task.space is kernel.memory.sigma0

    def _name(self, number: int) -> str:
        thread = self._debugger.machine.kernel.threads.get(number)
        return thread_name(thread) if thread is not None else f"thread {number}"

    # --- the allocator ----------------------------------------------------------------------------------

    def _watch_allocators(self) -> None:
        """Those of the pagers that have one of the present faults."""
        pagers = {fault.pager: fault.back for fault in self.faults.values() if fault.with_pager}
        self.watch(pagers)

    def passed(self, thread: Thread, back: int) -> str | None:
        fault = self._served_by(thread)
        if fault is None:
            return None
        self._text = None
        if back:
            self.note(replace(fault, back=back), IN_USER_CODE)
        else:
            clock = self._debugger.machine.cores[thread.core].vcpu.clock_cycles
            self.note(replace(fault, found=clock, back=0), IN_USER_CODE)
        return self._text
