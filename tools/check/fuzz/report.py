"""`l4lab fuzz`: the run with its progress, and its outcome for people or programs."""

from __future__ import annotations

from typing import Final

import click

from l4lab.tools.check.fuzz.hunt import hunt
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import grouped, print_json
from l4lab.tools.common.versions import versions

FORMAT: Final = 1


def run_fuzz(*, calls: int, seed: int, as_json: bool) -> int:
    """The exit code is 1 if the kernel broke one of its rules."""
    with Progress("system calls", calls) as progress:
        summary = hunt(calls, seed, progress.reach)
    violation = summary.violation
    document = summary.as_dict()
    if as_json:
        del document["seconds"]  # the same seed gives the same bytes
        print_json(document | {"format": FORMAT, "versions": versions()}, sort_keys=True)
        return 1 if violation is not None else 0
    for name, count in document.items():
        if isinstance(count, int) and name not in ("seed", "epochs"):
            click.echo(f"{grouped(count):>14}  {name.replace('_', ' ')}")
    click.echo(
        f"{grouped(summary.epochs):>14}  systems booted, run and taken down again, seed {summary.seed}"
    )
    if violation is None:
        click.echo(f"no violation, in {summary.seconds:.0f} s of this host")
        return 0
    click.echo(
        f"violation in epoch {violation.epoch}, entry {violation.entry}, {violation.action}: {violation.error}"
    )
    click.echo(f"again: l4lab fuzz --seed {violation.seed} (the same calls in the same order)")
    return 1
