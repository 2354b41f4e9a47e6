"""`l4lab bench kernel`: what kernel entries cost the host, and that the cost does not grow.

Real programs (`userland/kernelbench`) make one kind of kernel entry over and over, and say when they
have everything ready for it: what comes before is not measured. The yardstick is one
stop and start of the stock Python binding of the engine, measured in the same run.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any, Final

from l4lab.emulator.machine import Machine
from l4lab.emulator.results import StopReason
from l4lab.emulator.yardstick.stock import start_stop_us
from l4lab.kernel.errors import KernelBug
from l4lab.tools.bench.host.limits import Limits
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, table
from l4lab.tools.common.versions import versions
from l4lab.tools.runs.execute import image_with

MODES: Final = {
    "null": "null system call",
    "intra": "call and reply, one address space",
    "inter": "call and reply, two address spaces",
    "fault": "page fault through a pager, and unmap",
}
FEW: Final = 10
MANY: Final = 10_000
CROWDS: Final = ("threads", "tasks", "mappings")
MANY_CORES: Final = 48
ROUNDS: Final = 10_000
READY: Final = b"ready\n"
DONE: Final = b"done\n"
REPEATS: Final = 3
RAM_BYTES: Final = 1 << 30
FORMAT: Final = 1
LIMITS: Final = Limits(at_least={"ipc_entry_ratio": 0.36}, at_most={})


@dataclass(frozen=True, slots=True)
class Figure:
    """Cost of one kernel entry of some kind: of the host's time, and of the emulated machine's."""

    host_us: float
    entries_per_round: float
    cycles_per_round: float


def measure_mode(mode: str, population: str = "", cores: int = 1) -> Figure:
    """One run, from where the program says that it is ready to where it is done.

    Without garbage collections in between, whose time would be that of all objects there are.
    """
    marks: dict[bytes, tuple[float, int, int]] = {}

    def note(output: bytes) -> None:
        marks[output] = time.process_time(), machine.entries, machine.cores[0].clock_cycles

    root = f"kernelbench {mode} {ROUNDS} {population}"
    manifest = image_with("hello", root, cores=cores, ram_bytes=RAM_BYTES, modules=())
    machine = Machine(manifest, console=note)
    gc.collect()
    gc.disable()
    try:
        result = machine.run()
    finally:
        gc.enable()
    if result.reason is not StopReason.ROOT_ENDED or result.exit_code or list(marks) != [READY, DONE]:
        raise KernelBug(f"kernelbench {mode} ended with {result.reason}: {result.console.decode()}")
    seconds, entries, cycles = (end - start for start, end in zip(marks[READY], marks[DONE], strict=True))
    return Figure(seconds / entries * 1e6, entries / ROUNDS, cycles / ROUNDS)


def _situations() -> dict[str, tuple[str, str, int]]:
    """Name -> mode, population, cores."""
    situations = {mode: (mode, "", 1) for mode in MODES}
    for what in CROWDS:
        for count in (FEW, MANY):
            situations[f"{what}_{count}"] = "inter", f"{what}={count}", 1
    situations["cores_1"] = "inter", "", 1
    situations[f"cores_{MANY_CORES}"] = "inter", "", MANY_CORES
    return situations


def measure() -> dict[str, Any]:
    """All figures. Takes about a minute on a quiet host; host times are the process's own CPU time.

    The situations take turns, and each counts with its best: what else the host does meets all alike.
    """
    situations = _situations()
    best: dict[str, Figure] = {}
    stock_us = float("inf")
    with Progress("measuring", REPEATS * len(situations)) as progress:
        for _ in range(REPEATS):
            stock_us = min(stock_us, start_stop_us())
            for name, (mode, population, cores) in situations.items():
                figure = measure_mode(mode, population, cores)
                if name not in best or figure.host_us < best[name].host_us:
                    best[name] = figure
                progress.advance()
    modes = {mode: best[mode] for mode in MODES}
    growth = {name: figure.host_us for name, figure in best.items() if name not in MODES}
    return {
        "format": FORMAT,
        "versions": versions(),
        "stock_start_stop_us": stock_us,
        "entry_us": {mode: figure.host_us for mode, figure in modes.items()},
        "entries_per_round": {mode: figure.entries_per_round for mode, figure in modes.items()},
        "cycles_per_round": {mode: figure.cycles_per_round for mode, figure in modes.items()},
        "ipc_entry_ratio": stock_us / modes["inter"].host_us,
        "inter_entry_us_with": growth,
        "growth": {what: growth[f"{what}_{MANY}"] / growth[f"{what}_{FEW}"] for what in CROWDS}
        | {"cores": growth[f"cores_{MANY_CORES}"] / growth["cores_1"]},
    }


def show(figures: dict[str, Any]) -> None:
    entries = table("kernel entries of", "host µs per entry", "entries a round", "cycles a round")
    for mode, text in MODES.items():
        entries.add_row(
            text,
            f"{figures['entry_us'][mode]:.2f}",
            f"{figures['entries_per_round'][mode]:.1f}",
            f"{figures['cycles_per_round'][mode]:.0f}",
        )
    console().print(entries)
    print(
        f"\none stop and start of the stock binding: {figures['stock_start_stop_us']:.2f} µs; "
        f"over one entry between two address spaces (ipc_entry_ratio): {figures['ipc_entry_ratio']:.2f}"
    )
    growth = figures["growth"]
    print(
        f"cost of such an entry with {MANY} over {FEW} threads {growth['threads']:.2f}, "
        f"tasks {growth['tasks']:.2f}, mappings {growth['mappings']:.2f}; "
        f"with {MANY_CORES} cores over 1: {growth['cores']:.2f}"
    )
