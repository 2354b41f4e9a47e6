"""The command line: arguments in, exit code out. What a command does lies in the module it imports.

Imports of the machine are inside the commands, so that `--help` and `--version` answer at once. That is also
why it is as long as it is: options, help and examples of all commands stand here, and nothing else does.

Exit codes: 0 to 255 of the guest where it ended by itself, else
    2 operator's mistake   70 our own mistake   124 --max-cycles reached   125 every thread waits forever
    126 the root task was killed   130 Ctrl-C   141 whoever read our output has left, as with `| head`
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from l4lab.emulator.errors import OperatorError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.bench.pma_image import MAX_CORES, MAX_PAGES, MAX_REGION_PAGES, MAX_TASKS, PmaSetup
from l4lab.tools.native.build import CHECKOUT, BuildError
from l4lab.tools.paper import catalogue

EXIT_OPERATOR: Final = 2
EXIT_KERNEL_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130
EXIT_CLOSED_PIPE: Final = 141

_SHOWN: Final = 40

_HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_EXIT_CODES: Final = """
\b
Exit code: the guest's own if it ended by itself, else
    2  a mistake in what was asked for      124  --max-cycles reached
   70  a bug in l4lab, state dumped         125  every thread waits forever
  130  Ctrl-C                               126  the root task was killed
"""


class CommandError(OperatorError):
    """A command that cannot do what it was asked to."""


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from l4lab.tools.common.versions import versions_with_drawing

    for name, version in versions_with_drawing().items():
        click.echo(f"{name:10} {version}")
    context.exit()


class _Number(click.IntRange):
    """Whole numbers from `min` on; what else is found is told in our words."""

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> int:
        with suppress(ValueError):
            if self.min is not None and (number := int(value)) >= self.min:
                return number
        name = param.opts[0] if param is not None else self.name
        found = repr(value) if len(str(value)) <= _SHOWN else f"{str(value)[:_SHOWN]!r}..."
        raise CommandError(f"{name}: found {found}, expected a number from {self.min} on")


class _InOrder(click.Group):
    """Lists its commands as this file does: what a newcomer needs comes first."""

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


# --- running -----------------------------------------------------------------------------------------


@cli.command(short_help="Boot a manifest or a bundled image.", epilog=_EXIT_CODES)
@click.argument("image")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, guest output inside, and nothing else."
)
@click.option(
    "--max-cycles", type=click.IntRange(min=1), metavar="N", help="Stop when the clock of a core reaches N."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write results, resolved manifest, console output and ledger to DIR.",
)
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
    from l4lab.tools.runs.session import boot_image

    if gdb is not None:
        from l4lab.tools.debug.gdb.launch import boot_under_gdb

        if as_json or out is not None or ledger is not None or trace:
            raise CommandError(
                "--gdb goes with none of --json, --out, --ledger and --trace: gdb changes no cycle"
            )
        return boot_under_gdb(image, gdb, stopped=stopped, max_cycles=max_cycles, verbose=verbose)
    if stopped:
        raise CommandError("-S waits for gdb: expected --gdb ADDR, too")
    return boot_image(
        image,
        as_json=as_json,
        max_cycles=max_cycles,
        out=out,
        verbose=verbose,
        ledger=ledger,
        trace=trace,
    )


@cli.command(short_help="Step through a run on the terminal, both ways.")
@click.argument("image", metavar="IMAGE|RUN")
@click.option(
    "--max-cycles", type=click.IntRange(min=1), metavar="N", help="The run ends when a clock reaches N."
)
@click.option("--image", "of_run", metavar="IMAGE", help="What RUN was booted from, if no bundled image.")
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


@cli.command(short_help="The main job in small: one pager against one on each core.")
def demo() -> int:
    """Boot three programs; then one pager for the whole machine against one on each core, in seconds.

    Shows what each of the programs cost. Measures a message between two threads, on one core and across
    cores; then what it takes to allocate, touch and free a page with 1 to 48 cores, in both designs.
    Prints a table and draws a figure in l4lab-out/demo, where the runs are kept too: the second time
    takes less than three seconds. The numbers are the same in every run and on every machine.
    """
    from l4lab.tools.paper.demo import run_demo

    return run_demo()


@cli.command(short_help="Does the kernel behave as its specification says?")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option("--only", multiple=True, metavar="ID", help="Only tests whose names begin so; repeatable.")
@click.option("--list", "list_tests", is_flag=True, help="A line for each test instead of the table.")
@click.option("--cores", type=click.IntRange(1, 64), default=2, show_default=True, help="How many cores.")
def conformance(as_json: bool, only: tuple[str, ...], list_tests: bool, cores: int) -> int:
    """Run the conformance suite: real programs that try every operation and every error code.

    The table shows which results of which operations were seen, by how many tests, and why the others
    cannot occur. The exit code is 1 if a test fails or a cell is empty.

    \b
    l4lab conformance                     all of it, half a second
    l4lab conformance --only IPC0004      one test
    """
    from l4lab.tools.check.conformance import run_conformance

    return run_conformance(as_json=as_json, only=only, list_tests=list_tests, cores=cores)


@cli.command(short_help="Random programs against the kernel.")
@click.option(
    "--calls", type=click.IntRange(1), default=100_000, show_default=True, help="System calls to make."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Which calls they are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fuzz(calls: int, seed: int, as_json: bool) -> int:
    """Let programs do random things, and check after each that the kernel keeps its rules.

    Random registers, messages, faults and operations of several tasks on several cores; every invariant
    of `kernel/invariants.py`, quotas, and that all memory comes back. The exit code is 1 on a violation,
    which the same seed shows again.
    """
    from l4lab.tools.check.fuzz.report import run_fuzz

    return run_fuzz(calls=calls, seed=seed, as_json=as_json)


@cli.group()
def bench() -> None:
    """Measure: the engine, the kernel, messages, page allocation."""


@bench.command(short_help="User code and kernel entries against bare Unicorn.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def engine(as_json: bool) -> int:
    """How fast user code runs, and how dear it is to enter the kernel, against bare Unicorn.

    Ratios of measurements in one run; at 1 the counting of every instruction costs nothing. Takes a
    few seconds. Host times, so no two runs agree to the digit.
    """
    from l4lab.tools.bench.engine import run_bench

    return run_bench(as_json=as_json)


@bench.command("debug", short_help="What debugging costs the host, and the way back in time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def bench_debug(as_json: bool) -> int:
    """Speed under the debugger against that without, with breakpoints set; and how long a step back takes.

    Takes less than a minute. Host times, so no two runs agree to the digit.
    """
    from l4lab.tools.bench.debug import run_bench

    return run_bench(as_json=as_json)


@bench.command(short_help="What kernel entries cost the host.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def kernel(as_json: bool) -> int:
    """What kernel entries cost the host, by kind, and that the cost does not grow.

    System calls, IPC within and between address spaces, page faults; then IPC with many threads,
    tasks, mappings and cores around. Takes about a minute. Host times and emulated cycles.
    """
    from l4lab.tools.bench.kernel import run_bench

    return run_bench(as_json=as_json)


@bench.command(short_help="What many cores cost the host.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def scale(as_json: bool) -> int:
    """Host time for a kernel entry with 1, 12 and 48 busy cores, and with 47 idle ones.

    A ping-pong pair runs on each busy core. Takes about a quarter of a minute. Host times, so no two
    runs agree to the digit.
    """
    from l4lab.tools.bench.scale import run_bench

    return run_bench(as_json=as_json)


@bench.command(short_help="What a message costs, in every place and size.")
@click.option("--profile", default="opteron-6174", show_default=True, help="Cycle costs: a name or a path.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
@click.option("--sel4bench", is_flag=True, help="Print JSON in the shape of sel4bench's results.")
def pingpong(profile: str, as_json: bool, sel4bench: bool) -> int:
    """Cycles of a message between two threads: on one core, on two, and what they are spent on.

    After figure 5 of the paper: within one address space, between two, to another core of the die,
    of the package, of another package; 0 to 63 words. Measured by the guests with their cycle
    counter; the ledger says where the cycles went, and must agree. The same in every run.

    \b
    Examples:
      l4lab bench pingpong                           the paper's machine
      l4lab bench pingpong --profile i486-dx50       Liedtke's
    """
    from l4lab.tools.bench.messages import run_bench

    return run_bench(profile, as_json=as_json, sel4bench=sel4bench)


_PMA: Final = PmaSetup()


@bench.command(short_help="Page allocation: one pager for all cores, or one on each.")
@click.option(
    "--design",
    type=click.Choice(["percore", "single", "l4re"]),
    default="percore",
    show_default=True,
    help="Who serves page faults: a pager on each core, one on core 0, or a region map and one server.",
)
@click.option(
    "--cores",
    type=click.IntRange(1, MAX_CORES),
    default=_PMA.cores,
    show_default=True,
    help="A process on each.",
)
@click.option(
    "--pages", type=click.IntRange(1, MAX_PAGES), default=_PMA.pages, show_default=True, help="In one task."
)
@click.option(
    "--tasks",
    type=click.IntRange(1, MAX_TASKS),
    default=_PMA.tasks,
    show_default=True,
    help="Of each process, one after the other.",
)
@click.option(
    "--allocator",
    type=click.Choice(["avl", "buddy", "slab"]),
    default="avl",
    show_default=True,
    help="How servers keep their free page frames.",
)
@click.option("--clear", is_flag=True, help="Servers zero each frame before they give it out.")
@click.option("--chunk", type=click.IntRange(1, MAX_PAGES), metavar="N", help="Pages in one allocation.")
@click.option(
    "--region", type=click.IntRange(1, MAX_REGION_PAGES), metavar="N", help="Pages that each server gets."
)
@click.option("--ram", default="1GiB", show_default=True, help="Of the machine, as in a manifest.")
@click.option("--profile", default="opteron-6174", show_default=True, help="Cycle costs: a name or a path.")
@click.option(
    "--tlb",
    type=click.Choice(["full", "page", "switch"]),
    default="full",
    show_default=True,
    help="What unmap does to TLBs: flush all, just the page, or nothing if a switch comes anyway.",
)
@click.option(
    "--idle",
    type=click.Choice(["halt", "poll"]),
    default="halt",
    show_default=True,
    help="What idle cores do: halt, and take time to wake, or look for interrupts all the time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the summary.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write a run directory with ledger."
)
@click.option("--trace", is_flag=True, help="With --out: record all events for `l4lab trace`.")
@click.option("--manifest", "manifest_only", is_flag=True, help="Print the image's manifest and run nothing.")
def pma(
    design: str,
    cores: int,
    pages: int,
    tasks: int,
    allocator: str,
    clear: bool,
    chunk: int | None,
    region: int | None,
    ram: str,
    profile: str,
    tlb: str,
    idle: str,
    as_json: bool,
    out: Path | None,
    trace: bool,
    manifest_only: bool,
) -> int:
    """The paper's benchmark: each process allocates pages, touches them, frees them, task by task.

    Reports cycles a page, after holding what servers and processes counted against what the kernel did.

    \b
    Examples:
      l4lab bench pma                                     48 pagers on 48 cores
      l4lab bench pma --design single --cores 12          one pager, 12 cores
      l4lab bench pma --pages 1000 --tasks 10 --json      more pages outstanding
    """
    from l4lab.emulator.files.inputs import is_path
    from l4lab.tools.bench.pma import run_bench

    if manifest_only and (as_json or out is not None or trace):
        raise CommandError("--manifest only prints the manifest: --json, --out and --trace are about a run")
    setup = PmaSetup(
        design=design,
        cores=cores,
        pages=pages,
        tasks=tasks,
        allocator=allocator,
        clear=clear,
        chunk_pages=chunk,
        region_pages=region,
        ram=ram,
        profile=str(Path(profile).absolute()) if is_path(profile) else profile,
        tlb=tlb,
        idle=idle,
    )
    if manifest_only:
        click.echo(setup.manifest(), nl=False)
        return 0
    if trace and out is None:
        raise CommandError("--trace writes to the folder of --out: expected --out DIR, too")
    return run_bench(setup, as_json=as_json, out=out, trace=trace)


# --- against what is published ------------------------------------------------------------------------


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


@cli.command(short_help="Measure again what a paper shows, and draw it.", help=_REPRODUCE_HELP)
@click.argument("name", metavar="NAME|all")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results; of `all`, for one folder each [l4lab-out/NAME; quick: l4lab-out/quick/NAME].",
)
@click.option("--quick", is_flag=True, help="Smaller sizes and fewer core counts, for the memory figures.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at a time [all cores of the host]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def reproduce(name: str, out: Path | None, quick: bool, jobs: int | None, as_json: bool) -> int:
    """Its help is above: it lists what there is."""
    from l4lab.tools.paper.reproduce import run_reproduce

    return run_reproduce(name, out=out, as_json=as_json, quick=quick, workers=jobs)


@cli.group()
def profile() -> None:
    """Cost profiles: what is in them, and whether they give what is published."""


@profile.command("show", short_help="Every number of a profile and where it comes from.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def profile_show(name: str, as_json: bool) -> int:
    """Every number of profile NAME, bundled or the path of one's own, and where it comes from."""
    from l4lab.tools.check.profile_check import show_profile

    return show_profile(name, as_json=as_json)


@profile.command("check", short_help="Measure what is published of that machine.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def profile_check(name: str, as_json: bool) -> int:
    """Run the ping-pong on profile NAME and hold it against the published figures of that machine.

    Exit code 1 if one of them is not met within the tolerance that is printed with it.
    """
    from l4lab.tools.check.profile_check import run_check

    return run_check(name, as_json=as_json)


# --- what a run has left ---------------------------------------------------------------------------


@cli.command(short_help="The kernel's objects at any moment of a run.")
@click.argument("run", required=False)
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--cycle", type=_Number(0), metavar="C", help="When a core is at or beyond cycle C.")
@click.option("--core", type=_Number(0), default=0, metavar="K", help="With --cycle: which [0].")
@click.option("--fault", type=_Number(1), metavar="N", help="At the Nth page fault, as in `why`.")
@click.option("--ipc", type=_Number(1), metavar="N", help="When the Nth IPC has begun.")
@click.option("--image", metavar="IMAGE", help="What RUN was booted from, if that is no bundled image.")
@click.option("--list", "list_views", is_flag=True, help="List the views.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
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
    from l4lab.tools.debug.inspect_run import Moment

    if list_views:
        return tool.list_views(as_json=as_json)
    if run is None:
        raise CommandError("inspect: found no RUN, expected the folder of a run or an image")
    if sum(given is not None for given in (cycle, fault, ipc)) > 1:
        raise CommandError("inspect: expected only one of --cycle, --fault and --ipc")
    return tool.show_inspect(run, views, Moment(cycle, core, fault, ipc), image=image, as_json=as_json)


@cli.command(short_help="Check that a run's books balance; where the cycles went.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
def books(run: Path | None, as_json: bool) -> int:
    """Where every cycle of RUN went: by core, by cause, by task. RUN is a folder of `--out`; left out, the last one.

    First checks that the books balance: on each core one entry follows the other without a gap, and
    their cycles add up to its clock. Exit code 1, and the place on one line, if they do not.

    \b
    Example:
      l4lab boot hello --out run && l4lab books run
    """
    from l4lab.tools.ledger.books import show_books

    return show_books(run, as_json=as_json)


@cli.command(short_help="Why a page fault or an IPC of a run took as long as it did.")
@click.argument("what", nargs=-1, metavar="[fault|exception|ipc N | cycle C] [RUN]")
@click.option("--core", type=int, metavar="K", help="With cycle: only this core, and whom it worked for.")
@click.option("--image", metavar="IMAGE", help="What RUN was booted from, if that is no bundled image.")
@click.option(
    "--replay/--no-replay",
    default=None,
    help="Boot it again up to the page fault, to tell steps 4 and 5 apart. Without either: if it is quick.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
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


@cli.command(short_help="A run for a trace viewer, for a profile viewer, or as text.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--perfetto", metavar="FILE", help="Write a trace to open in ui.perfetto.dev.")
@click.option("--speedscope", metavar="FILE", help="Write a profile to open in www.speedscope.app.")
@click.option(
    "--text",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Write a line for each event; without FILE, or with -, to stdout.",
)
@click.option("--from", "first_cycle", type=_Number(0), default=0, metavar="CYCLE", help="Only from then on.")
@click.option("--to", "last_cycle", type=_Number(0), metavar="CYCLE", help="Only up to then.")
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
        raise CommandError("trace: expected --perfetto FILE, --speedscope FILE or --text")
    return show_trace(run, Wanted(perfetto, speedscope, text, first_cycle, last_cycle))


# --- the checkout --------------------------------------------------------------------------------------


def _checkout(command: str) -> Path:
    if (CHECKOUT / "userland").is_dir() and (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT
    raise CommandError(
        f"{command}: found an installed package, expected a checkout of l4lab with its sources"
    )


@cli.command(
    short_help="Run the tests of this checkout.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGUMENTS]...")
def test(arguments: tuple[str, ...]) -> NoReturn:
    """Run the tests of this checkout. Arguments go to pytest; paths are relative to the checkout.

    \b
    Examples:
      l4lab test                          all but those that download packages
      l4lab test tests/kernel             without the engine, in seconds
      l4lab test -k mapdb -x              some of them, up to the first failure
      l4lab test -m network               wheel and set-up, from scratch
    """
    os.chdir(_checkout("test"))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *arguments])


@cli.command(short_help="Compile what is native; make a wheel.")
@click.option("--force", is_flag=True, help="Compile what is up to date, too.")
@click.option(
    "--update-hashes", is_flag=True, help="Record the bytes of the user programs in userland/HASHES."
)
@click.option("--wheel", is_flag=True, help="Then make a wheel for this platform, in dist/.")
def build(force: bool, update_hashes: bool, wheel: bool) -> int:
    """Build what is native in this checkout: the vCPU shim and the i386 user programs.

    Compiles what changed. `./l4lab` does so by itself; this command is for all that goes beyond.

    \b
    Examples:
      l4lab build --update-hashes    after a change of userland/, before committing it
      l4lab build --wheel            a wheel that installs without a compiler
    """
    from l4lab.tools.native import build as native

    root = _checkout("build")
    result = native.build(root, report=_say, force=force)
    record = root / "userland/HASHES"
    changed = native.differing(native.read_hashes(record), result.hashes)
    if changed and update_hashes:
        native.write_hashes(record, result.hashes)
        _say(f"userland/HASHES: recorded {', '.join(changed)}")
    elif changed:
        line = f"userland/HASHES has other bytes for {', '.join(changed)}; --update-hashes records these"
        if wheel:
            raise CommandError(line)
        _say(line)
    elif not result.rebuilt:
        _say("everything is up to date")
    if wheel:
        command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel"]
        return subprocess.run(command, cwd=root, check=False).returncode
    return 0


# --- the edge ------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    click.echo(f"l4lab: {line}", err=True)


def _guarded(command: Callable[[], Any]) -> int:
    """Run `command`; every way in which it can fail becomes a line and an exit code."""
    try:
        code = command()
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_OPERATOR
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see {context.command_path} --help" if context else ""
        _say(f"{error.format_message().rstrip('.')}{hint}")
        return EXIT_OPERATOR
    except BuildError as error:
        click.echo(error.output, err=True, nl=False)
        _say(str(error))
        return EXIT_OPERATOR
    except OperatorError as error:
        _say(str(error))
        return EXIT_OPERATOR
    except KernelBug as bug:
        _say(f"bug in l4lab's kernel: {bug}")
        return EXIT_KERNEL_BUG
    except SystemExit as left:  # with 1, so do click and rich leave when they find the pipe closed
        return left.code if isinstance(left.code, int) and left.code > 1 else EXIT_CLOSED_PIPE
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _say(f"cannot write: {error.strerror}")
            return EXIT_OPERATOR
        traceback.print_exc()
        _say("bug in l4lab: the lines above say where")
        return EXIT_KERNEL_BUG
    return code if isinstance(code, int) else 0


def main(arguments: list[str] | None = None) -> None:
    """The console script `l4lab`. Leaves by SystemExit."""
    code = _guarded(lambda: cli.main(arguments, prog_name="l4lab", standalone_mode=False))
    try:
        if sys.stdout is not None:  # so it is if it was closed beforehand
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            code = EXIT_CLOSED_PIPE
        elif not code:
            _say(f"cannot write: {error.strerror}")
            code = EXIT_OPERATOR
    sys.exit(code)
