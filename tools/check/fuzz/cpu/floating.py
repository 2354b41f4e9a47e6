"""x87, MMX and SSE instructions for `l4lab fuzz cpu`, and the operands that make them interesting.

Ref: Intel SDM vol. 1, chapters 8 to 12; AMD64 Architecture Programmer's Manual vol. 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Final

from l4lab.tools.check.fuzz.cpu.builder import (
    ARITHMETIC,
    DATA,
    EAX,
    EBX,
    ECX,
    EDI,
    EDX,
    Builder,
    needs_flags,
    word,
)

FXSAVE_BYTES: Final = 512

# --- operands --------------------------------------------------------------------------------------

_SINGLES: Final = (
    *(
        0,
        0x80000000,
        0x3F800000,
        0xBF800000,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0x7F800001,
        0xFFBFFFFF,
        1,
        0x807FFFFF,
    ),
    *(
        0x00800000,
        0x7F7FFFFF,
        0x4F000000,
        0xCF000000,
        0x4EFFFFFF,
        0x3F000000,
        0x3FC00000,
        0x4B000001,
        0x5F000000,
        0x00400000,
    ),
)
_DOUBLES: Final = (
    *(
        0,
        1 << 63,
        0x3FF0 << 48,
        0xBFF0 << 48,
        0x7FF0 << 48,
        0xFFF0 << 48,
        0x7FF8 << 48,
        (0x7FF0 << 48) + 1,
        1,
        (1 << 52) - 1,
    ),
    *(
        1 << 52,
        0x7FEFFFFFFFFFFFFF,
        0x41DFFFFFFFC00000,
        0xC1E0000000000000,
        0x41E0000000000000,
        0x3FE0 << 48,
        0x3FF8 << 48,
    ),
    *(
        0x36A0000000000000,
        0x47EFFFFFF0000000,
        0x3810000000000000,
        0x380FFFFFFFFFFFFF,
        0x43E0 << 48,
        0x800FFFFFFFFFFFFF,
    ),
)
_EXTENDED: Final = (
    *(
        (0, 0),
        (0, 0x8000),
        (1 << 63, 0x3FFF),
        (1 << 63, 0xBFFF),
        (1 << 63, 0x7FFF),
        (1 << 63, 0xFFFF),
        (3 << 62, 0x7FFF),
    ),
    *(
        ((1 << 63) + 1, 0x7FFF),
        (1, 0),
        (1 << 63, 0),
        (1 << 62, 0x4000),
        (0, 0x7FFF),
        ((1 << 64) - 1, 0x7FFE),
        (1 << 63, 1),
    ),
    *(
        (0xC90FDAA22168C235, 0x4000),
        (1 << 63, 0x3FFE),
        (1 << 63, 0x403E),
        ((1 << 64) - 1, 0x3FFE),
        (0, 0x4001),
        (1 << 63, 0xC03E),
    ),
)


def single(rng: Random) -> int:
    chance = rng.random()
    if chance < 0.3:
        return rng.choice(_SINGLES)
    if chance < 0.7:
        return (
            rng.getrandbits(1) << 31
            | rng.randrange(0x70, 0x90) << 23
            | rng.getrandbits(23) & -(1 << rng.randrange(23))
        )
    return rng.getrandbits(32)


def double(rng: Random) -> int:
    chance = rng.random()
    if chance < 0.3:
        return rng.choice(_DOUBLES)
    if chance < 0.7:
        return (
            rng.getrandbits(1) << 63
            | rng.randrange(0x3E0, 0x420) << 52
            | rng.getrandbits(52) & -(1 << rng.randrange(52))
        )
    return rng.getrandbits(64)


def extended(rng: Random) -> bytes:
    chance = rng.random()
    if chance < 0.25:
        significand, rest = rng.choice(_EXTENDED)
    elif chance < 0.8:
        significand = 1 << 63 | rng.getrandbits(63) & -(1 << rng.randrange(63))
        rest = rng.getrandbits(1) << 15 | rng.randrange(0x3FE0, 0x4050)
    else:
        significand, rest = 1 << 63 | rng.getrandbits(63), rng.getrandbits(16)
    return struct.pack("<QH", significand, rest)


def decimal(rng: Random) -> bytes:
    digits = bytes(rng.randrange(10) << 4 | rng.randrange(10) for _ in range(9))
    return digits + bytes((rng.choice((0, 0x80)),))


def operand(rng: Random) -> bytes:
    """Sixteen bytes of one kind of number or another."""
    kind = rng.randrange(6)
    if kind == 0:
        return struct.pack("<4I", *(single(rng) for _ in range(4)))
    if kind == 1:
        return struct.pack("<2Q", double(rng), double(rng))
    if kind == 2:
        return extended(rng) + rng.randbytes(6)
    if kind == 3:
        return decimal(rng) + bytes(6)
    if kind == 4:
        return struct.pack(
            "<4I",
            *(rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(16))) for _ in range(4)),
        )
    return rng.randbytes(16)


def random_state(rng: Random) -> bytes:
    """x87 and SSE registers, as fxrstor takes them."""
    chance = rng.random()
    control = 0x40 | (0x3F if chance < 0.8 else rng.getrandbits(6)) | rng.choice((3, 3, 3, 2, 0, 1)) << 8
    control |= (rng.getrandbits(2) if rng.random() < 0.4 else 0) << 10
    status = rng.getrandbits(3) << 11 | (rng.getrandbits(16) & 0x477F if rng.random() < 0.2 else 0)
    if status & 0x3F & ~control:
        status = status | 0x8080 if rng.random() < 0.15 else status & ~0x3F
    chance = rng.random()
    tags = 0xFF if chance < 0.5 else rng.getrandbits(8) if chance < 0.9 else 0
    mxcsr = 0x1F80 if rng.random() < 0.6 else 0x1F80 | rng.getrandbits(16)
    if rng.random() < 0.1:
        mxcsr = rng.getrandbits(16)
    state = bytearray(struct.pack("<HHBxHIHHIHHII", control, status, tags, 0, 0, 0, 0, 0, 0, 0, mxcsr, 0))
    for _ in range(8):
        state += (extended(rng) if rng.random() < 0.9 else rng.randbytes(8) + b"\xff\xff") + bytes(6)
    for _ in range(8):
        state += operand(rng)
    return bytes(state + bytes(FXSAVE_BYTES - len(state)))


# --- x87 -------------------------------------------------------------------------------------------

TRANSCENDENTAL: Final = {0xF0: "f2xm1", 0xF1: "fyl2x", 0xF2: "fptan", 0xF3: "fpatan", 0xF9: "fyl2xp1", 0xFB: "fsincos",
                         0xFE: "fsin", 0xFF: "fcos"}  # fmt: skip
_SIZES: Final = (
    (4,) * 8,
    (4, 4, 4, 4, 28, 2, 28, 2),
    (4,) * 8,
    (4, 4, 4, 4, 4, 10, 4, 10),
    (8,) * 8,
    (8, 8, 8, 8, 108, 2, 108, 2),
    (2,) * 8,
    (2, 2, 2, 2, 10, 8, 10, 8),
)


def _x87(b: Builder) -> None:
    opcode = b.rng.randrange(8)
    if b.rng.random() < 0.4:
        reg = b.rng.randrange(8)
        name = f"x87 {0xD8 + opcode:02x} /{reg}"
        size = _SIZES[opcode][reg]
        prefix = b""
        if size in (28, 108):
            prefix = b"\x66" if b.rng.random() < 0.3 else b""
            size = size - 14 if prefix else size
        modrm = b.memory(reg, size, 4 if size > 8 else size)
        if (opcode, reg) in ((1, 6), (5, 6)):
            b.memory_masks.append((b.address - DATA + (6 if prefix else 12), 8 if prefix else 16))
            b.end()
        b.emit(name, b.prefixes() + prefix + bytes((0xD8 + opcode,)) + modrm)
        return
    second = 0xC0 | b.rng.randrange(64)
    if opcode == 1 and b.rng.random() < 0.3:
        second = b.rng.choice(tuple(TRANSCENDENTAL))
    name = TRANSCENDENTAL.get(second, "") if opcode == 1 else ""
    if opcode in (2, 3) and second < 0xE0:
        needs_flags(b)
    compares = (opcode in (3, 7)) and 0xE8 <= second < 0xF8
    b.emit(
        name or f"x87 {0xD8 + opcode:02x} {second:02x}",
        bytes((0xD8 + opcode, second)),
        defines=ARITHMETIC if compares else 0,
    )
    if opcode == 7 and second == 0xE0:
        b.clobber(EAX)
    if name:
        b.tolerance = name
        b.end()


def _wait(b: Builder) -> None:
    b.emit("fwait", b"\x9b")


def _whole_state(b: Builder) -> None:
    saves = b.rng.randrange(2)
    modrm = b.memory(1 - saves, 512, 16)
    b.emit("fxsave" if saves else "fxrstor", b.prefixes() + b"\x0f\xae" + modrm)
    if saves:
        at = b.address - DATA
        b.end()
        b.memory_masks += [
            (at + 6, 18),
            (at + 28, 4),
            (at + 288, 224),
            *((at + 42 + 16 * i, 6) for i in range(8)),
        ]


def _mxcsr(b: Builder) -> None:
    if b.rng.randrange(2):
        b.emit("stmxcsr", b"\x0f\xae" + b.memory(3, 4))
        return
    value = b.rng.getrandbits(16) if b.rng.random() < 0.9 else b.rng.getrandbits(32)
    address = b.data_address(4, 4)
    b.emit("mov", b"\xc7\x05" + word(address) + word(value))
    b.emit("ldmxcsr", b"\x0f\xae" + b.memory_at(2, address))


# --- MMX and SSE -------------------------------------------------------------------------------------

_NP, _66, _F3, _F2 = b"", b"\x66", b"\xf3", b"\xf2"


def _table() -> list[tuple[int, bytes, int, str]]:
    """(opcode, prefix, bytes of a memory operand, options): r a register form only, m a memory form only, g clobbers a
    general register, i an immediate follows, u may be misaligned, e sets EFLAGS, ~ an approximation."""
    table: list[tuple[int, bytes, int, str]] = []

    def add(opcodes: str, prefixes: tuple[bytes, ...], size: int, options: str = "") -> None:
        table.extend((int(o, 16), p, size, options) for o in opcodes.split() for p in prefixes)

    add("10 11", (_NP, _66), 16, "u")
    add("10 11", (_F3,), 4)
    add("10 11", (_F2,), 8)
    add("12 16", (_NP,), 8)
    add("13 17", (_NP, _66), 8, "m")
    add("12 16", (_66,), 8, "m")
    add("12 16", (_F3,), 16)
    add("12", (_F2,), 8)
    add("14 15 28 29 54 55 56 57", (_NP, _66), 16)
    add("2b", (_NP, _66), 16, "m")
    add("2a", (_NP, _66), 8)
    add("2a", (_F3, _F2), 4)
    add("2c 2d", (_NP,), 8)
    add("2c 2d", (_66,), 16)
    add("2c 2d", (_F3,), 4, "g")
    add("2c 2d", (_F2,), 8, "g")
    add("2e 2f", (_NP,), 4, "e")
    add("2e 2f", (_66,), 8, "e")
    add("50", (_NP, _66), 16, "rg")
    for opcode in ("51", "58", "59", "5c", "5d", "5e", "5f"):
        add(opcode, (_NP, _66), 16)
        add(opcode, (_F3,), 4)
        add(opcode, (_F2,), 8)
    add("52 53", (_NP,), 16, "~")
    add("52 53", (_F3,), 4, "~")
    add("5a", (_NP, _F2), 8)
    add("5a", (_66,), 16)
    add("5a", (_F3,), 4)
    add("5b", (_NP, _66, _F3), 16)
    add("60 61 62", (_NP,), 4)
    add("60 61 62 6c 6d", (_66,), 16)
    whole = (
        "63 64 65 66 67 68 69 6a 6b 74 75 76 d1 d2 d3 d4 d5 d8 d9 da db dc dd de df e0 e1 e2 e3 e4 e5 e8 e9 ea eb"
        " ec ed ee ef f1 f2 f3 f4 f5 f6 f8 f9 fa fb fc fd fe"
    )
    add(whole, (_NP,), 8)
    add(whole, (_66,), 16)
    add("6e", (_NP, _66), 4)
    add("7e", (_NP, _66), 4, "g")
    add("7e", (_F3,), 8)
    add("6f 7f", (_NP,), 8)
    add("6f 7f", (_66,), 16)
    add("6f 7f", (_F3,), 16, "u")
    add("70", (_NP,), 8, "i")
    add("70", (_66, _F3, _F2), 16, "i")
    add("77", (_NP,), 0, "r0")
    add("7c 7d d0", (_66, _F2), 16)
    add("c2", (_NP, _66), 16, "i")
    add("c2", (_F3,), 4, "i")
    add("c2", (_F2,), 8, "i")
    add("c3", (_NP,), 4, "m")
    add("c4", (_NP, _66), 2, "i")
    add("c5", (_NP, _66), 0, "rgi")
    add("c6", (_NP, _66), 16, "i")
    add("d6", (_66,), 8)
    add("d6", (_F3, _F2), 0, "r")
    add("d7", (_NP, _66), 0, "rg")
    add("e6", (_66, _F2), 16)
    add("e6", (_F3,), 8)
    add("e7", (_NP,), 8, "m")
    add("e7", (_66,), 16, "m")
    add("f0", (_F2,), 16, "mu")
    add("f7", (_NP, _66), 0, "r")
    return table


_SIMD: Final = _table()


def _simd(b: Builder) -> None:
    opcode, prefix, size, options = b.rng.choice(_SIMD)
    reg = b.rng.randrange(8)
    opcode_bytes = bytes((0x0F, opcode))
    name = f"sse {prefix.hex()}0f{opcode:02x}"
    if "0" in options:
        b.emit("emms", b"\x0f\x77")
        return
    if opcode == 0xF7:  # to where EDI points; which bytes can fault is the processor's (SDM vol. 2, MASKMOVQ)
        b.emit("mov", b"\xbf" + word(DATA + b.rng.randrange(0x1F00)))
        b.clobber(EDI)
    in_memory = "m" in options or ("r" not in options and b.rng.random() < 0.5)
    alignment = 1 if "u" in options and b.rng.random() < 0.5 else max(size, 1)
    modrm = b.memory(reg, size, alignment) if in_memory else bytes((0xC0 | reg << 3 | b.rng.randrange(8),))
    if "g" in options and opcode == 0x7E and not in_memory:
        modrm = bytes((0xC0 | reg << 3 | b.rng.choice((EAX, ECX, EDX)),))
        b.clobber(EAX, ECX, EDX)
    elif "g" in options and opcode != 0x7E:
        modrm = bytes((modrm[0] & 0xC7 | b.rng.choice((EAX, ECX, EDX, EBX)) << 3,)) + modrm[1:]
    segment = b"" if opcode == 0xF7 else b.prefixes()
    more = b"\x66" if prefix in (_F3, _F2) and b.rng.random() < 0.05 else b""  # means nothing there
    extra = [part for part in (prefix, segment, more) if part]
    b.rng.shuffle(extra)
    tail = b.rng.randbytes(1) if "i" in options else b""
    if opcode == 0xC2:
        tail = bytes((tail[0] & 7,)) if b.rng.random() < 0.9 else tail
    b.emit(name, b"".join(extra) + opcode_bytes + modrm + tail, defines=ARITHMETIC if "e" in options else 0)
    if "g" in options:
        b.clobber(EAX, ECX, EDX, EBX)
    if "~" in options:
        b.tolerance = "rsqrt" if opcode == 0x52 else "rcp"
        b.end()


def _shift_groups(b: Builder) -> None:
    prefix = b.rng.choice((_NP, _66))
    opcode = b.rng.choice((0x71, 0x72, 0x73))
    regs = (2, 4, 6) if opcode != 0x73 else (2, 6, 3, 7) if prefix else (2, 6)
    modrm = bytes(
        (
            0xC0 | b.rng.choice(regs) << 3 | b.rng.randrange(8),
            b.rng.choice((0, 1, 7, 15, 16, 31, 32, 63, 64, 200)),
        )
    )
    b.emit(f"sse {prefix.hex()}0f{opcode:02x} shift", prefix + bytes((0x0F, opcode)) + modrm)


def _extract(b: Builder) -> None:
    if "sse4a" not in b.features:
        return
    which = b.rng.randrange(5)
    registers = bytes((0xC0 | b.rng.randrange(64),))
    length, index = b.rng.choice(((1, 0), (8, 8), (32, 32), (0, 0), (16, 48), (63, 1), (5, 59)))
    if which == 0:
        b.emit("extrq", b"\x66\x0f\x78" + bytes((registers[0] & 0xC7, length, index)))
    elif which == 1:
        b.emit("insertq", b"\xf2\x0f\x78" + registers + bytes((length, index)))
    elif which == 2:
        b.emit("movntss", b"\xf3\x0f\x2b" + b.memory(b.rng.randrange(8), 4))
    elif which == 3:
        b.emit("movntsd", b"\xf2\x0f\x2b" + b.memory(b.rng.randrange(8), 8))


def _fences(b: Builder) -> None:
    if b.rng.randrange(2):
        b.emit("fence", bytes((0x0F, 0xAE, b.rng.choice((0xE8, 0xF0, 0xF8)) + b.rng.randrange(1))))
    else:
        b.emit("clflush", b"\x0f\xae" + b.memory(7, 1))


X87: Final[tuple[tuple[int, Callable[[Builder], None]], ...]] = ((20, _x87), (1, _wait), (1, _whole_state))
SIMD: Final[tuple[tuple[int, Callable[[Builder], None]], ...]] = (
    (20, _simd),
    (2, _shift_groups),
    (1, _extract),
    (1, _mxcsr),
    (1, _fences),
    (1, _whole_state),
)
