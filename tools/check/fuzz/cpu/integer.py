"""Integer arithmetic and moves for `l4lab fuzz cpu`, each with the flags that it leaves undefined.

Ref: Intel SDM vol. 2, the instructions' "Flags Affected"; vol. 1, appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypedDict

from l4lab.tools.check.fuzz.cpu.builder import (
    AF,
    ARITHMETIC,
    CF,
    EAX,
    ECX,
    EDX,
    LOGIC,
    OF,
    PF,
    SF,
    ZF,
    Builder,
    needs_flags,
    word,
)

_ALU: Final = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")
_READS_CARRY: Final = (2, 3)
_LOGICAL: Final = (1, 4, 6)


class _Flags(TypedDict):
    """What an instruction does to the flags: gives them a value, leaves them without."""

    defines: int
    undefined: int


def operand_size(b: Builder) -> tuple[int, bytes]:
    """Operand size, and the prefix that gives it."""
    chance = b.rng.random()
    return (1, b"") if chance < 0.3 else (2, b"\x66") if chance < 0.6 else (4, b"")


def _clobber(b: Builder, register: int, size: int) -> None:
    b.clobber(register & 3 if size == 1 else register)


def _written(b: Builder, size: int) -> int:
    """A register to write, by its number in an operand of that size."""
    return b.rng.randrange(8) if size == 1 and b.rng.random() < 0.3 else b.register()


def operand(b: Builder, reg: int, size: int, *, writes: bool = True) -> tuple[bytes, int | None]:
    """A ModRM operand, memory or register; which register, if it is one."""
    if b.rng.random() < 0.5:
        return b.memory(reg, size), None
    register = _written(b, size) if writes else b.rng.randrange(8)
    return bytes((0xC0 | reg << 3 | register,)), register


def modify(
    b: Builder, name: str, opcode: bytes, reg: int, size: int, prefix: bytes, tail: bytes = b"", *, lock: bool = True,
    writes: bool = True, defines: int = 0, undefined: int = 0,
) -> None:  # fmt: skip
    """An instruction with one ModRM operand that it reads and, if `writes`, writes."""
    modrm, register = operand(b, reg, size, writes=writes)
    locked = lock and writes and b.rng.random() < (0.1 if register is None else 0.01)
    b.emit(
        name, b.prefixes(lock=locked) + prefix + opcode + modrm + tail, defines=defines, undefined=undefined
    )
    if register is not None and writes:
        _clobber(b, register, size)


def _alu(b: Builder) -> None:
    which, form = b.rng.randrange(8), b.rng.randrange(5)
    size, prefix = operand_size(b)
    if which in _READS_CARRY:
        needs_flags(b, CF)
    logical = which in _LOGICAL
    flags = _Flags(defines=LOGIC if logical else ARITHMETIC, undefined=AF if logical else 0)
    wide = int(size > 1)
    name, writes = _ALU[which], which != 7
    if form == 0:
        modify(b, name, bytes((8 * which | wide,)), b.rng.randrange(8), size, prefix, writes=writes, **flags)
    elif form == 1:
        register = _written(b, size)
        modrm = (
            b.memory(register, size)
            if b.rng.random() < 0.6
            else bytes((0xC0 | register << 3 | b.rng.randrange(8),))
        )
        b.emit(name, b.prefixes() + prefix + bytes((8 * which | 2 | wide,)) + modrm, **flags)
        if writes:
            _clobber(b, register, size)
    elif form == 2:
        b.emit(name, prefix + bytes((8 * which | 4 | wide,)) + b.immediate(size), **flags)
        if writes:
            b.clobber(EAX)
    else:
        short = form == 3 or size == 1
        opcode = bytes((b.rng.choice((0x80, 0x82)) if size == 1 else 0x83 if short else 0x81,))
        tail = b.immediate(1 if short else size)
        lock = opcode != b"\x82"
        modify(b, name, opcode, which, size, prefix, tail, lock=lock, writes=writes, **flags)


def _increment(b: Builder) -> None:
    size, prefix = operand_size(b)
    which = b.rng.randrange(2)
    if size > 1 and b.rng.random() < 0.4:
        register = b.register()
        b.emit("inc", prefix + bytes((0x40 | which << 3 | register,)), defines=ARITHMETIC & ~CF)
        b.clobber(register)
        return
    modify(b, "inc", bytes((0xFE | (size > 1),)), which, size, prefix, defines=ARITHMETIC & ~CF)


def _test(b: Builder) -> None:
    size, prefix = operand_size(b)
    wide = int(size > 1)
    flags = _Flags(defines=LOGIC, undefined=AF)
    form = b.rng.randrange(3)
    if form == 0:
        modify(b, "test", bytes((0x84 | wide,)), b.rng.randrange(8), size, prefix, writes=False, **flags)
    elif form == 1:
        b.emit("test", prefix + bytes((0xA8 | wide,)) + b.immediate(size), **flags)
    else:
        reg = b.rng.randrange(2)
        modify(b, "test", bytes((0xF6 | wide,)), reg, size, prefix, b.immediate(size), writes=False, **flags)


def _unary(b: Builder) -> None:
    size, prefix = operand_size(b)
    negate = b.rng.randrange(2)
    opcode = bytes((0xF6 | (size > 1),))
    modify(
        b, "neg" if negate else "not", opcode, 2 + negate, size, prefix, defines=ARITHMETIC if negate else 0
    )


def _multiply(b: Builder) -> None:
    size, prefix = operand_size(b)
    flags = _Flags(defines=CF | OF, undefined=SF | ZF | AF | PF)
    form = b.rng.randrange(3)
    if form == 0:
        reg = b.rng.choice((4, 5))
        modify(b, "mul", bytes((0xF6 | (size > 1),)), reg, size, prefix, writes=False, **flags)
        b.clobber(EAX, EDX)
        return
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    target = b.register()
    modrm, _ = operand(b, target, size, writes=False)
    short = b.rng.randrange(2)
    if form == 1:
        b.emit("imul", b.prefixes() + prefix + b"\x0f\xaf" + modrm, **flags)
    else:
        tail = b.immediate(1 if short else size)
        b.emit("imul", b.prefixes() + prefix + bytes((0x6B if short else 0x69,)) + modrm + tail, **flags)
    b.clobber(target)


def _divide(b: Builder) -> None:
    size, prefix = operand_size(b)
    if size > 1 and b.rng.random() < 0.8:  # else the quotient seldom fits
        if b.rng.random() < 0.5:
            b.emit("cwd", prefix + b"\x99")
        else:
            b.emit("xor", b"\x31\xd2", defines=LOGIC, undefined=AF)
        b.clobber(EDX)
    reg = b.rng.choice((6, 7))
    modify(b, "div", bytes((0xF6 | (size > 1),)), reg, size, prefix, writes=False, undefined=ARITHMETIC)
    b.clobber(EAX, EDX)


def _shift_count(b: Builder) -> tuple[int, bool]:
    """A count, and whether it is to be in CL."""
    rng = b.rng
    count = (
        rng.choice((0, 1, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 255))
        if rng.random() < 0.6
        else rng.randrange(256)
    )
    return count, rng.random() < 0.5


def _load_cl(b: Builder, count: int) -> None:
    b.emit("mov", bytes((0xB1, count)))
    b.clobber(ECX)


def _shift(b: Builder) -> None:
    size, prefix = operand_size(b)
    wide = int(size > 1)
    reg = b.rng.randrange(8)
    name = ("rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar")[reg]
    count, in_cl = _shift_count(b)
    by_one = b.rng.random() < 0.25
    count = 1 if by_one else count
    masked = count & 31
    if reg in (2, 3):
        needs_flags(b, CF)
    if masked == 0:
        defines = undefined = 0
    elif reg < 4:  # rotates leave SF, ZF, AF, PF; OF is defined for 1 only
        defines, undefined = CF, 0 if masked == 1 else OF
        defines |= OF if masked == 1 else 0
    else:
        defines = ARITHMETIC & ~AF & ~(0 if masked == 1 else OF)
        undefined = AF | (0 if masked == 1 else OF)
        if reg != 7 and masked >= 8 * size:  # shl, shr
            undefined |= CF
    flags = _Flags(defines=defines, undefined=undefined)
    if by_one:
        modify(b, name, bytes((0xD0 | wide,)), reg, size, prefix, lock=False, **flags)
    elif in_cl:
        _load_cl(b, count)
        modify(b, name, bytes((0xD2 | wide,)), reg, size, prefix, lock=False, **flags)
    else:
        modify(b, name, bytes((0xC0 | wide,)), reg, size, prefix, bytes((count,)), lock=False, **flags)


def _double_shift(b: Builder) -> None:
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    count, in_cl = _shift_count(b)
    if size == 2 and (count & 31) > 16:  # the result is undefined
        count = count & 15
    masked = count & 31
    defines = 0 if masked == 0 else ARITHMETIC
    undefined = 0 if masked == 0 else AF | (0 if masked == 1 else OF)
    if size == 2 and masked == 16:
        undefined |= CF
    right = b.rng.randrange(2)
    opcode = bytes((0x0F, 0xA4 | right << 3 | in_cl))
    if in_cl:
        _load_cl(b, count)
    tail = b"" if in_cl else bytes((count,))
    flags = _Flags(defines=defines & ~undefined, undefined=undefined)
    name = "shrd" if right else "shld"
    modify(b, name, opcode, b.rng.randrange(8), size, prefix, tail, lock=False, **flags)


def _bits(b: Builder) -> None:
    """bt, bts, btr, btc: by a register, which reaches beyond a memory operand, or by an immediate."""
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    which = b.rng.randrange(4)
    flags = _Flags(defines=CF, undefined=OF | SF | AF | PF)
    name = ("bt", "bts", "btr", "btc")[which]
    if b.rng.random() < 0.4:
        modify(b, name, b"\x0f\xba", 4 + which, size, prefix, b.immediate(1), writes=which != 0, **flags)
        return
    register = b.rng.choice((EAX, ECX, EDX))
    offset = b.rng.randrange(-300, 300) if b.rng.random() < 0.7 else b.rng.randrange(-9000, 9000)
    b.emit("mov", bytes((0xB8 | register,)) + word(offset))
    b.values[register] = None
    modify(b, name, bytes((0x0F, 0xA3 | which << 3)), register, size, prefix, writes=which != 0, **flags)


def _scan(b: Builder) -> None:
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    which = b.rng.randrange(4)
    target = b.register()
    modrm, _ = operand(b, target, size, writes=False)
    if which < 2:
        b.emit("bsf" if which == 0 else "bsr", b.prefixes() + prefix + bytes((0x0F, 0xBC | which)) + modrm,
               defines=ZF, undefined=CF | OF | SF | AF | PF)  # fmt: skip
    elif which == 2 and "popcnt" in b.features:
        b.emit("popcnt", _mixed(b, prefix, b"\xf3") + b"\x0f\xb8" + modrm, defines=ARITHMETIC)
    elif which == 3 and "abm" in b.features:
        b.emit(
            "lzcnt",
            _mixed(b, prefix, b"\xf3") + b"\x0f\xbd" + modrm,
            defines=CF | ZF,
            undefined=OF | SF | AF | PF,
        )
    b.clobber(target)


def _mixed(b: Builder, *prefixes: bytes) -> bytes:
    """The same prefixes in any order."""
    some = [p for p in (*prefixes, b.prefixes()) if p]
    b.rng.shuffle(some)
    return b"".join(some)


def _move(b: Builder) -> None:
    size, prefix = operand_size(b)
    wide = int(size > 1)
    form = b.rng.randrange(7)
    if form == 0:
        modify(b, "mov", bytes((0x88 | wide,)), b.rng.randrange(8), size, prefix, lock=False)
    elif form == 1:
        target = _written(b, size)
        modrm, _ = operand(b, target, size, writes=False)
        b.emit("mov", b.prefixes() + prefix + bytes((0x8A | wide,)) + modrm)
        _clobber(b, target, size)
    elif form == 2:
        reads = b.rng.randrange(2)
        opcode = bytes(((0xA0 if reads else 0xA2) | wide,))
        b.emit("mov", b.prefixes() + prefix + opcode + word(b.data_address(size, size)))
        if reads:
            b.clobber(EAX)
    elif form == 3:
        modify(b, "mov", bytes((0xC6 | wide,)), 0, size, prefix, b.immediate(size), lock=False)
    elif form == 4:
        target = _written(b, size)
        b.emit("mov", prefix + bytes(((0xB8 if wide else 0xB0) | target,)) + b.immediate(size))
        _clobber(b, target, size)
    elif form == 5:
        target, second = b.register(), b.rng.choice((0xB6, 0xB7, 0xBE, 0xBF))
        modrm, _ = operand(b, target, 2 if second & 1 else 1, writes=False)
        b.emit("movx", b.prefixes() + (b"\x66" if size == 2 else b"") + bytes((0x0F, second)) + modrm)
        b.clobber(target)
    else:
        target = b.register()
        modrm = b.memory(target, 4)
        if b.rng.random() < 0.1:
            b.emit("lea", b"\x67\x8d" + bytes((0x80 | target << 3 | b.rng.randrange(8),)) + b.immediate(2))
        else:
            b.emit("lea", b.prefixes() + (b"\x66" if size == 2 else b"") + b"\x8d" + modrm)
        b.clobber(target)


def _exchange(b: Builder) -> None:
    size, prefix = operand_size(b)
    wide = int(size > 1)
    form = b.rng.randrange(5)
    other = _written(b, size)
    if form == 0:
        modify(b, "xchg", bytes((0x86 | wide,)), other, size, prefix)
    elif form == 1:
        other = b.register()
        b.emit("xchg", (prefix if size == 2 else b"") + bytes((0x90 | other,)))
        b.clobber(EAX, other)
        return
    elif form == 2:
        modify(b, "xadd", bytes((0x0F, 0xC0 | wide)), other, size, prefix, defines=ARITHMETIC)
    elif form == 3:
        modify(b, "cmpxchg", bytes((0x0F, 0xB0 | wide)), other, size, prefix, defines=ARITHMETIC)
        b.clobber(EAX)
        return
    else:
        locked = b.rng.random() < 0.3
        b.emit("cmpxchg8b", b.prefixes(lock=locked) + b"\x0f\xc7" + b.memory(1, 8), defines=ZF)
        b.clobber(EAX, EDX)
        return
    _clobber(b, other, size)


def _swap_bytes(b: Builder) -> None:
    target = b.register()
    b.emit("bswap", bytes((0x0F, 0xC8 | target)))
    b.clobber(target)


def _widen(b: Builder) -> None:
    code = (b"\x66" if b.rng.random() < 0.5 else b"") + bytes((b.rng.choice((0x98, 0x99)),))
    b.emit("cbw", code)
    b.clobber(EAX, EDX)


def _decimal(b: Builder) -> None:
    """daa and its like; aam by zero is #DE."""
    which = b.rng.randrange(6)
    if which < 4:
        needs_flags(b, CF | AF)
        undefined = OF if which < 2 else OF | SF | ZF | PF
        b.emit(("daa", "das", "aaa", "aas")[which], bytes((0x27 | which << 3,)), defines=ARITHMETIC & ~undefined,
               undefined=undefined)  # fmt: skip
    else:
        base = b"\x0a" if b.rng.random() < 0.5 else b.immediate(1)
        b.emit(
            ("aam", "aad")[which - 4],
            bytes((0xD4 | (which - 4),)) + base,
            defines=SF | ZF | PF,
            undefined=OF | AF | CF,
        )
    b.clobber(EAX)


INSTRUCTIONS: Final[tuple[tuple[int, Callable[[Builder], None]], ...]] = (
    (8, _alu),
    (2, _increment),
    (2, _test),
    (2, _unary),
    (3, _multiply),
    (3, _divide),
    (6, _shift),
    (3, _double_shift),
    (5, _bits),
    (3, _scan),
    (5, _move),
    (5, _exchange),
    (1, _swap_bytes),
    (1, _widen),
    (3, _decimal),
)
