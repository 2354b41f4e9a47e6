"""`l4lab profile show` and `l4lab profile check`: what a profile says, and what comes of it.

A check runs the ping-pong on the profile and holds the cycles against what was published of the real machine.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from rich.table import Table

from l4lab.emulator.files.profile import Cost, Profile, load_profile
from l4lab.tools.bench.pingpong_check import Check, as_document, check
from l4lab.tools.bench.pingpong_run import Instrument
from l4lab.tools.bench.published import LOWER_BOUND
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, counted, print_json, table

EXIT_OUTSIDE: Final = 1


# --- show ---------------------------------------------------------------------------------------------


def show_profile(name: str, *, as_json: bool) -> int:
    """`l4lab profile show`. Returns the exit code. Raises ProfileError."""
    profile = load_profile(name)
    if as_json:
        print_json(profile.resolved())
        return 0
    out = console()
    topology = profile.topology
    cores = topology.packages * topology.dies_per_package * topology.cores_per_die
    out.print(f"{profile.name}: {profile.description}", soft_wrap=True)
    out.print(
        f"{profile.mhz} MHz, {counted(cores, 'core')}: {counted(topology.packages, 'package')} of "
        f"{counted(topology.dies_per_package, 'die')} of {counted(topology.cores_per_die, 'core')}; "
        f"{profile.cpuid.vendor} family {profile.cpuid.family:#x} model {profile.cpuid.model:#x}; "
        f"{'with' if profile.global_pages else 'without'} global pages\n",
        soft_wrap=True,
    )
    rows = table("", "cycles")
    rows.add_column("where the number comes from")
    for title, costs in _sections(profile):
        rows.add_row(title, style="bold")
        for key, cost in costs:
            rows.add_row(f"  {key}", f"{cost.resolved()['cycles']}", _origin(cost))
    out.print(rows)
    return 0


def _origin(cost: Cost) -> str:
    if cost.source is not None:
        return cost.source
    fit = str(cost.fitted_to)
    return fit if fit.startswith("free parameter") else f"fitted to {fit}"


def _sections(profile: Profile) -> list[tuple[str, list[tuple[str, Cost]]]]:
    return [
        ("processor", list(profile.cpu.items())),
        ("interrupt to another core", [(d.value, cost) for d, cost in profile.ipi_latency.items()]),
        ("cache line of another core", [(d.value, cost) for d, cost in profile.cache_line_transfer.items()]),
        ("kernel", list(profile.kernel.items())),
    ]


# --- check --------------------------------------------------------------------------------------------


def run_check(name: str, *, as_json: bool) -> int:
    """`l4lab profile check`. Returns the exit code: 1 if something published is not reproduced."""
    with (
        Instrument() as instrument,
        Progress("measuring"),
    ):
        found = check(name, instrument)
    if as_json:
        print_json(as_document(found))
    else:
        _print(found)
    return 0 if found.within else EXIT_OUTSIDE


def _print(found: Check) -> None:
    out = console()
    out.print(check_table(found))
    if found.parts:
        out.print()
        out.print(bound_table(found))
    out.print()
    for line in remarks(found):
        out.print(line, soft_wrap=True)


def check_table(found: Check) -> Table:
    """Published, ours, deviation: a line for each figure."""
    rows = table(found.profile, "published", "expected", "ours", "deviation")
    rows.add_column("")
    for figure, one in found.figures:
        published, deviation = figure.cycles, one.deviation_percent
        rows.add_row(
            figure.what,
            f"{published:,}" if published is not None else f"“{figure.statement}”",
            f"{figure.low:,.0f} to {figure.high:,.0f}",
            f"{one.ours:,.1f}",
            f"{deviation:+.1f} %" if deviation is not None else "",
            "" if one.within else "outside",
        )
    return rows


def bound_table(found: Check) -> Table:
    """The lower bound's parts."""
    rows = table("lower bound of a message", "published", "ledger")
    for part in found.parts:
        rows.add_row(part.what, str(part.published_cycles), f"{float(part.ours):.1f}")
    rows.add_section()
    total = sum((part.ours for part in found.parts), Fraction(0))
    rows.add_row(
        "sum", str(sum(part.published_cycles for part in found.parts)), f"{float(total):.1f}", style="bold"
    )
    return rows


def remarks(found: Check) -> list[str]:
    """What the tables do not say."""
    lines = []
    if found.ratio is not None:
        lines.append(f"cross-core to same-core: {float(found.ratio):.1f}")
        lines += [one.remark(found.ratio) for one in found.ratios]
    for source in dict.fromkeys(figure.source for figure, _ in found.figures):
        lines.append(f"source: {source}")
    if found.parts:
        lines.append(f"source of the lower bound: {LOWER_BOUND.source}")
    return lines
