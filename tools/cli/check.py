"""Commands that hold us to a standard: `conformance`, `fuzz`, `profile`, and the tests: `check mutation`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from l4lab.tools.cli.options import checkout, json_option

MUTATED_MODULES: Final = ("mapdb", "memory", "ipc", "sched", "timeouts", "capspace", "waiting")


@click.command(short_help="Does the kernel behave as its specification says?")
@json_option()
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


@click.group(
    short_help="Random programs against the kernel; random code against the host's processor.",
    invoke_without_command=True,
)
@click.option(
    "--calls", type=click.IntRange(1), default=100_000, show_default=True, help="System calls to make."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Which calls they are.")
@click.option(
    "--program",
    type=click.IntRange(0),
    metavar="SEED",
    help="Run a random root task instead, and print its log.",
)
@click.option(
    "--first", type=click.IntRange(0), default=0, help="With --program: number of its first episode."
)
@click.option(
    "--episodes",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="With --program: how many episodes.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run the root task of this log of another kernel, and tell the first difference, reduced.",
)
@json_option(".")
@click.pass_context
def fuzz(
    context: click.Context,
    calls: int,
    seed: int,
    program: int | None,
    first: int,
    episodes: int,
    compare: Path | None,
    as_json: bool,
) -> int:
    """Let programs do random things, and check after each that the kernel keeps its rules.

    Random registers, messages, faults and operations of several tasks on several cores; every invariant
    of `kernel/invariants.py`, quotas, and that all memory comes back. The exit code is 1 on a violation,
    which the same seed shows again.

    With --program, a random root task that any kernel with this interface can boot (`random` among the
    programs); it prints what a program can observe, without times and addresses. --compare holds such a
    kernel's console against ours.
    """
    if context.invoked_subcommand is not None:
        own = [
            name
            for name in context.params
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if own:
            raise click.UsageError(
                f"found --{own[0].replace('_', '-')} before `cpu`, expected its options behind it"
            )
        return 0
    if program is not None or compare is not None:
        from l4lab.tools.check.fuzz.programs import compare_with, run_program

        if compare is not None:
            return compare_with(compare)
        return run_program(program or 0, first, episodes)
    from l4lab.tools.check.fuzz.report import run_fuzz

    return run_fuzz(calls=calls, seed=seed, as_json=as_json)


@fuzz.command("cpu", short_help="Random code on our processor and on the host's.")
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True, help="How many cases.")
@click.option(
    "--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first one."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Which cases they are.")
@json_option()
def fuzz_cpu(cases: int, first: int, seed: int, as_json: bool) -> int:
    """Run random user-mode code on the emulated processor and on the host's own, and compare everything.

    Registers, flags, x87 and SSE state, memory, the exception and its place. What the manuals leave open is passed over
    by name and counted; all else is a finding, and the exit code 1. Needs a host with an x86 processor and Linux.

    \b
    l4lab fuzz cpu --cases 1000000
    l4lab fuzz cpu --first 4711 --cases 1     one case again, by its number
    """
    from l4lab.tools.check.fuzz.cpu.report import run_fuzz_cpu

    return run_fuzz_cpu(first=first, count=cases, seed=seed, as_json=as_json)


@click.group()
def profile() -> None:
    """Cost profiles: what is in them, and whether they give what is published."""


@profile.command("show", short_help="Every number of a profile and where it comes from.")
@click.argument("name")
@json_option()
def profile_show(name: str, as_json: bool) -> int:
    """Every number of profile NAME, bundled or the path of one's own, and where it comes from."""
    from l4lab.tools.check.profile import show_profile

    return show_profile(name, as_json=as_json)


@profile.command("check", short_help="Measure what is published of that machine.")
@click.argument("name")
@json_option()
def profile_check(name: str, as_json: bool) -> int:
    """Run the ping-pong on profile NAME and hold it against the published figures of that machine.

    Exit code 1 if one of them is not met within the tolerance that is printed with it.
    """
    from l4lab.tools.check.profile import run_check

    return run_check(name, as_json=as_json)


@click.group()
def check() -> None:
    """Checks of the checkout's own tests."""


@check.command("mutation", short_help="Small bugs planted in the kernel: which do the tests find?")
@click.option(
    "--only", multiple=True, type=click.Choice(MUTATED_MODULES), help="Only this module; repeatable."
)
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Judge at most so many more.")
@click.option(
    "--again", is_flag=True, help="Judge those that survived again, instead of those without a verdict."
)
@click.option(
    "--jobs", type=click.IntRange(1), metavar="N", help="How many at a time.  [default: cores of this host]"
)
@click.option(
    "--session",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where verdicts are kept.  [default: build/mutation.jsonl]",
)
@json_option()
def mutation(
    only: tuple[str, ...],
    limit: int | None,
    again: bool,
    jobs: int | None,
    session: Path | None,
    as_json: bool,
) -> int:
    """Plant the default mutants of mutmut in modules of the kernel, one at a time, and run the tests.

    Each verdict is kept when it is given, so a run that was interrupted goes on where it was, and a function
    that changed is judged anew. The order is that of a hash: any part of it is a fair sample. The exit code is 1
    if a mutant has survived that tests/equivalent_mutants.toml does not call equivalent.

    \b
    l4lab check mutation --limit 200             200 more of some 2,200
    l4lab check mutation --only ipc --again      those of one module that survived, after adding tests
    l4lab check mutation --limit 0               only the figures so far
    """
    from l4lab.tools.check.mutation.report import run_mutation

    return run_mutation(
        checkout("check mutation"),
        only=only or MUTATED_MODULES,
        limit=limit,
        again=again,
        jobs=jobs or os.cpu_count() or 1,
        session=session,
        as_json=as_json,
    )
