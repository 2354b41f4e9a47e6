"""`l4lab bench debug`: what a debugger costs while it waits for something to happen, and the way back.

Each ratio is the speed under the debugger, snapshots and all, over that of an undebugged run: both take
turns in one process, and it is that of the best of either, in the process's own CPU time. Going back is
measured in the time that a person waits.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.debugport import EVERY_SPACE, DebugPort
from l4lab.emulator.debug.stops import Breakpoint, Stop, StopKind
from l4lab.emulator.files.manifest import Manifest
from l4lab.emulator.machine import Machine
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import EBX, ECX, EIP, ESI, INSTRUCTIONS, read_counter
from l4lab.kernel.traps import HOST_STOP, SYSTEM_CALL, Trap
from l4lab.tools.bench.host.engine import CODE_ADDRESS, DATA_ADDRESS, LOOPS, SYSTEM_CALL_CODE, Guest, Loop
from l4lab.tools.bench.host.limits import Limits
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.bench.pma_run import write_image
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, table
from l4lab.tools.common.versions import versions

FORMAT: Final = 1

ROUNDS: Final = 3
LOOP_ROUNDS: Final = 7
BREAKPOINTS: Final = 50
RUN: Final = PmaSetup(cores=4, pages=100, tasks=100)
"""The paper's benchmark, four pagers and four processes; above 10^8 cycles."""
PLACES: Final = 5
"""From how many moments of the run steps back are taken."""
STEPS: Final = 3
"""How many from each."""
SITUATIONS: Final = {
    "breakpoints": "breakpoints elsewhere",
    "breakpoint_of_another": "another space's breakpoint in it",
    "stepping": "stepping out of it",
}
"""What a loop runs under: by the name of its figure, for people."""
LIMITS: Final = Limits(
    at_least={
        "continue_ratio": 0.5,
        **{f"{loop.name}_loop_{what}_ratio": 0.5 for loop in LOOPS for what in SITUATIONS},
    },
    at_most={"reverse_step_seconds": 1.0},
)

EXPLANATION: Final = """
whole machine: pagers and their clients, on 4 cores; most of the host's time goes into kernel entries
loops:         user code alone; breakpoints of this address space elsewhere, one of another space in the
               loop, and a step that is to end outside the loop (what `next` and `step` ask for)
step back:     reverse-stepi, from {places} moments of the run of {cycles:.0f} million cycles; the longest wait
"""


# --- user code ---------------------------------------------------------------------------------------


def measure_loop(loop: Loop) -> list[float]:
    """Its speed under each of SITUATIONS; the best of LOOP_ROUNDS runs each, all taking turns."""
    guest = Guest(loop.code + SYSTEM_CALL_CODE)
    port = DebugPort(guest.engine)
    frame = guest.thread()
    elsewhere = [(CODE_ADDRESS + 0x800 + 8 * i, EVERY_SPACE) for i in range(BREAKPOINTS)]
    another = [(CODE_ADDRESS, 0xFFF << 12)]
    last = CODE_ADDRESS + len(loop.code)

    def seconds(places: list[tuple[int, int]], *, steps: bool, active: bool = True) -> float:
        frame[EIP], frame[ECX], frame[ESI], frame[EBX] = CODE_ADDRESS, loop.iterations, 0, DATA_ADDRESS
        port.activate(active)
        port.set_breakpoints(places)
        done = read_counter(frame, INSTRUCTIONS)
        port.stop_at_count(frame if steps else None, done + 1, CODE_ADDRESS, len(loop.code))
        start = time.process_time()
        trap: Trap = guest.vcpu.run(frame, 1 << 60)
        spent = time.process_time() - start
        executed = read_counter(frame, INSTRUCTIONS) - done
        expected = loop.iterations * loop.instructions + (0 if steps else 1)
        if (trap, executed) != (HOST_STOP if steps else SYSTEM_CALL, expected) or (
            steps and frame[EIP] != last
        ):
            raise KernelBug(f"{loop.name} loop: {trap} after {executed} instructions, expected {expected}")
        return spent

    turns = [
        (
            seconds([], steps=False, active=False),
            seconds(elsewhere, steps=False),
            seconds(another, steps=False),
            seconds([], steps=True),
        )
        for _ in range(LOOP_ROUNDS)
    ]
    best = [min(column) for column in zip(*turns, strict=True)]
    return [best[0] / each for each in best[1:]]


# --- the whole machine -------------------------------------------------------------------------------


def load_run() -> Manifest:
    """The run that is debugged."""
    with tempfile.TemporaryDirectory() as folder:
        return write_image(RUN, Path(folder))


def breakpoints_that_never_stop(machine: Machine) -> list[Breakpoint]:
    """In every task, between instructions: so that all code is looked at, and nobody stops."""
    return [Breakpoint(0x0804_0000 + 0x10 * i) for i in range(BREAKPOINTS // 2)] + [
        Breakpoint(0xB3F0_0000 + 0x10 * i, task)
        for task in machine.kernel.tasks
        for i in range(BREAKPOINTS // 4)
    ]


def run_plain(manifest: Manifest) -> tuple[float, list[int]]:
    """CPU seconds, and the clocks at the end."""
    machine = Machine(manifest)
    start = time.process_time()
    machine.run()
    return time.process_time() - start, [core.clock_cycles for core in machine.cores]


def run_debugged(manifest: Manifest) -> tuple[float, Debugger]:
    """CPU seconds, and the debugger at the end of the run."""
    machine = DebuggedMachine(manifest)
    debugger = Debugger(machine)
    debugger.set_breakpoints(breakpoints_that_never_stop(machine))
    start = time.process_time()
    stop = debugger.resume()
    spent = time.process_time() - start
    if stop.kind is not StopKind.END:
        raise KernelBug(f"the run stopped: {stop.kind.value} {stop.text}")
    return spent, debugger


def step_back_seconds(debugger: Debugger) -> list[float]:
    """How long steps back take, from moments all over the run."""
    end = debugger.machine.cores[0].clock_cycles
    waits: list[float] = []
    for place in range(PLACES, 0, -1):
        stop = _in_user_code(debugger, end * place // (PLACES + 1))
        assert stop.thread is not None
        number = stop.thread.number
        for _ in range(STEPS):
            before = debugger.machine.kernel.threads[number].frame[INSTRUCTIONS]
            start = time.perf_counter()
            stop = debugger.step_back(number)
            waits.append(time.perf_counter() - start)
            after = debugger.machine.kernel.threads[number].frame[INSTRUCTIONS]
            if stop.kind is not StopKind.STEP or (before - after) & 0xFFFFFFFF != 1:
                raise KernelBug(f"a step back went from instruction {before} to {after}")
    return waits


def _in_user_code(debugger: Debugger, cycle: int) -> Stop:
    """Where core 0 reaches a cycle, or the first moment after it at which a thread runs there."""
    while True:
        stop = debugger.go_to_clock(0, cycle)
        if debugger.machine.cores[0].decision.thread is not None:
            return stop
        cycle += 1000


def measure() -> dict[str, Any]:
    """All figures; takes about half a minute on a quiet host."""
    with Progress("measuring", len(LOOPS) + ROUNDS + 1) as progress:
        loops = {}
        for loop in LOOPS:
            for what, ratio in zip(SITUATIONS, measure_loop(loop), strict=True):
                loops[f"{loop.name}_loop_{what}_ratio"] = ratio
            progress.advance()
        manifest = load_run()
        plain_seconds, debugged_seconds = [], []
        for _ in range(ROUNDS):
            seconds, clocks = run_plain(manifest)
            plain_seconds.append(seconds)
            seconds, debugger = run_debugged(manifest)
            debugged_seconds.append(seconds)
            if clocks != [core.clock_cycles for core in debugger.machine.cores]:
                raise KernelBug("under the debugger the run took other cycles")
            progress.advance()
        snapshots = list(debugger.history.snapshots)
        waits = step_back_seconds(debugger)
        progress.advance()
    return {
        "format": FORMAT,
        "versions": versions(),
        "cycles": max(clocks),
        "continue_ratio": min(plain_seconds) / min(debugged_seconds),
        **loops,
        "reverse_step_seconds": max(waits),
        "reverse_step_seconds_least": min(waits),
        "seconds": {"undebugged": min(plain_seconds), "debugged": min(debugged_seconds)},
        "snapshots": {"count": len(snapshots), "mib": sum(s.size_bytes for s in snapshots) / (1 << 20)},
    }


def show(figures: dict[str, Any]) -> None:
    speeds = table("speed under the debugger over that without", "ratio")
    speeds.add_row("whole machine", f"{figures['continue_ratio']:.2f}")
    for loop in LOOPS:
        for what, words in SITUATIONS.items():
            speeds.add_row(f"{loop.name} loop, {words}", f"{figures[f'{loop.name}_loop_{what}_ratio']:.2f}")
    console(soft_wrap=True).print(speeds)
    print(EXPLANATION.format(places=PLACES, cycles=figures["cycles"] / 1e6))
    print(
        f"step back: {figures['reverse_step_seconds']:.2f} s at most; {figures['snapshots']['count']} snapshots, "
        f"{figures['snapshots']['mib']:.0f} MiB"
    )
