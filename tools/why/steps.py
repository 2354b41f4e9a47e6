"""A chain as lines to show: its segments in time, with the steps of a page fault where they pass.

The steps are those of figure 3 of 000_1be4d2f6ae8bebbc.txt (section 2.2), as a `Fault` that is made of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from l4lab.emulator.costs import MILLICYCLES_PER_CYCLE
from l4lab.kernel import events
from l4lab.tools.debug import faults
from l4lab.tools.debug.faults import FAULT, FRAME, MAP, MESSAGE, REQUEST, RESUME, TOUCH, Fault, Step
from l4lab.tools.runs.rundir import Run
from l4lab.tools.why.chain import FLIGHT, KERNEL, USER, Chain, Hop, Segment

STEPS: Final = {
    TOUCH: "the program touches a page that is only virtual yet; what follows begins with that",
    FAULT: "the processor enters the kernel, which makes a message of it",
    MESSAGE: "the kernel takes the message to the pager",
    REQUEST: "the pager asks its allocator for a page frame",
    FRAME: "it has the frame, and answers",
    MAP: "the kernel takes the answer and maps the page",
    RESUME: "the kernel goes back to the instruction",
}
"""Step -> what happens then; what it is called stands in `faults.NAMES`, from 0 on."""

_BACK: Final = "kernel: back to the instruction"
_INTERRUPTS: Final = ("kernel: timer", "kernel: interrupt", "kernel: takes the interrupt")


class Allocated(NamedTuple):
    """When the pager's allocator had found the frame, and how many TLB misses the pager has from then on."""

    cycle: int
    misses_after: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the answer: a segment of the chain, or the part of one that belongs to one step.

    `step`: of figure 3, for a page fault; 0 otherwise. `thread`: who has the chain. `details`: what is shown
    behind it, cycles by name.
    """

    step: int
    start: int
    cycles: int
    core: int
    thread: int
    kind: str
    what: str
    causes: dict[str, int]
    details: dict[str, int]

    @property
    def step_name(self) -> str:
        """`2 fault`; empty if there are no steps."""
        return f"{self.step} {faults.NAMES[self.step - 1]}" if self.step else ""


def steps_of(run: Run, chain: Chain) -> dict[int, str]:
    """As STEPS, for the chain of a page fault; without the steps of a pager if there was none.

    So it is with sigma0, which has the kernel map its pages; and with a thread that gets word of its faults
    from the kernel where it is, in its trampoline.
    """
    if not _without_message(run, chain):
        return STEPS
    words = faults.MAPS_ITSELF if _is_sigma0s(run, chain) else faults.GOES_ON
    return {TOUCH: STEPS[TOUCH], FAULT: words, RESUME: STEPS[RESUME]}


def _without_message(run: Run, chain: Chain) -> bool:
    """Whether the thread went on though nobody was sent a message, let alone has answered."""
    if len(chain.hops) != 1 or chain.operation.resumed is None:
        return False
    return _is_sigma0s(run, chain) or [segment.kind for segment in chain.hops[0].segments] == [KERNEL]


def _is_sigma0s(run: Run, chain: Chain) -> bool:
    """Whether it is a page fault of sigma0, the first of all tasks."""
    return run.homes.get(chain.operation.thread) == min(run.homes.values(), default=None)


# --- the steps ----------------------------------------------------------------------------------------


def fault_of(run: Run, chain: Chain, allocated: Allocated | None = None) -> Fault:
    """A page fault with its steps, as far as its chain goes.

    `allocated`: where step 5 begins, if that is known (`tools/why/allocation.py`). Else it begins behind the last
    system call that the pager makes before it answers; with none, it takes no time of its own.
    """
    operation, hops = chain.operation, chain.hops
    at, core, victim = operation.cycle, operation.core, operation.thread
    touch = Step(TOUCH, None, STEPS[TOUCH], at, at, core)
    fault = Fault(victim, run.thread_name(victim), operation.address, core, at, at, (touch,))
    fault = fault.entered(hops[0].segments[0].causes)
    if len(hops) == 1:
        return fault.resumed(chain.end, at, core) if _without_message(run, chain) else fault
    runs = [segment for segment in hops[1].segments if segment.kind == USER]
    last = hops[1].segments[-1]
    delivered = runs[0].start if runs else last.start if hops[1].to == victim else last.end
    fault = fault.passed(delivered, STEPS[MESSAGE], delivered, core)
    answering = next((hop for hop in reversed(hops[1:]) if hop.to == victim), None)
    if answering is None:
        return fault
    runs = [segment for segment in answering.segments if segment.kind == USER]
    answers = max(runs[-1].end if runs else answering.segments[0].start, delivered)
    found = allocated.cycle if allocated is not None else _behind_calls(chain, answering, delivered, answers)
    last = answering.segments[-1]
    fault = replace(fault, found=found).answering(answers, run.thread_name(answering.holder), core)
    return fault.mapped(last.start, core, last.causes, STEPS[MAP]).resumed(chain.end, last.start, core)


def _behind_calls(chain: Chain, answering: Hop, delivered: int, answers: int) -> int:
    """Where the pager goes on behind the last that anybody had the kernel do before the answer; 0: nobody had."""
    found = 0
    asked = False
    for hop in chain.hops[1:]:
        for segment in hop.segments:
            if delivered <= segment.start < answers:
                if segment.kind == KERNEL and not segment.what.startswith(_INTERRUPTS):
                    found, asked = 0, True
                elif asked and not found and hop.holder == answering.holder:
                    found = segment.start
    return found


# --- as lines -----------------------------------------------------------------------------------------


def lines(run: Run, chain: Chain, allocated: Allocated | None = None) -> list[Line]:
    """The chain's segments in time, for page faults cut where a step ends inside of one (see `fault_of`)."""
    begins = [(0, 0)]
    if chain.operation.kind == events.FAULT:
        fault = fault_of(run, chain, allocated)
        begins = [(step.end - (step.cycles or 0), step.number) for step in fault.steps[1:]]
        begins += [(fault.since, fault.current)] if not fault.outcome else []
    found: list[Line] = []
    for hop in chain.hops:
        for number, segment in enumerate(hop.segments):
            inside = [cycle for cycle, _ in begins if segment.start < cycle < segment.end]
            rest, words = segment.causes, _words(run, hop, number)
            for start, end in pairwise((segment.start, *dict.fromkeys(inside), segment.end)):
                step = next(step for cycle, step in reversed(begins) if cycle <= start)
                causes = rest
                if end < segment.end:
                    causes = _first_part(run, segment, step, end, allocated)
                    rest = {name: left for name, n in rest.items() if (left := n - causes.get(name, 0))}
                if step == FAULT:
                    said = "kernel: page fault"
                elif step == RESUME and (
                    hop.to == chain.operation.thread or segment.start == chain.operation.cycle
                ):
                    said = _BACK
                else:
                    said = words
                details = segment.meanwhile or causes
                found.append(
                    Line(
                        step,
                        start,
                        end - start,
                        segment.core,
                        hop.holder,
                        segment.kind,
                        said,
                        causes,
                        details,
                    )
                )
    return found


def _first_part(
    run: Run, segment: Segment, step: int, end: int, allocated: Allocated | None
) -> dict[str, int]:
    """What of a segment belongs to `step`, which ends inside of it. The ledger does not tell in which order it came."""
    if segment.kind == KERNEL:
        return faults.part_of(step, segment.causes)
    assert allocated is not None
    refills = segment.causes.get("tlb refill", 0)
    cycles = end - segment.start
    later = allocated.misses_after * run.tlb_miss_millicycles // MILLICYCLES_PER_CYCLE
    later = min(max(later, refills - cycles), refills, segment.end - end)
    room = cycles - (refills - later)
    parts = {}
    for cause, spent in segment.causes.items():
        taken = refills - later if cause == "tlb refill" else min(spent, room)
        room -= taken if cause != "tlb refill" else 0
        if taken:
            parts[cause] = taken
    return parts


def _words(run: Run, hop: Hop, number: int) -> str:
    segment = hop.segments[number]
    if segment.kind == USER:
        return "runs"
    if segment.kind == KERNEL:
        last = number == len(hop.segments) - 1
        if last and hop.to:
            return f"{segment.what}: message to {run.thread_name(hop.to)}"
        if not last and hop.segments[number + 1].kind == FLIGHT:
            return f"{segment.what}: request to another core"
    return segment.what


def step_sums(found: list[Line]) -> dict[int, int]:
    """Step of figure 3 -> its cycles in the lines of a page fault. They add up to its chain."""
    sums = dict.fromkeys(STEPS, 0)
    for line in found:
        sums[line.step] += line.cycles
    return sums
