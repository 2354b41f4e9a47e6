"""Where, in a page fault that was recorded, the pager's allocator has found the frame: steps 4 and 5 apart.

The ledger has user code by the stretch, and a pager with its allocator inside runs in one. But a run can be had
again, cycle for cycle: the image is booted once more, up to this fault, under the debugger, which sees the
allocator's function being entered and left.
"""

from __future__ import annotations

from typing import Final

from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import Goal, GoalKind
from l4lab.emulator.files.manifest import Manifest
from l4lab.kernel.frame import TLB_MISSES
from l4lab.kernel.thread import Thread
from l4lab.tools.debug.faults import REQUEST
from l4lab.tools.debug.follower import AllocatorWatch
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.replay import ReplayError, booted_from, replay_to_fault
from l4lab.tools.runs.rundir import Run
from l4lab.tools.why.chain import USER, Chain, Segment
from l4lab.tools.why.steps import Allocated, lines

AFFORDABLE_ROWS: Final = 200_000
AFFORDABLE_CYCLES: Final = 1_000_000_000
"""A fault further on in its run than this, in kernel entries or cycles, is only looked for on demand; a few seconds."""


def image_of(run: Run, image: str | None) -> Manifest | None:
    """The manifest that `run` was booted from; None if it is not at hand, or something has changed since.

    `image`: what a person says it is, as for `l4lab boot`; then RunError if it is not.
    """
    try:
        return booted_from(run.folder, run.document, image)
    except ReplayError:
        if image is None:
            return None
        raise RunError(
            f"{image}: found another machine or other programs, expected those of {run.folder}"
        ) from None


def is_affordable(chain: Chain) -> bool:
    """Whether going there again takes no more than a few seconds."""
    operation = chain.operation
    return operation.row < AFFORDABLE_ROWS and operation.cycle < AFFORDABLE_CYCLES


def find_allocation(run: Run, chain: Chain, manifest: Manifest) -> Allocated | None:
    """When the allocator had found the frame for this page fault; None if no known allocator was at work.

    Raises ReplayError if the run comes out otherwise.
    """
    stretches = _stretches(run, chain)
    if not stretches:
        return None
    operation = chain.operation
    before = int(run.rows["start"][operation.row])
    debugger = replay_to_fault(manifest, operation.core, before, operation.cycle, operation.address)
    watch = _Founds(debugger, Programs(manifest))
    watch.watch(dict.fromkeys(sorted({segment.thread for segment in stretches}), 0))
    last = max(stretches, key=lambda segment: segment.end)
    debugger.resume(Goal(GoalKind.CLOCK, core=last.core, clock_cycles=last.end))
    for cycle, thread, misses in reversed(watch.found):
        for segment in stretches:
            if segment.thread == thread and segment.start < cycle <= segment.end:
                at_end = int(run.rows["tlb misses"][segment.row])
                return Allocated(cycle, (at_end - misses) % (1 << 32))
    return None


class _Founds(AllocatorWatch):
    """When allocators were left: cycle, thread, and how many TLB misses that had had."""

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        super().__init__(debugger, programs)
        self.found: list[tuple[int, int, int]] = []

    def passed(self, thread: Thread, back: int) -> None:
        """One has been left, or is watched until it is."""
        if not back:
            clock = self._debugger.machine.cores[thread.core].vcpu.clock_cycles
            self.found.append((clock, thread.number, int(thread.frame[TLB_MISSES])))
        self.watch({**self._inside, thread.number: back})


def _stretches(run: Run, chain: Chain) -> list[Segment]:
    """The user code between the pager's being asked and its answer."""
    starts = {line.start for line in lines(run, chain) if line.step == REQUEST and line.kind == USER}
    return [
        segment
        for hop in chain.hops
        for segment in hop.segments
        if segment.kind == USER and segment.start in starts
    ]
