"""Commands that run an image: `boot`, `debug`, `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.tools.cli.options import Number, folder_option, json_option, max_cycles_option, origin_option

_EXIT_CODES: Final = """
\b
Exit code: the guest's own if it ended by itself, else
    2  a mistake in what was asked for      124  --max-cycles reached
   70  a bug in l4lab, state dumped         125  every thread waits forever
  130  Ctrl-C                               126  the root task was killed
"""


@click.command(short_help="Boot a manifest or a bundled image.", epilog=_EXIT_CODES)
@click.argument("image")
@json_option(", guest output inside, and nothing else.")
@max_cycles_option("Stop when the clock of a core reaches N.")
@folder_option("Write results, resolved manifest, console output and ledger to DIR.")
@click.option(
    "--ledger/--no-ledger",
    default=None,
    help="Book every cycle, in the folder of --out. Without either: if there is one.",
)
@click.option("--trace", is_flag=True, help="Record all events for `l4lab trace`, in the folder of --out.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Tell on stderr what is booted, how far it is, and what each task cost.",
)
@click.option("--gdb", metavar="ADDR", help="Let gdb connect at [HOST:]PORT or at a socket's path.")
@click.option("-S", "stopped", is_flag=True, help="With --gdb: wait for it before the first instruction.")
def boot(
    image: str,
    as_json: bool,
    max_cycles: int | None,
    out: Path | None,
    ledger: bool | None,
    trace: bool,
    verbose: bool,
    gdb: str | None,
    stopped: bool,
) -> int:
    """Boot IMAGE: a manifest (a path), or the name of a bundled image.

    What the guest prints comes out as it prints it.

    \b
    Examples:
      l4lab boot hello
      l4lab boot ./my-image.toml --max-cycles 1_000_000_000 --out results/
      l4lab boot hello --json | python -m json.tool
      l4lab boot pagefault --gdb :1234 -S
    """
    from l4lab.tools.runs.boot import boot_image

    if gdb is not None:
        from l4lab.tools.debug.gdb.launch import boot_under_gdb

        if as_json or out is not None or ledger is not None or trace:
            raise OperatorError(
                "--gdb goes with none of --json, --out, --ledger and --trace: gdb changes no cycle"
            )
        return boot_under_gdb(image, gdb, stopped=stopped, max_cycles=max_cycles, verbose=verbose)
    if stopped:
        raise OperatorError("-S waits for gdb: expected --gdb ADDR, too")
    return boot_image(
        image,
        as_json=as_json,
        max_cycles=max_cycles,
        out=out,
        verbose=verbose,
        ledger=ledger,
        trace=trace,
    )


@click.command(short_help="Step through a run on the terminal, both ways.")
@click.argument("image", metavar="IMAGE|RUN")
@max_cycles_option("The run ends when a clock reaches N.")
@origin_option("of_run", unless="if no bundled image")
def debug(image: str, max_cycles: int | None, of_run: str | None) -> int:
    """Boot IMAGE under a debugger with a terminal interface; or what RUN, a folder of `--out`, has recorded.

    Shows cores, threads, source, instructions, messages, address spaces, the seven steps of a page fault.
    Goes to the next or the last instruction, kernel entry, message, page fault, or cycle; `?` lists the keys.
    No cycle of the run is changed by looking at it. For gdb: `l4lab boot IMAGE --gdb :1234 -S`.

    \b
    Example:
      l4lab debug pagefault       then f for a page fault, t for each of its steps
    """
    from l4lab.tools.debug.tui.launch import debug as run

    return run(image, image=of_run, max_cycles=max_cycles)


@click.command(short_help="The kernel's objects at any moment of a run.")
@click.argument("run", required=False)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--cycle", type=Number(0), metavar="C", help="When a core is at or beyond cycle C.")
@click.option("--core", type=Number(0), default=0, metavar="K", help="With --cycle: which [0].")
@click.option("--fault", type=Number(1), metavar="N", help="At the Nth page fault, as in `why`.")
@click.option("--ipc", type=Number(1), metavar="N", help="When the Nth IPC has begun.")
@origin_option()
@click.option("--list", "list_views", is_flag=True, help="List the views.")
@json_option(" instead of the tables.")
def inspect(
    run: str | None,
    views: tuple[str, ...],
    cycle: int | None,
    core: int,
    fault: int | None,
    ipc: int | None,
    image: str | None,
    list_views: bool,
    as_json: bool,
) -> int:
    """Threads, capabilities, mapping trees, page tables, queues at a moment of RUN; without one: its end.

    RUN is a folder of `l4lab boot --out`, or an image. It is run again up to there, after its hashes have
    been compared, and comes out as it did. A VIEW of one object is asked for with a colon; the letters of
    Fiasco's debugger are understood, too.

    \b
    Examples:
      l4lab inspect --list                               the views
      l4lab inspect run --fault 22                       the machine at a page fault
      l4lab inspect pagefault --cycle 700_000 messages   who waits for whom, and with which message
      l4lab inspect run --fault 22 bt:hello.1 ptable:hello.1 mapdb
    """
    from l4lab.tools.debug import inspect as tool
    from l4lab.tools.runs.replay import Moment

    if list_views:
        return tool.list_views(as_json=as_json)
    if run is None:
        raise OperatorError("inspect: found no RUN, expected the folder of a run or an image")
    if sum(given is not None for given in (cycle, fault, ipc)) > 1:
        raise OperatorError("inspect: expected only one of --cycle, --fault and --ipc")
    return tool.show_inspect(run, views, Moment(cycle, core, fault, ipc), image=image, as_json=as_json)
