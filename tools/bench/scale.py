"""`l4lab bench scale`: what many cores cost the host.

Real programs: a ping-pong pair on each of 1, 12 and 48 cores, all at once, so that every core enters the kernel
all the time; and a pair on the first of 48 cores, the others idle. A figure is host time for each kernel
entry, of the process's own CPU time; machines take turns, so that what else the host does hits all of them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import BUNDLED_IMAGES, BUNDLED_PROGRAMS
from l4lab.emulator.files.manifest import Manifest, Module, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import StopReason
from l4lab.tools.bench import limits
from l4lab.tools.bench.limits import Limits
from l4lab.tools.bench.pingpong import PROGRAM
from l4lab.tools.common.versions import versions

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


def _manifest(cores: int, busy: int) -> Manifest:
    base = load_manifest(BUNDLED_IMAGES / f"{PROGRAM}.toml")
    line = f"{PROGRAM} --parallel={busy} --rounds=100000000 intra"
    return dataclasses.replace(base, cores=cores, roottask=Module(BUNDLED_PROGRAMS / PROGRAM, line))


def _contestant(cores: int, busy: int) -> _Contestant:
    contestant = _Contestant(Machine(_manifest(cores, busy)), busy, [])
    contestant.run(WARM_UP_CYCLES)
    return contestant


def measure() -> dict[str, Any]:
    """All figures, as the JSON document has them. Takes about half a minute."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("measuring", total=1 + len(BUSY) + TURNS)
        busy = {}
        for count in BUSY:
            busy[count] = _contestant(count, count)
            progress.advance(bar)
        idle = _contestant(1 + IDLE_CORES, 1)
        progress.advance(bar)
        contestants = [*busy.values(), idle]
        for contestant in contestants:
            contestant.run(PAIR_CYCLES // contestant.busy)  # once for the host's caches
            contestant.costs_us.clear()
        for _ in range(TURNS):
            for contestant in contestants:
                contestant.run(PAIR_CYCLES // contestant.busy)
            progress.advance(bar)
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


def run_bench(*, as_json: bool, check: bool = False) -> int:
    """Measure and print; the exit code. `check`: hold the figures against LIMITS."""
    return limits.run_bench(measure, partial(_show, as_json=as_json), LIMITS, check=check)


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2))
        return
    table = Table("cores", box=None, pad_edge=False, header_style="bold")
    table.add_column("us for a kernel entry", justify="right")
    table.add_column("against one core", justify="right")
    one = document["entry_us"]["1"]
    for count, cost in document["entry_us"].items():
        table.add_row(f"{count} busy", f"{cost:.2f}", f"{cost / one:.2f}")
    cost = document["entry_us_idle_cores"]
    table.add_row(f"1 busy, {IDLE_CORES} idle", f"{cost:.2f}", f"{cost / one:.2f}")
    Console(highlight=False, file=sys.stdout).print(table)
