"""Integer instructions for `l4lab fuzz cpu`, each with the flags that it leaves undefined.

Ref: Intel SDM vol. 2, the instructions' "Flags Affected"; vol. 1, appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypedDict

from l4lab.tools.check.fuzz.cpu.builder import (
    AF,
    ARITHMETIC,
    CF,
    DATA,
    DATA_BYTES,
    EAX,
    EBP,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
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


def _size(b: Builder) -> tuple[int, bytes]:
    """Operand size, and the prefix that gives it."""
    chance = b.rng.random()
    return (1, b"") if chance < 0.3 else (2, b"\x66") if chance < 0.6 else (4, b"")


def _clobber(b: Builder, register: int, size: int) -> None:
    b.clobber(register & 3 if size == 1 else register)


def _written(b: Builder, size: int) -> int:
    """A register to write, by its number in an operand of that size."""
    return b.rng.randrange(8) if size == 1 and b.rng.random() < 0.3 else b.register()


def _operand(b: Builder, reg: int, size: int, *, writes: bool = True) -> tuple[bytes, int | None]:
    """A ModRM operand, memory or register; which register, if it is one."""
    if b.rng.random() < 0.5:
        return b.memory(reg, size), None
    register = _written(b, size) if writes else b.rng.randrange(8)
    return bytes((0xC0 | reg << 3 | register,)), register


def _modify(
    b: Builder, name: str, opcode: bytes, reg: int, size: int, prefix: bytes, tail: bytes = b"", *, lock: bool = True,
    writes: bool = True, defines: int = 0, undefined: int = 0,
) -> None:  # fmt: skip
    """An instruction with one ModRM operand that it reads and, if `writes`, writes."""
    modrm, register = _operand(b, reg, size, writes=writes)
    locked = lock and writes and b.rng.random() < (0.1 if register is None else 0.01)
    b.emit(
        name, b.prefixes(lock=locked) + prefix + opcode + modrm + tail, defines=defines, undefined=undefined
    )
    if register is not None and writes:
        _clobber(b, register, size)


def _alu(b: Builder) -> None:
    which, form = b.rng.randrange(8), b.rng.randrange(5)
    size, prefix = _size(b)
    if which in _READS_CARRY:
        needs_flags(b, CF)
    logical = which in _LOGICAL
    flags = _Flags(defines=LOGIC if logical else ARITHMETIC, undefined=AF if logical else 0)
    wide = int(size > 1)
    name, writes = _ALU[which], which != 7
    if form == 0:
        _modify(b, name, bytes((8 * which | wide,)), b.rng.randrange(8), size, prefix, writes=writes, **flags)
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
        _modify(b, name, opcode, which, size, prefix, tail, lock=lock, writes=writes, **flags)


def _increment(b: Builder) -> None:
    size, prefix = _size(b)
    which = b.rng.randrange(2)
    if size > 1 and b.rng.random() < 0.4:
        register = b.register()
        b.emit("inc", prefix + bytes((0x40 | which << 3 | register,)), defines=ARITHMETIC & ~CF)
        b.clobber(register)
        return
    _modify(b, "inc", bytes((0xFE | (size > 1),)), which, size, prefix, defines=ARITHMETIC & ~CF)


def _test(b: Builder) -> None:
    size, prefix = _size(b)
    wide = int(size > 1)
    flags = _Flags(defines=LOGIC, undefined=AF)
    form = b.rng.randrange(3)
    if form == 0:
        _modify(b, "test", bytes((0x84 | wide,)), b.rng.randrange(8), size, prefix, writes=False, **flags)
    elif form == 1:
        b.emit("test", prefix + bytes((0xA8 | wide,)) + b.immediate(size), **flags)
    else:
        reg = b.rng.randrange(2)
        _modify(b, "test", bytes((0xF6 | wide,)), reg, size, prefix, b.immediate(size), writes=False, **flags)


def _unary(b: Builder) -> None:
    size, prefix = _size(b)
    negate = b.rng.randrange(2)
    opcode = bytes((0xF6 | (size > 1),))
    _modify(
        b, "neg" if negate else "not", opcode, 2 + negate, size, prefix, defines=ARITHMETIC if negate else 0
    )


def _multiply(b: Builder) -> None:
    size, prefix = _size(b)
    flags = _Flags(defines=CF | OF, undefined=SF | ZF | AF | PF)
    form = b.rng.randrange(3)
    if form == 0:
        reg = b.rng.choice((4, 5))
        _modify(b, "mul", bytes((0xF6 | (size > 1),)), reg, size, prefix, writes=False, **flags)
        b.clobber(EAX, EDX)
        return
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    target = b.register()
    modrm, _ = _operand(b, target, size, writes=False)
    short = b.rng.randrange(2)
    if form == 1:
        b.emit("imul", b.prefixes() + prefix + b"\x0f\xaf" + modrm, **flags)
    else:
        tail = b.immediate(1 if short else size)
        b.emit("imul", b.prefixes() + prefix + bytes((0x6B if short else 0x69,)) + modrm + tail, **flags)
    b.clobber(target)


def _divide(b: Builder) -> None:
    size, prefix = _size(b)
    if size > 1 and b.rng.random() < 0.8:  # else the quotient seldom fits
        if b.rng.random() < 0.5:
            b.emit("cwd", prefix + b"\x99")
        else:
            b.emit("xor", b"\x31\xd2", defines=LOGIC, undefined=AF)
        b.clobber(EDX)
    reg = b.rng.choice((6, 7))
    _modify(b, "div", bytes((0xF6 | (size > 1),)), reg, size, prefix, writes=False, undefined=ARITHMETIC)
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
    size, prefix = _size(b)
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
        _modify(b, name, bytes((0xD0 | wide,)), reg, size, prefix, lock=False, **flags)
    elif in_cl:
        _load_cl(b, count)
        _modify(b, name, bytes((0xD2 | wide,)), reg, size, prefix, lock=False, **flags)
    else:
        _modify(b, name, bytes((0xC0 | wide,)), reg, size, prefix, bytes((count,)), lock=False, **flags)


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
    _modify(b, name, opcode, b.rng.randrange(8), size, prefix, tail, lock=False, **flags)


def _bits(b: Builder) -> None:
    """bt, bts, btr, btc: by a register, which reaches beyond a memory operand, or by an immediate."""
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    which = b.rng.randrange(4)
    flags = _Flags(defines=CF, undefined=OF | SF | AF | PF)
    name = ("bt", "bts", "btr", "btc")[which]
    if b.rng.random() < 0.4:
        _modify(b, name, b"\x0f\xba", 4 + which, size, prefix, b.immediate(1), writes=which != 0, **flags)
        return
    register = b.rng.choice((EAX, ECX, EDX))
    offset = b.rng.randrange(-300, 300) if b.rng.random() < 0.7 else b.rng.randrange(-9000, 9000)
    b.emit("mov", bytes((0xB8 | register,)) + word(offset))
    b.values[register] = None
    _modify(b, name, bytes((0x0F, 0xA3 | which << 3)), register, size, prefix, writes=which != 0, **flags)


def _scan(b: Builder) -> None:
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    which = b.rng.randrange(4)
    target = b.register()
    modrm, _ = _operand(b, target, size, writes=False)
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
    size, prefix = _size(b)
    wide = int(size > 1)
    form = b.rng.randrange(7)
    if form == 0:
        _modify(b, "mov", bytes((0x88 | wide,)), b.rng.randrange(8), size, prefix, lock=False)
    elif form == 1:
        target = _written(b, size)
        modrm, _ = _operand(b, target, size, writes=False)
        b.emit("mov", b.prefixes() + prefix + bytes((0x8A | wide,)) + modrm)
        _clobber(b, target, size)
    elif form == 2:
        reads = b.rng.randrange(2)
        opcode = bytes(((0xA0 if reads else 0xA2) | wide,))
        b.emit("mov", b.prefixes() + prefix + opcode + word(b.data_address(size, size)))
        if reads:
            b.clobber(EAX)
    elif form == 3:
        _modify(b, "mov", bytes((0xC6 | wide,)), 0, size, prefix, b.immediate(size), lock=False)
    elif form == 4:
        target = _written(b, size)
        b.emit("mov", prefix + bytes(((0xB8 if wide else 0xB0) | target,)) + b.immediate(size))
        _clobber(b, target, size)
    elif form == 5:
        target, second = b.register(), b.rng.choice((0xB6, 0xB7, 0xBE, 0xBF))
        modrm, _ = _operand(b, target, 2 if second & 1 else 1, writes=False)
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
    size, prefix = _size(b)
    wide = int(size > 1)
    form = b.rng.randrange(5)
    other = _written(b, size)
    if form == 0:
        _modify(b, "xchg", bytes((0x86 | wide,)), other, size, prefix)
    elif form == 1:
        other = b.register()
        b.emit("xchg", (prefix if size == 2 else b"") + bytes((0x90 | other,)))
        b.clobber(EAX, other)
        return
    elif form == 2:
        _modify(b, "xadd", bytes((0x0F, 0xC0 | wide)), other, size, prefix, defines=ARITHMETIC)
    elif form == 3:
        _modify(b, "cmpxchg", bytes((0x0F, 0xB0 | wide)), other, size, prefix, defines=ARITHMETIC)
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


def _condition(b: Builder) -> None:
    """setcc, cmovcc, or a jump over the next instruction."""
    needs_flags(b, ARITHMETIC)
    condition, form = b.rng.randrange(16), b.rng.randrange(4)
    if form == 0:
        _modify(b, "setcc", bytes((0x0F, 0x90 | condition)), b.rng.randrange(8), 1, b"", lock=False)
    elif form == 1:
        target = b.register()
        prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
        modrm, _ = _operand(b, target, size, writes=False)
        b.emit("cmovcc", b.prefixes() + prefix + bytes((0x0F, 0x40 | condition)) + modrm)
        b.clobber(target)
    elif form == 2:
        hint = b.rng.choice((b"", b"\x2e", b"\x3e"))
        b.emit("jcc", hint + bytes((0x70 | condition, 1)) + b"\x41")
        b.clobber(ECX)
        b.taint |= 0
    else:
        b.emit("jcc", bytes((0x0F, 0x80 | condition)) + word(2) + b"\xb0\x55")
        b.clobber(EAX)


def _loop(b: Builder) -> None:
    which = b.rng.randrange(4)
    if which < 2:
        needs_flags(b, ZF)
    short = b"\x67" if b.rng.random() < 0.3 else b""
    b.emit("mov", b"\xb9" + word(b.rng.choice((0, 1, 2, 0x10000, 0x10001, 0xFFFF))))
    b.emit("loop", short + bytes((0xE0 | which, 2)) + b"\xb2\x55")
    b.clobber(ECX, EDX)


def _call(b: Builder) -> None:
    form = b.rng.randrange(4)
    after = b.eip + len(b.code)
    if b.values[ESP] is None:
        return
    if form == 0:  # call over a byte, and throw the return address away or keep it
        b.emit("call", b"\xe8" + word(1) + b"\x90" + b"\x58")
        b.clobber(EAX)
    elif form == 1:
        b.emit("ret", b"\x68" + word(after + 6) + b"\xc3")
    elif form == 2:
        b.emit("ret", b"\x68" + word(after + 8) + b"\xc2" + b.rng.choice((0, 4, 12)).to_bytes(2, "little"))
        b.clobber(ESP)
    else:
        b.emit("jmp", b"\xb8" + word(after + 7) + b"\xff\xe0")
        b.clobber(EAX)


def _is_within(b: Builder) -> bool:
    """Whether ESP is far from the edges: what is left behind of several accesses to the stack is the processor's."""
    esp = b.values[ESP]
    return esp is not None and DATA + 0x100 < esp < DATA + DATA_BYTES - 0x100


def _push_pop(b: Builder) -> None:
    size, prefix = (2, b"\x66") if b.rng.random() < 0.25 else (4, b"")
    form = b.rng.randrange(8)
    if form == 0:
        b.emit("push", prefix + bytes((0x50 | b.rng.randrange(8),)))
    elif form == 1:
        b.emit("push", prefix + b"\x68" + b.immediate(size))
    elif form == 2:
        b.emit("push", prefix + b"\x6a" + b.immediate(1))
    elif form == 3:
        modrm, _ = _operand(b, 6, size, writes=False)
        b.emit("push", b.prefixes() + prefix + b"\xff" + modrm)
    elif form == 4:
        target = b.register()
        b.emit("pop", prefix + bytes((0x58 | target,)))
        b.clobber(target)
    elif form == 5:
        if not _is_within(b) and "mov sreg" in b.names:  # two faults, in no certain order
            return
        _modify(b, "pop", b"\x8f", 0, size, prefix, lock=False)
    elif form == 6:
        b.emit("pusha", prefix + b"\x60")
    elif _is_within(b):
        b.emit("popa", prefix + b"\x61")
        b.clobber(EAX, ECX, EDX, 3, EBP, ESI, EDI)
    b.clobber(ESP)


def _frame(b: Builder) -> None:
    """enter and leave, which use EBP as a pointer to the stack."""
    size = b"\x66" if b.rng.random() < 0.2 else b""
    if b.values[EBP] is None:
        b.emit("mov", b"\xbd" + word(b.data_address(128, 4)))
    if b.rng.randrange(2):
        level = b.rng.choice((0, 0, 1, 2, 3, 31, 32, 33)) if _is_within(b) else 0
        b.emit(
            "enter", size + b"\xc8" + b.rng.choice((0, 4, 16, 255)).to_bytes(2, "little") + bytes((level,))
        )
        b.clobber(EBP)
    else:
        b.emit("leave", size + b"\xc9")
    b.clobber(ESP, EBP)
    b.end()


def _flags(b: Builder) -> None:
    form = b.rng.randrange(7)
    if form == 0:
        if b.taint:
            needs_flags(b, ARITHMETIC)
        b.emit("lahf", b"\x9f")
        b.clobber(EAX)
    elif form == 1:
        b.emit("sahf", b"\x9e", defines=ARITHMETIC & ~OF)
    elif form == 2:
        needs_flags(b, ARITHMETIC)
        b.emit("pushf", (b"\x66" if b.rng.random() < 0.3 else b"") + b"\x9c")
        b.clobber(ESP)
    elif form == 3:  # neither AC, which our machine has no alignment check for, nor VM, RF
        value = b.rng.getrandbits(32) & (
            0xCD5 | 0x200000 | 0x100 * (b.rng.random() < 0.1) | 0x3200 | 0x8000_8028
        )
        b.emit("popf", b"\x68" + word(value) + b"\x9d", defines=ARITHMETIC)
    elif form == 4:
        needs_flags(b, CF)
        b.emit("cmc", b"\xf5", defines=CF)
    elif form == 5:
        b.emit("stc", bytes((b.rng.choice((0xF8, 0xF9)),)), defines=CF)
    else:
        b.emit("std", bytes((b.rng.choice((0xFC, 0xFD)),)))


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


def _strings(b: Builder) -> None:
    """movs, cmps, stos, lods, scas, repeated or not, in both directions and over the edges of pages."""
    opcode = b.rng.choice((0xA4, 0xA6, 0xAA, 0xAC, 0xAE))
    size, prefix = _size(b)
    repeat = b.rng.choice((b"", b"\xf3", b"\xf2"))
    for register in (ESI, EDI):
        if b.values[register] is None or b.rng.random() < 0.3:
            b.emit("mov", bytes((0xB8 | register,)) + word(b.data_address(4 * size, size)))
    if repeat:
        b.emit("mov", b"\xb9" + word(b.rng.choice((0, 1, 2, 3, 7, 16, 40))))
        b.clobber(ECX)
    if b.rng.random() < 0.2:
        b.emit("std", b"\xfd")
    compares = opcode in (0xA6, 0xAE)
    segment = b.prefixes() if b.rng.random() < 0.3 else b""
    parts = [part for part in (segment, prefix, repeat) if part]
    b.rng.shuffle(parts)
    if compares and repeat and b.taint:
        needs_flags(b, ARITHMETIC)  # none, if the count is zero
    b.emit(("rep " if repeat else "") + {0xA4: "movs", 0xA6: "cmps", 0xAA: "stos", 0xAC: "lods", 0xAE: "scas"}[opcode],
           b"".join(parts) + bytes((opcode | (size > 1),)), defines=ARITHMETIC if compares else 0)  # fmt: skip
    b.clobber(ESI, EDI, EAX)


def _translate(b: Builder) -> None:
    b.emit("mov", b"\xbb" + word(b.data_address(256, 1)))
    b.clobber(3)
    b.emit("xlat", b.prefixes() + b"\xd7")
    b.clobber(EAX)


def _bound(b: Builder) -> None:
    prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
    b.emit("bound", b.prefixes() + prefix + b"\x62" + b.memory(b.rng.randrange(8), 2 * size, size))


def _traps(b: Builder) -> None:
    """What ends in an exception, or may."""
    needs_flags(b, OF)
    code = b.rng.choice(
        (
            *(
                "ce",
                "ce",
                "ce",
                "cc",
                "0f0b",
                "0fff",
                "f4",
                "fa",
                "fb",
                "e401",
                "e501",
                "e601",
                "ec",
                "ed",
                "ee",
                "6c",
                "f36e",
            ),
            *(
                "0f08",
                "0f09",
                "0f06",
                "0f20c0",
                "0f22c0",
                "0f23c0",
                "0f32",
                "0f30",
                "cd00",
                "cd04",
                "cdff",
                "fff8",
                "fef0",
            ),
            *(
                "f00fc8",
                "f090",
                "f089c0",
                "8dc0",
                "62c0",
                "c4c0",
                "0fc7c8",
                "0fb9c0",
                "f1" if False else "0f0b",
                "cd20",
                "f00bc0",
            ),
            *(
                "f3f2f0660f0b",
                "8ec8",
                "0fae38c0" if False else "0f0b",
                "f0eb00",
                "8ff8c0",
                "d6" if False else "90",
            ),
        )
    )
    b.emit("trap " + code, bytes.fromhex(code))


def _selectors(b: Builder) -> None:
    """arpl, verr, verw, lar, lsl, and loads of segment registers."""
    register, form = b.rng.choice((EAX, ECX, EDX)), b.rng.randrange(6)
    if form == 0:
        _modify(b, "arpl", b"\x63", b.rng.randrange(8), 2, b"", lock=False, defines=ZF)
        return
    known = [r for r in b.selectors if b.values[r] is not None]
    if known and b.rng.random() < 0.7:
        register = b.rng.choice(known)
    else:
        b.emit(
            "mov",
            bytes((0xB8 | register,)) + word(b.rng.choice((0, 1, 2, 3, 0xFFF8, 0xFFFF, 0xF003, 0x10004))),
        )
        b.values[register] = None
    if form in (1, 2):
        b.emit("verr", bytes((0x0F, 0x00, 0xE0 | (form - 1) << 3 | register)), defines=ZF)
    elif form in (3, 4):
        prefix = b"\x66" if b.rng.random() < 0.3 else b""
        target = b.rng.choice((EAX, ECX, EDX))
        b.emit(
            "lar" if form == 3 else "lsl",
            prefix + bytes((0x0F, form - 1, 0xC0 | target << 3 | register)),
            defines=ZF,
        )
        b.clobber(target)
        if form == 3:
            b.end()
    else:
        segment = b.rng.choice((0, 2, 3, 4, 5, 0, 3))
        b.emit("mov sreg", bytes((0x8E, 0xC0 | segment << 3 | register)))


def _nothing(b: Builder) -> None:
    code = b.rng.choice(
        ("90", "f390", "0f1f00", "0f1f8400", "0f0d00", "0f1800", "0f18d0", "2e90", "6690", "0f1900")
    )
    if code in ("0f1f00", "0f1800", "0f0d00", "0f1900"):
        if code == "0f0d00":
            return
        b.emit("nop", bytes.fromhex(code[:4]) + b.memory(b.rng.randrange(4), 1))
    elif code != "0f1f8400":
        b.emit("nop", bytes.fromhex(code))


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
    (4, _condition),
    (2, _loop),
    (2, _call),
    (4, _push_pop),
    (2, _frame),
    (4, _flags),
    (1, _widen),
    (3, _decimal),
    (6, _strings),
    (1, _translate),
    (1, _bound),
    (2, _traps),
    (3, _selectors),
    (1, _nothing),
)
