"""Where, in a page fault that was recorded, the pager's allocator has found the frame: steps 4 and 5 apart.

The ledger has user code by the stretch, and a pager with its allocator inside runs in one. But a run can be had
again, cycle for cycle: the image is booted once more, up to this fault, under the debugger, which sees the
allocator's function being entered and left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from l4lab.emulator.debug.debugged import DebuggedMachine, Entry
from l4lab.emulator.debug.debugging import Debugger, read_memory
from l4lab.emulator.debug.stops import Breakpoint, Goal, GoalKind
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import BUNDLED_IMAGES
from l4lab.emulator.files.manifest import Manifest, find_image, load_manifest
from l4lab.kernel.events import Event
from l4lab.kernel.frame import ESP, TLB_MISSES
from l4lab.kernel.traps import PageFault
from l4lab.tools.debug.faultsteps import ALLOCATORS
from l4lab.tools.ledger.timeline import Operation
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.rundir import Run
from l4lab.tools.why.chain import USER, Chain, Segment
from l4lab.tools.why.steps import REQUEST, Allocated, lines

AFFORDABLE_ROWS: Final = 200_000
AFFORDABLE_CYCLES: Final = 1_000_000_000
"""A fault further on in its run than this, in kernel entries or cycles, is only looked for on demand; a few seconds."""


def image_of(run: Run, image: str | None) -> Manifest | None:
    """The manifest that `run` was booted from; None if it is not at hand, or something has changed since.

    Looked for by its name among the bundled images, here, in the run and beside it. `image`: what a person says it
    is, as for `l4lab boot`; then RunError if it is not.
    """
    configuration = run.document.get("configuration")
    recorded: dict[str, Any] = configuration if isinstance(configuration, dict) else {}
    if image is not None:
        manifest = load_manifest(find_image(image))
        if not _is_same(manifest, recorded):
            raise RunError(
                f"{image}: found another machine or other programs, expected those of {run.folder}"
            )
        return manifest
    if Path(run.image_name).name != run.image_name:
        return None
    for place in (BUNDLED_IMAGES, Path(), run.folder, run.folder.absolute().parent):
        with suppress(OperatorError):
            if (place / run.image_name).is_file():
                manifest = load_manifest(place / run.image_name)
                if _is_same(manifest, recorded):
                    return manifest
    return None


def _is_same(manifest: Manifest, recorded: dict[str, Any]) -> bool:
    found = manifest.resolved()
    return all(found[part] == recorded.get(part) for part in ("machine", "boot"))


def is_affordable(chain: Chain) -> bool:
    """Whether going there again takes no more than a few seconds."""
    operation = chain.operation
    return operation.row < AFFORDABLE_ROWS and operation.cycle < AFFORDABLE_CYCLES


class AnotherRun(RunError):
    """Booted again, the image has not come to this page fault: another l4lab has recorded it."""


def find_allocation(run: Run, chain: Chain, manifest: Manifest) -> Allocated | None:
    """When the allocator had found the frame for this page fault; None if no known allocator was at work.

    Raises AnotherRun.
    """
    stretches = _stretches(run, chain)
    if not stretches:
        return None
    last = max(segment.end for segment in stretches)
    debugger = Debugger(DebuggedMachine(manifest))
    operation = chain.operation
    before = int(run.rows["start"][operation.row])
    debugger.resume(Goal(GoalKind.CLOCK, core=operation.core, clock_cycles=before))
    seen = _expect_fault(debugger, operation)
    watch = _AllocatorWatch(debugger, Programs(manifest), {segment.thread for segment in stretches})
    core = next(segment.core for segment in stretches if segment.end == last)
    debugger.resume(Goal(GoalKind.CLOCK, core=core, clock_cycles=last))
    if not seen:
        raise AnotherRun(f"{run.folder}: {operation.name}: booted again, the image runs another way")
    for cycle, thread, misses in reversed(watch.found):
        for segment in stretches:
            if segment.thread == thread and segment.start < cycle <= segment.end:
                at_end = int(run.rows["tlb misses"][segment.row])
                return Allocated(cycle, (at_end - misses) % (1 << 32))
    return None


def _expect_fault(debugger: Debugger, operation: Operation) -> list[int]:
    """A list that is empty until this very page fault enters the kernel."""
    seen: list[int] = []

    def observe(entry: Entry, _: Sequence[Event], before: bool) -> None:
        trap = entry.trap
        if (
            before
            and isinstance(trap, PageFault)
            and (entry.now, entry.core.number) == (operation.cycle, operation.core)
            and trap.address == operation.address
        ):
            seen.append(entry.now)

    debugger.observers.append(observe)
    return seen


def _stretches(run: Run, chain: Chain) -> list[Segment]:
    """The user code between the pager's being asked and its answer."""
    starts = {line.start for line in lines(run, chain) if line.step == REQUEST and line.kind == USER}
    return [
        segment
        for hop in chain.hops
        for segment in hop.segments
        if segment.kind == USER and segment.start in starts
    ]


class _AllocatorWatch:
    """Notes whenever one of `threads` leaves an allocator: `found` has (cycle, thread, its TLB misses so far)."""

    def __init__(self, debugger: Debugger, programs: Programs, threads: set[int]) -> None:
        self.found: list[tuple[int, int, int]] = []
        self._debugger = debugger
        self._threads = threads
        for number in sorted(threads):
            thread = debugger.machine.kernel.threads.get(number)
            program = programs.of_task(debugger.machine, thread.task) if thread is not None else None
            if thread is None or thread.task is None or program is None:
                continue
            for name in ALLOCATORS:
                address = program.symbols.address_of(name)
                if address is not None:
                    debugger.probes[Breakpoint(address, thread.task.number)] = self._entered

    def _entered(self, number: int) -> None:
        thread = self._debugger.machine.kernel.threads[number]
        if number in self._threads and thread.task is not None:
            word = read_memory(self._debugger.machine, thread.task, thread.frame[ESP], 4)
            back = Breakpoint(int.from_bytes(word, "little"), thread.task.number)
            self._debugger.probes[back] = self._left

    def _left(self, number: int) -> None:
        thread = self._debugger.machine.kernel.threads[number]
        cycle = self._debugger.machine.cores[thread.core].vcpu.clock_cycles
        self.found.append((cycle, number, int(thread.frame[TLB_MISSES])))
