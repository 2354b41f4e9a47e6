"""What the figures of the memory experiment have in common: their curves, their words.

The source is 000_1be4d2f6ae8bebbc.txt, section 5. Nothing is fitted for these figures: the profile is fitted
to the ping-pong of its figure 5, and everything here is a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from l4lab.tools.bench.pma_experiment import Results
from l4lab.tools.bench.published import Residual
from l4lab.tools.common import plots
from l4lab.tools.common.report import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE: Final = "000_1be4d2f6ae8bebbc.txt"
TIMES: Final = "times"

COLOURS: Final = {"percore": plots.GREEN, "single": plots.VERMILION, "l4re": plots.BLUE}
NAMES: Final = {
    "percore": "a pager on each core",
    "single": "one pager on core 0",
    "l4re": "L4Re's structure: region maps, one server",
}


def residual(what: str, words: str, section: str, published: float, ours: float, percent: float) -> Residual:
    """A ratio to one core that the paper states; reproduced if ours is within `percent` of it."""
    low, high = (published * (1 + sign * percent / 100) for sign in (-1, 1))
    return Residual(what, words, f"{SOURCE}, {section}", published, low, high, ours, TIMES)


def loss(what: str, words: str, section: str, published_percent: float, ours: float) -> Residual:
    """What the paper says is lost on many cores; `ours`: our ratio to one core.

    Reproduced if ours is half to one and a half times as much: to lose nothing is not the same result.
    """
    low, high = published_percent / 2, published_percent * 3 / 2
    return Residual(what, words, f"{SOURCE}, {section}", published_percent, low, high, (ours - 1) * 100, "%")


def configurations(documents: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Of the runs of a figure, as they are kept with it."""
    return tuple(document["configuration"] for document in documents)


def size_remark(results: Results) -> str:
    """What was run."""
    sizes = results.plan.sizes
    cores = f"{sizes.cores[0]} to {sizes.cores[-1]} cores"
    what = f"{counted(sizes.tasks, 'task')} of {sizes.pages} pages each in every process, {cores}"
    if sizes.name == "full":
        return f"The paper's sizes: {what}."
    return f"Smaller than the paper's sizes (--quick): {what}."


def size_note(axes: Axes, pages: int) -> None:
    """Above the right end of a panel: how large the runs were, so that a quick figure says so itself."""
    note = f"{counted(pages, 'page')} a process"
    axes.set_title(note, loc="right", fontsize=7, fontweight="normal", color=plots.GREY)


def core_axis(axes: Axes, cores: Sequence[int]) -> None:
    """The number of cores, as the paper counts them."""
    axes.set_xticks(list(cores))
    axes.set_xlim(0, cores[-1] + 1)
    axes.set_xlabel("cores, each with one process")


def mark_paper(axes: Axes, cores: float, value: float, text: str, *, above: bool = True) -> None:
    """What the paper says about the last point of a curve: a hollow mark, and its words."""
    axes.plot(
        [cores],
        [value],
        marker="D",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=plots.BLACK,
        markeredgewidth=1.4,
        linestyle="none",
        zorder=5,
    )
    _annotate(axes, cores, value, text, 9, 7, above=above, style="italic", color=plots.BLACK)


def label_end(axes: Axes, cores: float, value: float, text: str, colour: str, *, above: bool) -> None:
    """Our own last point, in figures."""
    _annotate(axes, cores, value, text, 6, 6, above=above, color=colour, fontweight="bold")


def _annotate(
    axes: Axes, x: float, y: float, text: str, left: float, apart: float, *, above: bool, **style: Any
) -> None:
    """Words that end `left` points before a point, and `apart` points above or below it."""
    axes.annotate(
        text,
        (x, y),
        xytext=(-left, apart if above else -apart),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        fontsize=8,
        **style,
    )
