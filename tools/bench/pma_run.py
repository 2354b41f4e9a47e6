"""The memory benchmark: one run of it, checked against the kernel's own counts; and `l4lab bench pma`.

What the programs print is read back here. Cycles of a process are those of its own core between its own
reads of the cycle counter; `allocation` is getting addresses and touching the pages, as in
000_1be4d2f6ae8bebbc.txt, section 5.1. A run that is not in order in every respect gives no figures.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from l4lab.emulator.errors import ManifestError, OperatorError
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.common.progress import Progress, Tell
from l4lab.tools.common.report import grouped, json_text, print_json
from l4lab.tools.common.say import say
from l4lab.tools.common.versions import versions
from l4lab.tools.runs.execute import execute
from l4lab.tools.runs.recording import Recording, remember

PMA_FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

IMAGE_NAME: Final = "pma.toml"
PROGRESS_SECONDS: Final = 0.5
MAX_SKEW_CYCLES: Final = 1000
"""Processes wait for the same moment in a loop that takes less; but a timer tick may come between."""


_FIELD: Final = re.compile(r"(\w+)=(\S+)")


class BenchmarkError(OperatorError):
    """The benchmark did not run to its end, and why, in the words of the program that noticed."""


@dataclass(frozen=True, slots=True)
class Process:
    """What one process measured, in cycles, over all its tasks."""

    number: int
    begin: int
    end: int
    allocation: int
    touch: int
    free: int
    pages: int


@dataclass(frozen=True, slots=True)
class PmaResult:
    """One run that is in order. `problems`: where the counts of kernel, servers and processes disagree."""

    setup: PmaSetup
    processes: tuple[Process, ...]
    frames_leaked: int
    page_faults: int
    books_balance: bool
    problems: tuple[str, ...]
    configuration: dict[str, Any]

    @property
    def total_cycles(self) -> int:
        """From the common start to the end of the last process."""
        return max(p.end for p in self.processes) - min(p.begin for p in self.processes)

    def mean(self, name: str) -> float:
        """Cycles of a process for `allocation`, `touch` or `free`, the mean of all processes."""
        return float(sum(getattr(p, name) for p in self.processes)) / len(self.processes)

    @property
    def alloc_cycles(self) -> float:
        """Cycles of a process for getting its pages, fault and all."""
        return self.mean("allocation") + self.mean("touch")

    @property
    def free_cycles(self) -> float:
        """Cycles of a process for giving them back."""
        return self.mean("free")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        pages = self.setup.pages_per_process
        return {
            "format": PMA_FORMAT,
            "design": self.setup.design,
            "cores": self.setup.cores,
            "pages": self.setup.pages,
            "tasks": self.setup.tasks,
            "pages_per_process": pages,
            "allocator": self.setup.allocator,
            "total_cycles": self.total_cycles,
            "alloc_cycles": round(self.alloc_cycles),
            "malloc_cycles": round(self.mean("allocation")),
            "touch_cycles": round(self.mean("touch")),
            "free_cycles": round(self.free_cycles),
            "alloc_cycles_per_page": round(self.alloc_cycles / pages, 1),
            "free_cycles_per_page": round(self.free_cycles / pages, 1),
            "processes": [
                {
                    "core": p.number,
                    "cycles": p.end - p.begin,
                    "alloc_cycles": p.allocation + p.touch,
                    "free_cycles": p.free,
                }
                for p in self.processes
            ],
            "frames_leaked": self.frames_leaked,
            "page_faults": self.page_faults,
            "books_balance": self.books_balance,
            "problems": list(self.problems),
            "configuration": self.configuration,
            "versions": versions(),
        }


# --- one run ------------------------------------------------------------------------------------------


def run_pma(
    setup: PmaSetup, *, tell: Tell = lambda _: None, out: Path | None = None, trace: bool = False
) -> PmaResult:
    """Boot the benchmark and run it to its end; `tell` hears how far it is.

    `out`: a run directory to write, with the ledger; `trace`: and with all events. Raises BenchmarkError if a
    program failed, OperatorError for a machine that cannot be, Interrupted after Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="l4lab-") as folder:
        manifest = write_image(setup, Path(folder))
        if out is None:
            return _run(setup, manifest, tell)
        before = {"configuration": manifest.resolved(), "versions": versions(), "result": None}
        with Recording(out, manifest, json_text(before), trace=trace) as recording:
            write_image(setup, out)  # so that the run can be had again
            result = _run(setup, manifest, tell, recording)
            recording.finish(json_text(result.as_dict(), sort_keys=True))
        return result


def write_image(setup: PmaSetup, folder: Path) -> Manifest:
    """The manifest of a setup, as a file in `folder`, read back. Raises ManifestError for what cannot be."""
    path = folder / IMAGE_NAME
    path.write_text(setup.manifest(), encoding="utf-8")
    try:
        return load_manifest(path)
    except ManifestError as error:  # nobody has seen the file
        raise ManifestError(str(error).replace(str(path), "bench pma")) from None


def _run(setup: PmaSetup, manifest: Manifest, tell: Tell, recording: Recording | None = None) -> PmaResult:
    expected = setup.pages_per_process * setup.cores

    def look(machine: Machine) -> None:
        """Of the page faults to come, how many have come?"""
        faults = sum(thread.page_faults for thread in tuple(machine.kernel.threads.values()))
        tell(min(faults / expected, 1.0))

    configuration = manifest.resolved()
    result = execute(manifest, recording=recording, look=look, look_seconds=PROGRESS_SECONDS)
    lines = result.console.decode("utf-8", "backslashreplace").splitlines()
    if result.reason is not StopReason.ROOT_ENDED or result.exit_code != 0:
        raise BenchmarkError(_failure(result, lines))
    return examine(setup, result, configuration)


_FAILURE_LINE: Final = re.compile(r"^(pager|dataspaces|loader|coordinator|pma|pma-l4re|panic): ")


def _failure(result: RunResult, lines: list[str]) -> str:
    """The first thing that went wrong, as the program said that noticed it."""
    said = [line for line in lines if _FAILURE_LINE.match(line)]
    told = [line for line in said if not re.match(r"loader: \w+: \d+ x ", line)]
    if told:
        return f"the benchmark failed: {told[0]}"
    if result.warnings:
        return f"the benchmark failed: {result.reason.value}; the kernel says: {result.warnings[0]}"
    return f"the benchmark failed: {result.reason.value}, exit code {result.exit_code}"


# --- what it left -------------------------------------------------------------------------------------


def _records(console: bytes, kind: str) -> list[dict[str, str]]:
    """The lines that begin with `kind`, their fields by name."""
    lines = console.decode("utf-8", "backslashreplace").splitlines()
    return [dict(_FIELD.findall(line)) for line in lines if line.startswith(kind + " ")]


def _process(record: dict[str, str]) -> Process:
    names = ("number", "begin", "end", "allocation", "touch", "free", "pages")
    return Process(*(int(record[name]) for name in names))


def examine(setup: PmaSetup, result: RunResult, configuration: dict[str, Any]) -> PmaResult:
    """Read what the programs printed and hold it against what the kernel counted."""
    processes = tuple(_process(record) for record in _records(result.console, "process"))
    errors = sum(int(record["errors"]) for record in _records(result.console, "process"))
    clients, servers = _records(result.console, "client"), _records(result.console, "server")
    left = sum(int(record["left"]) for record in clients)
    in_use = sum(int(record["in_use"]) for record in servers)
    faults = {
        task.name: task.page_faults
        for task in result.tasks
        if re.fullmatch(rf"{setup.program}\.\d+", task.name)
    }
    problems = []
    wanted = setup.pages_per_process

    def expect(condition: bool, problem: str) -> None:
        if not condition:
            problems.append(problem)

    expect(len(processes) == setup.cores, f"{len(processes)} processes reported, expected {setup.cores}")
    expect(errors == 0, f"{errors} frees were refused")
    expect(len(clients) == setup.cores and len(servers) == setup.servers, "a server did not report")
    expect(left + in_use == 0, f"{left} pages not freed by processes, {in_use} not by servers")
    expect(all(p.pages == wanted for p in processes), f"a process did not get through its {wanted} pages")
    for name, count in faults.items():
        expect(count == wanted, f"{name}: the kernel counted {count} page faults, expected {wanted}")
    expect(len(faults) == setup.cores, f"the kernel knows {len(faults)} processes, expected {setup.cores}")
    for record in servers:
        allocated, released = int(record["allocated"]), int(record["released"])
        expect(
            allocated == released, f"{record['name']} gave out {allocated} frames and took back {released}"
        )
    served = sum(int(record["allocated"]) for record in servers)
    expect(served >= wanted * setup.cores, f"servers gave out {served} frames, fewer than there were faults")
    begins = [p.begin for p in processes] or [0]
    skew = max(begins) - min(begins)
    expect(skew <= MAX_SKEW_CYCLES, f"the processes started up to {skew} cycles apart")
    balance = books_balance(result)
    expect(balance, "the cycles of tasks, kernel and idling do not add up to the cores' clocks")
    return PmaResult(
        setup=setup,
        processes=processes,
        frames_leaked=left + in_use,
        page_faults=sum(faults.values()),
        books_balance=balance,
        problems=tuple(problems),
        configuration=configuration,
    )


def books_balance(result: RunResult) -> bool:
    """Whether what the vCPUs counted for tasks, the kernel's bills and the idling make up all clocks."""
    clocks = sum(core.clock_cycles for core in result.cores)
    booked = sum(core.kernel_cycles + core.idle_cycles for core in result.cores)
    return clocks == booked + sum(task.user_cycles for task in result.tasks)


# --- the command --------------------------------------------------------------------------------------


def run_bench(setup: PmaSetup, *, as_json: bool, out: Path | None, trace: bool = False) -> int:
    """`l4lab bench pma`. Returns the exit code: 1 if the counts disagree somewhere."""
    start = time.monotonic()
    with Progress(setup.design, 1.0) as line:
        result = run_pma(setup, tell=line.reach, out=out, trace=trace)
    if out is not None:
        remember(out)
    if as_json:
        print_json(result.as_dict(), sort_keys=True)
    else:
        _print(result)
    say(f"{time.monotonic() - start:.1f} s on this host")
    for problem in result.problems:
        say(f"not in order: {problem}")
    return 1 if result.problems else 0


def _print(result: PmaResult) -> None:
    setup = result.setup
    pages = setup.pages_per_process
    processes = f"{setup.cores} process{'es' * (setup.cores > 1)}"
    print(f"{setup.design}: {processes}, {setup.tasks} tasks of {setup.pages} pages each")
    for name, cycles in (("allocation", result.alloc_cycles), ("free", result.free_cycles)):
        print(f"  {name:10}  {grouped(round(cycles / pages)):>11} cycles a page")
    print(f"  {'all':10}  {grouped(result.total_cycles):>11} cycles from start to end")
    print(
        f"  checked: {grouped(result.page_faults)} page faults, {result.frames_leaked} frames leaked, "
        f"the books {'balance' if result.books_balance else 'DO NOT BALANCE'}"
    )
