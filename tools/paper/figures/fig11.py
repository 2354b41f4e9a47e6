"""Figure 11 of 000_1be4d2f6ae8bebbc.txt: what the number of outstanding pages matters, with a pager on each core."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from l4lab.tools.bench.pma_experiment import Plan, Results, looking_into
from l4lab.tools.common import plots
from l4lab.tools.paper.figures.memory import (
    configurations,
    core_axis,
    loss,
    mark_paper,
    residual,
    size_note,
)
from l4lab.tools.paper.outcome import Outcome
from l4lab.tools.runs.campaign import Job

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOWDOWN: Final = 1.8
LOSS_PERCENT: Final = 8
_COLOURS: Final = (plots.SKY, plots.BLUE, plots.GREEN, plots.ORANGE, plots.VERMILION, plots.PURPLE)


def jobs(plan: Plan) -> list[Job]:
    """The runs that the figure is made of, and the two whose ledgers are compared."""
    sizes = plan.sizes.outstanding
    return [
        *plan.outstanding_jobs(),
        *(looking_into(plan.outstanding_ledger(pages)) for pages in (sizes[0], sizes[-1])),
    ]


def measure(results: Results) -> Outcome:
    """The figure of runs that are done."""
    plan = results.plan
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
            f"paper, {many:,} pages: “1.8x slowdown”",
            ha="right",
            fontsize=8,
            style="italic",
        )
        lost = SLOWDOWN * (1 + LOSS_PERCENT / 100)
        mark_paper(axes, cores[-1], lost, f"paper, {many:,} pages, 48 cores: “only about 8%” more")
        core_axis(axes, cores)
        axes.set_ylim(0.9, 2.1)
        axes.set_ylabel(f"time for a page, {few} pages on one core = 1")
        axes.set_title("Outstanding pages")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0.72), title="outstanding, and time on one core")
        size_note(axes, plan.sizes.outstanding_pages)

    return Outcome(
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
            loss(
                f"worst loss of all, 1 to {cores[-1]} cores",
                "The most degradation across 48 cores is only about 8%",
                "section 5.2",
                LOSS_PERCENT,
                max(losses.values()),
            ),
        ),
        remarks=_remarks(results, cycles, slowdown),
        data={
            "cores": list(cores),
            "cycles_per_page": {str(k): values for k, values in cycles.items()},
            "ledger": {str(k): _causes(results, k) for k in (few, many)},
        },
        configurations=configurations(
            [results.of(plan.outstanding(k, c)) for k in sizes.outstanding for c in cores]
        ),
        size_inches=(7.2, 4.4),
        draw_on=draw,
    )


def _remarks(results: Results, cycles: dict[int, list[float]], slowdown: float) -> tuple[str, ...]:
    sizes = results.plan.sizes
    few, many = sizes.outstanding[0], sizes.outstanding[-1]
    depth = math.log(many) / math.log(few)
    user, rest = ({pages: part(results, pages) for pages in (few, many)} for part in (_user, _rest))
    return (
        f"Every process allocates {sizes.outstanding_pages:,} pages in all, in tasks of so many; times are for a "
        "page, allocated, touched and freed.",
        f"The ledger of two runs on one core, with {few} and {many:,} outstanding pages: of the cycles of a page, "
        f"allocation and free together, user code has {user[few]:,.0f} and {user[many]:,.0f}, which is "
        f"{user[many] / user[few]:.2f} times as much; that is the pager with its tree. All the rest, faults, messages "
        f"and mappings, takes {rest[few]:,.0f} and {rest[many]:,.0f}. So our pager alone slows down nearly as "
        f"much as the paper's whole page does, and what is around it dilutes that to {slowdown:.2f}.",
        f"The depth of a balanced tree grows {depth:.2f} times from {few} to {many:,} nodes. For a whole page to "
        "become 1.8 times slower, the time in the paper's tree must have grown more than that, or have been nearly "
        "all there was. It cannot be seen from here which: a tree whose nodes leave the first-level cache would "
        "do it, and ours would not even if caches were modelled for user code, as its nodes are 20 bytes and lie side "
        "by side. We do not make the tree dearer to meet 1.8.",
        "On more cores nothing is lost here, for the reason that figure 10 gives.",
    )


def _user(results: Results, pages: int) -> float:
    return _causes(results, pages)["user"]


def _rest(results: Results, pages: int) -> float:
    causes = _causes(results, pages)
    return sum(causes.values()) - causes["user"]


def _causes(results: Results, pages: int) -> dict[str, float]:
    """Of one page, allocated and freed, in cycles."""
    page = results.looked_into(results.plan.outstanding_ledger(pages))["page"]
    allocation, free = page["allocation"]["causes"], page["free"]["causes"]
    return {cause: allocation[cause] + free[cause] for cause in allocation}
