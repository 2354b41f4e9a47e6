"""What a result was made with: everything that could make two runs of one image differ."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from l4lab import __version__
from l4lab.emulator.files.inputs import PACKAGE_DIR
from l4lab.tools.native.build import program_hashes

NATIVE: Final = PACKAGE_DIR / "_native"
_DRAWING: Final = ("matplotlib", "pillow")  # the latter compresses PNG files


def versions() -> dict[str, str]:
    """Name -> version, in the order in which people want to read them.

    `compiler` and `programs` are those of the native code that is installed here, which a wheel has built
    elsewhere; "not built" if there is none.
    """
    return {
        "l4lab": __version__,
        "unicorn": version("unicorn"),
        "python": platform.python_version(),
        "compiler": _compiler(),
        "programs": programs_digest() or "not built",
    }


def versions_with_drawing() -> dict[str, str]:
    """The same, and what the bytes of a figure depend on besides; each "not installed" if it is not."""
    return versions() | {name: _installed(name) for name in _DRAWING}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def programs_digest() -> str:
    """One hash over the names and bytes of all bundled user programs; empty if there are none."""
    hashes = program_hashes(NATIVE / "programs")
    text = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16] if hashes else ""


def _compiler() -> str:
    record = NATIVE / "build.json"
    if not record.exists():
        return "not built"
    compiler: str = json.loads(record.read_text(encoding="utf-8"))["compiler"]
    return compiler
