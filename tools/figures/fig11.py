"""Figure 11 of 000_1be4d2f6ae8bebbc.txt: what the number of outstanding pages matters, with a pager on each core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from l4lab.tools import plots
from l4lab.tools.campaign import Finished, Job
from l4lab.tools.figures.memory import SOURCE, TIMES, MemoryFigure, configurations, core_axis, residual
from l4lab.tools.pma_experiment import Plan, Results
from l4lab.tools.reproduce import Residual, Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOWDOWN: Final = 1.8
LOSS: Final = 1.08
_COLOURS: Final = (plots.SKY, plots.BLUE, plots.GREEN, plots.ORANGE, plots.VERMILION, plots.PURPLE)


def jobs(plan: Plan) -> list[Job]:
    """The runs that the figure is made of."""
    return plan.outstanding_jobs()


def measure(step: Step, plan: Plan, finished: Mapping[str, Finished]) -> MemoryFigure:
    """The figure of runs that are done."""
    step("reading")
    results = Results(plan, finished)
    sizes = plan.sizes
    cores = sizes.outstanding_cores
    cycles = {k: [results.cycles_per_page(k, c) for c in cores] for k in sizes.outstanding}
    few, many = sizes.outstanding[0], sizes.outstanding[-1]
    base = cycles[few][0]
    slowdown = cycles[many][0] / base
    losses = {k: values[-1] / values[0] for k, values in cycles.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for colour, (pages, values) in zip(_COLOURS, cycles.items(), strict=False):
            relative = [value / base for value in values]
            axes.plot(
                cores, relative, marker="o", color=colour, label=f"{pages:,} pages: {relative[0]:.2f} x"
            )
        axes.axhline(SLOWDOWN, color=plots.BLACK, linewidth=1, linestyle=(0, (5, 3)))
        axes.text(
            cores[-1],
            SLOWDOWN + 0.02,
            f"paper, {many:,} pages: “1.8x slowdown”; over all cores “only about 8%”",
            ha="right",
            fontsize=8,
            style="italic",
        )
        core_axis(axes, cores)
        axes.set_ylim(0.9, 2.1)
        axes.set_ylabel(f"time for a page, {few} pages on one core = 1")
        axes.set_title("Outstanding pages")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0.7), title="outstanding, and time on one core")

    return MemoryFigure(
        title="Figure 11: pages outstanding before any is freed, with a pager on each core",
        residuals=(
            residual(
                f"{few} to {many:,} outstanding pages, one core",
                "1.8x slowdown",
                "section 5.2",
                SLOWDOWN,
                slowdown,
                5,
            ),
            Residual(
                what=f"1 to {cores[-1]} cores, the worst of all",
                statement="The most degradation across 48 cores is only about 8%",
                source=f"{SOURCE}, section 5.2",
                published=LOSS,
                low=1.0,
                high=LOSS,
                ours=max(losses.values()),
                unit=TIMES,
            ),
        ),
        remarks=_remarks(results, cycles, slowdown),
        data={"cores": list(cores), "cycles_per_page": {str(k): values for k, values in cycles.items()}},
        configurations=configurations([results.outstanding(k, c) for k in sizes.outstanding for c in cores]),
        size_inches=(7.2, 4.4),
        draw_on=draw,
    )


def _remarks(results: Results, cycles: dict[int, list[float]], slowdown: float) -> tuple[str, ...]:
    sizes = results.plan.sizes
    few, many = sizes.outstanding[0], sizes.outstanding[-1]
    depth = math.log(many) / math.log(few)
    grown = cycles[many][0] - cycles[few][0]
    of_trees = grown / (depth - 1)
    return (
        f"Every process allocates {sizes.outstanding_pages:,} pages in all, in tasks of so many; times are for a "
        "page, allocated, touched and freed.",
        f"The depth of a balanced tree grows {depth:.2f} times from {few} to {many:,} nodes. So 1.8 times means "
        "that in the paper's system nearly all of the time is spent in the tree. In ours a page costs "
        f"{cycles[few][0]:,.0f} cycles with {few} outstanding pages and {grown:,.0f} more with {many:,}; if that is "
        f"the depth's doing, the tree takes about {of_trees:,.0f} of them, {100 * of_trees / cycles[few][0]:.0f} %. "
        "The rest is two messages to the pager and back, mapping and unmapping. That is as it must be with the "
        "paper's own “few hundreds” of cycles for a message on one core; its tree must have been several times as "
        "dear as ours. What ours leaves out is the data cache: all loads cost the same, and the nodes of "
        f"{many:,} pages would not stay in a first-level cache between two messages.",
        f"The slowdown here is {slowdown:.2f}. We do not make the tree dearer to meet 1.8.",
    )
