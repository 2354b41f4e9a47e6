"""What `cpuid` answers: the processor that the machine says it is.

A feature bit is a promise, so only what the vCPU really does is set: what the engine's K10 model
executes in 32-bit user mode, without sysenter (the kernel is entered by `int 0x30`), and without
what only a kernel could use. The initial APIC id in leaf 1 is filled in by the shim: it is the core's number.

Ref: AMD CPUID Specification, publication 25481; AMD BKDG for family 10h, publication 31116.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ANY_SUBLEAF: Final = 0xFFFFFFFF

# Leaf 1 EDX: FPU, PSE, TSC, MSR, CX8, PGE, CMOV, CLFSH, MMX, FXSR, SSE, SSE2.
_FEATURES_EDX: Final = (
    1 << 0
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 8
    | 1 << 13
    | 1 << 15
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26
)
# Leaf 1 ECX: SSE3, POPCNT.
_FEATURES_ECX: Final = 1 << 0 | 1 << 23
# Leaf 0x80000001 EDX repeats FPU .. FXSR of leaf 1 and adds RDTSCP.
_EXTENDED_EDX: Final = (
    1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 27
)
# Leaf 0x80000001 ECX: LAHF, ABM (lzcnt), SSE4A.
_EXTENDED_ECX: Final = 1 << 0 | 1 << 5 | 1 << 6
_CLFLUSH_LINE: Final = 8 << 8  # 64 bytes, in leaf 1 EBX


@dataclass(frozen=True, slots=True)
class CpuidLeaf:
    """The answer to one value of EAX (and of ECX, unless `subleaf` is ANY_SUBLEAF)."""

    leaf: int
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0
    subleaf: int = ANY_SUBLEAF


@dataclass(frozen=True, slots=True)
class CpuidModel:
    """A leaf that is not listed reads as zero, as AMD processors answer it."""

    leaves: tuple[CpuidLeaf, ...]


def _words(text: str, size: int) -> list[int]:
    data = text.encode("ascii")[:size].ljust(size, b"\0")
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]


def _signature(family: int, model: int, stepping: int) -> int:
    """Leaf 1 EAX. Families above 15 and models above 15 use the extended fields."""
    base, extended = (15, family - 15) if family > 15 else (family, 0)
    return extended << 20 | model >> 4 << 16 | base << 8 | (model & 15) << 4 | stepping


def amd_processor(brand: str, *, family: int = 16, model: int = 9, stepping: int = 1) -> CpuidModel:
    """A processor of AMD's K10 line. The defaults are the Opteron 6174 (Magny-Cours, D1)."""
    ebx, edx, ecx = _words("AuthenticAMD", 12)
    signature = _signature(family, model, stepping)
    name = _words(brand, 48)
    return CpuidModel(
        (
            CpuidLeaf(0, 1, ebx, ecx, edx),
            CpuidLeaf(1, signature, _CLFLUSH_LINE, _FEATURES_ECX, _FEATURES_EDX),
            CpuidLeaf(0x80000000, 0x80000004, ebx, ecx, edx),
            CpuidLeaf(0x80000001, signature, 0, _EXTENDED_ECX, _EXTENDED_EDX),
            *(CpuidLeaf(0x80000002 + i, *name[4 * i : 4 * i + 4]) for i in range(3)),
        )
    )


OPTERON_6174: Final = amd_processor("AMD Opteron(tm) Processor 6174")
