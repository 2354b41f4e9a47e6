"""The user programs: their bytes are the recorded ones, on every host, or no cycle count can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lab.tools.native import build

USERLAND = build.CHECKOUT / "userland"
PROGRAMS = build.CHECKOUT / "src/l4lab/_native/programs"


def test_built_programs_have_the_recorded_bytes() -> None:
    """After a change of userland/: ./l4lab build --update-hashes, and commit userland/HASHES with it."""
    result = build.build()
    assert result.hashes == build.read_hashes(USERLAND / "HASHES")
    assert {"sigma0", "root", "hello"} <= result.hashes.keys()


@pytest.mark.slow
def test_a_build_from_nothing_in_another_place_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another folder, no cache: nothing of this checkout's place or history is in the programs."""
    root = tmp_path / "another place"
    (root / "src/l4lab").mkdir(parents=True)
    for name in ("emulator", "userland"):
        (root / name).mkdir()
        for path in sorted((build.CHECKOUT / name).rglob("*")):
            copy = root / name / path.relative_to(build.CHECKOUT / name)
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            elif path.suffix != ".pyc":
                copy.write_bytes(path.read_bytes())
    assert build.build(root).hashes == build.read_hashes(USERLAND / "HASHES")
    for path in (root / "src/l4lab/_native/programs").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", [program.name for program in build.read_programs(USERLAND)])
def test_programs_hold_no_host_path(name: str) -> None:
    """The names of a compiler's own headers would carry the folder it is installed in."""
    content = (PROGRAMS / name).read_bytes()
    assert b"site-packages" not in content
    assert str(build.CHECKOUT).encode() not in content
