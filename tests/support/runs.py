"""Runs of bundled images, recorded in folders, for tests of what reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from l4lab.emulator.files.inputs import BUNDLED_IMAGES
from l4lab.emulator.files.manifest import Manifest, find_image, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult
from l4lab.tools.runs.boot import run_document
from l4lab.tools.runs.recording import Recording

IMAGES = tuple(sorted(path.stem for path in BUNDLED_IMAGES.glob("*.toml")))


def image(name: str, cores: int | None = None) -> Manifest:
    """A bundled image, perhaps with another number of cores than it asks for."""
    manifest = load_manifest(find_image(name))
    return manifest if cores is None else dataclasses.replace(manifest, cores=cores)


def record(
    manifest: Manifest, folder: Path, *, max_cycles: int | None = None, trace: bool = False
) -> tuple[Machine, RunResult]:
    """Run `manifest` as `l4lab boot --out folder` does."""
    with Recording(folder, manifest, run_document(manifest, None, max_cycles), trace=trace) as recording:
        machine = Machine(manifest, console=recording.console, ledger=recording.ledger)
        recording.watch(machine)
        result = machine.run(max_cycles)
        recording.finish(run_document(manifest, result, max_cycles))
    return machine, result
