"""`l4lab bench scale`: what many cores cost the host.

Real programs: a ping-pong pair on each of 1, 12 and 48 cores, all at once, so that every core enters the kernel
all the time; and a pair on the first of 48 cores, the others idle. A figure is host time for each kernel
entry, of the process's own CPU time; machines take turns, so that what else the host does hits all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import StopReason
from l4lab.tools.bench.host.limits import Limits
from l4lab.tools.bench.pingpong_run import PROGRAM
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, table
from l4lab.tools.common.versions import versions
from l4lab.tools.runs.execute import image_with

FORMAT: Final = 1
BUSY: Final = (1, 12, 48)
IDLE_CORES: Final = 47
WARM_UP_CYCLES: Final = 8_000_000
"""By then all pairs have been made and run."""
PAIR_CYCLES: Final = 8_000_000
"""How long all pairs of a machine run in one turn, together."""
TURNS: Final = 21
LIMITS: Final = Limits(at_least={}, at_most={"entry_cost_48_over_1": 1.3, "idle_cores_overhead": 0.02})


@dataclass(slots=True, eq=False)
class _Contestant:
    """A machine with `busy` pairs running. `costs_us`: host time for a kernel entry, turn by turn."""

    machine: Machine
    busy: int
    costs_us: list[float]

    def run(self, cycles: int) -> None:
        """Let the machine go on for so many cycles of its clocks."""
        machine = self.machine
        end = max(core.clock_cycles for core in machine.cores) + cycles
        entries, start = machine.entries, time.process_time()
        result = machine.run(end)
        seconds = time.process_time() - start
        if result.reason is not StopReason.MAX_CYCLES:
            raise OperatorError(f"{PROGRAM} ended: {result.reason.value}, expected it to run on")
        self.costs_us.append(seconds / (machine.entries - entries) * 1e6)


def _contestant(cores: int, busy: int) -> _Contestant:
    root = f"{PROGRAM} --parallel={busy} --rounds=100000000 intra"
    contestant = _Contestant(Machine(image_with(PROGRAM, root, cores=cores)), busy, [])
    contestant.run(WARM_UP_CYCLES)
    return contestant


def measure() -> dict[str, Any]:
    """All figures, as the JSON document has them. Takes about half a minute."""
    with Progress("measuring", 1 + len(BUSY) + TURNS) as progress:
        busy = {}
        for count in BUSY:
            busy[count] = _contestant(count, count)
            progress.advance()
        idle = _contestant(1 + IDLE_CORES, 1)
        progress.advance()
        contestants = [*busy.values(), idle]
        for contestant in contestants:
            contestant.run(PAIR_CYCLES // contestant.busy)  # once for the host's caches
            contestant.costs_us.clear()
        for _ in range(TURNS):
            for contestant in contestants:
                contestant.run(PAIR_CYCLES // contestant.busy)
            progress.advance()
    costs_us = {count: min(contestant.costs_us) for count, contestant in busy.items()}
    idle_us = min(idle.costs_us)
    return {
        "format": FORMAT,
        "benchmark": "scale",
        "unit": "microseconds of host CPU time for each kernel entry",
        "entry_us": {str(count): round(cost, 3) for count, cost in costs_us.items()},
        "entry_us_idle_cores": round(idle_us, 3),
        "idle_cores": IDLE_CORES,
        "entry_cost_12_over_1": round(costs_us[12] / costs_us[1], 3),
        "entry_cost_48_over_1": round(costs_us[48] / costs_us[1], 3),
        "idle_cores_overhead": round(idle_us / costs_us[1] - 1, 4),
        "limits": LIMITS.at_most,
        "versions": versions(),
    }


def show(document: dict[str, Any]) -> None:
    costs = table("cores", "us for a kernel entry", "against one core")
    one = document["entry_us"]["1"]
    for count, cost in document["entry_us"].items():
        costs.add_row(f"{count} busy", f"{cost:.2f}", f"{cost / one:.2f}")
    cost = document["entry_us_idle_cores"]
    costs.add_row(f"1 busy, {IDLE_CORES} idle", f"{cost:.2f}", f"{cost / one:.2f}")
    console().print(costs)
