"""Commands that show what the paper shows: `demo`, `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from l4lab.tools.cli.options import folder_option, json_option
from l4lab.tools.common.leaving import leaving_in_order
from l4lab.tools.paper import catalogue


@click.command(short_help="The main job in small: one pager against one on each core.")
def demo() -> int:
    """Boot three programs; then one pager for the whole machine against one on each core, in seconds.

    Shows what each of the programs cost. Measures a message between two threads, on one core and across
    cores; then what it takes to allocate, touch and free a page with 1 to 48 cores, in both designs.
    Prints a table and draws a figure in l4lab-out/demo, where the runs are kept too: the second time
    takes less than three seconds. The numbers are the same in every run and on every machine.
    """
    from l4lab.tools.paper.demo import run_demo

    with leaving_in_order():
        return run_demo()


_REPRODUCE_HELP: Final = f"""
Reproduce a figure or table: ours beside what is published, and how far off we are.

Writes the figure (PNG and SVG), every number with the resolved configuration (data.json), a page
about it (README.md) and the hashes of all that; the same bytes in every run.

\b
NAME is one of
{catalogue.listing({catalogue.ALL: "all of them: ten minutes on two cores of a host; with --quick less than one"})}

Results go to l4lab-out/NAME, those of --quick to l4lab-out/quick/NAME, so that neither replaces the
other. Long runs are kept in l4lab-out/runs, with --out in DIR/runs: what was interrupted goes on where
it stopped.

\b
Examples:
  l4lab reproduce fig5
  l4lab reproduce all --quick
  l4lab reproduce all --out results
"""


@click.command(short_help="Measure again what a paper shows, and draw it.", help=_REPRODUCE_HELP)
@click.argument("name", metavar="NAME|all")
@folder_option(
    "Folder for the results; of `all`, for one folder each [l4lab-out/NAME; quick: l4lab-out/quick/NAME]."
)
@click.option("--quick", is_flag=True, help="Smaller sizes and fewer core counts, for the memory figures.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at a time [all cores of the host]."
)
@json_option()
def reproduce(name: str, out: Path | None, quick: bool, jobs: int | None, as_json: bool) -> int:
    """Its help is above: it lists what there is."""
    from l4lab.tools.paper.reproduce import run_reproduce

    with leaving_in_order():
        return run_reproduce(name, out=out, as_json=as_json, quick=quick, workers=jobs)
