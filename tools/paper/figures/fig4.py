"""Figure 4 of 000_1be4d2f6ae8bebbc.txt: allocation and free with one memory server, 1 to 48 cores.

The paper measured L4Re's native run-time. Ours is its structure, and beside it the controlled comparison: one
instance of the very pager that the other figures have on every core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.tools.bench.pma_experiment import Plan, Results, measuring
from l4lab.tools.common import plots
from l4lab.tools.paper.figures.memory import (
    COLOURS,
    NAMES,
    configurations,
    core_axis,
    label_end,
    mark_paper,
    residual,
    size_note,
    size_remark,
)
from l4lab.tools.paper.outcome import Outcome
from l4lab.tools.runs.campaign import Job

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESIGNS: Final = ("l4re", "single")
PAPER: Final = {"allocation": 25.0, "free": 2.0}
PAPER_CORES: Final = 48
PAPER_MESSAGE_CYCLES: Final = 12_000
"""Of its figure 5, to another core."""
WHOLE_SLOWDOWNS: Final = (2.4, 3.4)
"""Its "over 240%", as its 2500% are 25 times and its 230% twice; or as what was added."""
_KEYS: Final = {"allocation": "alloc_cycles", "free": "free_cycles"}
WHOLE: Final = ("whole", "total_cycles")
_WORDS: Final = {"allocation": "25x for allocation", "free": "2x for free"}
_STATEMENTS: Final = {
    "allocation": "25x for allocation (section 5.2: over 2500%)",
    "free": "2x for free (section 5.2: 230%)",
}


def jobs(plan: Plan) -> list[Job]:
    """The runs that the figure is made of, and one of each design that shows what waking costs."""
    most = plan.sizes.cores[-1]
    return [*plan.scaling_jobs(*DESIGNS), *(measuring(plan.polling(design, most)) for design in DESIGNS)]


def measure(results: Results) -> Outcome:
    """The figure of runs that are done."""
    plan = results.plan
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
            size_note(axes, plan.sizes.tasks * plan.sizes.pages)
        panels[0].set_ylabel("time of one process, one core = 1")
        panels[0].legend(loc="upper left")

    return Outcome(
        title="Figure 4: allocation and free with one memory server for all cores",
        residuals=tuple(
            residual(
                f"{design}: {what}, 1 to {cores[-1]} cores",
                _STATEMENTS[what],
                "sections 3.1 and 5.2",
                PAPER[what],
                ratios[design][what][-1],
                10,
            )
            for design in DESIGNS
            for what in _KEYS
        ),
        remarks=(size_remark(results), *_remarks(results)),
        data={
            "cores": list(cores),
            "ratios": ratios,
            "cycles_per_page": {
                design: {what: results.per_page(design, key) for what, key in (*_KEYS.items(), WHOLE)}
                for design in DESIGNS
            },
            "polling": {design: results.polling_ratio(design, cores[-1]) for design in DESIGNS},
        },
        configurations=configurations([results.of(plan.scaling(d, c)) for d in DESIGNS for c in cores]),
        size_inches=(9.5, 4.2),
        draw_on=draw,
    )


def _remarks(results: Results) -> tuple[str, ...]:
    """Why ours is far steeper: arithmetic that needs no model."""
    return (*(_occupied(results, design) for design in DESIGNS), _bound(results), _waking(results))


def _occupied(results: Results, design: str) -> str:
    most = results.plan.sizes.cores[-1]
    allocation, free = (results.per_page(design, key)[0] for key in _KEYS.values())
    alone, *_, many = results.per_page(design, WHOLE[1])
    return (
        f"{design}: on one core a page takes {allocation:,.0f} cycles to allocate and {free:,.0f} to free, "
        f"{alone:,.0f} with all that is around it. On {most} cores somebody always waits for the server, which takes "
        f"{many / most:,.0f} cycles for a page, allocation and free together; {most} times that is {many:,.0f}, so the "
        f"whole takes {many / alone:,.0f} times as long (figure 9). How that divides into allocation and free depends "
        "on who waits behind whom."
    )


def _bound(results: Results) -> str:
    """What the paper's own numbers say about its system, whatever ours does."""
    ours = results.per_page("l4re", WHOLE[1])[0]
    once, twice = (
        [PAPER_CORES * times * PAPER_MESSAGE_CYCLES / slowdown for slowdown in WHOLE_SLOWDOWNS]
        for times in (1, 2)
    )
    shares = [
        (slowdown - PAPER["free"]) / (PAPER["allocation"] - PAPER["free"]) for slowdown in WHOLE_SLOWDOWNS
    ]
    low, high = WHOLE_SLOWDOWNS
    return (
        "The paper's numbers bound what its system did. No server is occupied for more than all of the time. If "
        f"each page occupies it for one message to another core, {PAPER_MESSAGE_CYCLES:,} cycles by its figure 5, a "
        f"process on each of {PAPER_CORES} cores cannot have a page more often than every "
        f"{PAPER_CORES * PAPER_MESSAGE_CYCLES:,} cycles. As the whole became {low} times slower (its 240 %; {high} if "
        f"that is what was added), a page had taken at least {once[0]:,.0f} cycles on one core ({once[1]:,.0f}), or "
        f"twice that if free occupies the server as well ({twice[0]:,.0f}; {twice[1]:,.0f}); ours takes {ours:,.0f}. "
        f"And if allocation became 25 times slower and free 2 times, then for the whole to become {low} to {high} "
        f"times slower, allocation was {shares[0]:.0%} to {shares[1]:.0%} of the time on one core, and free the rest. "
        "So most of the time in the paper's L4Re went into something about free that does not wait for the server and "
        "that the text does not tell; against such a base, waiting shows less. Our L4Re's structure has the messages, "
        "the mappings and the server, and nothing of that kind. We add no constant for it."
    )


def _waking(results: Results) -> str:
    most = results.plan.sizes.cores[-1]
    told = ", ".join(
        f"{design} {results.polling_ratio(design, most):,.0f} instead of "
        f"{results.ratios(design, WHOLE[1])[-1]:,.0f} times"
        for design in DESIGNS
    )
    return (
        "Of what we assume, one number matters most: how long a halted core takes to wake (`halt_exit`), with "
        "which the profile is fitted to figure 5. A server that waits until its answer has been taken halts, and "
        f"so do its clients' cores. With cores that poll instead (`--idle poll`), the whole slows down on {most} "
        f"cores: {told}. The conclusion does not hang on it. `page_cycles` (l4lab reproduce page_cycles) shows where "
        "the cycles of one page go."
    )
