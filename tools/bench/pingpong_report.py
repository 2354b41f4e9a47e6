"""`l4lab bench pingpong`: what a message costs, in every place and size, and what the cycles go to.

After figure 5 of 000_1be4d2f6ae8bebbc.txt. The cycles are those of the emulated machine, as its programs see
them, and the same in every run; only how long it takes depends on the host.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from rich.table import Table

from l4lab.emulator.files.profile import load_profile
from l4lab.kernel.errors import KernelBug
from l4lab.tools.bench.pingpong_run import (
    BYTES_PER_WORD,
    MESSAGES,
    Instrument,
    Measurement,
    Series,
    cross_core_cycles,
    places_of,
)
from l4lab.tools.bench.published import Ratio, figures_for, ratios_for
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, grouped, print_json, table
from l4lab.tools.common.versions import versions
from l4lab.tools.ledger.accounts import imbalance
from l4lab.tools.ledger.breakdown import GROUPS, PATH_CAUSES, PathFinder, grouped_causes

FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

PLACE_TITLES: Final = {
    "intra_space": "same space",
    "inter_space": "two spaces",
    "same_die": "same die",
    "other_die": "other die",
    "other_package": "other package",
}
"""The first two are on one core; the others are two spaces on two cores."""
SENDS: Final = "sends:0"
SAME_CORE: Final = "inter_space"
HEADLINE_MESSAGE: Final = "0"


@dataclass(frozen=True, slots=True)
class Analysed:
    """A measurement and what its cycles went to: of all its messages together, by PATH_CAUSES."""

    measurement: Measurement
    path: dict[str, int]

    @property
    def per_message(self) -> dict[str, float]:
        """Cycles of one message by GROUPS."""
        count = self.measurement.messages
        return {name: cycles / count for name, cycles in grouped_causes(self.path).items()}


def analyse(series: Series) -> tuple[Analysed, ...]:
    """Break down every measurement. KernelBug if the books do not balance, or not with the guest's clock."""
    found = imbalance(series.run.row_chunks(), series.run.cores, series.run.clocks)
    if found is not None:
        raise KernelBug(str(found))
    finder = PathFinder(series.run)
    analysed = []
    for measurement in series.measurements:
        core, start, end = measurement.place.cores[0], measurement.start_cycles, measurement.end_cycles
        analysed.append(Analysed(measurement, finder.critical_path(core, start, end)))
    return tuple(analysed)


@dataclass(frozen=True, slots=True)
class Summary:
    """What figure 5 is about. `cross_core`: the mean over all other cores; None on a machine with one."""

    intra_space: Fraction
    same_core: Fraction
    cross_core: Fraction | None

    @property
    def ratio(self) -> Fraction | None:
        """Cross-core to same-core."""
        return self.cross_core / self.same_core if self.cross_core is not None else None


def summarise(series: Series, message: str = HEADLINE_MESSAGE) -> Summary:
    """The headline numbers of a series that has measured `message` in every place."""
    return Summary(
        intra_space=series.cycles("intra_space", message),
        same_core=series.cycles(SAME_CORE, message),
        cross_core=cross_core_cycles(series, message),
    )


def run_bench(profile: str, *, as_json: bool, sel4bench: bool) -> int:
    """`l4lab bench pingpong`. Returns the exit code."""
    places, messages = places_of(load_profile(profile)), (*MESSAGES, SENDS)
    with (
        Instrument() as instrument,
        Progress("measuring", len(places) * len(messages)) as progress,
    ):
        series = instrument.measure(profile, places, messages, progress=progress.advance)
        progress.tell("following the cycles")
        analysed = analyse(series)
    if sel4bench:
        print_json(as_sel4bench(series))
    elif as_json:
        print_json(as_document(series, analysed))
    else:
        _print(series, analysed)
    return 0


# --- for programs -------------------------------------------------------------------------------------


def rounded(value: Fraction | float | None) -> float | None:
    """Two decimals, for a document that is the same on every host."""
    return None if value is None else round(float(value), 2)


def as_document(series: Series, analysed: tuple[Analysed, ...]) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    summary = summarise(series)
    clocks = series.run.clocks
    return {
        "format": FORMAT,
        "benchmark": "pingpong",
        "profile": series.profile.name,
        "mhz": series.profile.mhz,
        "unit": "cycles of one message, one way",
        "intra_space_cycles": rounded(summary.intra_space),
        "same_core_cycles": rounded(summary.same_core),
        "cross_core_cycles": rounded(summary.cross_core),
        "ratio": rounded(summary.ratio),
        "published_ratios": [
            ratio_document(ratio, summary.ratio) for ratio in ratios_for(series.profile.name)
        ],
        "measurements": [_measurement_document(one) for one in analysed],
        "books": {"balanced": True, "cycles": sum(clocks) if clocks is not None else None},
        "configuration": series.manifest.resolved(),
        "versions": versions(),
    }


def ratio_document(ratio: Ratio, ours: Fraction | None) -> dict[str, Any]:
    """One published statement, and whether ours agrees with it."""
    return {
        "statement": ratio.statement,
        "source": ratio.source,
        "low": rounded(ratio.low),
        "high": rounded(ratio.high),
        "ours": rounded(ours),
        "agrees": ratio.agrees(ours),
    }


def _measurement_document(one: Analysed) -> dict[str, Any]:
    measurement, place = one.measurement, one.measurement.place
    samples = sorted(measurement.sample_cycles())
    return {
        "place": place.name,
        "spaces": 2 if place.apart else 1,
        "cores": list(place.cores),
        "message": measurement.message,
        "bytes": int(measurement.message) * BYTES_PER_WORD if measurement.message.isdigit() else None,
        "messages": measurement.messages,
        "cycles": rounded(measurement.cycles),
        "samples": [rounded(sample) for sample in measurement.sample_cycles()],
        "min": rounded(samples[0]),
        "median": rounded(statistics.median(samples)),
        "max": rounded(samples[-1]),
        "breakdown": {name: rounded(cycles) for name, cycles in one.per_message.items()},
        "causes": {
            cause: rounded(Fraction(one.path[cause], measurement.messages))
            for cause in PATH_CAUSES
            if one.path[cause]
        },
        "breakdown_sum": rounded(Fraction(sum(one.path.values()), measurement.messages)),
    }


def as_sel4bench(series: Series) -> list[dict[str, Any]]:
    """In the shape of sel4bench's results, which scripts of the L4 world can read."""
    results = []
    for measurement in series.measurements:
        samples = [float(sample) for sample in measurement.sample_cycles()]
        results.append(
            {
                "Place": measurement.place.name,
                "Message": measurement.message,
                "Samples": len(samples),
                "Min": rounded(min(samples)),
                "Max": rounded(max(samples)),
                "Mean": rounded(measurement.cycles),
                "Stddev": rounded(statistics.pstdev(samples)),
                "Variance": rounded(statistics.pvariance(samples)),
                "Mode": rounded(statistics.mode(samples)),
                "Median": rounded(statistics.median(samples)),
                "1st quantile": rounded(statistics.quantiles(samples, n=4, method="inclusive")[0]),
                "3rd quantile": rounded(statistics.quantiles(samples, n=4, method="inclusive")[2]),
                "Raw results": [rounded(sample) for sample in samples],
            }
        )
    return [{"Benchmark": f"pingpong on {series.profile.name} (cycles, one way)", "Results": results}]


# --- for people ---------------------------------------------------------------------------------------


def _print(series: Series, analysed: tuple[Analysed, ...]) -> None:
    out = console()
    out.print(f"{series.profile.name}: cycles of one message, one way\n", soft_wrap=True)
    out.print(_by_words(series))
    out.print(f"\nwhere the cycles of a message of {HEADLINE_MESSAGE} words go\n", soft_wrap=True)
    out.print(_by_cause(analysed))
    out.print()
    for line in _conclusions(series):
        out.print(line, soft_wrap=True)


def _by_words(series: Series) -> Table:
    rows = table("words", *MESSAGES, "0, send and wait")
    for place in dict.fromkeys(measurement.place for measurement in series.measurements):
        cells = (grouped(round(series.cycles(place.name, message))) for message in (*MESSAGES, SENDS))
        rows.add_row(PLACE_TITLES[place.name], *cells)
    return rows


def _by_cause(analysed: tuple[Analysed, ...]) -> Table:
    shown = [one for one in analysed if one.measurement.message == HEADLINE_MESSAGE]
    rows = table("", *(PLACE_TITLES[one.measurement.place.name] for one in shown))
    for name in GROUPS:
        values = [one.per_message[name] for one in shown]
        if any(round(value) for value in values):
            rows.add_row(name, *(grouped(round(value)) if round(value) else "" for value in values))
    rows.add_section()
    rows.add_row("sum", *(grouped(round(sum(one.per_message.values()))) for one in shown), style="bold")
    return rows


def _conclusions(series: Series) -> list[str]:
    summary = summarise(series)
    lines = [f"same core, two spaces: {grouped(round(summary.same_core))} cycles"]
    if summary.cross_core is not None and summary.ratio is not None:
        cross, ratio = grouped(round(summary.cross_core)), float(summary.ratio)
        lines.append(f"other core, mean over all: {cross} cycles, {ratio:.1f} times as many")
        lines += [statement.remark(summary.ratio) for statement in ratios_for(series.profile.name)]
    if figures_for(series.profile.name):
        lines.append(f"against published figures: l4lab profile check {series.profile.name}")
    return lines
