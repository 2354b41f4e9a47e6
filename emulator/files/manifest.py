"""Boot manifests: which programs run on which machine (`images/*.toml`).

    [machine]                      # may be left out, as may each of its keys
    cores = 4                      # 1 to 64; default 1
    ram = "256MiB"                 # "16MiB" to "3GiB", a multiple of 4 MiB; default "256MiB"
    profile = "opteron-6174"       # a bundled cost profile, or the path of one; this is the default
    quantum_us = 10000             # time slice of a thread that was given none; default 10000
    kernel_memory = "8%"           # the kernel's own share of RAM, per cent or "20MiB"; default "8%"
    tlb = "full"                   # what unmap does to TLBs: "full", "page" or "switch"; default "full"
    idle = "halt"                  # what idle cores do: "halt" and take time to wake, or "poll"; default "halt"

    [boot]
    sigma0 = "sigma0"              # required
    roottask = "root --init=rom/hello"     # required
    modules = ["hello some arguments", "data.txt"]     # any files; default none

A program or module is a command line. Its first word is the file's path, and quotes work as in a
shell (`"'my files/hello' a b"`); the guest sees the command line as it stands. Absolute paths are
taken as they are, others relative to the manifest's folder; a bare name that is no file there is
looked up among the bundled programs. Whether a file is a program is found out when it is booted.

The share of 8 per cent is that of 000_1be4d2f6ae8bebbc.txt, section 2.2. What can be done to TLBs is
discussed in its section 3.2, "TLB issue", and listed at `kernel.state.TlbPolicy`.
"""

from __future__ import annotations

import enum
import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from l4lab.emulator.errors import ManifestError, ProfileError
from l4lab.emulator.files.inputs import (
    BUNDLED_IMAGES,
    BUNDLED_PROGRAMS,
    bundled_names,
    did_you_mean,
    find_bundled,
    listed,
    open_regular,
    printable,
    why_no_file,
)
from l4lab.emulator.files.profile import find_profile
from l4lab.emulator.files.tomlfile import Table, load_toml, shown
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.state import TlbPolicy
from l4lab.kernel.units import PAGE_BYTES, SUPERPAGE_BYTES

MIN_RAM_BYTES: Final = 16 << 20
MAX_RAM_BYTES: Final = 3 << 30
MIN_KERNEL_BYTES: Final = 1 << 20
MAX_KERNEL_PERCENT: Final = 50
MAX_QUANTUM_US: Final = 10_000_000
MAX_MODULES: Final = 1000

_Choice = TypeVar("_Choice", bound=enum.Enum)

DEFAULT_PROFILE: Final = "opteron-6174"
DEFAULT_RAM: Final = "256MiB"
DEFAULT_KERNEL_MEMORY: Final = "8%"

_SIZE: Final = re.compile(r"([0-9]{1,9}) ?(KiB|MiB|GiB)")
_PERCENT: Final = re.compile(r"([0-9]{1,3}) ?%")
_UNIT_BYTES: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HASH_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Module:
    """A file to put into RAM before the first instruction.

    `path` is where it was found. `command_line` is as the manifest has it.
    """

    path: Path
    command_line: str

    @property
    def given(self) -> str:
        """The path as the manifest has it: the first word of the command line."""
        return shlex.split(self.command_line)[0]

    @property
    def name(self) -> str:
        """The file's name without folders, by which a root task finds it (`rom/NAME`)."""
        return Path(self.given).name

    def resolved(self) -> dict[str, object]:
        """What identifies the module on any machine: path as given, command line, size, SHA-256."""
        size_bytes, digest = _fingerprint(self.path)
        return {
            "path": self.given,
            "command_line": self.command_line,
            "size_bytes": size_bytes,
            "sha256": digest,
        }


class Idle(enum.Enum):
    """What a core does that has nothing to run; the value is the manifest's word.

    HALT: it stops, as under the real kernel, and an interrupt takes the profile's `halt_exit` to wake it.
    POLL: it looks for interrupts all the time, so they cost no more than on a busy core.
    """

    HALT = "halt"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A machine and what it boots. `profile` and `kernel_memory` are as the manifest has them."""

    path: Path
    cores: int
    ram_bytes: int
    profile: str
    sigma0: Module
    roottask: Module
    modules: tuple[Module, ...]
    quantum_us: int = INTERFACE.default_quantum_us
    kernel_memory: str = DEFAULT_KERNEL_MEMORY
    tlb: TlbPolicy = TlbPolicy.FULL
    idle: Idle = Idle.HALT

    @property
    def kernel_memory_bytes(self) -> int:
        """The kernel's share of RAM, in whole pages."""
        share = _kernel_share(self.kernel_memory, self.ram_bytes)
        if share is None:  # only if the manifest was not made by `load_manifest`
            raise ManifestError(
                f"found kernel memory {shown(self.kernel_memory)}, expected a share or a size"
            )
        return share

    def profile_path(self) -> Path:
        """The file of the cost profile, for `load_profile`."""
        return find_profile(self.profile, self.path.parent)

    def resolved(self) -> dict[str, Any]:
        """Everything that determines the machine, defaults included, as JSON has it.

        The same on every machine: paths are as the manifest gives them, contents are SHA-256 sums.
        Raises ManifestError if a file has gone since the manifest was read.
        """
        return {
            "manifest": {"name": self.path.name, "sha256": _fingerprint(self.path)[1]},
            "machine": {
                "cores": self.cores,
                "ram_bytes": self.ram_bytes,
                "profile": self.profile,
                "profile_sha256": _fingerprint(self.profile_path())[1],
                "quantum_us": self.quantum_us,
                "kernel_memory": self.kernel_memory,
                "kernel_memory_bytes": self.kernel_memory_bytes,
                "tlb": self.tlb.value,
                "idle": self.idle.value,
            },
            "boot": {
                "sigma0": self.sigma0.resolved(),
                "roottask": self.roottask.resolved(),
                "modules": [module.resolved() for module in self.modules],
            },
        }


def load_manifest(path: Path) -> Manifest:
    """The manifest in `path`, every file it names looked up. ManifestError for any mistake in it."""
    top = load_toml(path, ManifestError)
    top.allow("machine", "boot")
    machine = top.table("machine", required=False)
    machine.allow("cores", "ram", "profile", "quantum_us", "kernel_memory", "tlb", "idle")
    boot = top.table("boot").allow("sigma0", "roottask", "modules")
    ram_bytes = _ram(machine)
    return Manifest(
        path=path,
        cores=machine.integer("cores", 1, INTERFACE.max_cores, default=1),
        ram_bytes=ram_bytes,
        profile=_profile(machine),
        sigma0=_program(boot, "sigma0"),
        roottask=_program(boot, "roottask"),
        modules=_modules(boot),
        quantum_us=machine.integer("quantum_us", 1, MAX_QUANTUM_US, default=INTERFACE.default_quantum_us),
        kernel_memory=_kernel_memory(machine, ram_bytes),
        tlb=_one_of(machine, "tlb", TlbPolicy.FULL),
        idle=_one_of(machine, "idle", Idle.HALT),
    )


def find_image(name_or_path: str) -> Path:
    """The manifest that an operator means: a path, or the name of a bundled image.

    A word with a separator or the ending `.toml` is a path, any other the name of a bundled image.
    Raises ManifestError, which lists those.
    """
    return find_bundled(name_or_path, BUNDLED_IMAGES, Path(), "image", ManifestError)


# --- [machine] -----------------------------------------------------------------------------------


def _ram(machine: Table) -> int:
    expected = 'a size from "16MiB" to "3GiB" that is a multiple of 4 MiB'
    text = machine.string("ram", expected, DEFAULT_RAM)
    size_bytes = _size(text)
    if size_bytes is None:
        machine.refuse("ram", shown(text), f'{expected}, as in "256MiB"')
    if not MIN_RAM_BYTES <= size_bytes <= MAX_RAM_BYTES or size_bytes % SUPERPAGE_BYTES:
        machine.refuse("ram", shown(text), expected)
    return size_bytes


def _kernel_memory(machine: Table, ram_bytes: int) -> str:
    expected = f'a share as in "8%" or a size as in "20MiB", from 1 MiB to {MAX_KERNEL_PERCENT}% of RAM'
    text = machine.string("kernel_memory", expected, DEFAULT_KERNEL_MEMORY)
    share = _kernel_share(text, ram_bytes)
    if share is None or not MIN_KERNEL_BYTES <= share <= ram_bytes * MAX_KERNEL_PERCENT // 100:
        machine.refuse("kernel_memory", shown(text), expected)
    return text


def _kernel_share(text: str, ram_bytes: int) -> int | None:
    percent = _PERCENT.fullmatch(text)
    share = ram_bytes * int(percent[1]) // 100 if percent else _size(text)
    return None if share is None else share // PAGE_BYTES * PAGE_BYTES


def _one_of(machine: Table, key: str, default: _Choice) -> _Choice:
    words = [choice.value for choice in type(default)]
    expected = f"one of {', '.join(shown(word) for word in words)}"
    text = machine.string(key, expected, default.value)
    if text not in words:
        machine.refuse(key, shown(text), expected)
    return type(default)(text)


def _size(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _UNIT_BYTES[match[2]] if match else None


def _profile(machine: Table) -> str:
    name = machine.string("profile", "the name or path of a cost profile", DEFAULT_PROFILE)
    try:
        find_profile(name, machine.path.parent)
    except ProfileError as problem:
        raise ManifestError(f"{printable(machine.path)}: {machine.full_name('profile')}: {problem}") from None
    return name


# --- [boot] --------------------------------------------------------------------------------------


def _program(boot: Table, key: str) -> Module:
    return _module(boot, key, boot.string(key, 'a command line as in "hello some arguments"'))


def _modules(boot: Table) -> tuple[Module, ...]:
    expected = 'a list of command lines as in ["hello some arguments", "data.txt"]'
    lines = boot.take("modules", list, expected, [])
    if len(lines) > MAX_MODULES:
        boot.refuse("modules", f"{len(lines)} modules", f"at most {MAX_MODULES}")
    modules: list[Module] = []
    seen: dict[str, int] = {}
    for index, line in enumerate(lines):
        key = f"modules[{index}]"
        if type(line) is not str or not line.isprintable():
            boot.refuse(key, shown(line), "a command line without control characters")
        module = _module(boot, key, line)
        if module.name in seen:
            other = f"boot.modules[{seen[module.name]}]"
            boot.refuse(key, f'a second "{printable(module.name)}" after {other}', "names that differ")
        seen[module.name] = index
        modules.append(module)
    return tuple(modules)


def _module(boot: Table, key: str, command_line: str) -> Module:
    try:
        words = shlex.split(command_line)
    except ValueError as problem:
        boot.refuse(key, f"{shown(command_line)} ({problem})", "a command line with closed quotes")
    if not words or not words[0]:
        boot.refuse(key, shown(command_line), "a command line that begins with a file")
    return Module(_find_file(boot, key, words[0]), command_line)


def _find_file(boot: Table, key: str, given: str) -> Path:
    beside = boot.path.parent / given  # `given` itself if that is absolute
    obstacle = why_no_file(beside)
    if obstacle is None:
        return beside
    if Path(given).name != given:
        found = f'{obstacle} at "{printable(given)}"'
        boot.refuse(key, found, "the path of a file, absolute or relative to the manifest")
    names = bundled_names(BUNDLED_PROGRAMS)
    if given not in names:
        hint = did_you_mean(given, names)
        found = f'{obstacle} "{printable(given)}" beside the manifest and no such program{hint}'
        boot.refuse(key, found, f"a file or a bundled program: {listed(names)}")
    return BUNDLED_PROGRAMS / given


def _fingerprint(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    stream, _ = open_regular(path, ManifestError)
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with stream:
            while chunk := stream.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
    except OSError as problem:
        raise ManifestError(f"{printable(path)}: found {problem}, expected a readable file") from None
    return size_bytes, digest.hexdigest()
