"""Published figures that runs are held against: what was said where, of what, and how close is reproduced.

Only figures that somebody measured are here, in the words of their source; what we make of them is elsewhere.
The documents are those of the calibration sheet; `SEEDS` says which they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

SEEDS: Final = {
    "000_1be4d2f6ae8bebbc.txt": "Tian, Waddington, Kuang: A Scalable Physical Memory Allocation Scheme "
    "For L4 Microkernel",
    "001_1b920a6df003b76d.txt": "L4 Microkernels: The Lessons from 20 Years of Research and Deployment",
    "002_50211d24b7aa1a78.txt": "lecture notes on L3 and L4, after Liedtke, SOSP 1993 and CACM 39 (9), 1996",
    "003_7bcd5b5e8388f371.txt": "Liedtke: Toward Real Microkernels, CACM 39 (9), 1996",
}


@dataclass(frozen=True, slots=True)
class Residual:
    """One published statement and what we have for it.

    `published`: the number, None for a statement without one. `low`, `high`: what counts as reproduced,
    None if nothing can be said. `unit`: of all of them.
    """

    what: str
    statement: str
    source: str
    published: float | None
    low: float | None
    high: float | None
    ours: float
    unit: str

    @property
    def deviation_percent(self) -> float | None:
        """Ours against the published number."""
        return (self.ours / self.published - 1) * 100 if self.published else None

    @property
    def within(self) -> bool | None:
        """Whether it counts as reproduced; None if that cannot be said."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.ours <= self.high

    def as_dict(self) -> dict[str, Any]:
        """As data.json has it."""
        deviation = self.deviation_percent
        return {
            "what": self.what,
            "statement": self.statement,
            "source": self.source,
            "published": self.published,
            "low": self.low,
            "high": self.high,
            "ours": round(self.ours, 2),
            "deviation_percent": round(deviation, 2) if deviation is not None else None,
            "within": self.within,
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Published:
    """One figure for a profile, to be measured by the ping-pong.

    `place`, `message`: as `tools/bench/pingpong_run.py` has them; place "cross_core": the mean over all other cores.
    `low`, `high`: what counts as reproduced, in cycles; `cycles`: the figure itself, None where the source
    gives no number.
    """

    profile: str
    what: str
    place: str
    message: str
    source: str
    statement: str
    cycles: int | None
    low: float
    high: float
    tlb: str = "full"

    def against(self, ours: Fraction) -> Residual:
        """With what we have for it."""
        return Residual(
            self.what, self.statement, self.source, self.cycles, self.low, self.high, float(ours), "cycles"
        )


_TABLE_I: Final = "001_1b920a6df003b76d.txt, table I"
_FIGURE_5: Final = "000_1be4d2f6ae8bebbc.txt, figure 5 and section 3.1"

_TOWARD: Final = "003_7bcd5b5e8388f371.txt"


def _measured(
    profile: str,
    what: str,
    message: str,
    source: str,
    statement: str,
    cycles: int,
    *,
    place: str = "inter_space",
    tlb: str = "full",
) -> Published:
    """A figure in cycles: ours counts as the same if it is within 10 %."""
    low, high = (round(cycles * (1 + percent / 100), 1) for percent in (-10, 10))
    return Published(profile, what, place, message, source, statement, cycles, low, high, tlb)


FIGURES: Final = (
    Published(
        profile="opteron-6174",
        what="same-core IPC",
        place="inter_space",
        message="0",
        source=_FIGURE_5,
        statement="a few hundreds CPU cycles",
        cycles=None,
        low=200,
        high=1100,
    ),
    _measured(
        "opteron-6174",
        "cross-core IPC",
        "0",
        _FIGURE_5,
        "about 12 thousands cycles",
        12_000,
        place="cross_core",
    ),
    _measured(
        "i486-dx50",
        "8-byte message",
        "2",
        f"{_TOWARD} (5 us at 50 MHz); {_TABLE_I}",
        "5 us for an 8-byte argument",
        250,
    ),
    _measured(
        "i486-dx50",
        "512-byte message",
        "mapping:512",
        f"{_TOWARD} (18 us at 50 MHz)",
        "18 us for 512 bytes",
        900,
        tlb="page",
    ),
    _measured("pentium-160", "message between address spaces", "0", _TABLE_I, "121 cycles", 121),
    _measured("haswell-4770", "message between address spaces", "0", _TABLE_I, "301 cycles", 301),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A published ratio of cross-core to same-core IPC."""

    profile: str
    source: str
    statement: str
    low: float
    high: float

    def agrees(self, ours: Fraction | float | None) -> bool:
        """Whether ours is within it; not if there is none."""
        return ours is not None and self.low <= ours <= self.high

    def remark(self, ours: Fraction | float) -> str:
        """The same in words, indented below the ratio."""
        return (
            f"  {'agrees' if self.agrees(ours) else 'does not agree'} with “{self.statement}” ({self.source})"
        )


RATIOS: Final = (
    Ratio(
        "opteron-6174", "000_1be4d2f6ae8bebbc.txt, section 3.1", "10x-12x slower than same-core IPC", 10, 12
    ),
    Ratio(
        "opteron-6174",
        _FIGURE_5,
        "about 12 thousands cycles against a few hundreds",
        12_000 / 900,
        12_000 / 200,
    ),
)
"""The paper's two statements, which do not agree: "a few hundreds" cannot be a tenth of 12 thousands."""


@dataclass(frozen=True, slots=True)
class LowerBound:
    """The i486's shortest conceivable message, as a sum: parts of `message` cycles each."""

    profile: str
    source: str
    entry_and_exit_cycles: int
    tlb_misses: int
    tlb_miss_cycles: int
    instructions: int
    cycles: int


LOWER_BOUND: Final = LowerBound(
    profile="i486-dx50",
    source="002_50211d24b7aa1a78.txt, design basis",
    entry_and_exit_cycles=107,
    tlb_misses=5,
    tlb_miss_cycles=9,
    instructions=20,
    cycles=172,
)


def ratios_for(profile: str) -> tuple[Ratio, ...]:
    """The published ratios of the profile of that name."""
    return tuple(ratio for ratio in RATIOS if ratio.profile == profile)


def figures_for(profile: str) -> tuple[Published, ...]:
    """What is published for the profile of that name; empty if nothing is."""
    return tuple(figure for figure in FIGURES if figure.profile == profile)
