"""Table I of 001_1b920a6df003b76d.txt, as far as there are profiles: the i486, the Pentium and the Haswell.

With the i486 comes what 002_50211d24b7aa1a78.txt and 003_7bcd5b5e8388f371.txt say of it: a longer message, and the
lower bound that no implementation can beat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from l4lab.tools.bench.pingpong_check import Check, as_document, check
from l4lab.tools.bench.pingpong_run import Instrument
from l4lab.tools.bench.published import LOWER_BOUND, Residual
from l4lab.tools.common import plots
from l4lab.tools.paper.outcome import Outcome, Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROFILES: Final = ("i486-dx50", "pentium-160", "haswell-4770")


def measure(step: Step) -> Outcome:
    """Check the three profiles."""
    with Instrument() as instrument:
        checks = []
        for profile in PROFILES:
            step(profile)
            checks.append(check(profile, instrument))
    residuals = tuple(residual for found in checks for residual in _residuals(found))
    return Outcome(
        title="Table I: one-way IPC between address spaces",
        residuals=residuals,
        remarks=_remarks(),
        data={found.profile: _without_configuration(found) for found in checks},
        configurations=tuple(manifest for found in checks for manifest in found.manifests),
        size_inches=(8.2, 3.6),
        draw_on=lambda figure: _draw(figure, residuals),
    )


def _draw(figure: Figure, residuals: tuple[Residual, ...]) -> None:
    """Published and ours side by side."""
    axes = figure.subplots()
    rows = [residual for residual in residuals if residual.published is not None]
    for index, residual in enumerate(rows):
        published, ours = float(residual.published or 0), residual.ours
        axes.barh(index - 0.19, published, 0.34, color=plots.GREY, label="" if index else "published")
        axes.barh(index + 0.19, ours, 0.34, color=plots.BLUE, label="" if index else "ours")
        axes.text(published + 8, index - 0.19, f"{published:,.0f}", va="center", fontsize=8)
        deviation = residual.deviation_percent or 0.0
        axes.text(ours + 8, index + 0.19, f"{ours:,.0f}  ({deviation:+.1f} %)", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [residual.what for residual in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(max(r.ours, float(r.published or 0)) for r in rows))
    axes.set_xlabel("cycles of one message, one way")
    axes.set_title("IPC between address spaces on three processors")
    axes.legend(loc="lower right")


def _without_configuration(found: Check) -> dict[str, Any]:
    document = as_document(found)
    del document["configurations"]
    return document


def _residuals(found: Check) -> list[Residual]:
    residuals = [replace(one, what=f"{found.profile}: {one.what}") for _, one in found.figures]
    if found.parts:
        residuals.append(
            Residual(
                what=f"{found.profile}: lower bound of a message",
                statement=f"{LOWER_BOUND.cycles} cycles",
                source=LOWER_BOUND.source,
                published=LOWER_BOUND.cycles,
                low=LOWER_BOUND.cycles - 0.5,
                high=LOWER_BOUND.cycles + 0.5,
                ours=float(sum(part.ours for part in found.parts)),
                unit="cycles",
            )
        )
    return residuals


def _remarks() -> tuple[str, ...]:
    return (
        "The 512 bytes of the i486 go over by a mapping of the sender's page, out of which the receiver copies and "
        "which it then unmaps: that is as near as this interface comes to the kernel of the time, which mapped the "
        "page for itself and copied.",
        "The lower bound adds up what the ledger has for one zero-byte message: entering and leaving the kernel, "
        f"{LOWER_BOUND.tlb_misses} TLB misses, and {LOWER_BOUND.instructions} instructions at the profile's price.",
        "All of these figures are fitted: what they show is that one mechanism gives them, not that they were "
        "foreseen.",
    )
