"""A case of `l4lab fuzz cpu` while it is made: code, and what is known of the registers where it stands.

Which registers still have the value they began with is known, so every memory operand is one that was chosen: most of
them in two pages of data, some over the edge of a page, some where nothing may be written or nothing is mapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

CODE: Final = 0x0040_0000
DATA: Final = 0x0050_0000
DATA_BYTES: Final = 0x2000
"""Behind it a page that cannot be written, and nothing."""
UNMAPPED: Final = 0x0070_0000
SLOT_BYTES: Final = 64
"""Of code, for each case."""

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
CF, PF, AF, ZF, SF, DF, OF = 0x1, 0x4, 0x10, 0x40, 0x80, 0x400, 0x800
ARITHMETIC: Final = CF | PF | AF | ZF | SF | OF
LOGIC: Final = ARITHMETIC & ~AF

LIMITED: Final = ("low", "high", "constant")
"""Segments of base 0 with descriptors of their own, in this order: up to the end of the first page of data, from there
on (it expands down), and all, but not to be written."""
DESCRIPTORS: Final = ((DATA >> 12, 0x00C0_F300), (DATA >> 12, 0x00C0_F700), (0xFFFF, 0x00CF_F100))
"""Theirs: low word without the upper limit, high word."""

SEGMENT_PREFIXES: Final = (0x26, 0x2E, 0x36, 0x3E)


@dataclass(frozen=True, slots=True)
class Case:
    """One case: where it begins, its code, and what of its end cannot be compared as it is.

    `general`, `eflags`, `fxsave`, `memory`: the state at its beginning; `code` begins at `eip`. `selectors`: registers
    that hold a selector of the host's, as `register -> name`: data, code, or one of `LIMITED`. `segments`: FS and GS,
    "" or one of `LIMITED`.
    `undefined`: (offset of an instruction's end, flags undefined from there on). `memory_masks`: (offset, size) of what
    an instruction leaves undefined in memory. `tolerance`: of the result of a last instruction, or "".
    """

    seed: int
    number: int
    eip: int
    general: tuple[int, ...]
    eflags: int
    fxsave: bytes
    memory: bytes
    code: bytes
    names: tuple[str, ...]
    undefined: tuple[tuple[int, int], ...]
    memory_masks: tuple[tuple[int, int], ...]
    selectors: dict[int, str]
    segments: tuple[str, str]
    tolerance: str


@dataclass(slots=True)
class Builder:
    """Instructions are appended with `emit`. `values`: of the general registers here, None where not known."""

    rng: Random
    values: list[int | None]
    features: frozenset[str]
    eip: int
    limited: bool = False
    """FS or GS is not empty."""
    code: bytearray = field(default_factory=bytearray)
    names: list[str] = field(default_factory=list)
    taint: int = 0
    undefined: list[tuple[int, int]] = field(default_factory=list)
    memory_masks: list[tuple[int, int]] = field(default_factory=list)
    selectors: dict[int, str] = field(default_factory=dict)
    tolerance: str = ""
    ended: bool = False
    address: int = 0
    """Of the last memory operand."""

    def emit(self, name: str, code: bytes, *, defines: int = 0, undefined: int = 0) -> None:
        """Append an instruction that defines these flags and leaves those undefined."""
        self.code += code
        self.names.append(name)
        self.taint = self.taint & ~defines | undefined
        self.undefined.append((len(self.code), self.taint))

    def clobber(self, *registers: int) -> None:
        """These registers are written by what was emitted last."""
        for register in registers:
            self.values[register] = None
            self.selectors.pop(register, None)

    def end(self) -> None:
        """Nothing can follow what was emitted last."""
        self.ended = True

    def data_address(self, size: int, alignment: int) -> int:
        """Where an operand lies. `alignment`: what it mostly has."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.9:
            address = DATA + 64 + rng.randrange(DATA_BYTES - 640)
            return address & -alignment if chance < 0.85 else address
        back = rng.randrange(size + 1) if size else 0
        if chance < 0.94:
            return DATA + 0x1000 - back
        if chance < 0.97:
            return DATA + DATA_BYTES - back
        if chance < 0.98:
            return DATA - back
        if chance < 0.99:
            return DATA + DATA_BYTES + (rng.randrange(0x1000 - size) & -alignment)
        return UNMAPPED + (rng.randrange(0x800) & -alignment)

    def memory(self, reg: int, size: int, alignment: int | None = None) -> bytes:
        """ModRM, SIB and displacement of an operand of `size` bytes; `reg` is the middle field."""
        return self.memory_at(reg, self.data_address(size, size if alignment is None else alignment))

    def memory_at(self, reg: int, address: int) -> bytes:
        """The same, at this address."""
        rng = self.rng
        self.address = address
        known = [r for r in range(8) if self.values[r] is not None and r not in self.selectors]
        form = rng.randrange(4) if known else 0
        middle = reg << 3
        if form == 0:
            return bytes((middle | 5,)) + word(address)
        base = rng.choice(known)
        index = rng.choice(known)
        scale = rng.randrange(4)
        base_value, index_value = self.values[base] or 0, self.values[index] or 0
        if form == 1 or index == ESP:
            sib = bytes((0x24,)) if base == ESP else b""
            displacement = address - base_value
            if -128 <= displacement < 128:
                return bytes((0x40 | middle | base,)) + sib + _byte(displacement)
            return bytes((0x80 | middle | base,)) + sib + word(displacement)
        if form == 2:
            return bytes((middle | 4, scale << 6 | index << 3 | 5)) + word(address - (index_value << scale))
        displacement = address - base_value - (index_value << scale)
        return bytes((0x80 | middle | 4, scale << 6 | index << 3 | base)) + word(displacement)

    def prefixes(self, *, lock: bool = False) -> bytes:
        """Mostly none; else ones that change nothing, or the segment to another."""
        rng = self.rng
        some = bytearray(b"\xf0" if lock else b"")
        if rng.random() < 0.06:
            some.append(rng.choice(SEGMENT_PREFIXES))
        if rng.random() < (0.5 if self.limited else 0.01):
            some.append(rng.choice((0x64, 0x65)))
        if len(some) > 1:
            rng.shuffle(some)
        return bytes(some)

    def register(self, *, pointers: bool = False) -> int:
        """A general register to write: seldom one that operands are found by, and not ESP."""
        rng = self.rng
        if pointers or rng.random() < 0.15:
            return rng.choice((EAX, ECX, EDX, EBX, EBP, ESI, EDI))
        return rng.choice((EAX, ECX, EDX))

    def immediate(self, size: int) -> bytes:
        """Noise, or one of the values at which things change."""
        rng = self.rng
        if rng.random() < 0.5:
            return rng.randbytes(size)
        return (rng.choice(EDGES) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def needs_flags(b: Builder, flags: int = ARITHMETIC) -> None:
    """The next instruction reads these flags: if one is undefined here, an instruction that defines all comes first."""
    if b.taint & flags:
        b.emit("cmp", bytes((0x39, 0xC0 | b.rng.randrange(64))), defines=ARITHMETIC)


EDGES: Final = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x99,
    0x10,
)


def word(value: int) -> bytes:
    return (value & 0xFFFF_FFFF).to_bytes(4, "little")


def _byte(value: int) -> bytes:
    return (value & 0xFF).to_bytes(1, "little")
