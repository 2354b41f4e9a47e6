"""Figure 4 of 000_1be4d2f6ae8bebbc.txt: allocation and free with one memory server, 1 to 48 cores.

The paper measured L4Re's native run-time. Ours is its structure, and beside it the controlled comparison: one
instance of the very pager that the other figures have on every core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from l4lab.tools import plots
from l4lab.tools.campaign import Finished, Job
from l4lab.tools.figures.memory import (
    COLOURS,
    NAMES,
    MemoryFigure,
    configurations,
    core_axis,
    label_end,
    mark_paper,
    residual,
    size_remark,
)
from l4lab.tools.pma_experiment import Plan, Results
from l4lab.tools.reproduce import Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESIGNS: Final = ("l4re", "single")
PAPER: Final = {"allocation": 25.0, "free": 2.0}
_KEYS: Final = {"allocation": "alloc_cycles", "free": "free_cycles"}
_WORDS: Final = {"allocation": "25x for allocation", "free": "2x for free"}


def jobs(plan: Plan) -> list[Job]:
    """The runs that the figure is made of."""
    return plan.scaling_jobs(*DESIGNS)


def measure(step: Step, plan: Plan, finished: Mapping[str, Finished]) -> MemoryFigure:
    """The figure of runs that are done."""
    step("reading")
    results = Results(plan, finished)
    cores = plan.sizes.cores
    ratios = {
        design: {what: results.ratios(design, key) for what, key in _KEYS.items()} for design in DESIGNS
    }

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, what in zip(panels, _KEYS, strict=True):
            for design in DESIGNS:
                axes.plot(cores, ratios[design][what], marker="o", color=COLOURS[design], label=NAMES[design])
                last = ratios[design][what][-1]
                above = last == max(ratios[other][what][-1] for other in DESIGNS)
                label_end(axes, cores[-1], last, f"{last:,.0f} x", COLOURS[design], above=above)
            axes.axhline(1, color=plots.GREY, linewidth=0.8)
            mark_paper(axes, cores[-1], PAPER[what], f"paper: {_WORDS[what]}", above=False)
            core_axis(axes, cores)
            axes.set_yscale("log")
            axes.set_ylim(0.8, 1000)
            plots.plain_numbers(axes)
            axes.set_title(what)
        panels[0].set_ylabel("time of one process, one core = 1")
        panels[0].legend(loc="upper left")

    return MemoryFigure(
        title="Figure 4: allocation and free with one memory server for all cores",
        residuals=tuple(
            residual(
                f"{design}: {what}, 1 to {cores[-1]} cores",
                _WORDS[what],
                "section 3.1 (section 5.2 says over 2500% and 230%)",
                PAPER[what],
                ratios[design][what][-1],
                10,
            )
            for design in DESIGNS
            for what in _KEYS
        ),
        remarks=(size_remark(results), *_remarks(results)),
        data={"cores": list(cores), "ratios": ratios},
        configurations=configurations([results.scaling(d, c) for d in DESIGNS for c in cores]),
        size_inches=(9.5, 4.2),
        draw_on=draw,
    )


def _remarks(results: Results) -> tuple[str, ...]:
    """Why ours is far steeper: arithmetic that needs no model."""
    most = results.plan.sizes.cores[-1]
    remarks = []
    for design in DESIGNS:
        one, many = results.scaling(design, 1), results.scaling(design, most)
        pages = one["pages_per_process"]
        alone = one["alloc_cycles"] / pages
        served = many["total_cycles"] / (pages * most)
        remarks.append(
            f"{design}: alone, a process gets a page in {alone:,.0f} cycles. With {most} cores somebody always waits "
            f"for the server, which takes {served:,.0f} cycles for each page, allocation and free together; every "
            f"process waits while it serves the {most - 1} others."
        )
    return (
        *remarks,
        f"With one server that is always occupied, the slowdown on {most} cores is {most} times the server's time "
        "for a request, over the time that the request takes alone. A slowdown of 25 therefore says that the "
        "server of the paper's system was occupied for about half of the time that an allocation took on one core. "
        "But its figure 5 says that a message to another core takes 12,000 cycles, and a server that answers is "
        "occupied until its message is there. Both can hold only if an allocation took more than twenty thousand "
        "cycles on one core, several times what ours takes. "
        "Figure 9 says the same: if allocation becomes 25 times slower, free 2 times and all of it 2.4 to 3.4 "
        "times, allocation was a twentieth of the whole on one core, and free nearly all of the rest. The text "
        "does not say what took so long in L4Re's free. We add no constant for it.",
        "`page_cycles` (l4lab reproduce page_cycles) shows where the cycles of one page go.",
    )
