"""Figure 10 of 000_1be4d2f6ae8bebbc.txt: allocation and free with a pager on each core, 1 to 48 cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.tools.bench.pma_experiment import Plan, Results, looking_into
from l4lab.tools.common import plots
from l4lab.tools.paper.figures.memory import (
    configurations,
    core_axis,
    loss,
    mark_paper,
    size_note,
    size_remark,
)
from l4lab.tools.paper.outcome import Outcome
from l4lab.tools.runs.campaign import Job

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESIGN: Final = "percore"
PAPER: Final = {"allocation": (1.04, "4% for alloc"), "free": (1.05, "5% for free")}
_KEYS: Final = {"allocation": "alloc_cycles", "free": "free_cycles"}
_STYLES: Final = {"allocation": (plots.GREEN, "o", 9, "-"), "free": (plots.PURPLE, "s", 4, "--")}
"""Colour, marker, its size and the line: the two lie on one another."""
_OTHER_CORES: Final = ("interprocessor interrupt", "cache line transfer", "waiting for a lock")


def jobs(plan: Plan) -> list[Job]:
    """The runs that the figure is made of, and one whose ledger is looked at."""
    return [*plan.scaling_jobs(DESIGN), looking_into(plan.ledger(DESIGN, plan.sizes.cores[-1]))]


def measure(results: Results) -> Outcome:
    """The figure of runs that are done."""
    plan = results.plan
    cores = plan.sizes.cores
    ratios = {what: results.ratios(DESIGN, key) for what, key in _KEYS.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for what, (colour, marker, size, line) in _STYLES.items():
            label = f"{what} ({(ratios[what][-1] - 1) * 100:+.2f} % on {cores[-1]} cores)"
            axes.plot(cores, ratios[what], line, marker=marker, markersize=size, color=colour, label=label)
        mark_paper(axes, cores[-1], PAPER["free"][0], f"paper: {PAPER['free'][1]}")
        mark_paper(axes, cores[-1], PAPER["allocation"][0], f"paper: {PAPER['allocation'][1]}", above=False)
        core_axis(axes, cores)
        axes.set_ylim(0.9, 1.2)
        axes.set_ylabel("time of one process, one core = 1")
        axes.set_title("A pager on each core")
        size_note(axes, plan.sizes.tasks * plan.sizes.pages)
        axes.legend(loc="upper left")

    return Outcome(
        title="Figure 10: allocation and free with a pager on each core",
        residuals=tuple(
            loss(
                f"loss of {what}, 1 to {cores[-1]} cores",
                words,
                "section 5.2",
                round((published - 1) * 100),
                ratios[what][-1],
            )
            for what, (published, words) in PAPER.items()
        ),
        remarks=(size_remark(results), *_remarks(results)),
        data={
            "cores": list(cores),
            "ratios": ratios,
            "cycles_per_page": {what: results.per_page(DESIGN, key) for what, key in _KEYS.items()},
        },
        configurations=configurations([results.of(plan.scaling(DESIGN, c)) for c in cores]),
        size_inches=(7.2, 4.0),
        draw_on=draw,
    )


def _remarks(results: Results) -> tuple[str, ...]:
    most = results.plan.sizes.cores[-1]
    page = results.looked_into(results.plan.ledger(DESIGN, most))["page"]
    between = {what: sum(page[what]["causes"][cause] for cause in _OTHER_CORES) for what in PAPER}
    return (
        f"The ledger of the run on {most} cores: of the cycles of one allocation, "
        f"{between['allocation']:,.1f} are spent on anything that other cores have part in (interrupts between "
        f"cores, cache lines that move, locks), and {between['free']:,.1f} of one free. Pagers, processes and their "
        "memory have nothing in common, and neither have the kernel's own structures for them: each maps memory "
        "of superpages that are its alone.",
        "So it scales as in the paper, and does not even lose the paper's 4 to 5 %, which is why these "
        "statements do not count as reproduced. What the paper's machine shares and this one does not: the "
        "last-level cache of a die and its memory "
        "controller, and in the kernel whatever Fiasco.OC's allocator of mapping nodes locks. Neither is modelled; "
        "4 to 5 % is what they may have cost.",
    )
