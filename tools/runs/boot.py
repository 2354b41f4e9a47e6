"""One run from the command line: boot, show, write down, and an exit code that tells the endings apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.manifest import Manifest, find_image, load_manifest
from l4lab.emulator.results import RunResult, StopReason
from l4lab.tools.common.report import counted, grouped, json_text, print_tasks
from l4lab.tools.common.say import say
from l4lab.tools.common.versions import versions
from l4lab.tools.runs.execute import execute
from l4lab.tools.runs.recording import Recording, remember

RUN_FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

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


def boot_image(
    image: str,
    *,
    as_json: bool,
    max_cycles: int | None,
    out: Path | None,
    verbose: bool,
    ledger: bool | None = None,
    trace: bool = False,
) -> int:
    """`l4lab boot`. Returns the exit code; raises OperatorError and KernelBug.

    `ledger` None: keep one if there is an `out` to put it.
    """
    if out is None and (ledger or trace):
        raise OperatorError("--ledger and --trace write to the folder of --out: expected --out DIR, too")
    if trace and ledger is False:
        raise OperatorError("--trace needs the ledger: found --no-ledger with it")
    manifest = load_manifest(find_image(image))
    console = None if as_json else write_console
    seconds = PROGRESS_SECONDS if verbose else 0
    with ExitStack() as stack:
        recording = None
        if out is not None:
            before = run_document(manifest, None, max_cycles)
            keep = ledger is not False
            recording = stack.enter_context(Recording(out, manifest, before, keep_ledger=keep, trace=trace))
            if keep:
                remember(out)
        if verbose:
            _tell_machine(manifest)
        result = run(manifest, max_cycles, console, progress_seconds=seconds, recording=recording)
        text = run_document(manifest, result, max_cycles)
        if recording is not None:
            recording.finish(text)
    if as_json:
        sys.stdout.write(text)
        sys.stdout.flush()
    return tell_ending(result, verbose=verbose)


def tell_ending(result: RunResult, *, verbose: bool) -> int:
    """On stderr: warnings, how it ended, and if `verbose` what each task cost. Returns the exit code."""
    for warning in result.warnings:
        say(f"kernel: {warning}")
    if verbose:
        print_tasks(result, sys.stderr)
    say(ending(result))
    return exit_code(result)


def run(
    manifest: Manifest,
    max_cycles: int | None,
    console: Callable[[bytes], None] | None,
    *,
    progress_seconds: float = 0,
    recording: Recording | None = None,
) -> RunResult:
    """Boot and run to the end. Ctrl-C stops between two instructions and tells where everything was.

    `progress_seconds`: how often to tell on stderr how far the machine has come; 0: never.
    `recording`: the run directory to write to; `finish` is left to the caller.
    """
    return execute(
        manifest,
        max_cycles=max_cycles,
        console=console,
        recording=recording,
        look=lambda machine: say(
            f"at cycle {grouped(max(core.vcpu.clock_cycles for core in machine.cores))}"
        ),
        look_seconds=progress_seconds,
        stopped=lambda machine: click.echo(machine.describe(), err=True),
    )


def write_console(data: bytes) -> None:
    """Guest output to stdout, as it comes."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run_document(manifest: Manifest, result: RunResult | None, max_cycles: int | None) -> str:
    """Everything there is to know about a run, as JSON text: the same bytes for the same inputs.

    `result` None: the run has not ended.
    """
    document: dict[str, Any] = {
        "format": RUN_FORMAT,
        "versions": versions(),
        "configuration": {**manifest.resolved(), "max_cycles": max_cycles},
        "result": result.as_dict() if result is not None else None,
        "exit_code": exit_code(result) if result is not None else None,
    }
    return json_text(document, sort_keys=True)


def ending(result: RunResult) -> str:
    """How and when the run ended, on one line."""
    reason = ENDINGS[result.reason].format(code=result.exit_code)
    return f"{reason}, after {grouped(result.cycles)} cycles"


def exit_code(result: RunResult) -> int:
    """The guest's own where it ended by itself, else one that stands for the ending."""
    return EXIT_CODES.get(result.reason, result.exit_code)


def _tell_machine(manifest: Manifest) -> None:
    """What is about to be booted, and from which files."""
    cores = counted(manifest.cores, "core")
    say(f"{manifest.path}: {cores}, {manifest.ram_bytes >> 20} MiB RAM, profile {manifest.profile}")
    for role, module in (("sigma0", manifest.sigma0), ("root task", manifest.roottask)):
        say(f"{role}: {module.path}, as {module.command_line!r}")
    for module in manifest.modules:
        say(f"module: {module.path}, as {module.command_line!r}")
