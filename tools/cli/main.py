"""The command line: arguments in, exit code out.

The commands stand in a file for each group; all of these are read to answer `--help`, so they hold options, help
and examples, and import what does the work only where it is done. `options.py` has what they share, `edge.py` how
they end.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from l4lab.tools.cli import check, develop, look, measure, paper, run
from l4lab.tools.cli.edge import flushed, guarded

_HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# What a newcomer needs comes first.
_COMMANDS: Final = (
    *(run.boot, run.debug, paper.demo),
    *(check.conformance, check.fuzz, measure.bench, paper.reproduce, check.profile),
    *(run.inspect, look.books, look.why, look.trace),
    *(develop.test, develop.lint, check.check, develop.build),
)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from l4lab.tools.common.versions import versions_with_drawing

    for name, version in versions_with_drawing().items():
        click.echo(f"{name:10} {version}")
    context.exit()


class _InOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings=_HELP)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Versions of l4lab and of all that results depend on.",
)
def cli() -> None:
    """A laboratory for L4 microkernels.

    Boots 32-bit x86 programs on emulated cores, under a microkernel with the user interface of
    Fiasco.OC, and tells what everything cost in cycles. The same inputs give the same results,
    bit for bit, on every machine.

    \b
    Start here:
      l4lab demo                         one pager against one on each core, in small
      l4lab boot hello                   boot a bundled image; its output, its exit code
      l4lab boot my-image.toml --json    a manifest of your own, results for a program
    """


for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """The console script `l4lab`. Leaves by SystemExit."""
    sys.exit(flushed(guarded(lambda: cli.main(arguments, prog_name="l4lab", standalone_mode=False))))
