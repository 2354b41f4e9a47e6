"""A laboratory for L4 microkernels on one laptop.

    import l4lab

    result = l4lab.run("hello")                    # a bundled image, or the path of a manifest
    print(result.console.decode(), result.cycles)

    with l4lab.Machine(l4lab.load_manifest("my-image.toml")) as machine:
        machine.run(max_cycles=1_000_000)          # and on, and look at it in between

Importing this is cheap: the machine is loaded when one of these names is used. What is not here has its
documented place in `l4lab.kernel` and `l4lab.emulator`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from l4lab.emulator.errors import OperatorError
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.emulator.machine import Machine
    from l4lab.emulator.results import RunResult, StopReason
    from l4lab.kernel.errors import KernelBug

__version__ = "0.1.0"

__all__ = [
    "KernelBug",
    "Machine",
    "Manifest",
    "OperatorError",
    "RunResult",
    "StopReason",
    "__version__",
    "load_manifest",
    "run",
]

_HOMES: Final = {
    "KernelBug": "l4lab.kernel.errors",
    "Machine": "l4lab.emulator.machine",
    "Manifest": "l4lab.emulator.files.manifest",
    "OperatorError": "l4lab.emulator.errors",
    "RunResult": "l4lab.emulator.results",
    "StopReason": "l4lab.emulator.results",
}


def load_manifest(image: str | Path) -> Manifest:
    """The manifest that `image` names: a path, or the name of a bundled image.

    Raises OperatorError, one line, if it cannot be used.
    """
    from l4lab.emulator.files import manifest

    return manifest.load_manifest(manifest.find_image(str(image)))


def run(
    image: str | Path,
    *,
    max_cycles: int | None = None,
    console: Callable[[bytes], None] | None = None,
) -> RunResult:
    """Boot `image` on a new machine and run it to its end, or until a core's clock reaches `max_cycles`.

    `console` gets what the guest prints, as it prints it; `RunResult.console` has it in any case.
    """
    from l4lab.emulator.machine import Machine

    with Machine(load_manifest(image), console=console) as machine:
        return machine.run(max_cycles)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'l4lab' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
