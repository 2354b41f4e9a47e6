"""The wheel: made from a copy of this checkout, installed into an empty environment, used elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from l4lab.tools.native import build
from support.checkout import copy_checkout

pytestmark = pytest.mark.network


def run(*command: str | Path, cwd: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run with only `path` to find programs in, if given; its output if it fails."""
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("wheel") / "a clone")


@pytest.fixture(scope="module")
def wheel(clone: Path) -> Path:
    """Made with pip in an isolated environment: what pyproject.toml says it needs is all it needs."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", cwd=clone)
    (found,) = (clone / "dist").glob("*.whl")
    return found


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_one_package_with_the_native_code_and_no_sources_of_it(wheel: Path) -> None:
    host = build.Host.detect()
    assert wheel.name.endswith(f"-py3-none-{host.wheel_platform}.whl")
    names = set(members(wheel))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"l4lab"}
    for package in ("kernel", "emulator", "tools", "images"):
        for path in (build.CHECKOUT / package).rglob("*.*"):
            if path.suffix in (".py", ".toml"):
                assert f"l4lab/{path.relative_to(build.CHECKOUT).as_posix()}" in names
    programs = {name for name in names if name.startswith("l4lab/_native/programs/")}
    recorded = build.read_hashes(build.CHECKOUT / "userland/HASHES")
    assert programs == {f"l4lab/_native/programs/{name}" for name in recorded}
    assert {f"l4lab/_native/{host.shim_name}", "l4lab/py.typed"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".S", ".ld", ".pyc"))]
    assert str(build.CHECKOUT).encode() not in b"".join(members(wheel).values())


def test_source_distribution_gives_the_same_wheel(clone: Path, wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=clone)
    (sdist,) = tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", sdist, cwd=tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    assert members(again) == members(wheel)


def test_wheel_works_in_an_empty_environment_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "empty", cwd=tmp_path)
    scripts = tmp_path / "empty/bin"
    run(scripts / "pip", "install", "-q", "--only-binary", ":all:", wheel, cwd=tmp_path)
    installed = run(scripts / "pip", "list", "--format", "freeze", cwd=tmp_path).stdout.lower()
    assert "ziglang" not in installed

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    here = run(sys.executable, "-P", "-m", "l4lab.tools.cli", "demo", cwd=elsewhere).stdout
    there = run(scripts / "l4lab", "demo", cwd=elsewhere, path=str(scripts)).stdout
    assert "one pager takes" in there
    assert there == here
    version = run(scripts / "l4lab", "--version", cwd=elsewhere, path=str(scripts)).stdout.splitlines()
    ours = run(sys.executable, "-P", "-m", "l4lab.tools.cli", "--version", cwd=elsewhere).stdout.splitlines()
    drawing = ("matplotlib", "pillow")
    assert [line.split(maxsplit=1)[1] for line in version if line.startswith(drawing)] == [
        "not installed"
    ] * 2
    assert [line for line in version if not line.startswith(drawing)] == [
        line for line in ours if not line.startswith(drawing)
    ]
    assert [path.name for path in elsewhere.iterdir()] == [
        "l4lab-out"
    ]  # the figure, of the one with matplotlib
