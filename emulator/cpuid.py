"""What `cpuid` answers: the processor that the machine says it is.

A feature bit is a promise, so only what the vCPU really does is set: of what the engine's K10 model
executes in 32-bit user mode, that which the modelled generation had, without sysenter (the kernel is
entered by `int 0x30`) and without what only a kernel could use. The initial APIC id in leaf 1 is the
core's number and filled in by the shim. A leaf that is not listed reads as zero, as on AMD.

Ref: AMD CPUID Specification, publication 25481; Intel Application Note 485; Intel SDM vol. 2, CPUID.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

ANY_SUBLEAF: Final = 0xFFFFFFFF


class CpuIdentity(Protocol):
    """Who the processor is; `emulator.profile.Cpuid` is one. Family and model include the extended fields."""

    @property
    def vendor(self) -> str: ...
    @property
    def family(self) -> int: ...
    @property
    def model(self) -> int: ...
    @property
    def stepping(self) -> int: ...
    @property
    def brand(self) -> str: ...


@dataclass(frozen=True, slots=True)
class CpuidModel:
    """A `CpuIdentity` in itself."""

    vendor: str
    family: int
    model: int
    stepping: int
    brand: str


OPTERON_6174: Final = CpuidModel("AuthenticAMD", 16, 9, 1, "AMD Opteron(tm) Processor 6174")


class CpuidLeaf(NamedTuple):
    """The answer to one value of EAX (and of ECX, unless `subleaf` is ANY_SUBLEAF). The shim's layout."""

    leaf: int
    subleaf: int = ANY_SUBLEAF
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


class _Features(NamedTuple):
    """Leaf 1 EDX and ECX; leaf 0x80000001 ECX. Its EDX follows from these."""

    edx: int
    ecx: int = 0
    extended_ecx: int = 0


_486: Final = _Features(_bits(0))  # FPU
_PENTIUM: Final = _Features(_bits(0, 3, 4, 5, 8))  # and PSE, TSC, MSR, CX8
_SSE: Final = _Features(
    # and PGE, CMOV, CLFSH, MMX, FXSR, SSE, SSE2; SSE3, POPCNT; LAHF, ABM (lzcnt)
    _PENTIUM.edx | _bits(13, 15, 19, 23, 24, 25, 26),
    _bits(0, 23),
    _bits(0, 5),
)
_SSE4A: Final = 1 << 6  # leaf 0x80000001 ECX, AMD only
_RDTSCP: Final = 1 << 27  # leaf 0x80000001 EDX
_AMD_REPEATS_EDX: Final = _bits(0, 3, 4, 5, 8, 13, 15, 23, 24)  # in leaf 0x80000001, as AMD does it
_CLFLUSH_LINE: Final = 8 << 8  # 64 bytes, in leaf 1 EBX


def _features(cpu: CpuIdentity) -> _Features:
    if cpu.family < 5:
        return _486
    return _PENTIUM if cpu.family == 5 else _SSE


def _words(text: str, size: int) -> list[int]:
    data = text.encode("ascii", "replace")[:size].ljust(size, b"\0")
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]


def _signature(cpu: CpuIdentity) -> int:
    """Leaf 1 EAX. What does not fit four bits goes to the extended fields."""
    base, extended = (15, cpu.family - 15) if cpu.family > 15 else (cpu.family, 0)
    return extended << 20 | cpu.model >> 4 << 16 | base << 8 | (cpu.model & 15) << 4 | cpu.stepping & 15


def cpuid_leaves(cpu: CpuIdentity) -> list[CpuidLeaf]:
    """Everything `cpuid` knows. Processors before SSE2 have no extended leaves."""
    features, signature = _features(cpu), _signature(cpu)
    modern = features is _SSE
    amd = cpu.vendor == "AuthenticAMD"
    ebx, edx, ecx = _words(cpu.vendor, 12)
    leaves = [
        CpuidLeaf(0, eax=1, ebx=ebx, ecx=ecx, edx=edx),
        CpuidLeaf(1, eax=signature, ebx=_CLFLUSH_LINE * modern, ecx=features.ecx, edx=features.edx),
    ]
    if not modern:
        return leaves
    name = _words(cpu.brand, 48)
    extended_edx = _RDTSCP | (features.edx & _AMD_REPEATS_EDX if amd else 0)
    return [
        *leaves,
        # Intel reports no vendor here.
        CpuidLeaf(0x80000000, eax=0x80000004, ebx=ebx * amd, ecx=ecx * amd, edx=edx * amd),
        CpuidLeaf(
            0x80000001,
            eax=signature * amd,
            ecx=features.extended_ecx | _SSE4A * amd,
            edx=extended_edx,
        ),
        *(CpuidLeaf(0x80000002 + i, ANY_SUBLEAF, *name[4 * i : 4 * i + 4]) for i in range(3)),
    ]
