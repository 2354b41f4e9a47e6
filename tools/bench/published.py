"""Published figures that runs are held against: what was said where, of what, and how close is reproduced.

Only figures that somebody measured are here, in the words of their source; what we make of them is elsewhere.
The documents are those of the calibration sheet; `SEEDS` says which they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

SEEDS: Final = {
    "000_1be4d2f6ae8bebbc.txt": "Tian, Waddington, Kuang: A Scalable Physical Memory Allocation Scheme "
    "For L4 Microkernel",
    "001_1b920a6df003b76d.txt": "L4 Microkernels: The Lessons from 20 Years of Research and Deployment",
    "002_50211d24b7aa1a78.txt": "lecture notes on L3 and L4, after Liedtke, SOSP 1993 and CACM 39 (9), 1996",
    "003_7bcd5b5e8388f371.txt": "Liedtke: Toward Real Microkernels, CACM 39 (9), 1996",
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


def _within(cycles: int, percent: int) -> dict[str, float]:
    return {
        "cycles": cycles,
        "low": round(cycles * (1 - percent / 100), 1),
        "high": round(cycles * (1 + percent / 100), 1),
    }


_TABLE_I: Final = "001_1b920a6df003b76d.txt, table I"
_FIGURE_5: Final = "000_1be4d2f6ae8bebbc.txt, figure 5 and section 3.1"

SAME_CORE: Final = "same-core IPC"
CROSS_CORE: Final = "cross-core IPC"

FIGURES: Final = (
    Published(
        profile="opteron-6174",
        what=SAME_CORE,
        place="inter_space",
        message="0",
        source=_FIGURE_5,
        statement="a few hundreds CPU cycles",
        cycles=None,
        low=200,
        high=1100,
    ),
    Published(
        profile="opteron-6174",
        what=CROSS_CORE,
        place="cross_core",
        message="0",
        source=_FIGURE_5,
        statement="about 12 thousands cycles",
        **_within(12_000, 10),  # type: ignore[arg-type]
    ),
    Published(
        profile="i486-dx50",
        what="8-byte message",
        place="inter_space",
        message="2",
        source=f"003_7bcd5b5e8388f371.txt (5 us at 50 MHz); {_TABLE_I}",
        statement="5 us for an 8-byte argument",
        **_within(250, 10),  # type: ignore[arg-type]
    ),
    Published(
        profile="i486-dx50",
        what="512-byte message",
        place="inter_space",
        message="mapping:512",
        source="003_7bcd5b5e8388f371.txt (18 us at 50 MHz)",
        statement="18 us for 512 bytes",
        tlb="page",
        **_within(900, 10),  # type: ignore[arg-type]
    ),
    Published(
        profile="pentium-160",
        what="message between address spaces",
        place="inter_space",
        message="0",
        source=_TABLE_I,
        statement="121 cycles",
        **_within(121, 10),  # type: ignore[arg-type]
    ),
    Published(
        profile="haswell-4770",
        what="message between address spaces",
        place="inter_space",
        message="0",
        source=_TABLE_I,
        statement="301 cycles",
        **_within(301, 10),  # type: ignore[arg-type]
    ),
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
