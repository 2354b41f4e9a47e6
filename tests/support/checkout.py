"""Copies of this checkout, to set up or build without touching it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("emulator", "images", "kernel", "src/l4lab", "tools", "userland")
COPIED_FILES: Final = (
    "l4lab",
    "pyproject.toml",
    "hatch_build.py",
    "requirements.in",
    "requirements.lock",
    "README.md",
    "LICENSE",
)


def copy_checkout(target: Path) -> Path:
    """The checkout as a clone would have it, with the changes that are not committed yet."""
    paths = [ROOT / name for name in COPIED_FILES]
    for name in COPIED:
        paths += (path for path in (ROOT / name).rglob("*") if not path.is_dir() or path.is_symlink())
    for path in paths:
        if {"__pycache__", "_native"} & set(path.parts):
            continue
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(os.readlink(path))
        else:
            copy.write_bytes(path.read_bytes())
    (target / "l4lab").chmod(0o755)
    return target
