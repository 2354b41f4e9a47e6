"""Control flow, stack, flags, strings, traps and selectors for `l4lab fuzz cpu`.

Every jump goes to an instruction that was put there for it. Ref: Intel SDM vol. 2, the instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from l4lab.tools.check.fuzz.cpu.builder import (
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
    OF,
    ZF,
    Builder,
    needs_flags,
    word,
)
from l4lab.tools.check.fuzz.cpu.integer import modify, operand, operand_size


def _condition(b: Builder) -> None:
    """setcc, cmovcc, or a jump over the next instruction."""
    needs_flags(b, ARITHMETIC)
    condition, form = b.rng.randrange(16), b.rng.randrange(4)
    if form == 0:
        modify(b, "setcc", bytes((0x0F, 0x90 | condition)), b.rng.randrange(8), 1, b"", lock=False)
    elif form == 1:
        target = b.register()
        prefix, size = (b"\x66", 2) if b.rng.random() < 0.4 else (b"", 4)
        modrm, _ = operand(b, target, size, writes=False)
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
        modrm, _ = operand(b, 6, size, writes=False)
        b.emit("push", b.prefixes() + prefix + b"\xff" + modrm)
    elif form == 4:
        target = b.register()
        b.emit("pop", prefix + bytes((0x58 | target,)))
        b.clobber(target)
    elif form == 5:
        if not _is_within(b) and "mov sreg" in b.names:  # two faults, in no certain order
            return
        modify(b, "pop", b"\x8f", 0, size, prefix, lock=False)
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


def _strings(b: Builder) -> None:
    """movs, cmps, stos, lods, scas, repeated or not, in both directions and over the edges of pages.

    Of cmps one operand alone may fault: no manual says which comes first.
    """
    opcode = b.rng.choice((0xA4, 0xA6, 0xAA, 0xAC, 0xAE))
    size, prefix = operand_size(b)
    repeat = b.rng.choice((b"", b"\xf3", b"\xf2"))
    safe = b.rng.choice((ESI, EDI)) if opcode == 0xA6 else None
    for register in (ESI, EDI):
        if register == safe:
            inside = DATA + 0x400 + b.rng.randrange(DATA_BYTES - 0x800)
            b.emit("mov", bytes((0xB8 | register,)) + word(inside))
        elif b.values[register] is None or b.rng.random() < 0.3:
            b.emit("mov", bytes((0xB8 | register,)) + word(b.data_address(4 * size, size)))
    if repeat:
        b.emit("mov", b"\xb9" + word(b.rng.choice((0, 1, 2, 3, 7, 16, 40))))
        b.clobber(ECX)
    if b.rng.random() < 0.2:
        b.emit("std", b"\xfd")
    compares = opcode in (0xA6, 0xAE)
    segment = b.prefixes() if b.rng.random() < 0.3 else b""
    if safe == ESI:
        segment = segment.translate(None, b"\x64\x65")  # of segments that may be empty
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


_TRAPS: Final = (
    # One byte: breakpoint and overflow, ports, what only a kernel may do.
    *["cc", "ce", "ce", "ce", "f4", "fa", "fb", "ec", "ed", "ee", "6c", "e401", "e501", "e601", "f36e"],
    # Kernels' instructions, and gates that are not the user's.
    *[
        "0f06",
        "0f08",
        "0f09",
        "0f20c0",
        "0f22c0",
        "0f23c0",
        "0f30",
        "0f32",
        "8ec8",
        "cd00",
        "cd04",
        "cd20",
        "cdff",
    ],
    # What is none: reserved opcodes and forms, a lock where there may be none.
    *[
        "0f0b",
        "0fff",
        "fff8",
        "fef0",
        "8dc0",
        "62c0",
        "c4c0",
        "8ff8c0",
        "0fc7c8",
        "0fb9c0",
        "f00bc0",
        "f00fc8",
        "f089c0",
        "f090",
        "f0eb00",
        "f3f2f0660f0b",
    ],
)


def _traps(b: Builder) -> None:
    """What ends in an exception, or may."""
    needs_flags(b, OF)
    code = b.rng.choice(_TRAPS)
    b.emit("trap " + code, bytes.fromhex(code))


def _selectors(b: Builder) -> None:
    """arpl, verr, verw, lar, lsl, and loads of segment registers."""
    register, form = b.rng.choice((EAX, ECX, EDX)), b.rng.randrange(6)
    if form == 0:
        modify(b, "arpl", b"\x63", b.rng.randrange(8), 2, b"", lock=False, defines=ZF)
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
        load_segment(b, register, b.rng.choice((0, 2, 3, 4, 5, 0, 3)))


def load_segment(b: Builder, register: int, segment: int) -> None:
    """A segment register from a general one."""
    b.emit("mov sreg", bytes((0x8E, 0xC0 | segment << 3 | register)))


def _nothing(b: Builder) -> None:
    """Pauses, prefetches, and the forms of nop."""
    code = bytes.fromhex(b.rng.choice(("90", "f390", "2e90", "6690", "0f18d0", "0f18", "0f19", "0f1f")))
    has_operand = len(code) == 2 and code[0] == 0x0F
    b.emit("nop", code + (b.memory(b.rng.randrange(4), 1) if has_operand else b""))


INSTRUCTIONS: Final[tuple[tuple[int, Callable[[Builder], None]], ...]] = (
    (4, _condition),
    (2, _loop),
    (2, _call),
    (4, _push_pop),
    (2, _frame),
    (4, _flags),
    (6, _strings),
    (1, _translate),
    (1, _bound),
    (2, _traps),
    (3, _selectors),
    (1, _nothing),
)
