"""A page fault on its way, as a value: the seven steps, and how each of them is passed.

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

`tools/debug/follower.py` makes these of a machine that runs, `tools/why/steps.py` of one that was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES

if TYPE_CHECKING:
    from l4lab.kernel.events import Event

NAMES: Final = ("touch", "fault", "message", "request", "frame", "map", "resume")
TOUCH, FAULT, MESSAGE, REQUEST, FRAME, MAP, RESUME = range(1, 8)
ALLOCATORS: Final = ("pma_allocate", "frame_take", "memory_claim")

_FAULT_CAUSES: Final = ("kernel entry", "fault")
"""What of the first kernel entry is step 2."""
_RESUME_CAUSES: Final = ("thread switch", "space switch", "schedule", "kernel exit")
"""What of the kernel entry that maps the page is step 7."""
assert {*_FAULT_CAUSES, *_RESUME_CAUSES} <= {*CAUSE_NAMES}

MAPS_ITSELF: Final = "the processor enters the kernel, which maps the page itself: no message"
GOES_ON: Final = "the processor enters the kernel, which lets the thread go on: no message"
_MAKES_MESSAGE: Final = "the processor enters the kernel, which makes a message of it"
_REQUEST_TEXT: Final = "it asks its allocator for a page frame"
NO_MESSAGE: Final = "the kernel has served it without a message"
_ENDS: Final = {
    events.END: NO_MESSAGE,
    events.NO_PAGER: "there is no pager",
    events.EXCEPTION: "it has become an exception",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is over. `number`: 1 to 7. `cycles`: how long it took, up to `end`; None for the first.

    `entry`, `core`: the cycle and core of the kernel entry that tells of it.
    """

    number: int
    cycles: int | None
    text: str
    end: int
    entry: int
    core: int

    @property
    def name(self) -> str:
        """`touch` to `resume`."""
        return NAMES[self.number - 1]


@dataclass(frozen=True, slots=True)
class Fault:
    """One page fault. `victim`, `pager`: threads, by number; 0: not known yet. `cycle`: at which it began.

    `steps`: those that are over. `since`: when the one that it is in began. `found`: when the allocator
    had a frame, or when the pager's last own system call began; 0: not yet. `back`: where the allocator is
    going to return to; 0: nobody is in it. `answered`: the kernel has the pager's answer. `outcome`: how it
    ended; "": it has not.
    """

    victim: int
    name: str
    address: int
    core: int
    cycle: int
    since: int
    steps: tuple[Step, ...]
    pager: int = 0
    found: int = 0
    back: int = 0
    answered: bool = False
    outcome: str = ""

    @property
    def with_pager(self) -> bool:
        """Whether the pager has it and has not answered yet: steps 4 and 5."""
        return len(self.steps) == MESSAGE and not self.outcome

    @property
    def current(self) -> int:
        """The number of the step it is in; 0: it is over."""
        if self.outcome:
            return 0
        return len(self.steps) + 1 + (self.with_pager and self.found > 0)

    @property
    def cycles(self) -> int:
        """Of the steps that are over, together."""
        return sum(step.cycles or 0 for step in self.shown())

    def shown(self) -> tuple[Step, ...]:
        """The steps that are over; step 4 as soon as a frame was found, which may happen again."""
        return self._requested(self.found).steps if self.with_pager and self.found else self.steps

    def passed(self, end: int, text: str, entry: int, core: int, number: int = 0) -> Fault:
        """With its present step over at cycle `end`. `number`: which it is, if those before it do not tell."""
        step = Step(number or len(self.steps) + 1, end - self.since, text, end, entry, core)
        return replace(self, steps=(*self.steps, step), since=end)

    def entered(self, bill: Mapping[str, int], text: str = _MAKES_MESSAGE) -> Fault:
        """The processor is in the kernel: step 2. `bill`: the entry's cycles by cause."""
        own = part_of(FAULT, bill).values()
        return self.passed(self.cycle + sum(own), text, self.cycle, self.core)

    def _requested(self, now: int) -> Fault:
        return self.passed(now, _REQUEST_TEXT, now, self.core)

    def answering(self, now: int, name: str, core: int) -> Fault:
        """The pager answers, whose own work is over: steps 4 and 5."""
        return self._requested(self.found or now).passed(now, f"a frame is found; {name} answers", now, core)

    def mapped(self, entry: int, core: int, bill: Mapping[str, int], text: str) -> Fault:
        """The answer is served by a kernel entry: step 6, which is all of that but the way back."""
        mapping = part_of(MAP, bill).values()
        return self.passed(entry + sum(mapping), text, entry, core)

    def resumed(self, end: int, entry: int, core: int) -> Fault:
        """The thread goes on: step 7, and it is over."""
        fault = self.passed(end, f"back to the instruction of {self.name}", entry, core, RESUME)
        return replace(fault, outcome=f"over, {fault.cycles} cycles after the touch")

    def told_by(self, event: Event) -> Fault:
        """With what an event says of it."""
        if event.kind == events.MESSAGE:
            if event.thread == self.victim and not self.pager:
                return replace(self, pager=event.partner)
            if event.partner == self.victim and event.thread == self.pager:
                return replace(self, answered=True)
        elif event.thread == self.victim and event.kind in _ENDS:
            return replace(self, outcome=_ENDS[event.kind])
        return self

    def is_served_by_kernel(self, seen: Sequence[Event], running: int) -> bool:
        """Whether its own kernel entry has ended it, without a message. `running`: the thread that goes on there."""
        own = [event.kind for event in seen if event.thread == self.victim]
        if any(kind in (events.MESSAGE, events.NO_PAGER, events.EXCEPTION) for kind in own):
            return False
        return events.END in own or running == self.victim


Faults = Mapping[int, Fault]
"""By victim, its latest: those that have not ended, and the last that has. Never changed in place."""


def part_of(step: int, bill: Mapping[str, int]) -> dict[str, int]:
    """What of the kernel entry that step FAULT or MAP ends in belongs to that, in cycles by cause."""
    if step == FAULT:
        return {cause: cycles for cause, cycles in bill.items() if cause in _FAULT_CAUSES}
    return {cause: cycles for cause, cycles in bill.items() if cause not in _RESUME_CAUSES}


def passed_between(before: Faults, after: Faults) -> list[Fault]:
    """The faults of which more is known after than before: a step that is over, or how they ended."""
    told = []
    for number, fault in after.items():
        known = before.get(number)
        if known is None or known.cycle != fault.cycle or len(fault.shown()) > len(known.shown()):
            told.append(fault)
        elif fault.outcome and not known.outcome:
            told.append(fault)
    return told


def telling(fault: Fault) -> str:
    """The last that is known of it."""
    step = fault.shown()[-1]
    if fault.outcome and step.number < RESUME:
        return f"page fault of {fault.name}: {fault.outcome}"
    return f"page fault of {fault.name}, step {step.number}, {step.name}: {step.text}"


def mapping_text(seen: Sequence[Event]) -> str:
    """What an answer mapped, in words."""
    for event in seen:
        if event.kind == events.MAP:
            pages = f"{event.extra} page{'s' * (event.extra != 1)}"
            return f"the kernel maps {pages}: {event.a:#x} of the pager to {event.b:#x}"
    return "the kernel takes the answer; nothing is mapped"
