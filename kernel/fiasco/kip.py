"""The kernel info page: what every program can read about kernel and machine. Ref: ABI sheet section 10."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from l4lab.kernel.fiasco import abi
from l4lab.kernel.interface import BootParameters, MemoryRange, MemoryUse
from l4lab.kernel.units import PAGE_BYTES, page_ceil, page_floor

VERSION_STRING: Final = "l4lab microkernel, Fiasco.OC interface, abiver 3"
_PLATFORM_BYTES: Final = 16
_CLOCK_LOW: Final = abi.KIP_OFF_CLOCK
_CLOCK_HIGH: Final = abi.KIP_OFF_CLOCK + 4
_NS_PER_US: Final = 1000


_USES: Final = {
    MemoryUse.RAM: abi.MEM_CONVENTIONAL,
    MemoryUse.NOBODYS: abi.MEM_ARCH,
    MemoryUse.FILES: abi.MEM_BOOTLOADER,
    MemoryUse.INFO_PAGE: abi.MEM_RESERVED | abi.MEM_RESERVED_IMAGE << abi.MEM_SUBTYPE_SHIFT,
    MemoryUse.SIGMA0: abi.MEM_DEDICATED | abi.MEM_EAGER,
    MemoryUse.ROOT: abi.MEM_BOOTLOADER | abi.MEM_EAGER,
    MemoryUse.KERNEL: abi.MEM_RESERVED | abi.MEM_RESERVED_HEAP << abi.MEM_SUBTYPE_SHIFT,
}
_WITH_RIGHTS: Final = (MemoryUse.FILES, MemoryUse.ROOT)
"""Boot-loader memory, whose subtype is what may be done with it."""


def _descriptor(range_: MemoryRange) -> tuple[int, int]:
    """The two words of a range of RAM: first byte with its type, last byte."""
    low = page_floor(range_.start) | _USES[range_.use]
    if range_.use in _WITH_RIGHTS:
        rights = abi.RIGHT_R | abi.RIGHT_W * range_.writable | abi.RIGHT_X * range_.executable
        low |= rights << abi.MEM_SUBTYPE_SHIFT
    return low, page_ceil(range_.end) - 1


def build(parameters: BootParameters, module_list: int, ranges: Sequence[MemoryRange]) -> bytes:
    """The page as it stands before the first thread runs; the clock is zero. `module_list`: its address."""
    descriptors = [_descriptor(range_) for range_ in ranges]
    descriptors.append((abi.MEM_CONVENTIONAL | abi.MEM_VIRTUAL, abi.USER_LIMIT - 1))
    if len(descriptors) > abi.KIP_MEM_DESC_SLOTS:
        raise ValueError(f"{len(descriptors)} memory descriptors, {abi.KIP_MEM_DESC_SLOTS} fit")
    page = bytearray(PAGE_BYTES)

    def put(offset: int, form: str, *values: int | bytes) -> None:
        struct.pack_into("<" + form, page, offset, *values)

    put(abi.KIP_OFF_MAGIC, "I", abi.KIP_MAGIC)
    put(abi.KIP_OFF_VERSION, "I", abi.KIP_VERSION)
    put(abi.KIP_OFF_VERSION_STRING, "B", abi.KIP_OFF_STRINGS // 16)
    put(abi.KIP_OFF_SYS_CALLS, "B", abi.KIP_SYS_CALLS_ABSOLUTE)
    put(abi.KIP_OFF_SIGMA0_IP, "Q", parameters.sigma0_entry)
    put(abi.KIP_OFF_ROOT_IP, "Q", parameters.root_entry)
    put(abi.KIP_OFF_FREQUENCY_KHZ, "Q", parameters.mhz * 1000)
    put(abi.KIP_OFF_USER_PTR, "Q", module_list)
    put(abi.KIP_OFF_GRANULARITY_US, "I", abi.TICK_US)
    put(abi.KIP_OFF_MEM_DESC_OFFSET, "I", abi.KIP_OFF_MEM_DESCS)
    put(abi.KIP_OFF_MEM_DESC_COUNT, "I", abi.KIP_MEM_DESC_SLOTS)
    put(abi.KIP_OFF_PLATFORM, f"{_PLATFORM_BYTES}s", b"pc")
    put(abi.KIP_OFF_IS_MP, "I", int(parameters.cores > 1))
    for number, words in enumerate(descriptors):
        put(abi.KIP_OFF_MEM_DESCS + 8 * number, "II", *words)
    strings = b"".join(text.encode() + b"\0" for text in (VERSION_STRING, *abi.KIP_FEATURES))
    page[abi.KIP_OFF_STRINGS : abi.KIP_OFF_STRINGS + len(strings)] = strings
    for offset, code in (
        (abi.KIP_OFF_STUB, abi.SYSTEM_CALL_STUB),
        (abi.KIP_OFF_CLOCK_US_CODE, clock_code(abi.KIP_OFF_CLOCK_US_CODE)),
        (abi.KIP_OFF_CLOCK_NS_CODE, clock_code(abi.KIP_OFF_CLOCK_NS_CODE, _NS_PER_US)),
    ):
        page[offset : offset + len(code)] = code
    return bytes(page)


def clock_code(offset: int, scale: int = 1) -> bytes:
    """i386 code that stands at `offset` in the page and returns the clock times `scale` in EDX:EAX.

    cdecl, no arguments, position independent, clobbers ECX. The high half is read again until it
    did not change, so a tick in between does no harm.
    """
    base = offset + 5  # what `pop ecx` finds: the address behind the call
    low = struct.pack("<i", _CLOCK_LOW - base)
    high = struct.pack("<i", _CLOCK_HIGH - base)
    again = (
        b"\x8b\x91" + high  # again: mov edx, [ecx + high]
        + b"\x8b\x81" + low  #       mov eax, [ecx + low]
        + b"\x3b\x91" + high  #      cmp edx, [ecx + high]
    )  # fmt: skip
    code = (
        b"\xe8\0\0\0\0\x59" + again + b"\x75" + struct.pack("<b", -len(again) - 2)
    )  # call; pop ecx; …; jne again
    if scale != 1:
        factor = struct.pack("<I", scale)
        code += b"\x69\xca" + factor  # imul ecx, edx, scale
        code += b"\xba" + factor  # mov edx, scale
        code += b"\xf7\xe2\x01\xca"  # mul edx; add edx, ecx
    return code + b"\xc3"
