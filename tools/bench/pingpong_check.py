"""A profile's figures against published ones: the ping-pong measures what is published of the real machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.profile import Profile, load_profile
from l4lab.kernel.state import TlbPolicy
from l4lab.tools.bench.pingpong_report import analyse, ratio_document, rounded
from l4lab.tools.bench.pingpong_run import Instrument, Place, Series, cross_core_cycles, places_of
from l4lab.tools.bench.published import (
    FIGURES,
    LOWER_BOUND,
    LowerBound,
    Published,
    Ratio,
    Residual,
    figures_for,
    ratios_for,
)
from l4lab.tools.ledger.breakdown import PathFinder, grouped_causes

FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

CROSS_CORE: Final = "cross_core"


@dataclass(frozen=True, slots=True)
class Part:
    """One summand of the lower bound: published, and as the ledger of a zero-byte message has it."""

    what: str
    published_cycles: int
    ours: Fraction


@dataclass(frozen=True, slots=True)
class Check:
    """All that could be checked of a profile. `parts`: of the lower bound, empty if none is published."""

    profile: str
    figures: tuple[tuple[Published, Residual], ...]
    ratio: Fraction | None
    ratios: tuple[Ratio, ...]
    parts: tuple[Part, ...]
    manifests: tuple[dict[str, Any], ...]

    @property
    def within(self) -> bool:
        """Whether every figure, the lower bound and at least one of the published ratios are reproduced."""
        ratio = self.ratio is None or not self.ratios or any(one.agrees(self.ratio) for one in self.ratios)
        return all(residual.within for _, residual in self.figures) and self.bound_holds and ratio

    @property
    def bound_holds(self) -> bool:
        """Whether the lower bound's parts, to the nearest cycle, are those of the ledger."""
        return all(round(part.ours) == part.published_cycles for part in self.parts)


def check(name: str, instrument: Instrument) -> Check:
    """Measure all that is published for profile `name`. OperatorError if nothing is."""
    profile = load_profile(name)
    figures = figures_for(profile.name)
    if not figures:
        known = ", ".join(sorted({figure.profile for figure in FIGURES}))
        raise OperatorError(
            f'profile "{profile.name}": found no published figures for it, expected one of {known}'
        )
    series_by_tlb = {
        tlb: _measure(instrument, name, profile, [figure for figure in figures if figure.tlb == tlb])
        for tlb in dict.fromkeys(figure.tlb for figure in figures)
    }
    for series in series_by_tlb.values():
        analyse(series)  # the books balance, or there is nothing to tell
    ours = {figure: _ours(series_by_tlb[figure.tlb], figure) for figure in figures}
    by_what = {figure.place: cycles for figure, cycles in ours.items()}
    ratio = by_what[CROSS_CORE] / by_what["inter_space"] if CROSS_CORE in by_what else None
    bound = profile.name == LOWER_BOUND.profile
    return Check(
        profile=profile.name,
        figures=tuple((figure, figure.against(cycles)) for figure, cycles in ours.items()),
        ratio=ratio,
        ratios=ratios_for(profile.name),
        parts=_lower_bound(instrument, name, profile, LOWER_BOUND) if bound else (),
        manifests=tuple(series.manifest.resolved() for series in series_by_tlb.values()),
    )


def _measure(instrument: Instrument, name: str, profile: Profile, figures: Sequence[Published]) -> Series:
    wanted = {figure.place for figure in figures}
    across = CROSS_CORE in wanted
    places = [place for place in places_of(profile) if place.name in wanted or (across and place.crosses)]
    messages = list(dict.fromkeys(figure.message for figure in figures))
    return instrument.measure(name, places, messages, tlb=TlbPolicy(figures[0].tlb))


def _ours(series: Series, figure: Published) -> Fraction:
    if figure.place != CROSS_CORE:
        return series.cycles(figure.place, figure.message)
    cycles = cross_core_cycles(series, figure.message)
    if cycles is None:
        raise OperatorError(f'profile "{series.profile.name}": found one core, expected several')
    return cycles


def _lower_bound(instrument: Instrument, name: str, profile: Profile, bound: LowerBound) -> tuple[Part, ...]:
    """What the ledger of a zero-byte message has of each summand, in a stretch without a timer tick."""
    place = next(place for place in places_of(profile) if place.name == "inter_space")
    path, messages = _quiet_path(instrument, name, place)
    instruction = Fraction(profile.cpu["alu"].millicycles, 1000)
    return (
        Part(
            "entering and leaving the kernel",
            bound.entry_and_exit_cycles,
            Fraction(path["entry"] + path["exit"], messages),
        ),
        Part(
            f"{bound.tlb_misses} TLB misses of {bound.tlb_miss_cycles}",
            bound.tlb_misses * bound.tlb_miss_cycles,
            Fraction(path["TLB refill"], messages),
        ),
        Part(f"{bound.instructions} instructions", bound.instructions, bound.instructions * instruction),
    )


def _quiet_path(instrument: Instrument, name: str, place: Place) -> tuple[dict[str, int], int]:
    """Cycles by cause of the fastest sample, and the number of messages in it."""
    series = instrument.measure(name, [place], ["0"], rounds=32, samples=16)
    measurement = series.measurements[0]
    index = measurement.samples.index(min(measurement.samples))
    start = measurement.start_cycles + sum(measurement.samples[:index])
    end = start + measurement.samples[index]
    path = PathFinder(series.run).critical_path(place.cores[0], start, end)
    return grouped_causes(path), 2 * measurement.rounds


def as_document(found: Check) -> dict[str, Any]:
    """The check as plain values."""
    return {
        "format": FORMAT,
        "profile": found.profile,
        "within": found.within,
        "figures": [
            {
                "what": figure.what,
                "statement": figure.statement,
                "source": figure.source,
                "message": figure.message,
                "published_cycles": figure.cycles,
                "low": figure.low,
                "high": figure.high,
                "ours_cycles": rounded(residual.ours),
                "deviation_percent": rounded(residual.deviation_percent),
                "within": residual.within,
            }
            for figure, residual in found.figures
        ],
        "ratio": rounded(found.ratio),
        "ratios": [
            {key: value for key, value in ratio_document(one, found.ratio).items() if key != "ours"}
            for one in found.ratios
        ],
        "lower_bound": [
            {"part": part.what, "published_cycles": part.published_cycles, "ours_cycles": rounded(part.ours)}
            for part in found.parts
        ],
        "configurations": list(found.manifests),
    }
