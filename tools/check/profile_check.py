"""`l4lab profile show` and `l4lab profile check`: what a profile says, and what comes of it.

A check runs the ping-pong on the profile and holds the cycles against what was published of the real machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.profile import Cost, Profile, load_profile
from l4lab.kernel.state import TlbPolicy
from l4lab.tools.bench.messages import analyse, rounded
from l4lab.tools.bench.pingpong import Bench, Place, Session, cross_core_cycles, places_of
from l4lab.tools.bench.published import (
    FIGURES,
    LOWER_BOUND,
    RATIOS,
    LowerBound,
    Published,
    Ratio,
    figures_for,
)
from l4lab.tools.ledger.breakdown import PathFinder, grouped_causes

FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

EXIT_OUTSIDE: Final = 1
CROSS_CORE: Final = "cross_core"


# --- show ---------------------------------------------------------------------------------------------


def show_profile(name: str, *, as_json: bool) -> int:
    """`l4lab profile show`. Returns the exit code. Raises ProfileError."""
    profile = load_profile(name)
    if as_json:
        print(json.dumps(profile.resolved(), indent=2, ensure_ascii=False))
        return 0
    console = Console(highlight=False, file=sys.stdout)
    topology = profile.topology
    cores = topology.packages * topology.dies_per_package * topology.cores_per_die
    console.print(f"{profile.name}: {profile.description}", soft_wrap=True)
    console.print(
        f"{profile.mhz} MHz, {_counted(cores, 'core')}: {_counted(topology.packages, 'package')} of "
        f"{_counted(topology.dies_per_package, 'die')} of {_counted(topology.cores_per_die, 'core')}; "
        f"{profile.cpuid.vendor} family {profile.cpuid.family:#x} model {profile.cpuid.model:#x}; "
        f"{'with' if profile.global_pages else 'without'} global pages\n",
        soft_wrap=True,
    )
    table = Table("", box=None, pad_edge=False, header_style="bold")
    table.add_column("cycles", justify="right")
    table.add_column("where the number comes from")
    for title, costs in _sections(profile):
        table.add_row(title, style="bold")
        for key, cost in costs:
            table.add_row(f"  {key}", f"{cost.resolved()['cycles']}", _origin(cost))
    console.print(table)
    return 0


def _origin(cost: Cost) -> str:
    if cost.source is not None:
        return cost.source
    fit = str(cost.fitted_to)
    return fit if fit.startswith("free parameter") else f"fitted to {fit}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number > 1)}"


def _sections(profile: Profile) -> list[tuple[str, list[tuple[str, Cost]]]]:
    return [
        ("processor", list(profile.cpu.items())),
        ("interrupt to another core", [(d.value, cost) for d, cost in profile.ipi_latency.items()]),
        ("cache line of another core", [(d.value, cost) for d, cost in profile.cache_line_transfer.items()]),
        ("kernel", list(profile.kernel.items())),
    ]


# --- check --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """A published figure, and ours."""

    figure: Published
    ours: Fraction

    @property
    def deviation_percent(self) -> float | None:
        """Ours against the published number; None where there is none."""
        if self.figure.cycles is None:
            return None
        return float((self.ours / self.figure.cycles - 1) * 100)

    @property
    def within(self) -> bool:
        """Whether that counts as reproduced."""
        return self.figure.low <= self.ours <= self.figure.high


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
    figures: tuple[Checked, ...]
    ratio: Fraction | None
    ratios: tuple[Ratio, ...]
    parts: tuple[Part, ...]
    manifests: tuple[dict[str, Any], ...]

    @property
    def within(self) -> bool:
        """Whether every figure, the lower bound and at least one of the published ratios are reproduced."""
        ratio = (
            self.ratio is None
            or not self.ratios
            or any(one.low <= self.ratio <= one.high for one in self.ratios)
        )
        return all(checked.within for checked in self.figures) and self.bound_holds and ratio

    @property
    def bound_holds(self) -> bool:
        """Whether the lower bound's parts, to the nearest cycle, are those of the ledger."""
        return all(round(part.ours) == part.published_cycles for part in self.parts)


def check(name: str, bench: Bench, progress: Callable[[], None] | None = None) -> Check:
    """Measure all that is published for profile `name`. OperatorError if nothing is."""
    profile = load_profile(name)
    figures = figures_for(profile.name)
    if not figures:
        known = ", ".join(sorted({figure.profile for figure in FIGURES}))
        raise OperatorError(
            f'profile "{profile.name}": found no published figures for it, expected one of {known}'
        )
    sessions = {
        tlb: _measure(bench, name, profile, [figure for figure in figures if figure.tlb == tlb], progress)
        for tlb in dict.fromkeys(figure.tlb for figure in figures)
    }
    for session in sessions.values():
        analyse(session)  # the books balance, or there is nothing to tell
    checked = tuple(Checked(figure, _ours(sessions[figure.tlb], figure)) for figure in figures)
    by_what = {one.figure.place: one.ours for one in checked}
    ratio = by_what[CROSS_CORE] / by_what["inter_space"] if CROSS_CORE in by_what else None
    bound = profile.name == LOWER_BOUND.profile
    return Check(
        profile=profile.name,
        figures=checked,
        ratio=ratio,
        ratios=tuple(one for one in RATIOS if one.profile == profile.name),
        parts=_lower_bound(bench, name, profile, LOWER_BOUND) if bound else (),
        manifests=tuple(session.manifest.resolved() for session in sessions.values()),
    )


def _measure(
    bench: Bench,
    name: str,
    profile: Profile,
    figures: Sequence[Published],
    progress: Callable[[], None] | None,
) -> Session:
    wanted = {figure.place for figure in figures}
    across = CROSS_CORE in wanted
    places = [place for place in places_of(profile) if place.name in wanted or (across and place.crosses)]
    messages = list(dict.fromkeys(figure.message for figure in figures))
    return bench.measure(name, places, messages, tlb=TlbPolicy(figures[0].tlb), progress=progress)


def _ours(session: Session, figure: Published) -> Fraction:
    if figure.place != CROSS_CORE:
        return session.cycles(figure.place, figure.message)
    cycles = cross_core_cycles(session, figure.message)
    if cycles is None:
        raise OperatorError(f'profile "{session.profile.name}": found one core, expected several')
    return cycles


def _lower_bound(bench: Bench, name: str, profile: Profile, bound: LowerBound) -> tuple[Part, ...]:
    """What the ledger of a zero-byte message has of each summand, in a stretch without a timer tick."""
    place = next(place for place in places_of(profile) if place.name == "inter_space")
    path, messages = _quiet_path(bench, name, place)
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


def _quiet_path(bench: Bench, name: str, place: Place) -> tuple[dict[str, int], int]:
    """Cycles by cause of the fastest sample, and the number of messages in it."""
    session = bench.measure(name, [place], ["0"], rounds=32, samples=16)
    measurement = session.measurements[0]
    index = measurement.samples.index(min(measurement.samples))
    start = measurement.start_cycles + sum(measurement.samples[:index])
    end = start + measurement.samples[index]
    path = PathFinder(session.run).critical_path(place.cores[0], start, end)
    return grouped_causes(path), 2 * measurement.rounds


def run_check(name: str, *, as_json: bool) -> int:
    """`l4lab profile check`. Returns the exit code: 1 if something published is not reproduced."""
    with (
        Bench() as bench,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        progress.add_task("measuring", total=None)
        found = check(name, bench)
    if as_json:
        print(json.dumps(as_document(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    return 0 if found.within else EXIT_OUTSIDE


def as_document(found: Check) -> dict[str, Any]:
    """The check as plain values."""
    return {
        "format": FORMAT,
        "profile": found.profile,
        "within": found.within,
        "figures": [
            {
                "what": one.figure.what,
                "statement": one.figure.statement,
                "source": one.figure.source,
                "message": one.figure.message,
                "published_cycles": one.figure.cycles,
                "low": one.figure.low,
                "high": one.figure.high,
                "ours_cycles": rounded(one.ours),
                "deviation_percent": rounded(one.deviation_percent),
                "within": one.within,
            }
            for one in found.figures
        ],
        "ratio": rounded(found.ratio),
        "ratios": [
            {
                "statement": one.statement,
                "source": one.source,
                "low": rounded(one.low),
                "high": rounded(one.high),
                "agrees": found.ratio is not None and one.low <= found.ratio <= one.high,
            }
            for one in found.ratios
        ],
        "lower_bound": [
            {"part": part.what, "published_cycles": part.published_cycles, "ours_cycles": rounded(part.ours)}
            for part in found.parts
        ],
        "configurations": list(found.manifests),
    }


def _print(found: Check) -> None:
    console = Console(highlight=False, file=sys.stdout)
    console.print(check_table(found))
    if found.parts:
        console.print()
        console.print(bound_table(found))
    console.print()
    for line in remarks(found):
        console.print(line, soft_wrap=True)


def check_table(found: Check) -> Table:
    """Published, ours, deviation: a line for each figure."""
    table = Table(found.profile, box=None, pad_edge=False, header_style="bold")
    for title in ("published", "expected", "ours", "deviation"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in found.figures:
        published, deviation = one.figure.cycles, one.deviation_percent
        table.add_row(
            one.figure.what,
            f"{published:,}" if published is not None else f"“{one.figure.statement}”",
            f"{one.figure.low:,.0f} to {one.figure.high:,.0f}",
            f"{float(one.ours):,.1f}",
            f"{deviation:+.1f} %" if deviation is not None else "",
            "" if one.within else "outside",
        )
    return table


def bound_table(found: Check) -> Table:
    """The lower bound's parts."""
    table = Table("lower bound of a message", box=None, pad_edge=False, header_style="bold")
    for title in ("published", "ledger"):
        table.add_column(title, justify="right")
    for part in found.parts:
        table.add_row(part.what, str(part.published_cycles), f"{float(part.ours):.1f}")
    table.add_section()
    total = sum((part.ours for part in found.parts), Fraction(0))
    table.add_row(
        "sum", str(sum(part.published_cycles for part in found.parts)), f"{float(total):.1f}", style="bold"
    )
    return table


def remarks(found: Check) -> list[str]:
    """What the tables do not say."""
    lines = []
    if found.ratio is not None:
        ratio = float(found.ratio)
        lines.append(f"cross-core to same-core: {ratio:.1f}")
        for one in found.ratios:
            agrees = "agrees" if one.low <= ratio <= one.high else "does not agree"
            lines.append(f"  {agrees} with “{one.statement}” ({one.source})")
    for source in dict.fromkeys(one.figure.source for one in found.figures):
        lines.append(f"source: {source}")
    if found.parts:
        lines.append(f"source of the lower bound: {LOWER_BOUND.source}")
    return lines
