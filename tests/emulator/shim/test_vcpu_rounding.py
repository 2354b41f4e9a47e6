"""Ordinary arithmetic of x87 and SSE against exact fractions: to nearest, ties to even, inexact, rounded up.

SDM vol. 1, 4.8.4 (rounding), 8.1.3 (C1), 8.5.6 and 11.5.2.6 (inexact results), 8.3.3 and 11.4.1.6 (conversions).
These are the cases that the shim has functions of their own for. Operands are short and long, so that many results are
exact, or ties.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import pytest

from support.guest import DATA, SYSTEM_CALL, Guest, as_bytes, set_registers

ENTRY = 48
"""Bytes in the data page: operands at 0 and 16, result at 32, flags at 44."""
COUNT = 80
ROUNDS = 4
INEXACT = 0x20
C1 = 0x200


@dataclass(frozen=True)
class Format:
    bits: int
    size: int
    exponent_bits: int
    explicit: bool = False
    """Whether the leading bit is stored."""

    @property
    def bias(self) -> int:
        return (1 << self.exponent_bits - 1) - 1

    def pack(self, x: Fraction) -> bytes:
        """A number that fits."""
        if x == 0:
            return bytes(self.size)
        exponent = exponent_of(x)
        significand = int(abs(x) * Fraction(2) ** (self.bits - 1 - exponent))
        stored = self.bits if self.explicit else self.bits - 1
        word = significand & (1 << stored) - 1 | exponent + self.bias << stored
        word |= int(x < 0) << stored + self.exponent_bits
        return word.to_bytes(self.size, "little")

    def rounded(self, x: Fraction) -> tuple[Fraction, bool, bool]:
        """To nearest, ties to even; whether that was inexact, and away from zero."""
        if x == 0:
            return x, False, False
        unit = Fraction(2) ** (exponent_of(x) - self.bits + 1)
        result = round(x / unit) * unit
        return result, result != x, abs(result) > abs(x)


SINGLE, DOUBLE, EXTENDED = Format(24, 4, 8), Format(53, 8, 11), Format(64, 10, 15, explicit=True)


def exponent_of(x: Fraction) -> int:
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return exponent if abs(x) >= Fraction(2) ** exponent else exponent - 1


def numbers(seed: int, form: Format) -> Iterator[Fraction]:
    source = random.Random(seed)
    while True:
        length = source.choice((1, 2, 3, form.bits // 2, form.bits - 1, form.bits))
        significand = source.getrandbits(length) | 1 << length - 1
        if source.random() < 0.2:
            significand = (1 << length) - 1
        yield source.choice((1, -1)) * Fraction(significand) * Fraction(2) ** source.randrange(-40, 12)


def root(x: Fraction) -> Fraction:
    """So many bits that its rounding is that of the root itself; exact, if that is."""
    scaled = abs(x) * Fraction(4) ** 200
    whole = math.isqrt(int(scaled))
    return Fraction(
        whole if whole * whole == scaled else 2 * whole + 1, 2**200 if whole * whole == scaled else 2**201
    )


def run(code: str, pairs: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, int]]:
    """`code` for each pair at EBX; result and flags of each."""
    guest = Guest()
    loop = as_bytes(code) + as_bytes("83c330 49")
    loop += b"\x0f\x85" + (-len(loop) - 6).to_bytes(4, "little", signed=True)
    results = []
    for start in range(0, len(pairs), COUNT):
        part = pairs[start : start + COUNT]
        guest.put(guest.code_pfn, loop + SYSTEM_CALL)
        guest.put(guest.data_pfn, b"".join(a.ljust(16, b"\0") + b.ljust(32, b"\0") for a, b in part))
        guest.put(guest.stack_pfn, (0x1F80).to_bytes(4, "little"))
        frame = guest.thread()
        set_registers(frame, ebx=DATA, ecx=len(part), esi=0x0060_0000)
        guest.run(frame)
        for i in range(len(part)):
            entry = guest.get(guest.data_pfn, ENTRY, i * ENTRY)
            results.append((entry[32 : 32 + size], int.from_bytes(entry[44:48], "little")))
    return results


def expected(form: Format, exact: Fraction) -> tuple[bytes, bool, bool]:
    result, inexact, up = form.rounded(exact)
    return form.pack(result), inexact, up


Operation = Callable[[Fraction, Fraction], Fraction]
X87: dict[str, tuple[str, Operation]] = {
    "faddp": ("dec1", lambda a, b: a + b),
    "fmulp": ("dec9", lambda a, b: a * b),
    "fsubp": ("dee9", lambda a, b: a - b),
    "fsubrp": ("dee1", lambda a, b: b - a),
    "fdivp": ("def9", lambda a, b: a / b),
    "fdivrp": ("def1", lambda a, b: b / a),
    "fadd st,st1": ("d8c1", lambda a, b: a + b),
    "fsub st,st1": ("d8e1", lambda a, b: b - a),
    "fdivr st,st1": ("d8f9", lambda a, b: a / b),
    "fsqrt": ("d9e1 d9fa", lambda _, b: root(b)),
}


def pairs_of(seed: int, form: Format) -> list[tuple[Fraction, Fraction]]:
    first, second = numbers(seed, form), numbers(seed + 1, form)
    return [(next(first), next(second)) for _ in range(COUNT * ROUNDS)]


@pytest.mark.parametrize("name", X87)
def test_x87_arithmetic(name: str) -> None:
    opcode, operation = X87[name]
    pairs = pairs_of(1, EXTENDED)
    code = f"dbe3 db2b db6b10 {opcode} dd7b2c db7b20"  # fninit; fld, fld; …; fnstsw, fstp
    results = run(code, [(EXTENDED.pack(a), EXTENDED.pack(b)) for a, b in pairs], 10)
    for (a, b), (result, status) in zip(pairs, results, strict=True):
        exact = operation(a, b)
        packed, inexact, up = expected(EXTENDED, exact)
        assert (result, bool(status & INEXACT), bool(status & C1)) == (packed, inexact, up), (name, a, b)
        assert status & 0x1F == 0


@pytest.mark.parametrize(("opcode", "form"), [("d8", SINGLE), ("dc", DOUBLE)], ids=("single", "double"))
@pytest.mark.parametrize("reg", [0, 1, 4, 5, 6, 7])
def test_x87_arithmetic_with_memory(opcode: str, form: Format, reg: int) -> None:
    pairs = list(zip(numbers(3, EXTENDED), pairs_of(4, form), strict=False))
    code = f"dbe3 db2b {opcode}{0x43 | reg << 3:02x}10 dd7b2c db7b20"
    results = run(code, [(EXTENDED.pack(a), form.pack(b)) for a, (b, _) in pairs], 10)
    for (a, (b, _)), (result, status) in zip(pairs, results, strict=True):
        exact = [a + b, a * b, 0, 0, a - b, b - a, a / b, b / a][reg]
        packed, inexact, up = expected(EXTENDED, Fraction(exact))
        assert (result, bool(status & INEXACT), bool(status & C1)) == (packed, inexact, up), (a, b)


@pytest.mark.parametrize(("code", "form"), [("d95b20", SINGLE), ("dd5b20", DOUBLE)], ids=("single", "double"))
def test_x87_stores(code: str, form: Format) -> None:
    values = [a for a, _ in pairs_of(5, EXTENDED)]
    results = run(f"dbe3 db2b {code} dd7b2c", [(EXTENDED.pack(a), b"") for a in values], form.size)
    for a, (result, status) in zip(values, results, strict=True):
        assert (result, bool(status & INEXACT), bool(status & C1)) == expected(form, a), a


@pytest.mark.parametrize(
    ("code", "size", "rounding", "whole"),
    [
        ("db5b20", 4, 0, round),
        ("df7b20", 8, 0, round),
        ("db5b20", 4, 1, math.floor),
        ("df7b20", 8, 2, math.ceil),
        ("db5b20", 4, 3, math.trunc),
        ("dd4b20", 8, 0, math.trunc),
    ],
)
def test_x87_integers(code: str, size: int, rounding: int, whole: Callable[[Fraction], int]) -> None:
    """fistp under each rounding, fisttp."""
    values = [a for a, _ in pairs_of(6, EXTENDED) if abs(a) < 1 << 30]
    control = (0x37F | rounding << 10).to_bytes(2, "little")
    pairs = [(EXTENDED.pack(a), control) for a in values]
    results = run(f"dbe3 d96b10 db2b {code} dd7b2c", pairs, size)
    for a, (result, status) in zip(values, results, strict=True):
        n = whole(a)
        assert result == n.to_bytes(size, "little", signed=True), a
        assert (bool(status & INEXACT), bool(status & C1)) == (n != a, abs(n) > abs(a)), a


SSE: dict[str, tuple[str, Operation]] = {
    "add": ("58", lambda a, b: a + b),
    "mul": ("59", lambda a, b: a * b),
    "sub": ("5c", lambda a, b: a - b),
    "min": ("5d", min),
    "div": ("5e", lambda a, b: a / b),
    "max": ("5f", max),
    "sqrt": ("51", lambda _, b: root(b)),
}


@pytest.mark.parametrize("flag_is_set", [False, True])
@pytest.mark.parametrize(("prefix", "form"), [("f3", SINGLE), ("f2", DOUBLE)], ids=("ss", "sd"))
@pytest.mark.parametrize("name", SSE)
def test_sse_arithmetic(name: str, prefix: str, form: Format, flag_is_set: bool) -> None:
    """Exact results leave the flag, which decides how much must be found out."""
    opcode, operation = SSE[name]
    pairs = pairs_of(7, form)
    if name == "sqrt":
        pairs = [(a, abs(b)) for a, b in pairs]
    # ldmxcsr; movs xmm0, movs xmm1; …; movs, stmxcsr
    code = f"0fae16 {prefix}0f1003 {prefix}0f104b10 {prefix}0f{opcode}c1 {prefix}0f114320 0fae5b2c"
    if flag_is_set:
        code = f"800e20 {code}"  # or byte [esi], 0x20
    results = run(code, [(form.pack(a), form.pack(b)) for a, b in pairs], form.size)
    for (a, b), (result, mxcsr) in zip(pairs, results, strict=True):
        packed, inexact, _ = expected(form, operation(a, b))
        assert (result, mxcsr) == (packed, 0x1FA0 if inexact or flag_is_set else 0x1F80), (name, a, b)


@pytest.mark.parametrize(
    ("code", "whole"),
    [("f20f2c4310", math.trunc), ("f20f2d4310", round), ("f30f2c4310", math.trunc), ("f30f2d4310", round)],
)
def test_sse_integers(code: str, whole: Callable[[Fraction], int]) -> None:
    form = DOUBLE if code.startswith("f2") else SINGLE
    values = [b for _, b in pairs_of(8, form) if abs(b) < 1 << 30]
    results = run(f"0fae16 {code} 894320 0fae5b2c", [(b"", form.pack(b)) for b in values], 4)
    for b, (result, mxcsr) in zip(values, results, strict=True):
        n = whole(b)
        assert result == n.to_bytes(4, "little", signed=True), b
        assert mxcsr == (0x1F80 if n == b else 0x1FA0)


def test_sse_formats() -> None:
    values = [a for a, _ in pairs_of(9, DOUBLE)]
    results = run("0fae16 f20f5a03 f30f114320 0fae5b2c", [(DOUBLE.pack(a), b"") for a in values], 4)
    for a, (result, mxcsr) in zip(values, results, strict=True):
        packed, inexact, _ = expected(SINGLE, a)
        assert (result, mxcsr) == (packed, 0x1FA0 if inexact else 0x1F80), a


@pytest.mark.parametrize("value", [0, 1, -1, 0x1000001, -0x7FFFFFFF, 0x7FFFFFC0, -0x80000000])
def test_sse_from_integers(value: int) -> None:
    pair = (value.to_bytes(4, "little", signed=True), b"")
    ((result, mxcsr),) = run("0fae16 f30f2a03 f30f114320 0fae5b2c", [pair], 4)
    packed, inexact, _ = expected(SINGLE, Fraction(value))
    assert (result, mxcsr) == (packed, 0x1FA0 if inexact else 0x1F80)
    ((wide, mxcsr),) = run("0fae16 f20f2a03 f20f114320 0fae5b2c", [pair], 8)
    assert (wide, mxcsr) == (DOUBLE.pack(Fraction(value)), 0x1F80)
