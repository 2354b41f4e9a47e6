"""Where the cycles of one page go, by cause: one pager for one core, for all cores, and a pager on each core.

Not a figure of the paper's; it is the explanation of its figures 4, 9 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from l4lab.tools.bench.pma_experiment import Plan, Results, looking_into
from l4lab.tools.bench.pma_ledger import BARS, GROUPS, IDLE, UNDER_WAY, WAITING
from l4lab.tools.common import plots
from l4lab.tools.paper.figures.memory import configurations, size_note
from l4lab.tools.paper.outcome import Outcome
from l4lab.tools.runs.campaign import Job

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHAT: Final = ("allocation", "free")
INTERRUPTS: Final = "interrupts: send, receive"
WAKING: Final = "wake-up of halted cores"
LINES: Final = "cache lines, locks"
_PURPOSE: Final = ("user code: process and server", "TLB refills", "map and unmap")
_COLOURS: Final = dict(
    zip(
        BARS,
        (
            plots.GREEN,
            plots.YELLOW,
            "#7d8fc9",
            plots.BLUE,
            "#004c75",
            plots.SKY,
            plots.VERMILION,
            plots.PURPLE,
            plots.ORANGE,
            "#8a3a00",
            plots.GREY,
        ),
        strict=True,
    )
)


def bars(plan: Plan) -> list[tuple[str, str, int]]:
    """(what to call it, design, cores)."""
    most = plan.sizes.cores[-1]
    return [
        ("one pager, 1 core", "single", 1),
        (f"a pager on each of {most} cores", "percore", most),
        (f"one pager, {most} cores", "single", most),
    ]


def jobs(plan: Plan) -> list[Job]:
    """The runs whose ledgers are looked at."""
    return [looking_into(plan.ledger(design, cores)) for _, design, cores in bars(plan)]


def measure(results: Results) -> Outcome:
    """The figure of runs that are done."""
    plan = results.plan
    pages = {
        name: results.looked_into(plan.ledger(design, cores))["page"] for name, design, cores in bars(plan)
    }
    server_core = results.looked_into(plan.ledger("single", plan.sizes.cores[-1]))["server_core"]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 2, width_ratios=(1.35, 1))
        for (left, right), what in zip(panels, WHAT, strict=True):
            parts = {name: page[what]["parts"] for name, page in pages.items()}
            _stack(left, parts, [bar for bar in BARS if bar != WAITING])
            left.set_title(f"{what}: what is done and sent for one page")
            _stack(right, parts, list(BARS))
            right.set_title(f"{what}: with the waiting")
            right.set_yticklabels([])
            for axes in (left, right):
                axes.set_xlabel("cycles for one page")
        size_note(panels[0][1], plan.sizes.ledger_tasks * plan.sizes.pages)
        handles, labels = panels[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=1)

    return Outcome(
        title="Where the cycles of one page go",
        residuals=(),
        remarks=_remarks(pages, server_core),
        data={"pages": pages, "server_core": server_core},
        configurations=configurations(
            [results.looked_into(plan.ledger(design, cores)) for _, design, cores in bars(plan)]
        ),
        size_inches=(11, 6.0),
        draw_on=draw,
    )


def _stack(axes: Axes, parts: Mapping[str, Mapping[str, float]], shown: list[str]) -> None:
    names = list(parts)
    start = [0.0] * len(names)
    for bar in shown:
        widths = [parts[name][bar] for name in names]
        axes.barh(names, widths, left=start, color=_COLOURS[bar], label=bar, height=0.62)
        start = [at + width for at, width in zip(start, widths, strict=True)]
    widest = max(start)
    for row, total in enumerate(start):
        axes.text(total + widest * 0.012, row, f"{total:,.0f}", va="center", fontsize=8)
    axes.set_xlim(0, widest * 1.16)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(_few_ticks())
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _remarks(pages: Mapping[str, Mapping[str, Any]], core: Mapping[str, float]) -> tuple[str, ...]:
    rows = ["| cycles for one page, by cause |" + "".join(f" {n}: {w} |" for n in pages for w in WHAT)]
    rows.append("|---|" + "---:|" * (len(pages) * len(WHAT)))
    for bar in BARS:
        cells = "".join(f" {page[what]['parts'][bar]:,.0f} |" for page in pages.values() for what in WHAT)
        rows.append(f"| {bar} |{cells}")
    totals = "".join(f" {page[what]['elapsed']:,.0f} |" for page in pages.values() for what in WHAT)
    rows.append(f"| all: from the fault or the call until the process runs on |{totals}")
    one, each, all_cores = pages
    crowded, alone = pages[all_cores]["allocation"], pages[one]["allocation"]
    work = sum(crowded["parts"][bar] for bar in GROUPS)
    return (
        "\n".join(rows),
        f"One pager for all: the work for an allocation grows from {alone['elapsed']:,.0f} to {work:,.0f} cycles, "
        f"and {crowded['parts'][UNDER_WAY]:,.0f} more pass while interrupts are under way, because every message "
        "crosses cores: cores are interrupted, those that have halted wake, and cache lines with threads' state "
        "move. Allocation costs more than free, as a message that maps a page takes three interrupts and one that "
        "does not takes two. "
        f"But {crowded['parts'][WAITING] / crowded['elapsed']:.1%} of the time the process waits for the server, "
        "while that works for others or until others have its answers. That is the paper's first reason, contention, "
        "and it outweighs the second, the price of cross-core IPC, which in turn makes each place in the queue "
        "several times longer.",
        f"Core 0, where that server is, spends {sum(core.values()):,.0f} cycles for each page that anybody allocates "
        f"and frees. Of them it idles for {core[IDLE]:,.0f}: a message is delivered when its receiver has it, so the "
        "server, having answered to another core, waits until an interrupt is there, that core has woken and taken "
        f"the message, and another interrupt has come back. Being woken itself costs it {core[WAKING]:,.0f}, "
        f"sending and receiving interrupts {core[INTERRUPTS]:,.0f}, cache lines {core[LINES]:,.0f}; what it is there "
        f"for, user code with its TLB refills, mapping and unmapping, takes "
        f"{sum(core[group] for group in _PURPOSE):,.0f}.",
        "A pager on each core: what one pager does for one core, to "
        f"{max(abs(page['elapsed'] - pages[one][what]['elapsed']) for what, page in pages[each].items()):,.0f} "
        "cycles a page.",
    )
