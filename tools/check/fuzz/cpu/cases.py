"""Case `number` of a seed: nothing else decides what it is, so one is run again by its number."""

from __future__ import annotations

import functools
import itertools
from random import Random
from typing import Final

from l4lab.tools.check.fuzz.cpu import control, floating, integer
from l4lab.tools.check.fuzz.cpu.builder import (
    CODE,
    DATA,
    DATA_BYTES,
    EAX,
    EBP,
    EBX,
    ECX,
    EDGES,
    EDI,
    EDX,
    ESI,
    ESP,
    LIMITED,
    SLOT_BYTES,
    Builder,
    Case,
)

LAST: Final = b"\xcd\x30"
"""Ends a case that nothing else did: `int 0x30`."""
LIMITS: Final = "limits"
"""A feature of the runner: this Linux lets it have segments with limits."""
SLOTS: Final = 4 * 4096 // SLOT_BYTES
_BACKGROUNDS: Final = 8
_SEGMENTS: Final = (0, 2, 3)
"""ES, SS, DS."""
_SYSTEM_FLAGS: Final = 0x202
_STACK_EDGES: Final = (
    0,
    2,
    4,
    16,
    DATA_BYTES,
    DATA_BYTES + 8,
    DATA_BYTES - 2,
    DATA_BYTES + 0xFF0,
    DATA_BYTES + 0x1000,
)

_GROUPS: Final = (
    (integer.INSTRUCTIONS + control.INSTRUCTIONS, 45),
    (floating.X87, 25),
    (floating.SIMD, 30),
)


@functools.cache
def _backgrounds(seed: int) -> tuple[bytes, ...]:
    """What the pages of data begin with."""
    rng = Random(f"{seed}/data")
    return tuple(
        b"".join(floating.operand(rng) for _ in range(DATA_BYTES // 16)) for _ in range(_BACKGROUNDS)
    )


_CHOICES: Final = tuple(
    (tuple(function for _, function in group), tuple(itertools.accumulate(weight for weight, _ in group)))
    for group, _ in _GROUPS
)
_WEIGHTS: Final = tuple(itertools.accumulate(weight for _, weight in _GROUPS))


def case_of(seed: int, number: int, features: frozenset[str]) -> Case:
    """The case. `features`: of the host, as /proc/cpuinfo names them; what it lacks is not in its code. With `LIMITS`,
    there are segments with limits."""
    rng = Random(f"{seed}/{number}")
    values: list[int | None] = [0] * 8
    for register in (EAX, ECX, EDX):
        values[register] = rng.choice(EDGES) if rng.random() < 0.4 else rng.getrandbits(32)
    for register in (EBX, EBP, ESI, EDI, ESP):
        values[register] = DATA + 0x200 + (rng.randrange(DATA_BYTES - 0x400) & -4)
    if rng.random() < 0.02:
        values[ESP] = DATA + rng.choice(_STACK_EDGES)
    selectors = {}
    limited = LIMITED if LIMITS in features else ()
    if rng.random() < 0.1:
        selectors[rng.choice((EAX, ECX, EDX))] = rng.choice(("data", "code", *limited))
    fs, gs = (rng.choice(("", *limited)) if rng.random() < 0.1 else "" for _ in range(2))
    general = tuple(value or 0 for value in values)
    eflags = _SYSTEM_FLAGS | rng.getrandbits(12) & 0x8D5 | (0x400 if rng.random() < 0.05 else 0)
    eip = CODE + number % SLOTS * SLOT_BYTES
    b = Builder(rng, list(values), features, eip, limited=bool(fs or gs), selectors=dict(selectors))
    for register, name in selectors.items():
        if name in LIMITED and rng.random() < 0.5:
            control.load_segment(b, register, rng.choice(_SEGMENTS))
    functions, weights = rng.choices(_CHOICES, cum_weights=_WEIGHTS)[0]
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if rng.random() < 0.1:
            functions, weights = rng.choices(_CHOICES, cum_weights=_WEIGHTS)[0]
        rng.choices(functions, cum_weights=weights)[0](b)
        if b.ended or len(b.code) > SLOT_BYTES - 34:
            break
    if len(b.code) > SLOT_BYTES - 4:
        raise ValueError(f"case {number} of seed {seed}: {len(b.code)} bytes of code")
    return Case(
        seed, number, eip, general, eflags, floating.random_state(rng), _backgrounds(seed)[rng.randrange(_BACKGROUNDS)],
        bytes(b.code), tuple(b.names), tuple(b.undefined), tuple(b.memory_masks), selectors, (fs, gs), b.tolerance,
    )  # fmt: skip
