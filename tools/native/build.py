"""Builds everything native with one pinned compiler: the vCPU shim and the i386 user programs.

Standard library only, and no import of l4lab: the launcher and the wheel's build hook run this file
by path, before there is an installed package. The compiler is `zig cc` of the ziglang wheel.

    emulator/shim/*.c              -> src/l4lab/_native/vcpu.so          for this host
    userland/<folder>/program.toml  -> src/l4lab/_native/programs/<name>  the same bytes on every host

A `program.toml` describes what its folder gives:

    name = "hello"               # the executable's name; by default the folder's
    link_address = 0x08048000    # where the program is linked to run, a multiple of the page size
    sources = ["*.c", "*.S"]     # by default; patterns relative to the folder
    libs = ["lib"]               # by default; folders of userland/ whose *.c and *.S are linked in

or, if it gives several, one `[[program]]` table with these keys for each. Unused functions are dropped,
so linking a library costs only what is called. Every program sees `userland/include` and the folders it
is made of; `userland/program.ld` is its linker script and finds the address as `LINK_ADDRESS`. There is
no compiler runtime: C that needs one (64-bit division) fails to link.

What is up to date is decided by content: a key over the compiler's version, the command and every file
that can influence the result is kept beside the build. `userland/HASHES` (the format of sha256sum)
records the bytes of the programs, on which the cycle counts of every run depend.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


def _checkout(here: Path) -> Path:
    """The checkout that this file is used from, which may link to another one's sources; else the package."""
    for folder in here.parents:
        ours = folder / "tools/native/build.py"
        if (folder / "pyproject.toml").is_file() and ours.is_file() and ours.samefile(here):
            return folder
    return here.parents[2]


ZIGLANG_VERSION: Final = "0.15.2"  # as in pyproject.toml and requirements.lock; a test compares them
CHECKOUT: Final = _checkout(Path(__file__).absolute())

COMMON_FLAGS: Final = ("-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all")
# Bytes must not depend on where checkout, compiler and packages lie.
PLACE_FLAGS: Final = (
    "-fdebug-compilation-dir=.",
    "-ffile-prefix-map=@zig@=zig",
    "-ffile-prefix-map=@unicorn@=unicorn",
)
# Of the host's arithmetic, each operation is rounded by itself: none are fused.
SHIM_FLAGS: Final = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fomit-frame-pointer", "-fPIC", "-shared")
PROGRAM_FLAGS: Final = (
    "-std=c11",
    *("-target", "x86-freestanding-none", "-mcpu=i486"),  # x87 is allowed, SSE is not
    *("-O2", "-ffreestanding", "-nostdlib", "-static", "-fno-pic"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"),
    "-ffile-prefix-map=@userland@=.",
    *("-Wl,--build-id=none", "-Wl,-z,stack-size=0"),
)
# Zig's runtime library would bring code built on this host, with its paths, and seconds of building it.
NO_RUNTIME_FLAGS: Final = ("-rtlib=none",)

PROGRAM_KEYS: Final = {"name", "link_address", "sources", "libs"}
PAGE_BYTES: Final = 4096
USER_LIMIT: Final = 0xC0000000

Report = Callable[[str], None]


class BuildError(Exception):
    """What could not be built, on one line. The compiler's own messages are in `output`."""

    def __init__(self, line: str, output: str = "") -> None:
        super().__init__(line)
        self.output = output


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file to build by one compiler call.

    `arguments`: of `zig cc`, without `-o`; `@zig@`, `@unicorn@` and `@userland@` stand for folders and
    are filled in late, so that the key does not depend on where things are installed.
    `inputs`: every file that can influence the bytes of the output.
    `script`: text of a linker script to put before `-T`, or None.
    """

    name: str
    output: Path
    directory: Path
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...]
    script: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """One checked entry of a `program.toml`. Paths are relative to `userland`."""

    name: str
    link_address: int
    sources: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`rebuilt`: artefacts that were not up to date. `hashes`: program -> SHA-256, by name."""

    rebuilt: tuple[str, ...]
    hashes: dict[str, str]


# --- the host ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """What depends on the machine that the shim is built on and for."""

    target: str  # of the compiler
    shim_name: str
    wheel_platform: str

    @classmethod
    def detect(cls) -> Host:
        """Raises BuildError on a host for which there is no engine or no POSIX signals."""
        arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine := platform.machine().lower(), machine)
        if sys.platform not in ("linux", "darwin") or arch not in ("x86_64", "aarch64"):
            raise BuildError(
                f"cannot build for {sys.platform} on {machine}: expected Linux or macOS on x86_64 or "
                "aarch64 (on Windows: inside WSL)"
            )
        if sys.platform == "darwin":
            wheel_arch = "arm64" if arch == "aarch64" else arch
            return cls(f"{arch}-macos.11.0", "vcpu.dylib", f"macosx_11_0_{wheel_arch}")
        if platform.libc_ver()[0] != "glibc":
            return cls(f"{arch}-linux-musl", "vcpu.so", f"musllinux_1_2_{arch}")
        # The oldest C library that the unicorn wheels support.
        return cls(f"{arch}-linux-gnu.2.17", "vcpu.so", f"manylinux_2_17_{arch}")


def _package_folder(package: str) -> Path:
    """Where a wheel lies, without importing it. BuildError if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(f"{sys.executable} has no package {package}; ./l4lab installs it")
    return Path(next(iter(spec.submodule_search_locations)))


def _zig_folder() -> Path:
    folder = _package_folder("ziglang")
    found = importlib.metadata.version("ziglang")
    if found != ZIGLANG_VERSION:
        raise BuildError(f"compiler: found ziglang {found}, expected {ZIGLANG_VERSION}; ./l4lab installs it")
    return folder


# --- what there is to build ----------------------------------------------------------------------


def shim_artefact(root: Path, host: Host) -> Artefact:
    """The vCPU shim. It needs the engine's headers only: whoever loads it hands it the engine's functions."""
    folder = root / "emulator/shim"
    sources = sorted(folder.glob("*.c"))
    if not sources:
        raise BuildError(f"{folder}: no C files, expected those of the shim")
    return Artefact(
        name=host.shim_name,
        output=root / "src/l4lab/_native" / host.shim_name,
        directory=folder,
        arguments=(
            *("-target", host.target, *COMMON_FLAGS, *PLACE_FLAGS, *SHIM_FLAGS, *NO_RUNTIME_FLAGS),
            *("-isystem", "@unicorn@/include", *(path.name for path in sources)),
        ),
        inputs=(*sources, *sorted(folder.glob("*.h"))),
    )


def read_programs(userland: Path) -> list[Program]:
    """Every program described under `userland`, by name. BuildError names the file and key at fault."""
    programs: dict[str, Program] = {}
    for path in sorted(userland.glob("**/program.toml")):
        where = path.relative_to(userland.parent)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BuildError(f"{where}: {error}") from None
        entries = table.get("program", [table])
        if "program" in table and (len(table) > 1 or not isinstance(entries, list)):
            raise BuildError(f"{where}: program: expected one or more [[program]] tables and nothing else")
        for entry in entries:
            program = _read_program(userland, path.parent, entry, where)
            if programs.setdefault(program.name, program) is not program:
                raise BuildError(f"{where}: name: there are two programs named {program.name!r}")
    return [programs[name] for name in sorted(programs)]


def _read_program(userland: Path, folder: Path, entry: dict[str, Any], where: Path) -> Program:
    def strings(key: str, default: list[str]) -> list[str]:
        found = entry.get(key, default)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise BuildError(f"{where}: {key}: found {found!r}, expected a list of strings")
        return found

    for key in entry:
        if key not in PROGRAM_KEYS:
            raise BuildError(
                f"{where}: {key}: unknown key, expected one of {', '.join(sorted(PROGRAM_KEYS))}"
            )
    name = entry.get("name", folder.name)
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise BuildError(f"{where}: name: found {name!r}, expected letters, digits, - and _")
    address = entry.get("link_address")
    if not isinstance(address, int) or address % PAGE_BYTES or not 0 < address < USER_LIMIT:
        raise BuildError(
            f"{where}: link_address: found {address!r}, expected a multiple of {PAGE_BYTES:#x} "
            f"below {USER_LIMIT:#x}"
        )
    libs = [userland / lib for lib in strings("libs", ["lib"])]
    sources: list[Path] = []
    for directory, patterns in [
        (folder, strings("sources", ["*.c", "*.S"])),
        *((x, ["*.c", "*.S"]) for x in libs),
    ]:
        for pattern in patterns:
            found = sorted(directory.glob(pattern))
            if not found and "*" not in pattern:
                raise BuildError(f"{where}: sources: there is no {pattern} in {directory.name}/")
            sources += found
        if not any(path.parent == directory for path in sources):
            raise BuildError(f"{where}: no C or assembly files in {directory.relative_to(userland.parent)}")
    return Program(
        name,
        address,
        tuple(path.relative_to(userland).as_posix() for path in sources),
        tuple(path.relative_to(userland).as_posix() for path in (folder, *libs)),
    )


def program_artefact(root: Path, program: Program) -> Artefact:
    """A user program; the compiler runs in `userland` and sees relative paths only."""
    userland = root / "userland"
    headers = [path for folder in program.folders for path in sorted((userland / folder).glob("*.h"))]
    linker_script = userland / "program.ld"
    script = linker_script.read_text(encoding="utf-8")
    return Artefact(
        name=program.name,
        output=root / "src/l4lab/_native/programs" / program.name,
        directory=userland,
        arguments=(
            *(*COMMON_FLAGS, *PLACE_FLAGS, *PROGRAM_FLAGS, *NO_RUNTIME_FLAGS, "-Iinclude"),
            *(f"-I{folder}" for folder in program.folders),
            *program.sources,
        ),
        inputs=(
            *(userland / source for source in program.sources),
            *headers,
            *sorted((userland / "include").rglob("*.h")),
        ),
        script=f"LINK_ADDRESS = {program.link_address:#x};\n{script}",
    )


def artefacts(root: Path) -> list[Artefact]:
    """Everything to build in the checkout `root`, in order."""
    programs = (program_artefact(root, program) for program in read_programs(root / "userland"))
    return [shim_artefact(root, Host.detect()), *programs]


# --- building ------------------------------------------------------------------------------------


def _key(artefact: Artefact, directory: Path) -> str:
    """Changes whenever the output could."""
    digest = hashlib.sha256(
        f"ziglang {ZIGLANG_VERSION} unicorn {importlib.metadata.version('unicorn')}\n".encode()
    )
    digest.update("\0".join((*artefact.arguments, artefact.script or "")).encode())
    for path in artefact.inputs:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\n{os.path.relpath(path, directory)} {content}".encode())
    return digest.hexdigest()


def compile_artefact(root: Path, artefact: Artefact) -> None:
    """Run the compiler, up to date or not; the output appears whole or not at all."""
    build = root / "build/native"
    folders = {"zig": _zig_folder(), "unicorn": _package_folder("unicorn"), "userland": root / "userland"}
    arguments = list(artefact.arguments)
    if artefact.script is not None:
        script = build / f"{artefact.name}.ld"
        script.write_text(artefact.script, encoding="utf-8")
        arguments += ["-T", str(script)]
    for name, folder in folders.items():
        arguments = [argument.replace(f"@{name}@", str(folder)) for argument in arguments]
    cache = build / "zig-cache"
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("CPATH", "C_INCLUDE_PATH")},
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
        "SOURCE_DATE_EPOCH": "0",
    }
    fresh = build / f"{artefact.name}.new"
    command = [str(folders["zig"] / "zig"), "cc", *arguments, "-o", str(fresh)]
    done = subprocess.run(command, cwd=artefact.directory, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{artefact.name} does not compile (messages above)", done.stderr)
    artefact.output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(fresh, artefact.output)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time per checkout; others wait."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build(root: Path = CHECKOUT, *, report: Report = lambda _: None, force: bool = False) -> BuildResult:
    """Bring `src/l4lab/_native` up to date.

    `report` gets one line for each artefact that is being built. `force`: build what is up to date, too.
    Raises BuildError after all that can be built has been; where one fails, its last result stays.
    """
    _zig_folder()  # says once what is wrong with it, if anything is
    wanted = artefacts(root)
    work = root / "build/native"
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work / "lock"):
        stale = [
            (artefact, key, kept)
            for artefact, key, kept, done in _states(wanted, root, work)
            if force or not done
        ]
        failed: list[BuildError] = []
        for number, (artefact, key, kept) in enumerate(stale, start=1):
            start = time.monotonic()
            kept.unlink(missing_ok=True)
            try:
                compile_artefact(root, artefact)
            except BuildError as error:
                failed.append(error)
                continue
            kept.write_text(key, encoding="utf-8")
            report(f"[{number}/{len(stale)}] built {artefact.name} ({time.monotonic() - start:.1f} s)")
        if failed:
            raise BuildError("; ".join(map(str, failed)), "".join(error.output for error in failed))
        hashes = _sweep_and_hash(root / "src/l4lab/_native/programs", {a.output.name for a in wanted[1:]})
        _record(root / "src/l4lab/_native/build.json", hashes)
    return BuildResult(tuple(artefact.name for artefact, _, _ in stale), hashes)


def out_of_date(root: Path = CHECKOUT) -> list[str]:
    """Names of what `build` would compile; it is not locked out by a build that runs."""
    return [
        artefact.name
        for artefact, _, _, done in _states(artefacts(root), root, root / "build/native")
        if not done
    ]


def _states(wanted: list[Artefact], root: Path, work: Path) -> Iterator[tuple[Artefact, str, Path, bool]]:
    """Each artefact, its key, the file that keeps the key of the last build, whether that is up to date."""
    for artefact in wanted:
        key, kept = _key(artefact, root), work / f"{artefact.name}.key"
        yield artefact, key, kept, artefact.output.exists() and _read_or_empty(kept) == key


def _read_or_empty(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _sweep_and_hash(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Remove executables of programs that are no more; hash the rest."""
    wanted = set(names)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    return program_hashes(folder)


def _record(path: Path, hashes: dict[str, str]) -> None:
    """What `l4lab --version` of an installed wheel tells about its build."""
    text = json.dumps(
        {"compiler": f"ziglang {ZIGLANG_VERSION}", "programs": hashes}, indent=1, sort_keys=True
    )
    if _read_or_empty(path) != text:
        path.write_text(text, encoding="utf-8")


# --- the recorded hashes ---------------------------------------------------------------------------


def program_hashes(folder: Path) -> dict[str, str]:
    """Program name -> SHA-256 of its file, in order of names."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read_hashes(path: Path) -> dict[str, str]:
    """`userland/HASHES` as program name -> SHA-256; empty if there is no such file."""
    rows = (line.split() for line in _read_or_empty(path).splitlines())
    return {name: digest for digest, name in rows}


def write_hashes(path: Path, hashes: dict[str, str]) -> None:
    """Record `hashes` in the format that `sha256sum --check` reads."""
    path.write_text(
        "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())), encoding="utf-8"
    )


def differing(recorded: dict[str, str], built: dict[str, str]) -> list[str]:
    """Names whose bytes are not the recorded ones, or that only one side has."""
    return sorted(name for name in recorded.keys() | built.keys() if recorded.get(name) != built.get(name))


def main(arguments: list[str]) -> int:
    """`python tools/native/build.py [--force]`: how the launcher calls this file."""
    try:
        build(
            report=lambda line: print(f"l4lab: {line}", file=sys.stderr, flush=True),
            force="--force" in arguments,
        )
    except BuildError as error:
        sys.stderr.write(error.output)
        print(f"l4lab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
