"""The two processors of `l4lab fuzz cpu`: each runs a batch of cases and says how they ended."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import OPTERON_6174
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import PACKAGE_DIR
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import Engine, Vcpu
from l4lab.kernel.fiasco.interface import FIASCO, Fiasco
from l4lab.kernel.frame import CR3, EFLAGS, EIP, FPU_AREA, FPU_VALID, FS, GDT_ENTRIES, GS, FramePool
from l4lab.kernel.interface import Selectors
from l4lab.kernel.paging import PRESENT, USER, WRITABLE
from l4lab.kernel.traps import CpuException, PageFault, SystemCall
from l4lab.tools.check.fuzz.cpu.builder import CODE, DATA, DATA_BYTES, DESCRIPTORS, LIMITED, SLOT_BYTES, Case
from l4lab.tools.check.fuzz.cpu.cases import LAST, LIMITS, SLOTS
from l4lab.tools.check.fuzz.cpu.floating import FXSAVE_BYTES

_DEADLINE_CYCLES: Final = 1_000_000
_SYSTEM_CALL_ERROR: Final = 0x30 << 3 | 2
_UTCB_SELECTOR: Final = 0x5B
_THREAD_SELECTOR: Final = 0x63
"""Where this Linux has none for the runner."""


class ProcessorError(OperatorError):
    """The runner of the host's processor is gone."""


class NoProcessorError(Exception):
    """The host has no processor to compare with, or runs no 32-bit programs on it."""


@dataclass(frozen=True, slots=True)
class End:
    """How a case ended: general registers, EFLAGS, x87/SSE state, memory, and which exception where."""

    general: tuple[int, ...]
    eip: int
    eflags: int
    vector: int
    error_code: int
    address: int
    fxsave: bytes
    memory: bytes


def code_pages(cases: Sequence[Case]) -> bytes:
    """The code of a batch; each case has its own slot."""
    pages = bytearray(SLOT_BYTES * SLOTS)
    for case in cases:
        offset = case.eip - CODE
        code = case.code + LAST * 2
        pages[offset : offset + len(code)] = code
    return bytes(pages)


class Numbers(NamedTuple):
    """Selectors of the host's Linux; `limited`: the first of those of `LIMITED`, or 0 if it has none."""

    data: int
    code: int
    limited: int

    def of(self, name: str) -> int:
        """By its name in a case."""
        if name in LIMITED:
            return self.limited + 8 * LIMITED.index(name)
        return {"data": self.data, "code": self.code, "": 0}[name]


class _Linux(Fiasco):
    """The interface of ours, but for the selectors."""

    def __init__(self, selectors: Selectors) -> None:
        self.selectors = selectors


class Ours:
    """Our vCPU, without a kernel. A system call is shown as Linux would: `int 0x30` is not for user mode there."""

    def __init__(self, numbers: Numbers, vendor: str = OPTERON_6174.vendor) -> None:
        """With the selectors of the host's Linux, and a processor of the same vendor, so that programs see the same."""
        self._numbers = numbers
        first = numbers.limited or _THREAD_SELECTOR
        self._selectors = Selectors(
            numbers.code, numbers.data, _UTCB_SELECTOR, first, FIASCO.selectors.thread_entries
        )
        self._ram = Ram(4 << 20)
        cpuid = replace(OPTERON_6174, vendor=vendor)
        self._engine = Engine(self._ram, CostTable.uniform(), cpuid, _Linux(self._selectors))
        self._vcpu = Vcpu(self._engine, 0)
        self._pool = FramePool(self._selectors)
        words = self._ram.words
        directory, table = 16, 17
        words[directory * 1024 + (CODE >> 22)] = table << 12 | PRESENT | WRITABLE | USER
        self._code_pfn, self._data_pfn = 32, 64
        for page in range(SLOTS * SLOT_BYTES >> 12):
            words[table * 1024 + page] = self._code_pfn + page << 12 | PRESENT | USER
        for page in range((DATA_BYTES >> 12) + 1):
            flags = PRESENT | USER | (WRITABLE if page < DATA_BYTES >> 12 else 0)
            words[table * 1024 + (DATA >> 12 & 0x3FF) + page] = self._data_pfn + page << 12 | flags
        self._cr3 = directory << 12

    def run(self, cases: Sequence[Case]) -> list[End]:
        """Runs them, in order."""
        code = code_pages(cases)
        start = self._code_pfn << 12
        self._ram.bytes_[start : start + len(code)] = code
        self._engine.forget_code(self._code_pfn, len(code) >> 12)
        return [self._run(case) for case in cases]

    def _run(self, case: Case) -> End:
        start = self._data_pfn << 12
        memory = self._ram.bytes_[start : start + DATA_BYTES]
        memory[:] = case.memory
        frame = self._pool.take()
        for register, value in enumerate(case.general):
            frame[register] = value
        for register, name in case.selectors.items():
            frame[register] = self._numbers.of(name)
        for entry, (low, high) in enumerate(DESCRIPTORS):
            frame[GDT_ENTRIES + 2 * entry], frame[GDT_ENTRIES + 2 * entry + 1] = low, high
        frame[EIP], frame[EFLAGS], frame[CR3], frame[FPU_VALID] = case.eip, case.eflags, self._cr3, 1
        frame[FS], frame[GS] = (self._numbers.of(name) for name in case.segments)
        area = memoryview(frame).cast("B")[FPU_AREA * 4 : FPU_AREA * 4 + FXSAVE_BYTES]
        area[:] = case.fxsave
        trap = self._vcpu.run(frame, self._vcpu.clock_cycles + _DEADLINE_CYCLES)
        self._engine.sync_fpu(frame)
        eip, vector, error_code, address = frame[EIP], -1, 0, 0
        match trap:
            case SystemCall():
                eip, vector, error_code = eip - len(LAST), 13, _SYSTEM_CALL_ERROR
            case CpuException():
                vector, error_code = trap.vector, trap.error_code
            case PageFault():
                vector, error_code, address = 14, trap.error_code, trap.address
        end = End(
            tuple(frame[:8]), eip, frame[EFLAGS], vector, error_code, address, bytes(area), bytes(memory)
        )
        area.release()
        self._pool.give_back(frame)
        return end

    def close(self) -> None:
        """Gives back what it holds."""
        self._engine.close()


_START: Final = struct.Struct(f"<8IIIII16x{FXSAVE_BYTES}s{DATA_BYTES}s")
_END: Final = struct.Struct(f"<8IIIIII12x{FXSAVE_BYTES}s{DATA_BYTES}s")
_HEADER: Final = struct.Struct("<I12x")


class HostIdentity(NamedTuple):
    """The host's processor: its vendor as `cpuid` has it; `name`, for people; its features, as Linux names them."""

    vendor: str
    name: str
    features: frozenset[str]


def host_identity() -> HostIdentity | None:
    """None where it is no x86 under Linux."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "i686", "i386"):
        return None
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = ", ".join(
        [facts.get("vendor_id", "?"), facts.get("model name", "?")]
        + [f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts]
    )
    return HostIdentity(facts.get("vendor_id", "?"), name, frozenset(facts.get("flags", "").split()))


class Host:
    """The host's own processor, behind a static executable (`userland/processor`)."""

    def __init__(self) -> None:
        program = PACKAGE_DIR / "_native/programs/processor"
        try:
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError:
            raise NoProcessorError from None
        try:
            self.numbers = Numbers(*struct.unpack("<III", self._read(12)))
        except ProcessorError:
            self.close()
            raise NoProcessorError from None

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(size)
        if len(found) < size:
            raise ProcessorError("the runner of the host's processor ended: expected an answer to its batch")
        return found

    @property
    def features(self) -> frozenset[str]:
        """What the runner can do beyond its processor."""
        return frozenset({LIMITS} if self.numbers.limited else ())

    def send(self, cases: Sequence[Case]) -> None:
        """Begins with a batch."""
        assert self._process.stdin is not None
        parts = [_HEADER.pack(len(cases)), code_pages(cases)]
        for case in cases:
            general = list(case.general)
            for register, name in case.selectors.items():
                general[register] = self.numbers.of(name)
            segments = (self.numbers.of(name) for name in case.segments)
            parts.append(_START.pack(*general, case.eip, case.eflags, *segments, case.fxsave, case.memory))
        try:
            self._process.stdin.write(b"".join(parts))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ProcessorError(
                "the runner of the host's processor ended: expected it to take a batch"
            ) from None

    def receive(self, count: int) -> list[End]:
        """How the cases of the batch sent last ended."""
        found = self._read(_END.size * count)
        return [End(tuple(w[:8]), *w[8:]) for w in _END.iter_unpack(found)]

    def close(self) -> None:
        """Ends the runner, also one that is caught in a case."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
