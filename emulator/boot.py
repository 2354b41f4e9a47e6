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

from l4lab.emulator.errors import ImageError, ManifestError
from l4lab.emulator.files.elf import PF_W, PF_X, ElfImage, load_elf
from l4lab.emulator.files.manifest import Manifest, Module
from l4lab.emulator.interfaces import INTERFACE
from l4lab.emulator.ram import Ram
from l4lab.kernel.interface import BootModule, BootParameters, MemoryRange, MemoryUse
from l4lab.kernel.units import PAGE_BYTES, SUPERPAGE_BYTES, page_ceil, page_floor

_INFO_START = PAGE_BYTES
_MODULES_FLOOR = 1 << 20


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
    modules = [_module(manifest.sigma0, *_extent(sigma0)), _module(manifest.roottask, *_extent(root))]
    unplaced = [*modules, *(_module(module, 0, 0) for module in manifest.modules)]
    info_end = _INFO_START + len(INTERFACE.module_list(_INFO_START, unplaced))
    layout.claim(_INFO_START, info_end, "the module list")
    kip_address = layout.place(PAGE_BYTES, _INFO_START, "the kernel info page")
    files = [_place_file(module, layout, ram) for module in manifest.modules]
    ram.bytes_[_INFO_START:info_end] = INTERFACE.module_list(_INFO_START, [*modules, *files])
    parameters = BootParameters(
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
    ranges = (
        MemoryRange(MemoryUse.RAM, 0, ram.size_bytes),
        MemoryRange(MemoryUse.NOBODYS, 0, PAGE_BYTES),
        MemoryRange(MemoryUse.FILES, _INFO_START, info_end),
        MemoryRange(MemoryUse.INFO_PAGE, kip_address, kip_address + PAGE_BYTES),
        *_of_program(MemoryUse.SIGMA0, sigma0),
        *_of_program(MemoryUse.ROOT, root),
        *_of_files(files),
        MemoryRange(MemoryUse.KERNEL, kernel_start, ram.size_bytes),
    )
    ram.bytes_[kip_address : kip_address + PAGE_BYTES] = INTERFACE.info_page(parameters, _INFO_START, ranges)
    return parameters


def _extent(image: ElfImage) -> tuple[int, int]:
    last = image.segments[-1]
    return image.segments[0].address, last.address + last.memory_bytes


def _module(module: Module, start: int, end: int) -> BootModule:
    return BootModule(module.command_line.encode(), start, end)


def _place_file(module: Module, layout: _Layout, ram: Ram) -> BootModule:
    try:
        data = module.path.read_bytes()
    except OSError as problem:
        raise ImageError(f"{module.path}: found {problem.strerror}, expected a readable file") from None
    start = layout.place(len(data), _MODULES_FLOOR, f"module {module.name}")
    ram.bytes_[start : start + len(data)] = data
    return _module(module, start, start + len(data))


def _of_program(use: MemoryUse, image: ElfImage) -> list[MemoryRange]:
    return [
        MemoryRange(
            use, segment.address, segment.end, bool(segment.rights & PF_W), bool(segment.rights & PF_X)
        )
        for segment in image.segments
    ]


def _of_files(files: list[BootModule]) -> list[MemoryRange]:
    """One for each run of files that lie together: the page has 64 descriptors, a manifest more modules."""
    runs: list[tuple[int, int]] = []
    for file in sorted(files, key=lambda placed: placed.start):
        start, end = page_floor(file.start), page_ceil(max(file.end, file.start + 1))
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [MemoryRange(MemoryUse.FILES, start, end) for start, end in runs]
