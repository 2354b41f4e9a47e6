"""Transcendental functions of the x87 against a multi-precision reference; fprem and fprem1 against exact fractions.

SDM vol. 1, 8.3.8 (pi, argument reduction), 8.3.10 (less than 1 ulp); vol. 2, the instructions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from mpmath import mp, mpf

from l4lab.kernel.frame import EAX
from support.guest import DATA, SYSTEM_CALL, Guest, set_registers, word

PI_OF_THE_X87 = Fraction(0xC90FDAA22168C234C, 1 << 66)
"""66 fraction bits."""
OUT = 0x100


def pack(sign: int, exponent: int, significand: int) -> bytes:
    """Double extended format; the exponent is that of the leading bit."""
    return significand.to_bytes(8, "little") + (sign << 15 | exponent + 16383).to_bytes(2, "little")


def value(data: bytes) -> Fraction:
    significand, exponent = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:10], "little")
    magnitude = Fraction(significand) * Fraction(2) ** ((exponent & 0x7FFF) - 16383 - 63)
    return -magnitude if exponent >> 15 else magnitude


def real(x: Fraction) -> mpf:
    return mpf(x.numerator) / mpf(x.denominator)


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


def execute(guest: Guest, opcode: str, x: bytes, y: bytes) -> tuple[bytes, int]:
    """ST0 = x, ST1 = y; then the instruction. ST0 after it and the status word."""
    code = f"dbe3 db6b10 db2b {opcode} dfe0 dbbb{word(OUT).hex()}"
    guest.put(guest.code_pfn, bytes.fromhex(code) + SYSTEM_CALL)
    guest.put(guest.data_pfn, x.ljust(16, b"\0") + y)
    frame = guest.thread()
    set_registers(frame, ebx=DATA)
    guest.run(frame)
    return guest.get(guest.data_pfn, 10, OUT), frame[EAX] & 0xFFFF


def reduced(x: Fraction) -> tuple[mpf, int]:
    """x less the nearest multiple of pi/2, and that multiple modulo 4."""
    quarter = PI_OF_THE_X87 / 2
    multiple = round(x / quarter)
    return real(x - multiple * quarter), multiple % 4


def sine(x: Fraction, _y: Fraction) -> mpf:
    r, quadrant = reduced(x)
    return (mp.sin(r), mp.cos(r), -mp.sin(r), -mp.cos(r))[quadrant]


def cosine(x: Fraction, _y: Fraction) -> mpf:
    r, quadrant = reduced(x)
    return (mp.cos(r), -mp.sin(r), -mp.cos(r), mp.sin(r))[quadrant]


def tangent(x: Fraction, _y: Fraction) -> mpf:
    r, quadrant = reduced(x)
    return -mp.cot(r) if quadrant & 1 else mp.tan(r)


Function = Callable[[Fraction, Fraction], mpf]
# Instruction, what it computes, exponents of x (and of y), whether x may be negative.
FUNCTIONS: dict[str, tuple[str, Function, tuple[int, int], bool]] = {
    "fsin": ("d9fe", sine, (-70, 62), True),
    "fcos": ("d9ff", cosine, (-40, 62), True),
    "fptan": ("d9f2 ddd8", tangent, (-70, 62), True),
    "fsincos, the sine": ("d9fb ddd8", sine, (-70, 62), True),
    "fsincos, the cosine": ("d9fb", cosine, (-40, 62), True),
    "fpatan": ("d9f3", lambda x, y: mp.atan2(real(y), real(x)), (-60, 60), True),
    "f2xm1": ("d9f0", lambda x, _y: mp.expm1(real(x) * mp.ln2), (-70, -1), True),
    "fyl2x": ("d9f1", lambda x, y: real(y) * mp.log(real(x), 2), (-60, 60), False),
    "fyl2x near 1": ("d9f1", lambda x, y: real(y) * mp.log(real(x), 2), (-1, 0), False),
    "fyl2xp1": ("d9f9", lambda x, y: real(y) * mp.log1p(real(x)) / mp.ln2, (-70, -2), True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_an_ulp(guest: Guest, name: str) -> None:
    """Rounded to nearest, results are within half an ulp and very little."""
    opcode, function, exponents, negative = FUNCTIONS[name]
    r = random.Random(name)
    with mp.workprec(400):
        for _ in range(150):
            x = pack(r.getrandbits(1) * negative, r.randint(*exponents), r.getrandbits(63) | 1 << 63)
            y = pack(r.getrandbits(1), r.randint(-60, 60), r.getrandbits(63) | 1 << 63)
            out, _status = execute(guest, opcode, x, y)
            ulp = Fraction(2) ** ((int.from_bytes(out[8:10], "little") & 0x7FFF) - 16383 - 63)
            error = abs(real(value(out)) - function(value(x), value(y))) / real(ulp)
            assert error < mpf("0.500001"), f"{x.hex()} {y.hex()}: {mp.nstr(error)} ulp"


@pytest.mark.parametrize(("opcode", "nearest"), [("d9f8", False), ("d9f5", True)])
def test_remainders_are_exact(guest: Guest, opcode: str, nearest: bool) -> None:
    r = random.Random(opcode)
    for _ in range(400):
        exponent = r.randint(-50, 50)
        x = pack(r.getrandbits(1), exponent + r.randint(-3, 63), r.getrandbits(63) | 1 << 63)
        y = pack(r.getrandbits(1), exponent, r.getrandbits(63) | 1 << 63)
        out, status = execute(guest, opcode, x, y)
        quotient = abs(value(x) / value(y))
        whole = round(quotient) if nearest else quotient.__floor__()
        sign = -1 if value(x) < 0 else 1
        assert value(out) == sign * (abs(value(x)) - whole * abs(value(y)))
        # The quotient's lowest three bits in C0, C3, C1; C2 clear: complete.
        assert (status >> 8 & 1, status >> 14 & 1, status >> 9 & 1) == (
            whole >> 2 & 1,
            whole >> 1 & 1,
            whole & 1,
        )
        assert not status & 0x400


def test_a_remainder_of_distant_exponents_takes_several_rounds(guest: Guest) -> None:
    """SDM vol. 2, FPREM: C2 is set, and the partial remainder has the same remainder as the whole."""
    x, y = pack(0, 200, 0xF123456789ABCDEF), pack(0, 3, 0xC000000000000001)
    rounds, rest = 0, x
    while True:
        rest, status = execute(guest, "d9f8", rest, y)
        rounds += 1
        if not status & 0x400:
            break
    assert rounds > 2
    assert value(rest) == value(x) % value(y)


def test_a_large_argument_of_a_sine_stays(guest: Guest) -> None:
    """SDM vol. 2, FSIN: C2 says that the operand is out of range."""
    x = pack(1, 63, 1 << 63)
    assert execute(guest, "d9fe", x, x) == (x, 0x3400)
