"""The seven steps of a page fault, named as they pass, with the cycles of each.

    1 touch     a program uses an address that is not mapped
    2 fault     the processor enters the kernel, which makes a message of it
    3 message   the message goes to the pager; on another core, with an interrupt
    4 request   the pager asks its allocator for a page frame
    5 frame     the allocator has found one; the pager answers
    6 map       the answer reaches the kernel, which fills in the page table
    7 resume    the kernel goes back to the instruction, which is executed once more

A fault that the kernel serves itself has steps 1, 2 and 7 only.

Where the allocator begins and ends is known if the pager's program has it in a function of one of the names
in ALLOCATORS; else at the pager's last own system call. With neither, step 5 takes no time of its own.
Source: 000_1be4d2f6ae8bebbc.txt, section 2.2 and figure 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.catching import CatchKind, fault_text
from l4lab.emulator.debug.debugged import BEFORE_ENTRY, Position
from l4lab.emulator.debug.debugging import read_memory
from l4lab.emulator.debug.stops import Breakpoint
from l4lab.kernel import costs, events
from l4lab.kernel.events import Event
from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EDX, EIP, ESP
from l4lab.kernel.inspect import thread_name
from l4lab.kernel.traps import PageFault, SystemCall

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Entry
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.debug.stops import Stop
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Programs

ALLOCATORS: Final = ("pma_allocate", "frame_take", "memory_claim")
NAMES: Final = ("touch", "fault", "message", "request", "frame", "map", "resume")

_FAULT_CAUSES: Final = (costs.ENTRY, costs.FAULT)
_RESUME_CAUSES: Final = (costs.SWITCH, costs.SPACE_SWITCH, costs.SCHEDULE, costs.EXIT)


@dataclass(slots=True)
class _Fault:
    """One page fault on its way. `moments`: cycle at which step n began, for those that have.

    `position`: where step 1 has been told; None: nowhere.
    """

    victim: int
    position: Position | None
    moments: dict[int, int] = field(default_factory=dict)
    pager: int = 0
    answered: bool = False


class FaultSteps:
    """Follows one page fault after the other.

    `say`: gets a line for each step as it is over. `stops`: stop the machine there, too. `everybody`: not
    only faults that a catchpoint stops at. To be switched on with `follow`.
    """

    def __init__(self, debugger: Debugger, programs: Programs, say: Callable[[str], None]) -> None:
        self._debugger = debugger
        self._programs = programs
        self._say = say
        self._fault: _Fault | None = None
        self._probes: list[Breakpoint] = []
        self._lines: list[str] = []
        self.stops = False
        self.everybody = False

    def follow(self) -> None:
        """From now on."""
        if self._observe not in self._debugger.observers:
            self._debugger.observers.append(self._observe)

    def leave(self) -> None:
        """No more."""
        self._drop()
        if self._observe in self._debugger.observers:
            self._debugger.observers.remove(self._observe)

    @property
    def under_way(self) -> bool:
        """Whether a fault is being followed now."""
        return self._fault is not None

    def begin_at(self, stop: Stop) -> None:
        """Follow the fault that the machine stands at, before the kernel acts, however it has come there."""
        assert stop.thread is not None
        self._drop()
        self.follow()
        now = self._debugger.machine.cores[stop.core].vcpu.clock_cycles
        self._fault = _Fault(stop.thread.number, None, {2: now})

    def tell(self, stop: Stop) -> bool:
        """Whether this stop has just been described, as step 1 of a fault."""
        return self._fault is not None and stop.position == self._fault.position

    def forget(self) -> None:
        """Time was turned back: the fault that was followed is not under way any more."""
        self._drop()

    def _drop(self) -> None:
        self._fault = None
        for probe in self._probes:
            self._debugger.probes.pop(probe, None)
        self._probes.clear()

    # --- what the debugger shows ----------------------------------------------------------------------

    def _observe(self, entry: Entry, seen: Sequence[Event], before: bool) -> str | None:
        self._lines.clear()
        thread = entry.core.decision.thread
        if before:
            self._before(entry, thread)
        elif self._fault is not None:
            self._after(entry, seen, self._fault, thread)
        if not self._lines:
            return None
        for line in self._lines:
            self._say(line)
        return "" if self.stops else None

    def _before(self, entry: Entry, thread: Thread | None) -> None:
        if thread is None:
            return
        fault = self._fault
        if isinstance(entry.trap, PageFault):
            if fault is None and (self.everybody or self._is_caught()):
                self._begin(entry, thread, entry.trap)
        elif fault is not None and isinstance(entry.trap, SystemCall) and thread.number == fault.pager:
            caller = thread.reply.caller
            if thread.frame[EDX] & abi.OP_REPLY and caller is not None and caller.number == fault.victim:
                self._end_of_pager(fault, entry.now, f"{thread_name(thread)} answers")
            else:
                fault.moments[5] = entry.now  # moved on by each system call of its own

    def _is_caught(self) -> bool:
        stop = self._debugger.about_to_stop
        return stop is not None and stop.happening is not None and stop.happening.kind is CatchKind.FAULT

    def _begin(self, entry: Entry, thread: Thread, trap: PageFault) -> None:
        machine = self._debugger.machine
        position = Position(machine.steps, machine.retired, BEFORE_ENTRY)
        self._fault = _Fault(thread.number, position, {2: entry.now})
        eip = thread.frame[EIP]
        program = self._programs.of_task(machine, thread.task)
        where = self._programs.function_at(machine, thread.task, eip)
        place = program.place_at(eip) if program is not None else None
        at = f"{where}, {place}" if place is not None else where
        self._lines.append(
            f"cycle {entry.now}, core {entry.core.number}: page fault of {thread_name(thread)}"
        )
        self._line(1, None, f"{fault_text(trap).removeprefix('page fault: ')}, by the instruction at {at}")

    def _after(self, entry: Entry, seen: Sequence[Event], fault: _Fault, running: Thread | None) -> None:
        decision = entry.core.decision
        end = entry.now + decision.kernel_cycles
        if 3 not in fault.moments:
            own = sum(decision.bill[cause] for cause in _FAULT_CAUSES)
            fault.moments[3] = fault.moments[2] + own
            served = self._without_message(seen, fault)
            self._line(2, own, f"the processor enters the kernel, which {served or 'makes a message of it'}")
            if served:
                fault.moments[6] = fault.moments[7] = fault.moments[3]
                fault.answered = True
                self._answer(entry, seen, fault, running, end)
                return
        for event in seen:
            self._note(event, fault)
        if not fault.answered:
            if (
                fault.pager
                and 4 not in fault.moments
                and running is not None
                and running.number == fault.pager
            ):
                self._to_pager(fault, end, running, entry)
        else:
            self._answer(entry, seen, fault, running, end)

    def _without_message(self, seen: Sequence[Event], fault: _Fault) -> str:
        """What the kernel has done about the fault if it is over in its first entry; "" if it is not, or in vain."""
        kinds = {event.kind for event in seen if event.thread == fault.victim}
        if events.END not in kinds or kinds & {events.EXCEPTION, events.NO_PAGER}:
            return ""
        kernel = self._debugger.machine.kernel
        task = kernel.threads[fault.victim].task if fault.victim in kernel.threads else None
        if task is not None and task.space is kernel.memory.sigma0:
            return "maps the page itself: no message"
        return "lets the thread go on: no message"

    def _note(self, event: Event, fault: _Fault) -> None:
        if event.kind == events.MESSAGE and event.thread == fault.victim and not fault.pager:
            fault.pager = event.partner
        elif event.kind == events.MESSAGE and event.partner == fault.victim and event.thread == fault.pager:
            fault.answered = True
        elif event.kind in (events.END, events.NO_PAGER, events.EXCEPTION) and event.thread == fault.victim:
            self._lines.append(f"  the page fault of thread {fault.victim} comes to nothing")
            self._drop()

    def _to_pager(self, fault: _Fault, end: int, pager: Thread, entry: Entry) -> None:
        fault.moments[4] = end
        how = "" if entry.now == fault.moments[2] else f", on core {entry.core.number}"
        self._line(3, end - fault.moments[3], f"the message is with {thread_name(pager)}{how}")
        self._watch_allocator(pager)

    def _end_of_pager(self, fault: _Fault, now: int, text: str) -> None:
        begun = fault.moments.get(4)
        if begun is None:
            return
        found = fault.moments.get(5, now)
        fault.moments[5] = found
        self._line(4, found - begun, "it asks its allocator for a page frame")
        self._line(5, now - found, f"the frame is found; {text}")
        fault.moments[6] = now

    def _answer(
        self, entry: Entry, seen: Sequence[Event], fault: _Fault, running: Thread | None, end: int
    ) -> None:
        if 6 not in fault.moments:  # the pager did not answer with a reply
            self._end_of_pager(fault, entry.now, "the pager answers")
        if 7 not in fault.moments:
            bill = entry.core.decision.bill
            mapping = sum(cycles for cause, cycles in enumerate(bill) if cause not in _RESUME_CAUSES)
            fault.moments[7] = entry.now + mapping
            self._line(6, fault.moments[7] - fault.moments.get(6, entry.now), _mapped(seen))
        if running is not None and running.number == fault.victim:
            self._line(7, end - fault.moments[7], f"back to the instruction of {thread_name(running)}")
            self._lines.append(f"  together {end - fault.moments[2]} cycles")
            self._drop()

    def _line(self, step: int, cycles: int | None, text: str) -> None:
        counted = f"{cycles:>7}" if cycles is not None else "      -"
        self._lines.append(f"  {step} {NAMES[step - 1]:<8}{counted}  {text}")

    # --- the allocator --------------------------------------------------------------------------------

    def _watch_allocator(self, pager: Thread) -> None:
        """Note when the pager's allocator is entered and left, if it can be told."""
        program = self._programs.of_task(self._debugger.machine, pager.task)
        if program is None or pager.task is None:
            return
        for name in ALLOCATORS:
            address = program.symbols.address_of(name)
            if address is not None:
                self._probe(Breakpoint(address, pager.task.number), self._allocator_entered)

    def _probe(self, where: Breakpoint, probe: Callable[[int], str | None]) -> None:
        self._debugger.probes[where] = probe
        self._probes.append(where)

    def _allocator_entered(self, number: int) -> str | None:
        thread = self._debugger.machine.kernel.threads[number]
        if self._fault is not None and number == self._fault.pager and thread.task is not None:
            word = read_memory(self._debugger.machine, thread.task, thread.frame[ESP], 4)
            back = Breakpoint(int.from_bytes(word, "little"), thread.task.number)
            self._probe(back, self._allocator_left)
        return None

    def _allocator_left(self, number: int) -> str | None:
        fault = self._fault
        if fault is not None and number == fault.pager:
            thread = self._debugger.machine.kernel.threads[number]
            fault.moments[5] = self._debugger.machine.cores[thread.core].vcpu.clock_cycles
        return None


def _mapped(seen: Sequence[Event]) -> str:
    """What an answer mapped, in words."""
    for event in seen:
        if event.kind == events.MAP:
            pages = f"{event.extra} page{'s' * (event.extra != 1)}"
            return f"the kernel maps {pages}: {event.a:#x} of the pager to {event.b:#x}"
    return "the kernel takes the answer; nothing is mapped"
