"""One run from the command line: boot, show, write down, and an exit code that tells the endings apart."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.machine import Machine
from l4lab.emulator.manifest import Manifest, find_image, load_manifest
from l4lab.emulator.results import RunResult, StopReason
from l4lab.emulator.vcpu import catch_interrupts
from l4lab.tools.report import grouped, print_tasks
from l4lab.tools.versions import versions

RUN_FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

DEMO_IMAGE: Final = "hello"
PROGRESS_SECONDS: Final = 1.0

ENDINGS: Final = {
    StopReason.ROOT_ENDED: "the root task ended with exit code {code}",
    StopReason.ROOT_KILLED: "the root task was killed, for what nobody handles",
    StopReason.ALL_WAIT: "every thread waits for what cannot come",
    StopReason.MAX_CYCLES: "stopped at --max-cycles",
    StopReason.HOST_STOP: "interrupted",
}
EXIT_CODES: Final = {
    StopReason.ROOT_KILLED: 126,
    StopReason.ALL_WAIT: 125,
    StopReason.MAX_CYCLES: 124,
    StopReason.HOST_STOP: 130,
}


def boot_image(image: str, *, as_json: bool, max_cycles: int | None, out: Path | None, verbose: bool) -> int:
    """`l4lab boot`. Returns the exit code; raises OperatorError and KernelBug."""
    manifest = load_manifest(find_image(image))
    if out is not None:
        _make_folder(out)
    if verbose:
        _tell_machine(manifest)
    seconds = PROGRESS_SECONDS if verbose else 0
    result = run(manifest, max_cycles, None if as_json else write_console, progress_seconds=seconds)
    text = run_document(manifest, result, max_cycles)
    if out is not None:
        _write(out / "run.json", text.encode())
        _write(out / "console.txt", result.console)
    if as_json:
        sys.stdout.write(text)
        sys.stdout.flush()
    for warning in result.warnings:
        _say(f"kernel: {warning}")
    if verbose:
        print_tasks(result, sys.stderr)
    _say(ending(result))
    return exit_code(result)


def run_demo() -> int:
    """`l4lab demo`. Returns the exit code."""
    result = run(load_manifest(find_image(DEMO_IMAGE)), None, write_console)
    click.echo()
    print_tasks(result, sys.stdout)
    click.echo(f"\n{ending(result)}")
    return exit_code(result)


def run(
    manifest: Manifest,
    max_cycles: int | None,
    console: Callable[[bytes], None] | None,
    *,
    progress_seconds: float = 0,
) -> RunResult:
    """Boot and run to the end. Ctrl-C stops between two instructions and tells where everything was.

    `progress_seconds`: how often to tell on stderr how far the machine has come; 0: never.
    """
    machine = Machine(manifest, console=console)
    with catch_interrupts(), _progress(machine, progress_seconds):
        result = machine.run(max_cycles)
    if result.reason is StopReason.HOST_STOP:
        click.echo(machine.describe(), err=True)
    return result


@contextmanager
def _progress(machine: Machine, seconds: float) -> Iterator[None]:
    """Tell the time on the machine's clocks every so often. Looks on only: the run stays the same."""

    def tell(_number: int, _frame: FrameType | None) -> None:
        clocks = [core.vcpu.clock_cycles for core in machine.cores]
        _say(f"at cycle {grouped(max(clocks))}")

    if seconds <= 0:
        yield
        return
    before = signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write_console(data: bytes) -> None:
    """Guest output to stdout, as it comes."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run_document(manifest: Manifest, result: RunResult, max_cycles: int | None) -> str:
    """Everything there is to know about a run, as JSON text: the same bytes for the same inputs."""
    document: dict[str, Any] = {
        "format": RUN_FORMAT,
        "versions": versions(),
        "configuration": {**manifest.resolved(), "max_cycles": max_cycles},
        "result": result.as_dict(),
        "exit_code": exit_code(result),
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def ending(result: RunResult) -> str:
    """How and when the run ended, on one line."""
    reason = ENDINGS[result.reason].format(code=result.exit_code)
    return f"{reason}, after {grouped(result.cycles)} cycles"


def exit_code(result: RunResult) -> int:
    """The guest's own where it ended by itself, else one that stands for the ending."""
    return EXIT_CODES.get(result.reason, result.exit_code)


def _tell_machine(manifest: Manifest) -> None:
    """What is about to be booted, and from which files."""
    cores = f"{manifest.cores} core{'s' * (manifest.cores > 1)}"
    _say(f"{manifest.path}: {cores}, {manifest.ram_bytes >> 20} MiB RAM, profile {manifest.profile}")
    for role, module in (("sigma0", manifest.sigma0), ("root task", manifest.roottask)):
        _say(f"{role}: {module.path}, as {module.command_line!r}")
    for module in manifest.modules:
        _say(f"module: {module.path}, as {module.command_line!r}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"--out {folder}: {error.strerror}, expected a folder to write to") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OperatorError(f"--out: cannot write {path}: {error.strerror}") from None


def _say(line: str) -> None:
    click.echo(f"l4lab: {line}", err=True)
