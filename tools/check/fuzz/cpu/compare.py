"""Whether a case ended alike on both processors, but for what the manuals leave open.

`KINDS` are all exceptions that are made, each with the section that leaves it open, no wider than the bits
concerned.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import Final

from l4lab.tools.check.fuzz.cpu.builder import ARITHMETIC, DATA, DATA_BYTES, ESP, Case
from l4lab.tools.check.fuzz.cpu.machines import End

KINDS: Final = {
    "undefined flags": "SDM vol. 1, appendix A: flags that an instruction leaves undefined",
    "undefined memory": "SDM vol. 1, 8.1.8, 10.5.1: x87 pointers and reserved bytes of a saved state; AMD saves "
    "pointers only while an exception is pending (APM vol. 2, 11.4.4.3)",
    "transcendental": "SDM vol. 1, 8.3.10: results differ by less than one unit in the last place; whether they are "
    "inexact, and rounded up, with them",
    "comparison": "SDM vol. 2, FCOM, FCOMI: condition codes of a comparison that an unmasked exception ends, and C1",
    "fault address": "SDM vol. 3, 4.7: which byte of an operand of more than 8 bytes CR2 names",
    "access rights": "SDM vol. 2, LAR: bits 16 to 19 are undefined",
    "halfway": "SDM vol. 2, PUSHA, ENTER, FSTP of 80 bits, FBSTP: what was written before one of several accesses "
    "faulted",
    "enter": "SDM vol. 2, ENTER: the high half of EBP with an operand size of 16 bits",
    "approximation": "SDM vol. 2, RCPPS, RSQRTPS: relative error up to 1.5 * 2^-12",
    "flags of a fault": "SDM vol. 3, 18.3.1.1: RF; vol. 2, REP: Intel's have the flags from before a CMPS or SCAS that "
    "faults while it is repeated",
}

_EFLAGS: Final = 0x240DD5
_RESUME: Final = 0x10000
_C1: Final = 0x200
_PUSHED_BYTES: Final = 32 * 4 + 4
_EXTENDED_BYTES: Final = 10
_SEGMENT_END: Final = 0x1000
"""Of the segment `low`, behind the data's beginning."""
_ADJUSTMENT: Final = 24576
_CODES: Final = 0x4700
_TINY_INEXACT: Final = 0x80B0
"""Underflow, inexact, and that they are pending."""
_LONG: Final = ("fxsave", "fxrstor", "x87 dd /6", "x87 dd /4", "x87 d9 /4", "x87 d9 /6")
"""What may name any byte of its operand in a page fault."""
_COMPARISON: Final = re.compile(
    r"x87 (d[8ce] (/[23]|d[0-9a-f])|da (/[23]|e9)|dd e[0-9a-f]|d[bf] [ef][0-9a-f]|d9 e4)"
)
_REPEATED_COMPARISON: Final = re.compile(
    rb"[\x26\x2e\x36\x3e\x64-\x67]*[\xf2\xf3][\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]*[\xa6\xa7\xae\xaf]"
)
"""Any prefixes, a repeat among them, and cmps or scas."""
_REGISTERS: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


def differences(case: Case, ours: End, host: End, kinds: Counter[str]) -> list[str]:
    """What is not alike, in words; counts in `kinds` what was passed over."""
    found = []
    where_ours, where_host = (ours.vector, ours.eip - case.eip), (host.vector, host.eip - case.eip)
    if where_ours != where_host:
        found.append("ends with {} at +{}, host {} at +{}".format(*where_ours, *where_host))
    elif ours.vector == 14 and (ours.error_code, ours.address) != (host.error_code & 7, host.address):
        same_page = ours.error_code == host.error_code & 7 and not (ours.address ^ host.address) >> 12
        if same_page and any(name in _LONG for name in case.names):
            kinds["fault address"] += 1
        else:
            found.append(
                f"page fault {ours.error_code:#x} at {ours.address:#x}, "
                f"host {host.error_code & 7:#x} at {host.address:#x}"
            )
    elif ours.vector in (10, 11, 12, 13) and ours.error_code != host.error_code:
        found.append(f"error code {ours.error_code:#x}, host {host.error_code:#x}")
    for name, a, b in zip(_REGISTERS, ours.general, host.general, strict=True):
        if a == b:
            continue
        if "lar" in case.names and not (a ^ b) & ~0xF0000:
            kinds["access rights"] += 1
        elif name == "ebp" and "enter" in case.names and not (a ^ b) & 0xFFFF:
            kinds["enter"] += 1
        else:
            found.append(f"{name} {a:#x}, host {b:#x}")
    undefined = 0
    done = ours.eip - case.eip
    for offset, flags in case.undefined:
        if offset <= done:
            undefined = flags
    wrong = (ours.eflags ^ host.eflags) & _EFLAGS
    if wrong & undefined:
        kinds["undefined flags"] += 1
    compares = any(_COMPARISON.fullmatch(name) for name in case.names)
    if compares and wrong & ~undefined and host.fxsave[2] & 0x81 == 0x81:
        kinds["comparison"] += 1
        undefined |= ARITHMETIC
    repeats = ours.vector in (12, 13, 14) and _REPEATED_COMPARISON.match(case.code, done)
    if (ours.eflags ^ host.eflags) & _RESUME or (repeats and wrong & ~undefined & ARITHMETIC):
        kinds["flags of a fault"] += 1
    if repeats:
        undefined |= ARITHMETIC
    if wrong & ~undefined:
        found.append(f"eflags differ in {wrong & ~undefined:#x}: {ours.eflags:#x}, host {host.eflags:#x}")
    if ours.memory != host.memory:
        halfway = _written_halfway(case, ours)
        found += _memory(case, ours.memory, host.memory, halfway, kinds)
    if ours.fxsave != host.fxsave:
        found += _floating(case, ours.fxsave, host.fxsave, kinds, compares=compares)
    return found


def _written_halfway(case: Case, ours: End) -> tuple[int, int] | None:
    """Offset in the data and size of what an instruction may have written before its page or its segment ended."""
    if not (ours.vector == 14 or (ours.vector in (12, 13) and ours.error_code == 0)):
        return None
    if not {"pusha", "enter"}.isdisjoint(case.names):
        return ours.general[ESP] - DATA - _PUSHED_BYTES, _PUSHED_BYTES
    if not {"x87 db /7", "x87 df /6"}.isdisjoint(case.names):
        end = (ours.address & ~0xFFF) - DATA if ours.vector == 14 else _SEGMENT_END
        return end - _EXTENDED_BYTES, _EXTENDED_BYTES
    return None


def _memory(
    case: Case, ours: bytes, host: bytes, halfway: tuple[int, int] | None, kinds: Counter[str]
) -> list[str]:
    left, right = bytearray(ours), bytearray(host)
    masks = case.memory_masks
    if halfway is not None:
        masks += (halfway,)
    for offset, size in masks:
        first, last = max(offset, 0), min(max(offset + size, 0), DATA_BYTES)
        left[first:last] = right[first:last] = bytes(max(last - first, 0))
    if left == right:
        kinds["undefined memory" if halfway is None else "halfway"] += 1
        return []
    at = [i for i in range(DATA_BYTES) if left[i] != right[i]]
    first, last = at[0], min(at[-1], at[0] + 15) + 1
    return [
        f"memory +{first:#x}: {ours[first:last].hex()}, host {host[first:last].hex()} ({len(at)} bytes differ)"
    ]


def _floating(case: Case, ours: bytes, host: bytes, kinds: Counter[str], *, compares: bool) -> list[str]:
    found = []
    a, b = (struct.unpack_from("<HHB19xI", state) for state in (ours, host))
    for name, x, y in zip(("control", "status", "tags", "mxcsr"), a, b, strict=True):
        wrong = x ^ y
        if name == "status" and case.tolerance and not wrong & ~(_C1 | _TINY_INEXACT):
            kinds["transcendental"] += wrong != 0
            wrong = 0
        elif name == "status" and wrong and compares:
            open_bits = _CODES if y & 0x81 == 0x81 else _C1
            kinds["comparison"] += wrong & open_bits != 0
            wrong &= ~open_bits
        if wrong:
            found.append(f"{name} {x:#x}, host {y:#x}")
    for i in range(8):
        x, y = ours[32 + 16 * i : 42 + 16 * i], host[32 + 16 * i : 42 + 16 * i]
        if x != y:
            if case.tolerance and i < 2 and _ulps(x, y) <= 1:
                kinds["transcendental"] += 1
            else:
                found.append(f"st{i} {x[::-1].hex()}, host {y[::-1].hex()}")
    for i in range(8):
        x, y = ours[160 + 16 * i : 176 + 16 * i], host[160 + 16 * i : 176 + 16 * i]
        if x != y:
            if case.tolerance in ("rcp", "rsqrt") and _approximate(x, y):
                kinds["approximation"] += 1
            else:
                found.append(f"xmm{i} {x[::-1].hex()}, host {y[::-1].hex()}")
    return found


def _ulps(x: bytes, y: bytes) -> int:
    """How many numbers of the extended format lie between two of one sign; if one is tiny and that is unmasked, it is
    there with its exponent adjusted (SDM vol. 1, 8.5.5)."""
    (m, se), (n, tf) = struct.unpack("<QH", x), struct.unpack("<QH", y)
    if (se ^ tf) & 0x8000:
        return 1 << 64
    exponents = [se & 0x7FFF, tf & 0x7FFF]
    if {_ADJUSTMENT, 1} == set(exponents):
        exponents = [exponent % _ADJUSTMENT for exponent in exponents]
    positions = [e << 63 | s & (1 << 63) - 1 for s, e in zip((m, n), exponents, strict=True)]
    distance: int = abs(positions[0] - positions[1])
    return distance


def _approximate(x: bytes, y: bytes) -> bool:
    """Whether single precision numbers are alike within twice the error that the manual allows."""
    for a, b in zip(struct.unpack("<4I", x), struct.unpack("<4I", y), strict=True):
        if a != b and abs(a - b) > 3 << 12:
            return False
    return True
