"""`bench`: its commands measure the emulated machine in its cycles, or what emulation costs the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.tools.bench.pma_image import (
    ALLOCATORS,
    DESIGNS,
    MAX_CORES,
    MAX_PAGES,
    MAX_REGION_PAGES,
    MAX_TASKS,
    PmaSetup,
)
from l4lab.tools.cli.options import Decorator, folder_option, json_option, profile_option
from l4lab.tools.common.leaving import leaving_in_order


@click.group()
@click.pass_context
def bench(context: click.Context) -> None:
    """Measure: the engine, the kernel, messages, page allocation."""
    context.with_resource(leaving_in_order())


_OF_THE_HOST: Final = {
    "engine": (
        "User code and kernel entries against bare Unicorn.",
        """How fast user code runs, and how dear it is to enter the kernel, against bare Unicorn.

        Ratios of measurements in one run; at 1 the counting of every instruction costs nothing. Takes a
        few seconds. Host times, so no two runs agree to the digit.
        """,
    ),
    "debug": (
        "What debugging costs the host, and the way back in time.",
        """Speed under the debugger against that without, with breakpoints set; and how long a step back takes.

        Takes less than a minute. Host times, so no two runs agree to the digit.
        """,
    ),
    "kernel": (
        "What kernel entries cost the host.",
        """What kernel entries cost the host, by kind, and that the cost does not grow.

        System calls, IPC within and between address spaces, page faults; then IPC with many threads,
        tasks, mappings and cores around. Takes about a minute. Host times and emulated cycles.
        """,
    ),
    "scale": (
        "What many cores cost the host.",
        """Host time for a kernel entry with 1, 12 and 48 busy cores, and with 47 idle ones.

        A ping-pong pair runs on each busy core. Takes about a quarter of a minute. Host times, so no two
        runs agree to the digit.
        """,
    ),
}
"""Name -> one line and more about it; the work is in the module of that name in `tools/bench/host`."""


def _add_bench_of_the_host(name: str, short_help: str, help_text: str) -> None:
    @bench.command(name, short_help=short_help, help=help_text)
    @json_option()
    @click.option(
        "--check",
        is_flag=True,
        help="Exit code 1 if a figure misses what is promised; one run of three has to keep it.",
    )
    def run(as_json: bool, check: bool) -> int:
        from l4lab.tools.bench.host.limits import run_bench

        return run_bench(name, as_json=as_json, check=check)


for _name, _texts in _OF_THE_HOST.items():
    _add_bench_of_the_host(_name, *_texts)


@bench.command(short_help="What a message costs, in every place and size.")
@profile_option()
@json_option(" instead of the tables.")
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
    from l4lab.tools.bench.pingpong_report import run_bench

    return run_bench(profile, as_json=as_json, sel4bench=sel4bench)


_PMA: Final = PmaSetup()


def _of_setup(name: str, kind: click.ParamType[Any], help_text: str) -> Decorator:
    """The option that chooses a field of `PmaSetup`, by default as it is there."""
    return click.option(
        f"--{name}", type=kind, default=getattr(_PMA, name), show_default=True, help=help_text
    )


@bench.command(short_help="Page allocation: one pager for all cores, or one on each.")
@_of_setup(
    "design",
    click.Choice(list(DESIGNS)),
    "Who serves page faults: a pager on each core, one on core 0, or a region map and one server.",
)
@_of_setup("cores", click.IntRange(1, MAX_CORES), "A process on each.")
@_of_setup("pages", click.IntRange(1, MAX_PAGES), "In one task.")
@_of_setup("tasks", click.IntRange(1, MAX_TASKS), "Of each process, one after the other.")
@_of_setup("allocator", click.Choice(ALLOCATORS), "How servers keep their free page frames.")
@click.option("--clear", is_flag=True, help="Servers zero each frame before they give it out.")
@click.option(
    "--chunk", "chunk_pages", type=click.IntRange(1, MAX_PAGES), metavar="N", help="Pages in one allocation."
)
@click.option(
    "--region",
    "region_pages",
    type=click.IntRange(1, MAX_REGION_PAGES),
    metavar="N",
    help="Pages that each server gets.",
)
@_of_setup("ram", click.STRING, "Of the machine, as in a manifest.")
@profile_option()
@_of_setup(
    "tlb",
    click.Choice(["full", "page", "switch"]),
    "What unmap does to TLBs: flush all, just the page, or nothing if a switch comes anyway.",
)
@_of_setup(
    "idle",
    click.Choice(["halt", "poll"]),
    "What idle cores do: halt, and take time to wake, or look for interrupts all the time.",
)
@json_option(" instead of the summary.")
@folder_option("Write a run directory with ledger.")
@click.option("--trace", is_flag=True, help="With --out: record all events for `l4lab trace`.")
@click.option("--manifest", "manifest_only", is_flag=True, help="Print the image's manifest and run nothing.")
def pma(
    profile: str, as_json: bool, out: Path | None, trace: bool, manifest_only: bool, **of_setup: Any
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
    from l4lab.tools.bench.pma_run import run_bench

    if manifest_only and (as_json or out is not None or trace):
        raise OperatorError("--manifest only prints the manifest: --json, --out and --trace are about a run")
    path = str(Path(profile).absolute()) if is_path(profile) else profile
    setup = PmaSetup(profile=path, **of_setup)
    if manifest_only:
        click.echo(setup.manifest(), nl=False)
        return 0
    if trace and out is None:
        raise OperatorError("--trace writes to the folder of --out: expected --out DIR, too")
    return run_bench(setup, as_json=as_json, out=out, trace=trace)
