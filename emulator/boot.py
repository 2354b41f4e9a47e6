"""The boot loader: programs, modules and the kernel info page into RAM.

Ref: ABI sheet section 13. What a machine's RAM holds before the first instruction:

    0x00000000  one page that nobody gets
    0x00001000  module info: list, command lines        (boot-loader memory)
    …           the kernel info page                    (reserved)
    link address of sigma0, link address of the root task
    …           the modules, page aligned, in the order of the manifest, first fit above 1 MiB
    top         the kernel's share, from a 4 MiB boundary up
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from l4lab.emulator.errors import ImageError, ManifestError
from l4lab.emulator.files.elf import ElfImage, Segment, load_elf
from l4lab.emulator.files.manifest import Manifest, Module
from l4lab.emulator.ram import Ram
from l4lab.kernel.fiasco import abi, kip
from l4lab.kernel.fiasco.kip import MemoryDescriptor
from l4lab.kernel.interface import BootParameters
from l4lab.kernel.units import PAGE_BYTES, SUPERPAGE_BYTES, page_ceil, page_floor

_INFO_START = PAGE_BYTES
_MODULES_FLOOR = 1 << 20
_READ_WRITE_EXECUTE = abi.RIGHT_R | abi.RIGHT_W | abi.RIGHT_X


@dataclass(frozen=True, slots=True)
class _Placed:
    """A file in RAM: bytes `start .. end - 1`."""

    module: Module
    kind: int
    start: int
    end: int


class _Layout:
    """Which page-aligned ranges of RAM are taken, and by what."""

    def __init__(self, manifest: Manifest, limit: int) -> None:
        self._manifest = manifest
        self._limit = limit
        self._taken: list[tuple[int, int, str]] = [(0, PAGE_BYTES, "page 0")]

    def claim(self, start: int, end: int, what: str) -> None:
        """Take a range. ManifestError if it is outside the RAM that programs get, or taken."""
        start, end = page_floor(start), page_ceil(end)
        if end > self._limit:
            raise ManifestError(
                f"{self._manifest.path}: machine.ram: {what} needs RAM up to {end:#x}, "
                f"expected at most {self._limit:#x}, where the kernel's share begins"
            )
        for other_start, other_end, other in self._taken:
            if start < other_end and other_start < end:
                raise ManifestError(
                    f"{self._manifest.path}: boot: {what} at {start:#x}..{end:#x} overlaps {other} at "
                    f"{other_start:#x}..{other_end:#x}, expected programs linked apart"
                )
        self._taken.append((start, end, what))

    def place(self, size_bytes: int, floor: int, what: str) -> int:
        """The lowest free page-aligned address at or above `floor`, now taken."""
        at = floor
        for start, end, _ in sorted(self._taken):
            if at + size_bytes <= start:
                break
            at = max(at, end)
        self.claim(at, at + max(size_bytes, 1), what)
        return at


def load(manifest: Manifest, ram: Ram, mhz: int, *, global_pages: bool = True) -> BootParameters:
    """Fill `ram` for `manifest`. ManifestError or ImageError, with file, for what cannot be.

    `mhz`, `global_pages`: of the processor.
    """
    kernel_start = (ram.size_bytes - manifest.kernel_memory_bytes) // SUPERPAGE_BYTES * SUPERPAGE_BYTES
    layout = _Layout(manifest, kernel_start)
    sigma0, root = load_elf(manifest.sigma0.path), load_elf(manifest.roottask.path)
    for name, image in (("sigma0", sigma0), ("the root task", root)):
        for segment in image.segments:
            layout.claim(segment.address, segment.address + segment.memory_bytes, name)
            ram.bytes_[segment.address : segment.address + len(segment.data)] = segment.data
    info_bytes = _info_bytes(manifest)
    layout.claim(_INFO_START, _INFO_START + info_bytes, "the module list")
    kip_address = layout.place(PAGE_BYTES, _INFO_START, "the kernel info page")
    placed = [
        _Placed(manifest.sigma0, abi.MODULE_TYPE_SIGMA0, *_extent(sigma0)),
        _Placed(manifest.roottask, abi.MODULE_TYPE_ROOT, *_extent(root)),
        *(_place_file(module, layout, ram) for module in manifest.modules),
    ]
    _write_info(ram, placed)
    descriptors = _descriptors(
        ram.size_bytes, kernel_start, info_bytes, kip_address, sigma0, root, placed[2:]
    )
    contents = kip.KipContents(
        sigma0_entry=sigma0.entry,
        root_entry=root.entry,
        module_info=_INFO_START,
        mhz=mhz,
        multiprocessor=manifest.cores > 1,
        descriptors=descriptors,
    )
    ram.bytes_[kip_address : kip_address + PAGE_BYTES] = kip.build(contents)
    return BootParameters(
        first_kernel_pfn=kernel_start >> 12,
        kernel_frame_count=ram.size_bytes - kernel_start >> 12,
        cores=manifest.cores,
        mhz=mhz,
        quantum_us=manifest.quantum_us,
        kip_pfn=kip_address >> 12,
        sigma0_entry=sigma0.entry,
        root_entry=root.entry,
        global_pages=global_pages,
    )


def _extent(image: ElfImage) -> tuple[int, int]:
    last = image.segments[-1]
    return image.segments[0].address, last.address + last.memory_bytes


def _place_file(module: Module, layout: _Layout, ram: Ram) -> _Placed:
    data = _read(module.path)
    start = layout.place(len(data), _MODULES_FLOOR, f"module {module.name}")
    ram.bytes_[start : start + len(data)] = data
    return _Placed(module, abi.MODULE_TYPE_NORMAL, start, start + len(data))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ImageError(f"{path}: found {problem.strerror}, expected a readable file") from None


# --- module info (section 13) -------------------------------------------------------------------


def _command_lines(manifest: Manifest) -> list[bytes]:
    modules = (manifest.sigma0, manifest.roottask, *manifest.modules)
    return [module.command_line.encode() + b"\0" for module in modules]


def _info_bytes(manifest: Manifest) -> int:
    lines = _command_lines(manifest)
    return abi.MODULE_INFO_BYTES + len(lines) * abi.MODULE_BYTES + sum(map(len, lines))


def _write_info(ram: Ram, placed: list[_Placed]) -> None:
    """Header, module array, command lines; the header's own command line is the root task's."""
    array_at = _INFO_START + abi.MODULE_INFO_BYTES
    text_at = array_at + len(placed) * abi.MODULE_BYTES
    entries, texts = bytearray(), bytearray()
    root_line = 0
    for file in placed:
        line_at = text_at + len(texts)
        root_line = line_at if file.kind == abi.MODULE_TYPE_ROOT else root_line
        entries += struct.pack("<4Q", file.kind, file.start, file.end, line_at)
        texts += file.module.command_line.encode() + b"\0"
    header = struct.pack("<3Q2I2Q", 0, root_line, array_at, len(placed), 0, 0, 0)
    info = header + entries + texts
    ram.bytes_[_INFO_START : _INFO_START + len(info)] = info


# --- memory descriptors (section 10) --------------------------------------------------------------


def _descriptors(
    ram_bytes: int,
    kernel_start: int,
    info_bytes: int,
    kip_address: int,
    sigma0: ElfImage,
    root: ElfImage,
    modules: list[_Placed],
) -> list[MemoryDescriptor]:
    """All RAM, and then what is taken out of it: later ones override earlier ones."""
    kip_end = kip_address + PAGE_BYTES - 1
    return [
        MemoryDescriptor(0, ram_bytes - 1, abi.MEM_CONVENTIONAL),
        MemoryDescriptor(0, PAGE_BYTES - 1, abi.MEM_ARCH),
        _boot_loader(_INFO_START, _INFO_START + info_bytes, _READ_WRITE_EXECUTE),
        MemoryDescriptor(kip_address, kip_end, abi.MEM_RESERVED, abi.MEM_RESERVED_IMAGE),
        *(_segment(segment, abi.MEM_DEDICATED, 0) for segment in sigma0.segments),
        *(_segment(segment, abi.MEM_BOOTLOADER, segment.rights) for segment in root.segments),
        *_module_descriptors(modules),
        MemoryDescriptor(kernel_start, ram_bytes - 1, abi.MEM_RESERVED, abi.MEM_RESERVED_HEAP),
        MemoryDescriptor(0, abi.USER_LIMIT - 1, abi.MEM_CONVENTIONAL, virtual=True),
    ]


def _boot_loader(start: int, end: int, rights: int) -> MemoryDescriptor:
    return MemoryDescriptor(page_floor(start), page_ceil(end) - 1, abi.MEM_BOOTLOADER, rights)


def _segment(segment: Segment, kind: int, subtype: int) -> MemoryDescriptor:
    start, end = page_floor(segment.address), page_ceil(segment.address + segment.memory_bytes)
    return MemoryDescriptor(start, end - 1, kind, subtype, eager=True)


def _module_descriptors(modules: list[_Placed]) -> list[MemoryDescriptor]:
    """One for each run of modules that lie together: the page has 64 descriptors, a manifest more modules."""
    runs: list[tuple[int, int]] = []
    for file in sorted(modules, key=lambda placed: placed.start):
        start, end = page_floor(file.start), page_ceil(max(file.end, file.start + 1))
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [_boot_loader(start, end, _READ_WRITE_EXECUTE) for start, end in runs]
