"""What instructions cost: one number for each class of `emulator/shim/decode.h`, in thousandths of a cycle.

A superscalar core retires several simple instructions in one cycle, so costs below one cycle are
needed; thousandths keep the decimal fractions that a profile is written with, and all sums, exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

MILLICYCLES_PER_CYCLE: Final = 1000
MAX_COST_MILLICYCLES: Final = 10**6 * MILLICYCLES_PER_CYCLE


@dataclass(frozen=True, slots=True)
class CostTable:
    """The cost of an instruction is its class's, plus `load` and `store` for each time it reads and
    writes memory, plus `locked` if that is a locked access. All in thousandths of a cycle."""

    alu: int
    mul: int
    div: int
    branch: int
    call: int
    string: int
    x87: int
    x87_slow: int
    sse: int
    sse_slow: int
    segment: int
    serial: int
    trap: int
    load: int
    store: int
    locked: int
    tlb_miss: int
    fpu_switch: int

    def __post_init__(self) -> None:
        for name, cost in self.as_dict().items():
            if not 0 <= cost <= MAX_COST_MILLICYCLES:
                raise ValueError(f"cost of {name}: {cost} thousandths of a cycle, expected 0 .. 10**9")

    @classmethod
    def uniform(cls, instruction_cycles: int = 1) -> CostTable:
        """Every instruction costs the same, memory and switches nothing: cycles count instructions."""
        extra = ("load", "store", "locked", "tlb_miss", "fpu_switch")
        each = instruction_cycles * MILLICYCLES_PER_CYCLE
        return cls(**{f.name: 0 if f.name in extra else each for f in fields(cls)})

    def as_dict(self) -> dict[str, int]:
        """Class name to cost, in the order of `emulator/shim/decode.h`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
