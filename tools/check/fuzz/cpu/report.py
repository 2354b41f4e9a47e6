"""`l4lab fuzz cpu`: the run with its progress, and its outcome for people or programs."""

from __future__ import annotations

import click

from l4lab.tools.check.fuzz.cpu.compare import KINDS
from l4lab.tools.check.fuzz.cpu.hunt import MAX_FINDINGS, hunt
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import grouped, print_json
from l4lab.tools.common.versions import versions

FORMAT = 1
SKIPPED = "skipped: needs an x86 host with Linux that runs 32-bit programs, to compare with its processor"


def run_fuzz_cpu(*, first: int, count: int, seed: int, as_json: bool) -> int:
    """The exit code is 1 if there is a finding."""
    with Progress("cases", count) as progress:
        summary = hunt(first, count, seed, progress.reach)
    if summary is None:
        if as_json:
            print_json({"format": FORMAT, "skipped": SKIPPED, "versions": versions()}, sort_keys=True)
        else:
            click.echo(SKIPPED)
        return 0
    if as_json:
        print_json(summary.as_dict() | {"format": FORMAT, "versions": versions()}, sort_keys=True)
        return 1 if summary.findings else 0
    click.echo(f"{grouped(summary.cases):>14}  cases, seed {seed}, against {summary.processor}")
    for vector, number in summary.ends.items():
        click.echo(f"{grouped(number):>14}  ended with exception {vector}")
    for kind, number in summary.kinds.items():
        click.echo(f"{grouped(number):>14}  {kind}: {KINDS[kind]}")
    for finding in summary.findings:
        click.echo(f"case {finding.number}: {', '.join(finding.instructions)}: {finding.code}")
        for difference in finding.differences:
            click.echo(f"    {difference}")
        click.echo(f"    again: l4lab fuzz cpu --seed {seed} --first {finding.number} --cases 1")
    if not summary.findings:
        click.echo("no finding")
        return 0
    more = " or more" if len(summary.findings) == MAX_FINDINGS else ""
    click.echo(f"{len(summary.findings)}{more} findings")
    return 1
