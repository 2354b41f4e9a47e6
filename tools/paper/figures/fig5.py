"""Figure 5 of 000_1be4d2f6ae8bebbc.txt: cross-core against same-core IPC, by message size.

The paper's curves are not in its text; its statements about them are drawn as bands. They are also what the
profile `opteron-6174` is fitted to, so this is no prediction. It says how good the fit is, and what it consists of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.tools.bench.pingpong_report import (
    PLACE_TITLES,
    SENDS,
    Analysed,
    Summary,
    analyse,
    as_document,
    summarise,
)
from l4lab.tools.bench.pingpong_run import BYTES_PER_WORD, MESSAGES, WORD_COUNTS, Instrument, Series
from l4lab.tools.bench.published import Residual, figures_for, ratios_for
from l4lab.tools.common import plots
from l4lab.tools.paper.outcome import Outcome, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROFILE: Final = "opteron-6174"
_STYLES: Final = {
    "intra_space": (plots.BLUE, "o", "one core, one address space"),
    "inter_space": (plots.SKY, "s", "one core, two address spaces"),
    "same_die": (plots.ORANGE, "^", "other core of the die"),
    "other_die": (plots.VERMILION, "v", "other die of the package"),
    "other_package": (plots.PURPLE, "D", "other package"),
}
_SHOWN_PERCENT: Final = 0.5
_BARS: Final = {
    "user": ("user code", plots.GREEN, ("user",)),
    "kernel": ("kernel's paths, entry, exit", plots.BLUE, ("entry", "exit", "path", "copy", "map", "timer")),
    "switch": ("switch of thread and space", plots.SKY, ("switch", "space switch")),
    "refill": ("TLB refill", plots.YELLOW, ("TLB refill",)),
    "ipi": ("interrupt: send, travel, receive", plots.VERMILION, ("IPI",)),
    "halt": ("wake-up of a halted core", plots.PURPLE, ("wake-up",)),
    "lines": ("cache lines moved", plots.ORANGE, ("cache lines",)),
    "waiting": ("waiting for a busy core", plots.GREY, ("waiting",)),
}


def measure(step: Step) -> Outcome:
    """Run the ping-pong in every place and size."""
    with Instrument() as instrument:
        step("measuring")
        series = instrument.measure(PROFILE, messages=(*MESSAGES, SENDS))
        step("following the cycles")
        analysed = analyse(series)
        summary = summarise(series)
        places = list(dict.fromkeys(one.measurement.place.name for one in analysed))
        document = as_document(series, analysed)
        configuration = document.pop("configuration")
        document.pop("versions")
        curves = {p: [float(series.cycles(p, message)) for message in MESSAGES] for p in places}
        bars = {p: _bar(analysed, p) for p in places}
        bands = tuple((one.low, one.high, f"“{one.statement}”") for one in figures_for(PROFILE))

        def draw(figure: Figure) -> None:
            """Left: cycles by size. Right: what they consist of."""
            left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
            _draw_curves(left, curves, bands)
            _draw_bars(right, bars)
            handles, labels = right.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower right", ncols=4, handlelength=1)

        return Outcome(
            title="Figure 5: cross-core IPC against same-core IPC",
            residuals=_residuals(series, summary),
            remarks=_remarks(series, summary),
            data=document,
            configurations=(configuration,),
            size_inches=(10.5, 4.4),
            draw_on=draw,
        )


def _draw_curves(
    axes: Axes, curves: dict[str, list[float]], bands: tuple[tuple[float, float, str], ...]
) -> None:
    last = len(WORD_COUNTS) - 1
    for low, high, text in bands:
        plots.statement_band(axes, low, high, text, x=last, y=low * 1.2 if high < 2000 else high * 1.2)
    for place, values in reversed(curves.items()):
        colour, marker, label = _STYLES[place]
        axes.plot(values, color=colour, marker=marker, label=label)
    axes.set_yscale("log")
    axes.set_ylim(150, 25_000)
    axes.set_xlim(-0.2, last + 0.2)
    axes.set_xticks(range(last + 1), [str(count * BYTES_PER_WORD) for count in WORD_COUNTS])
    axes.set_yticks([200, 500, 1_000, 2_000, 5_000, 10_000, 20_000])
    plots.plain_numbers(axes)
    axes.set_xlabel("message size in bytes (not to scale)")
    axes.set_ylabel("cycles of one message, one way")
    axes.set_title("Cross-core and same-core IPC, after figure 5")
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.62), handlelength=1.8)


def _draw_bars(axes: Axes, bars: dict[str, dict[str, float]]) -> None:
    places = list(bars)
    left = [0.0] * len(places)
    for kind, (label, colour, _) in _BARS.items():
        widths = [100 * bars[place][kind] / sum(bars[place].values()) for place in places]
        if max(widths) < _SHOWN_PERCENT:
            continue
        axes.barh(places, widths, left=left, color=colour, label=label, height=0.62, edgecolor="white")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, place in enumerate(places):
        total = sum(bars[place].values())
        axes.text(101, row, f"{total:,.0f} cycles", va="center", fontsize=8)
    axes.set_yticks(range(len(places)), [_STYLES[place][2].replace(", ", ",\n") for place in places])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("per cent of a message of 0 bytes")
    axes.set_title("Where the cycles go")


def _bar(analysed: tuple[Analysed, ...], place: str) -> dict[str, float]:
    one = next(a for a in analysed if (a.measurement.place.name, a.measurement.message) == (place, "0"))
    return {kind: sum(one.per_message[name] for name in names) for kind, (_, _, names) in _BARS.items()}


def _residuals(series: Series, summary: Summary) -> tuple[Residual, ...]:
    assert summary.cross_core is not None and summary.ratio is not None
    ours = {"inter_space": summary.same_core, "cross_core": summary.cross_core}
    found = [figure.against(ours[figure.place]) for figure in figures_for(PROFILE)]
    found += [
        Residual(
            what="cross-core to same-core",
            statement=ratio.statement,
            source=ratio.source,
            published=None,
            low=round(ratio.low, 1),
            high=round(ratio.high, 1),
            ours=float(summary.ratio),
            unit="times",
        )
        for ratio in ratios_for(PROFILE)
    ]
    return tuple(found)


def _remarks(series: Series, summary: Summary) -> tuple[str, ...]:
    largest = MESSAGES[-1]
    growth = {
        place: float(series.cycles(place, largest) / series.cycles(place, "0") - 1) * 100
        for place in PLACE_TITLES
    }
    sends = {place: float(series.cycles(place, SENDS)) for place in ("intra_space", "other_package")}
    return (
        "Bands are what the paper's text says; its curves are not in it. The profile is fitted to these two "
        "statements, so they are no prediction.",
        "The paper's two statements about the ratio do not agree with each other: a tenth to a twelfth of about "
        "12,000 is 1,000 to 1,200, which is not a few hundred. Ours is "
        f"{float(summary.intra_space):,.0f} cycles inside one address space and {float(summary.same_core):,.0f} "
        "between two; cross-core is the mean over all 47 other cores.",
        "Between cores the answer to a message and the next message go with one interrupt, so what programs and "
        "kernels do while it is under way is not on the path.",
        f"Message size: {largest} words take {growth['inter_space']:.0f} % longer than none on one core, and "
        f"{growth['other_package']:.0f} % to another package.",
        "Sending and waiting as two operations, instead of call and reply-and-wait, take "
        f"{sends['intra_space']:,.0f} cycles inside one space and {sends['other_package']:,.0f} to another package.",
    )
