"""A chain as lines to show: its segments in time, with the steps of a page fault where they pass.

The steps are those of figure 3 of 000_1be4d2f6ae8bebbc.txt (section 2.2), under the names that the debugger has
for them (`tools/debug/faultsteps.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from l4lab.emulator.costs import MILLICYCLES_PER_CYCLE
from l4lab.kernel import events
from l4lab.tools.debug.faultsteps import NAMES
from l4lab.tools.runs.rundir import Run
from l4lab.tools.why.chain import FLIGHT, KERNEL, USER, Chain, Hop, Segment

TOUCH: Final = 1
FAULT: Final = 2
MESSAGE: Final = 3
REQUEST: Final = 4
FRAME: Final = 5
MAP: Final = 6
RESUME: Final = 7

STEPS: Final = {
    TOUCH: "the program touches a page that is only virtual yet; what follows begins with that",
    FAULT: "the processor enters the kernel, which makes a message of it",
    MESSAGE: "the kernel takes the message to the pager",
    REQUEST: "the pager asks its allocator for a page frame",
    FRAME: "it has the frame, and answers",
    MAP: "the kernel takes the answer and maps the page",
    RESUME: "the kernel goes back to the instruction",
}
"""Step -> what happens then; what it is called stands in `NAMES`, from 0 on."""

_MAPS_ITSELF: Final = "the processor enters the kernel, which maps the page itself: no message"
_GOES_ON: Final = "the processor enters the kernel, which lets the thread go on: no message"

_FAULT_CAUSES: Final = ("kernel entry", "fault")
_RESUME_CAUSES: Final = ("kernel exit", "thread switch", "space switch", "schedule")
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
        return f"{self.step} {NAMES[self.step - 1]}" if self.step else ""


def steps_of(run: Run, chain: Chain) -> dict[int, str]:
    """As STEPS, for the chain of a page fault; without the steps of a pager if there was none.

    So it is with sigma0, which has the kernel map its pages; and with a thread that gets word of its faults
    from the kernel where it is, in its trampoline.
    """
    if not _without_message(run, chain):
        return STEPS
    words = _MAPS_ITSELF if _is_sigma0s(run, chain) else _GOES_ON
    return {TOUCH: STEPS[TOUCH], FAULT: words, RESUME: STEPS[RESUME]}


def _without_message(run: Run, chain: Chain) -> bool:
    """Whether the thread went on though nobody was sent a message, let alone has answered."""
    if len(chain.hops) != 1 or chain.operation.resumed is None:
        return False
    return _is_sigma0s(run, chain) or [segment.kind for segment in chain.hops[0].segments] == [KERNEL]


def _is_sigma0s(run: Run, chain: Chain) -> bool:
    """Whether it is a page fault of sigma0, the first of all tasks."""
    return run.homes.get(chain.operation.thread) == min(run.homes.values(), default=None)


def lines(run: Run, chain: Chain, allocated: Allocated | None = None) -> list[Line]:
    """The chain's segments in time, for page faults cut where a step ends inside of one.

    `allocated`: where step 5 begins, if that is known (`tools/why/allocation.py`). Else it begins behind the last
    system call that the pager makes before it answers; with none, it takes no time of its own.
    """
    is_fault = chain.operation.kind == events.FAULT
    alone = is_fault and _without_message(run, chain)
    found: list[Line] = []
    for place, hop in enumerate(chain.hops):
        closing = place == len(chain.hops) - 1
        for number, segment in enumerate(hop.segments):
            words = _words(run, hop, number)
            if not is_fault:
                found.append(_line(0, hop, segment, segment.start, segment.causes, words))
            elif place == number == 0:
                after = (RESUME, _BACK) if alone else (RESUME if closing else MESSAGE, words)
                found += _split(hop, segment, (FAULT, "kernel: page fault"), after, _FAULT_CAUSES)
            elif hop.to == chain.operation.thread and number == len(hop.segments) - 1:
                found += _split(hop, segment, (MAP, words), (RESUME, _BACK), None)
            else:
                step = RESUME if alone else _step(chain, place, number)
                found.append(_line(step, hop, segment, segment.start, segment.causes, words))
    if not is_fault:
        return found
    return _cut_at(run, found, allocated) if allocated is not None else _with_frame(chain, found)


def _step(chain: Chain, place: int, number: int) -> int:
    """To which step of figure 3 a whole segment of a page fault's chain belongs; REQUEST stands for FRAME, too."""
    hop = chain.hops[place]
    if place == 0:
        return MESSAGE
    if not hop.to:
        return RESUME
    if place == 1 and not any(segment.kind == USER for segment in hop.segments[: number + 1]):
        return MESSAGE  # the pager has the message, but does not run yet
    if hop.to == chain.operation.thread and not any(
        segment.kind == USER for segment in hop.segments[number:]
    ):
        return MAP
    return REQUEST


def _with_frame(chain: Chain, found: list[Line]) -> list[Line]:
    """`found` with FRAME behind the last thing that the pager had the kernel do before its answer."""
    victim = chain.operation.thread
    pager = next((hop.holder for hop in reversed(chain.hops) if hop.to == victim), 0)
    asked = [place for place, line in enumerate(found) if line.step == REQUEST and _is_own_entry(line)]
    if not asked:
        return found
    return [
        replace(line, step=FRAME)
        if place > asked[-1] and line.step == REQUEST and line.thread == pager
        else line
        for place, line in enumerate(found)
    ]


def _is_own_entry(line: Line) -> bool:
    return line.kind == KERNEL and not line.what.startswith(_INTERRUPTS)


def _cut_at(run: Run, found: list[Line], allocated: Allocated) -> list[Line]:
    """`found` with FRAME from a cycle on, which lies in user code of the pager."""
    result: list[Line] = []
    for line in found:
        if line.step != REQUEST:
            result.append(line)
        elif line.start >= allocated.cycle:
            result.append(replace(line, step=FRAME))
        elif line.kind == USER and line.start + line.cycles > allocated.cycle:
            result += _halves(run, line, allocated)
        else:
            result.append(line)
    return result


def _halves(run: Run, line: Line, allocated: Allocated) -> tuple[Line, Line]:
    """User code up to and from the moment at which the frame was found."""
    first_cycles = allocated.cycle - line.start
    refills = line.causes.get("tlb refill", 0)
    later = allocated.misses_after * run.tlb_miss_millicycles // MILLICYCLES_PER_CYCLE
    later = min(max(later, refills - first_cycles), refills, line.cycles - first_cycles)
    others = {cause: cycles for cause, cycles in line.causes.items() if cause != "tlb refill"}
    parts: tuple[dict[str, int], dict[str, int]] = {}, {}
    room = first_cycles - (refills - later)
    for cause, cycles in others.items():
        taken = min(cycles, room)
        room -= taken
        parts[0][cause], parts[1][cause] = taken, cycles - taken
    parts[0]["tlb refill"], parts[1]["tlb refill"] = refills - later, later
    before, after = ({cause: n for cause, n in part.items() if n} for part in parts)
    return (
        replace(line, cycles=first_cycles, causes=before, details=before),
        replace(
            line,
            step=FRAME,
            start=allocated.cycle,
            cycles=line.cycles - first_cycles,
            causes=after,
            details=after,
        ),
    )


def _split(
    hop: Hop,
    segment: Segment,
    first: tuple[int, str],
    second: tuple[int, str],
    causes: tuple[str, ...] | None,
) -> list[Line]:
    """Two lines for a kernel entry with a step's end in it, each with its step and words.

    The ledger does not tell in which order causes came. The first line gets `causes`, or None: all but those
    of the way back to user mode.
    """
    parts: tuple[dict[str, int], dict[str, int]] = {}, {}
    for cause, cycles in segment.causes.items():
        in_first = cause in causes if causes is not None else cause not in _RESUME_CAUSES
        parts[not in_first][cause] = cycles
    found = []
    at = segment.start
    for (step, words), part in zip((first, second), parts, strict=True):
        if part:
            found.append(_line(step, hop, segment, at, part, words))
        at += sum(part.values())
    return found


def _line(step: int, hop: Hop, segment: Segment, start: int, causes: dict[str, int], words: str) -> Line:
    cycles = sum(causes.values())
    details = segment.meanwhile if segment.meanwhile else causes
    return Line(step, start, cycles, segment.core, hop.holder, segment.kind, words, causes, details)


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
