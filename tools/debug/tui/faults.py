"""Page faults under way, as values: the steps that each has passed, and what events say of them.

The seven steps are those of `tools/debug/faultsteps.py`, which tells them line by line as they pass. A screen has
to show them again when somebody goes back: `tracker` notes a new value whenever something is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from l4lab.kernel import events
from l4lab.tools.debug.faultsteps import NAMES

if TYPE_CHECKING:
    from l4lab.kernel.events import Event

STEPS: Final = NAMES
WITH_PAGER: Final = 3
"""So many steps are over when the pager has the message."""
NO_MESSAGE: Final = "the kernel has served it without a message"
ITSELF: Final = "the processor enters the kernel, which maps the page itself: no message"
_REQUEST_TEXT: Final = "it asks its allocator for a page frame"
_ENDS: Final = {
    events.END: NO_MESSAGE,
    events.NO_PAGER: "there is no pager",
    events.EXCEPTION: "it has become an exception",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is over. `number`: 1 to 7. `cycles`: how long it took; None for the first."""

    number: int
    cycles: int | None
    text: str

    @property
    def name(self) -> str:
        """`touch` to `resume`."""
        return STEPS[self.number - 1]


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
        return len(self.steps) == WITH_PAGER and not self.outcome

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
        if self.with_pager and self.found:
            return (*self.steps, Step(len(self.steps) + 1, self.found - self.since, _REQUEST_TEXT))
        return self.steps

    def passed(self, end: int, text: str, number: int = 0) -> Fault:
        """With its present step over at cycle `end`. `number`: which it is, if those before it do not tell."""
        step = Step(number or len(self.steps) + 1, end - self.since, text)
        return replace(self, steps=(*self.steps, step), since=end)

    def answering(self, now: int, name: str) -> Fault:
        """The pager answers, whose own work is over."""
        return self.passed(self.found or now, _REQUEST_TEXT).passed(now, f"a frame is found; {name} answers")


Faults = dict[int, Fault]
"""By victim, its latest: those that have not ended, and the last that has. Never changed in place."""


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
    if fault.outcome and step.number < len(STEPS):
        return f"page fault of {fault.name}: {fault.outcome}"
    return f"page fault of {fault.name}, step {step.number}, {step.name}: {step.text}"


def told_by(fault: Fault, event: Event) -> Fault:
    """What an event says of the fault."""
    if event.kind == events.MESSAGE:
        if event.thread == fault.victim and not fault.pager:
            return replace(fault, pager=event.partner)
        if event.partner == fault.victim and event.thread == fault.pager:
            return replace(fault, answered=True)
    elif event.thread == fault.victim and event.kind in _ENDS:
        return replace(fault, outcome=_ENDS[event.kind])
    return fault


def mapped(seen: Sequence[Event]) -> str:
    """What an answer mapped, in words."""
    for event in seen:
        if event.kind == events.MAP:
            pages = f"{event.extra} page{'s' * (event.extra != 1)}"
            return f"the kernel maps {pages}: {event.a:#x} of the pager to {event.b:#x}"
    return "the kernel takes the answer; nothing is mapped"
