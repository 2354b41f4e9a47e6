"""Blocks filled with one instruction: what makes the engine's translator run out of anything ends the process.

Run as a program, `full_blocks.py MARK SAMPLE FIRST STEP` runs every STEP-th case of the sample from FIRST on, and
writes the number of each into the file MARK before it begins: whoever waits for it can name the case it died of.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

from l4lab.kernel.frame import EIP, ESP
from l4lab.kernel.traps import HOST_STOP
from l4lab.kernel.units import PAGE_BYTES
from support.guest import CODE, DATA, READ_ONLY, STACK_TOP, Guest, set_registers

PREFIXES: Final = ("", "66", "67", "f2", "f3", "65", "f0", "6667", "66f2", "66f3")
MAPS: Final = ("", "0f", "0f38", "0f3a")
TAILS: Final = ("", "d9e8", "9bd9e8", "0f58c1", "d410", "e4ff", "8ed8", "cd30")
"""What ends the block: as the fill, x87, SSE, one with temporaries, one for the kernel, a segment, a system call."""
SAMPLES: Final = ("short", "all")
DONE: Final = -1
MARK: Final = struct.Struct("<q")
_INSTRUCTIONS: Final = 3
"""How many are let go on with before the next case: all are translated with the first."""


class Case(NamedTuple):
    """One block: `unit` again and again over two pages, but that the last bytes are `tail`."""

    unit: bytes
    tail: bytes

    def __str__(self) -> str:
        return f"{self.unit.hex()} filled, then {self.tail.hex() or 'the same'}"


def _operands() -> list[bytes]:
    """ModRM and what follows, of every member of a group: a register, memory at a register, at an address."""
    forms = []
    for member in range(8):
        forms += [bytes([0xC1 | member << 3]), bytes([0x01 | member << 3])]
        forms.append(bytes([0x05 | member << 3]) + DATA.to_bytes(4, "little"))
    return forms


def cases(sample: str) -> list[Case]:
    """Those of SAMPLES: every opcode with two operands and as it stands, or all there are."""
    every = sample == "all"
    prefixes, tails = (PREFIXES, TAILS) if every else (PREFIXES[:1], TAILS[:1])
    operands = _operands() if every else _operands()[::2][:2]
    found = []
    for opcode_map, prefix in itertools.product(MAPS, prefixes):
        for opcode, operand in itertools.product(range(256), operands):
            found.append(Case(bytes.fromhex(prefix + opcode_map) + bytes([opcode]) + operand, b""))
    for prefix, opcode, tail in itertools.product(prefixes, range(256), tails):
        found.append(Case(bytes.fromhex(prefix) + bytes([opcode]), bytes.fromhex(tail)))
    return found


def run(guest: Guest, second_pfn: int, case: Case) -> None:
    """Translate the block, and execute a little of it."""
    size = 2 * PAGE_BYTES
    body = (case.unit * (size // len(case.unit) + 1))[: size - len(case.tail)] + case.tail
    guest.put(guest.code_pfn, body[:PAGE_BYTES])
    guest.put(second_pfn, body[PAGE_BYTES:])
    frame = guest.thread()
    set_registers(frame, eax=0, ecx=DATA, edx=0, ebx=0, ebp=0, esi=DATA, edi=DATA)
    frame[EIP], frame[ESP] = CODE, STACK_TOP - 64
    trap = guest.vcpu.run(frame, guest.vcpu.clock_cycles + _INSTRUCTIONS)
    assert trap is not HOST_STOP
    guest.pool.give_back(frame)


def main(mark: Path, sample: str, first: int, step: int) -> None:
    """Every `step`-th case of `sample` from `first` on."""
    with mark.open("r+b") as file, mmap.mmap(file.fileno(), MARK.size) as words:
        guest = Guest()
        second_pfn = guest.new_page(CODE + PAGE_BYTES, READ_ONLY)
        for number, case in list(enumerate(cases(sample)))[first::step]:
            MARK.pack_into(words, 0, number)
            run(guest, second_pfn, case)
        MARK.pack_into(words, 0, DONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
