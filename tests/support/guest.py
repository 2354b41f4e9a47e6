"""A guest without a kernel: RAM, page tables, vCPUs and one thread, for tests of the vCPU."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from l4lab.emulator.costs import CostTable
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import NO_DEADLINE, Engine, Vcpu
from l4lab.kernel.fiasco.interface import FIASCO
from l4lab.kernel.frame import CR3, EIP, ESP, INSTRUCTIONS, TLB_MISSES, USER_CYCLES, FramePool, read_counter
from l4lab.kernel.interface import Interface
from l4lab.kernel.traps import Trap

PRESENT, WRITABLE, USER = 1, 2, 4
ACCESSED, DIRTY, LARGE, GLOBAL = 0x20, 0x40, 0x80, 0x100
READ_ONLY = PRESENT | USER
READ_WRITE = PRESENT | WRITABLE | USER

CODE = 0x0040_0000  # where tests put code, data and stack
DATA = 0x0050_0000
STACK_TOP = 0x0060_1000
UNMAPPED = 0x0070_0000

SYSTEM_CALL = bytes.fromhex("cd30")
ANNOUNCE = bytes.fromhex("c605") + DATA.to_bytes(4, "little") + b"\x01"
"""movb $1, DATA: in front of code that another host thread waits for, see `Guest.has_run`."""


class AddressSpace:
    """A page directory whose page tables come from the guest's frames."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.directory = guest.take_frame()

    def entry(self, address: int) -> int:
        """Index in `ram.words` of the page table entry, making the table if need be."""
        words = self.guest.ram.words
        pde = self.directory * 1024 + (address >> 22)
        if not words[pde] & PRESENT:
            words[pde] = self.guest.take_frame() << 12 | READ_WRITE
        return (words[pde] >> 12) * 1024 + (address >> 12 & 0x3FF)

    def directory_entry(self, address: int) -> int:
        return self.directory * 1024 + (address >> 22)

    def map(self, address: int, pfn: int, flags: int = READ_WRITE) -> None:
        self.guest.ram.words[self.entry(address)] = pfn << 12 | flags

    def map_large(self, address: int, pfn: int, flags: int = READ_WRITE) -> None:
        self.guest.ram.words[self.directory_entry(address)] = pfn << 12 | flags | LARGE

    def unmap(self, address: int) -> None:
        self.guest.ram.words[self.entry(address)] = 0


class Guest:
    """`cores` vCPUs and one address space with a page each of code, data and stack.

    With the default costs every instruction takes one cycle and nothing else takes any.
    """

    def __init__(
        self,
        *,
        cores: int = 1,
        ram_bytes: int = 16 << 20,
        costs: CostTable | None = None,
        interface: Interface = FIASCO,
    ) -> None:
        self.ram = Ram(ram_bytes)
        self.engine = Engine(self.ram, costs or CostTable.uniform(), interface=interface)
        self.vcpus = [Vcpu(self.engine, core) for core in range(cores)]
        self.vcpu = self.vcpus[0]
        self.pool = FramePool(interface.selectors)
        self._free_frames: Iterator[int] = iter(range(16, ram_bytes >> 12))
        self.space = AddressSpace(self)
        self.code_pfn = self.new_page(CODE, READ_ONLY)
        self.data_pfn = self.new_page(DATA)
        self.stack_pfn = self.new_page(STACK_TOP - 0x1000)

    def has_run(self) -> bool:
        """Whether ANNOUNCE has been executed: seen in the data page, also by another host thread while the guest runs.

        An accessed bit is no such sign: it is set when code is fetched, and a stop may come before any is executed.
        """
        return self.word(self.data_pfn) != 0

    def take_frame(self) -> int:
        return next(self._free_frames)

    def new_page(self, address: int, flags: int = READ_WRITE, space: AddressSpace | None = None) -> int:
        """A fresh zero frame mapped at `address`; its number."""
        pfn = self.take_frame()
        (space or self.space).map(address, pfn, flags)
        return pfn

    def put(self, pfn: int, data: bytes, offset: int = 0) -> None:
        """Host write; drops translations, as the kernel would ask for."""
        start = (pfn << 12) + offset
        self.ram.bytes_[start : start + len(data)] = data
        self.engine.forget_code(pfn, (offset + len(data) + 0xFFF) >> 12)

    def get(self, pfn: int, size: int, offset: int = 0) -> bytes:
        start = (pfn << 12) + offset
        return bytes(self.ram.bytes_[start : start + size])

    def word(self, pfn: int, offset: int = 0) -> int:
        return self.ram.words[(pfn << 12) + offset >> 2]

    def thread(self, eip: int = CODE, space: AddressSpace | None = None) -> array[int]:
        """A new thread at `eip`, its stack at the end of the stack page."""
        frame = self.pool.take()
        frame[EIP] = eip
        frame[ESP] = STACK_TOP
        frame[CR3] = (space or self.space).directory << 12
        return frame

    def run(self, frame: array[int], deadline: int = NO_DEADLINE, core: int = 0) -> Trap:
        """Runs and checks that the engine behaved."""
        vcpu = self.vcpus[core]
        trap = vcpu.run(frame, deadline)
        assert vcpu.anomalies == 0
        return trap

    def run_code(self, code: str | bytes, **registers: int) -> tuple[Trap, array[int]]:
        """Puts code (bytes, or hex) at CODE and runs a new thread there."""
        self.put(self.code_pfn, as_bytes(code))
        frame = self.thread()
        set_registers(frame, **registers)
        return self.run(frame), frame


REGISTER_NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")


def as_bytes(code: str | bytes) -> bytes:
    return bytes.fromhex(code) if isinstance(code, str) else code


def set_registers(frame: array[int], **registers: int) -> None:
    for name, value in registers.items():
        frame[REGISTER_NAMES.index(name)] = value


def instructions(frame: array[int]) -> int:
    return read_counter(frame, INSTRUCTIONS)


def cycles(frame: array[int]) -> int:
    return read_counter(frame, USER_CYCLES)


def tlb_misses(frame: array[int]) -> int:
    return read_counter(frame, TLB_MISSES)


def word(value: int) -> bytes:
    """A 32-bit little-endian constant inside code."""
    return (value & 0xFFFF_FFFF).to_bytes(4, "little")
