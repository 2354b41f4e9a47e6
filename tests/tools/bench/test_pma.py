"""`l4lab bench pma`: that a run which is not in order is noticed, and the command line around it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from l4lab.emulator.results import CoreStats, RunResult, StopReason, TaskStats
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.bench.pma_run import books_balance, examine
from support.command import call

SETUP = PmaSetup(cores=2, pages=5, tasks=2)
CONSOLE = """\
loader: percore: 12 x 4 MiB for 2 servers
process number=0 begin=100 end=600 allocation=10 touch=200 free=290 tasks=2 pages=10 errors=0
process number=1 begin=100 end=700 allocation=20 touch=250 free=310 tasks=2 pages=10 errors=0
client name=pma.0 server=pager.0 left=0
client name=pma.1 server=pager.1 left=0
server name=pager.0 cpu=0 region=99 pages=90 in_use=0 in_tables=0 allocated=11 released=11 requests=20
server name=pager.1 cpu=1 region=99 pages=90 in_use=0 in_tables=0 allocated=11 released=11 requests=20
"""


def task(name: str, page_faults: int, user_cycles: int) -> TaskStats:
    return TaskStats(
        name=name,
        page_faults=page_faults,
        system_calls=9,
        instructions=99,
        user_cycles=user_cycles,
        tlb_misses=9,
    )


GOOD = RunResult(
    reason=StopReason.ROOT_ENDED,
    exit_code=0,
    cycles=1000,
    cores=(CoreStats(1000, 300, 600, 100), CoreStats(900, 200, 600, 100)),
    tasks=(task("root", 7, 100), task("pma.0", 10, 200), task("pma.1", 10, 200)),
    console=CONSOLE.encode(),
    warnings=(),
)


def test_a_run_that_is_in_order_gives_its_figures() -> None:
    """Means over the processes; the whole from the common start to the last end."""
    result = examine(SETUP, GOOD, {})
    assert result.problems == ()
    assert result.total_cycles == 600
    assert result.alloc_cycles == (210 + 270) / 2
    assert result.free_cycles == 300
    document = result.as_dict()
    assert document["alloc_cycles_per_page"] == 24.0
    assert (document["frames_leaked"], document["books_balance"]) == (0, True)


@pytest.mark.parametrize(
    ("found", "changed", "problem"),
    [
        ("errors=0", "errors=3", "3 frees were refused"),
        ("pager.1 left=0", "pager.1 left=4", "4 pages not freed by processes, 0 not by servers"),
        ("in_use=0", "in_use=1", "0 pages not freed by processes, 1 not by servers"),
        ("pages=10 errors", "pages=9 errors", "a process did not get through its 10 pages"),
        ("released=11", "released=10", "pager.0 gave out 11 frames and took back 10"),
        ("allocated=11", "allocated=8", "servers gave out 19 frames, fewer than there were faults"),
        ("begin=100 end=700", "begin=1101 end=700", "the processes started up to 1001 cycles apart"),
        ("process number=1 ", "process? ", "1 processes reported, expected 2"),
        ("server name=pager.1", "server? ", "a server did not report"),
    ],
)
def test_what_the_programs_report_is_checked(found: str, changed: str, problem: str) -> None:
    """Each count that does not fit is a problem of its own."""
    console = CONSOLE.replace(found, changed, 1)
    assert console != CONSOLE
    assert problem in examine(SETUP, dataclasses.replace(GOOD, console=console.encode()), {}).problems


def test_the_kernel_s_count_of_page_faults_is_what_counts() -> None:
    """A process that faulted more often than it touched pages was disturbed."""
    tasks = (GOOD.tasks[0], task("pma.0", 11, 200), GOOD.tasks[2])
    problems = examine(SETUP, dataclasses.replace(GOOD, tasks=tasks), {}).problems
    assert problems == ("pma.0: the kernel counted 11 page faults, expected 10",)


def test_books_that_do_not_balance_are_told() -> None:
    """A cycle of user code that no clock shows."""
    tasks = (*GOOD.tasks[:2], task("pma.1", 10, 201))
    result = dataclasses.replace(GOOD, tasks=tasks)
    assert not books_balance(result)
    assert not examine(SETUP, result, {}).books_balance


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("bench", "pma", *arguments)


def test_json_has_what_programs_ask_for() -> None:
    """The keys that the documentation names."""
    done = bench("--design", "percore", "--cores", "2", "--pages", "10", "--tasks", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["frames_leaked"] == 0
    assert document["books_balance"] is True
    assert document["total_cycles"] > document["alloc_cycles"] > document["free_cycles"] * 0.5 > 0
    assert document["configuration"]["machine"]["cores"] == 2
    assert set(document["versions"]) >= {"l4lab", "unicorn", "programs"}


def test_a_mistake_is_one_line() -> None:
    """Exit code 2, and nothing on stdout."""
    for arguments in (
        ("--cores", "65"),
        ("--ram", "8MiB"),
        ("--design", "none"),
        ("--profile", "none"),
        ("--chunk", "4294967297"),
        ("--region", "4294967297"),
        ("--manifest", "--json"),
    ):
        done = bench(*arguments, "--tasks", "1")
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("l4lab: ")
        assert done.stderr.count("\n") == 1


def test_the_defaults_are_the_description_s() -> None:
    """Written down in one place."""
    assert bench("--manifest").stdout == PmaSetup().manifest()


def test_the_manifest_can_be_had(tmp_path: Path) -> None:
    """To boot it, to debug it, to change it."""
    done = bench("--design", "l4re", "--cores", "3", "--manifest")
    assert done.returncode == 0
    assert "--design=l4re --cores=3" in done.stdout
    assert "cores = 3" in done.stdout
