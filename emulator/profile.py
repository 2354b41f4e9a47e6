"""Cost profiles (`images/profiles/*.toml`): where they are found."""

from __future__ import annotations

from pathlib import Path

from l4lab.emulator.errors import ProfileError
from l4lab.emulator.inputs import BUNDLED_PROFILES, find_bundled


def find_profile(name_or_path: str, base: Path = Path()) -> Path:
    """The file of a bundled profile, or of a path relative to `base`. ProfileError lists the bundled ones."""
    return find_bundled(name_or_path, BUNDLED_PROFILES, base, "profile", ProfileError)
