"""Runs one program in several ways and compares what the kernel would see: every trap, with all registers
and counters, and the memory at the end."""

from __future__ import annotations

import ctypes
import random
from array import array
from dataclasses import dataclass
from enum import Enum

import capstone

from l4lab.kernel.frame import EFLAGS, EIP
from l4lab.kernel.traps import DEADLINE_REACHED, SYSTEM_CALL, CpuException, PageFault, Trap
from support.guest import CODE, DATA, READ_ONLY, Guest, cycles, instructions, set_registers, tlb_misses
from support.random_code import LAZY_PAGES, READ_ONLY_PAGE, RandomProgram

TF = 0x100
TRAPS = (1, 3, 4)  # vectors with EIP behind the instruction
MAX_CYCLES = 5000
SINGLE_STEP = CpuException(1, 0)
ICEBP = 0xF1


class Mode(Enum):
    """How a program is run: at once; one instruction at a time, by TF; in slices; in slices on two cores."""

    WHOLE = 0
    STEPPED = 1
    SLICED = 2
    TWO_CORES = 3


@dataclass(frozen=True)
class Seen:
    """One trap and the state that the kernel finds."""

    trap: Trap
    registers: tuple[int, ...]
    instructions: int
    cycles: int


@dataclass(frozen=True)
class History:
    traps: list[Seen]
    memory: bytes
    tlb_misses: int


class Lockstep:
    """A guest for random programs that start at `offset` in a page whose successor is mapped on demand."""

    def __init__(self, guest: Guest, offset: int = 0) -> None:
        self.guest = guest
        self.offset = offset
        self.start = CODE + offset
        guest.new_page(READ_ONLY_PAGE, READ_ONLY)
        self.lazy = {page: guest.take_frame() for page in (CODE + 0x1000, *LAZY_PAGES)}
        self._disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)

    def run(self, program: RandomProgram, mode: Mode) -> History | None:
        """None if the program does not end within MAX_CYCLES."""
        self._reset(program)
        frame = self.guest.thread(eip=self.start)
        set_registers(frame, ebx=DATA + 0x800, ebp=DATA + 0xC00)
        slices = random.Random(program.seed)
        seen: list[Seen] = []
        steps = turn = 0
        while not seen or seen[-1].trap is not SYSTEM_CALL:
            turn += 1
            at_icebp = self._code_at(program, frame[EIP])[:1] == bytes([ICEBP])
            trap = self._turn(frame, mode, turn, slices)
            if trap is DEADLINE_REACHED:
                if max(vcpu.clock_cycles for vcpu in self.guest.vcpus) >= MAX_CYCLES:
                    return None
                continue
            if mode is Mode.STEPPED and trap == SINGLE_STEP and not at_icebp:
                steps += 1
                continue
            steps += trap is SYSTEM_CALL or (isinstance(trap, CpuException) and trap.vector in TRAPS)
            registers = (*frame[:EFLAGS], frame[EFLAGS] & ~TF)
            seen.append(Seen(trap, registers, instructions(frame), cycles(frame)))
            if mode is Mode.STEPPED:
                assert steps == instructions(frame), f"seed {program.seed}: {steps} steps, {seen[-1]}"
            self._resolve(frame, program, trap)
        return History(seen, self._memory(), tlb_misses(frame))

    def _turn(self, frame: array[int], mode: Mode, turn: int, slices: random.Random) -> Trap:
        guest, core, deadline = self.guest, 0, MAX_CYCLES
        if mode is Mode.STEPPED:
            frame[EFLAGS] |= TF
        if mode is Mode.TWO_CORES:
            core = turn & 1
            guest.vcpus[core].clock_cycles = guest.vcpus[1 - core].clock_cycles
        if mode in (Mode.SLICED, Mode.TWO_CORES):
            deadline = min(deadline, guest.vcpus[core].clock_cycles + slices.randrange(1, 30))
        return guest.run(frame, deadline, core)

    def _reset(self, program: RandomProgram) -> None:
        guest = self.guest
        first_part = 0x1000 - self.offset
        guest.put(guest.code_pfn, program.code[:first_part], self.offset)
        guest.put(self.lazy[CODE + 0x1000], program.code[first_part:].ljust(0x1000, b"\xf4"))
        guest.put(guest.data_pfn, b"\x03\0\0\0" * 0x400)
        guest.put(guest.stack_pfn, bytes(0x1000))
        for page in LAZY_PAGES:
            guest.put(self.lazy[page], bytes(range(256)) * 16)
        for page in self.lazy:
            guest.space.unmap(page)
        for vcpu in guest.vcpus:
            ctypes.memset(
                vcpu._shim.vcpu_shared_words(vcpu._handle) + 16, 0, 16
            )  # clock, fraction of a cycle
            vcpu.flush_tlb()

    def _code_at(self, program: RandomProgram, eip: int) -> bytes:
        offset = eip - self.start
        return program.code[offset : offset + 15] if 0 <= offset < len(program.code) else b"\x90"

    def _resolve(self, frame: array[int], program: RandomProgram, trap: Trap) -> None:
        """Maps the page if it is one that comes on demand, else skips the instruction."""
        if isinstance(trap, PageFault) and not trap.present and trap.address & ~0xFFF in self.lazy:
            page = trap.address & ~0xFFF
            self.guest.space.map(page, self.lazy[page], READ_ONLY if page == CODE + 0x1000 else 7)
        elif isinstance(trap, PageFault) or (isinstance(trap, CpuException) and trap.vector not in TRAPS):
            insn = next(self._disassembler.disasm(self._code_at(program, frame[EIP]), 0, 1), None)
            frame[EIP] += insn.size if insn else 1

    def _memory(self) -> bytes:
        guest = self.guest
        frames = (guest.data_pfn, guest.stack_pfn, *(self.lazy[page] for page in LAZY_PAGES))
        return b"".join(guest.get(pfn, 0x1000) for pfn in frames)
