"""From an image to its result: what every command does that boots one and lets it run to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from l4lab.emulator.files.inputs import BUNDLED_PROGRAMS
from l4lab.emulator.files.manifest import Manifest, Module, find_image, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.emulator.vcpu import catch_interrupts
from l4lab.tools.common.progress import every
from l4lab.tools.runs.recording import Recording


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run that is of no use unless it ends; the machine has stopped between two instructions."""


def image_with(image: str, root: str, **changes: Any) -> Manifest:
    """The bundled image with another root task, `root` as in a manifest, and other values of `Manifest`."""
    program = BUNDLED_PROGRAMS / root.split()[0]
    return replace(load_manifest(find_image(image)), roottask=Module(program, root.strip()), **changes)


def _give_up(_: Machine) -> None:
    raise Interrupted


def execute(
    manifest: Manifest,
    *,
    max_cycles: int | None = None,
    console: Callable[[bytes], None] | None = None,
    recording: Recording | None = None,
    look: Callable[[Machine], None] = lambda _: None,
    look_seconds: float = 0,
    stopped: Callable[[Machine], None] = _give_up,
) -> RunResult:
    """Boot and run to the end. Ctrl-C stops between two instructions; `stopped` is told, and raises Interrupted.

    `recording`: the run directory to write to; `finish` is left to the caller. `look`: called every
    `look_seconds` of the host, if they are not 0. It looks on only: the run stays the same.
    """
    if recording is None:
        machine = Machine(manifest, console=console)
    else:
        machine = Machine(manifest, console=recording.console_too(console), ledger=recording.ledger)
        recording.watch(machine)
    with catch_interrupts(), every(look_seconds, lambda: look(machine)):
        result = machine.run(max_cycles)
    if result.reason is StopReason.HOST_STOP:
        stopped(machine)
    return result
