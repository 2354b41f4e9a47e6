"""Commands that tell what a recorded run has left: `books`, `why`, `trace`."""

from __future__ import annotations

from pathlib import Path

import click

from l4lab.emulator.errors import OperatorError
from l4lab.tools.cli.options import Number, json_option, origin_option, run_argument


@click.command(short_help="Check that a run's books balance; where the cycles went.")
@run_argument()
@click.option(
    "--longest",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=10,
    metavar="[N]",
    help="Instead: the N longest kernel entries (10), and the time from an interrupt to its handler.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="With --longest: draw both histograms there, longest.png and longest.svg.",
)
@json_option(" instead of the tables.")
def books(run: Path | None, longest: int | None, picture: Path | None, as_json: bool) -> int:
    """Where every cycle of RUN went: by core, by cause, by task. RUN is a folder of `--out`; left out, the last one.

    First checks that the books balance: on each core one entry follows the other without a gap, and
    their cycles add up to its clock. Exit code 1, and the place on one line, if they do not.

    \b
    Example:
      l4lab boot hello --out run && l4lab books run
      l4lab books run --longest 5 --picture .
    """
    from l4lab.tools.ledger.books import show_books

    if picture is not None and longest is None:
        raise click.UsageError("--picture draws what --longest tells: give both")
    return show_books(run, as_json=as_json, longest=longest, picture=picture)


@click.command(short_help="Why a page fault or an IPC of a run took as long as it did.")
@click.argument("what", nargs=-1, metavar="[fault|exception|ipc N | cycle C] [RUN]")
@click.option("--core", type=int, metavar="K", help="With cycle: only this core, and whom it worked for.")
@origin_option()
@click.option(
    "--replay/--no-replay",
    default=None,
    help="Boot it again up to the page fault, to tell steps 4 and 5 apart. Without either: if it is quick.",
)
@json_option(" instead.")
def why(
    what: tuple[str, ...], core: int | None, image: str | None, replay: bool | None, as_json: bool
) -> int:
    """The causal chain of one page fault, exception or IPC of RUN, across tasks and cores.

    Each hop with its cycles by cause, waiting with what was waited for, and of a page fault the seven steps
    from the touch to the instruction that goes on. The cycles add up to the latency. Without a number: how
    many there are, and the slowest. RUN is a folder of `--out`; left out, it is the last run that was
    recorded from the current folder.

    \b
    Examples:
      l4lab boot pma --out run         record a run
      l4lab why fault 17               its 17th page fault
      l4lab why                        how many there are, and the slowest
      l4lab why cycle 1_000_000 run    what every core of that run did at that moment
    """
    from l4lab.tools.why.command import Asked, show_why

    return show_why(what, Asked(core=core, image=image, replay=replay, as_json=as_json))


@click.command(short_help="A run for a trace viewer, for a profile viewer, or as text.")
@run_argument()
@click.option("--perfetto", metavar="FILE", help="Write a trace to open in ui.perfetto.dev.")
@click.option("--speedscope", metavar="FILE", help="Write a profile to open in www.speedscope.app.")
@click.option(
    "--text",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Write a line for each event; without FILE, or with -, to stdout.",
)
@click.option("--from", "first_cycle", type=Number(0), default=0, metavar="CYCLE", help="Only from then on.")
@click.option("--to", "last_cycle", type=Number(0), metavar="CYCLE", help="Only up to then.")
def trace(
    run: Path | None,
    perfetto: str | None,
    speedscope: str | None,
    text: str | None,
    first_cycle: int,
    last_cycle: int | None,
) -> int:
    """Show RUN, a folder of `--out`; left out, it is the last run that was recorded from the current folder.

    For Perfetto: cores with what they run, messages as arrows between them, page faults and IPCs on the
    tracks of their threads. For speedscope: what each core's time went to, by task, function and cause.
    As text: in the words of the trace buffer of Fiasco's kernel debugger. Only a run with `--trace` has all
    events, and the place of each kernel entry.

    \b
    Example:
      l4lab boot pma --out run --trace
      l4lab trace run --perfetto run.pftrace --speedscope run.speedscope.json
      l4lab trace run --text --from 3_000_000 --to 3_100_000
    """
    from l4lab.tools.trace.command import Wanted, show_trace

    if perfetto is None and speedscope is None and text is None:
        raise OperatorError("trace: expected --perfetto FILE, --speedscope FILE or --text")
    return show_trace(run, Wanted(perfetto, speedscope, text, first_cycle, last_cycle))
