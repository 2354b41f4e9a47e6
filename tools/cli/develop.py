"""Commands for a checkout of l4lab itself: `test`, `lint`, `build`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final, NoReturn

import click

from l4lab.emulator.errors import OperatorError
from l4lab.tools.cli.options import checkout
from l4lab.tools.common.say import say

ON_ALL_CORES: Final = ("-n", "auto", "--dist", "worksteal")
"""For pytest. Each process gets a stretch of the tests as they stand, so it seldom makes what a module shares again."""


@click.command(
    short_help="Run the tests of this checkout.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PYTEST ARGUMENTS]...")
def test(arguments: tuple[str, ...]) -> NoReturn:
    """Run the tests of this checkout, on all cores of this host, and say what failed.

    Arguments go to pytest, which has --quick and --all of ours; paths are relative to the checkout. With
    -n 0 everything runs in one process, as -s and --pdb need it.

    \b
    Examples:
      l4lab test                          all but those that take long or download packages
      l4lab test --quick                  a verdict in less than a minute
      l4lab test --all                    all but those that download packages
      l4lab test tests/kernel             without the engine, in seconds
      l4lab test -k mapdb -x              some of them, up to the first failure
      l4lab test -m network               wheel and set-up, from scratch
    """
    root = checkout("test")
    os.chdir(root)
    # Some hosts forbid compiled modules beside their sources. Without any, each of the hundreds of processes that
    # tests start would compile all of ours again.
    environment = {"PYTHONPYCACHEPREFIX": str(root / "build/pycache"), **os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    spread = () if any("no:xdist" in argument for argument in arguments) else ON_ALL_CORES
    os.execve(sys.executable, [sys.executable, "-P", "-m", "pytest", *spread, *arguments], environment)


@click.command(short_help="Check lint, format and types of this checkout.")
@click.option("--fix", is_flag=True, help="Put right what can be, and format.")
def lint(fix: bool) -> int:
    """Run ruff, its formatter and mypy on this checkout; the exit code is 1 if one of them finds something.

    All three run, whatever the first one says. `.ci/run` begins with this, and so does a commit if
    pre-commit is installed.
    """
    root = checkout("lint")
    tools = (
        ("ruff", "check", "--quiet", *(["--fix"] if fix else []), "."),
        ("ruff", "format", "--quiet", *([] if fix else ["--check"]), "."),
        ("mypy",),
    )
    codes = [
        subprocess.run([sys.executable, "-P", "-m", *tool], cwd=root, check=False).returncode
        for tool in tools
    ]
    return int(any(codes))


@click.command(short_help="Compile what is native; make a wheel.")
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

    root = checkout("build")
    try:
        result = native.build(root, report=say, force=force)
    except native.BuildError as error:
        click.echo(error.output, err=True, nl=False)
        raise OperatorError(str(error)) from None
    record = root / "userland/HASHES"
    changed = native.differing(native.read_hashes(record), result.hashes)
    if changed and update_hashes:
        native.write_hashes(record, result.hashes)
        say(f"userland/HASHES: recorded {', '.join(changed)}")
    elif changed:
        line = f"userland/HASHES has other bytes for {', '.join(changed)}; --update-hashes records these"
        if wheel:
            raise OperatorError(line)
        say(line)
    elif not result.rebuilt:
        say("everything is up to date")
    if wheel:
        command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel"]
        return subprocess.run(command, cwd=root, check=False).returncode
    return 0
