"""`l4lab books` on ledgers with known content, and on spoilt ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import DeadlineReached, Interrupt, SystemCall
from l4lab.tools.ledger import accounts as module
from l4lab.tools.ledger.accounts import ALL_CAUSES, IDLE, INTERRUPTS, accounts, imbalance
from l4lab.tools.runs.rundir import EVENT, ROW, Records, Run, open_run
from support.command import call
from support.runs import image, record


def rows(*given: dict[str, int]) -> Records:
    """Rows with the named columns; 0 in all others."""
    table = np.zeros(len(given), ROW)
    for number, values in enumerate(given):
        for name, value in values.items():
            table[name.replace("_", " ") if name.replace("_", " ") in ROW.fields else name][number] = value
    return table


def run_of(table: Records, clocks: tuple[int, ...], homes: dict[int, int]) -> Run:
    return Run(
        folder=Path("run"),
        document={},
        rows=table,
        events=np.zeros(0, EVENT),
        cores=len(clocks),
        clocks=clocks,
        profile="none",
        mhz=1000,
        tlb_miss_millicycles=10_500,
        fpu_switch_millicycles=100_000,
        trace=False,
        names={},
        homes=homes,
    )


TWO_CORES = rows(
    {"start": 0, "entry": 0, "core": 0, "trap": Interrupt.number, "schedule": 100},
    {"start": 100, "entry": 160, "core": 0, "thread": 7, "tlb_misses": 2, "ipc": 40},
    {"start": 0, "entry": 500, "core": 1, "trap": Interrupt.number, "schedule": 50},
    {
        "start": 200,
        "entry": 300,
        "core": 0,
        "thread": 7,
        "tlb_misses": 3,
        "trap": DeadlineReached.number,
        "timer": 9,
    },
    {"start": 550, "entry": 800, "core": 1, "thread": 8, "fpu_switches": 1, "tlb_misses": 2, "map": 200},
)


def test_rows_that_follow_one_another_balance() -> None:
    assert imbalance([TWO_CORES], 2, (309, 1000)) is None
    assert imbalance([TWO_CORES[:2], TWO_CORES[2:3], TWO_CORES[3:]], 2, (309, 1000)) is None
    assert imbalance([], 1, (0,)) is None


@pytest.mark.parametrize(
    ("row", "column", "value", "core", "cycle", "problem"),
    [
        (3, "start", 201, 0, 201, "a row starts here, the one before ends at 200"),
        (1, "ipc", 41, 0, 200, "a row starts here, the one before ends at 201"),
        (4, "entry", 540, 1, 550, "a row starts here and enters the kernel at 540"),
        (4, "map", 201, 1, 1001, "the rows end here, the clock stands at 1000"),
        (2, "core", 2, 2, 0, "there are only 2 cores"),
        (0, "start", 1, 0, 1, "a row starts here, the one before ends at 0"),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 5])
def test_the_first_break_is_named(
    row: int, column: str, value: int, core: int, cycle: int, problem: str, piece: int
) -> None:
    spoilt = TWO_CORES.copy()
    spoilt[column][row] = value
    pieces = [spoilt[first : first + piece] for first in range(0, len(spoilt), piece)]
    found = imbalance(pieces, 2, (309, 1000))
    assert found is not None
    assert (found.core, found.cycle, found.problem) == (core, cycle, problem)


@pytest.mark.parametrize("piece", [1, 2, 5])
def test_sums_by_core_and_task(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4lab.tools.runs.rundir.CHUNK_RECORDS", piece)
    sums = accounts(run_of(TWO_CORES, (309, 1000), {7: 3, 8: 4}))

    def named(values: module.Integers) -> dict[str, int]:
        return {cause: n for cause, n in zip(ALL_CAUSES, values.tolist(), strict=True) if n}

    # 2 misses of 10.5 cycles are 21, 3 are 31.5, of which the clock has counted 31
    assert named(sums.by_core[0]) == {"user": 129, "tlb refill": 31, "ipc": 40, "schedule": 100, "timer": 9}
    assert named(sums.by_core[1]) == {
        "idle": 500,
        "user": 129,
        "tlb refill": 21,
        "fpu switch": 100,
        "schedule": 50,
        "map": 200,
    }
    assert {task: named(values) for task, values in sums.by_task.items()} == {
        3: {"user": 129, "tlb refill": 31, "ipc": 40},
        4: {"user": 129, "tlb refill": 21, "fpu switch": 100, "map": 200},
        INTERRUPTS: {"schedule": 150, "timer": 9},
        IDLE: {"idle": 500},
    }
    assert sums.entries.tolist() == [3, 2]
    assert sums.task_entries == {3: 1, 4: 1, INTERRUPTS: 3}


def test_counters_may_go_round_and_may_be_gone() -> None:
    """A thread's count of TLB misses wraps at 2**32; that of one ended by another core reads zero."""
    table = rows(
        {"start": 0, "entry": 10**9, "thread": 7, "tlb_misses": 2**30},
        {"start": 10**9, "entry": 10**9 + 100, "thread": 7, "tlb_misses": 2**30 + 1},
    )
    table = np.concatenate([table, table, table, table, table, table, table, table, table])
    table["tlb misses"] = (np.arange(len(table)) + 1) * 2**30 % 2**32
    table["tlb misses"][-1] = 0
    splitter = module.UserSplitter(run_of(table, (0,), {}))
    table["entry"] = table["start"] + 2**40
    refill = splitter.split(table)["tlb refill"]
    assert set(refill[:-1].tolist()) == {2**30 * 10_500 // 1000}
    assert refill[-1] == 2**30 * 10_500 // 1000 if len(table) % 4 == 0 else refill[-1] == 0


def test_every_cause_of_the_kernel_is_summed() -> None:
    table = rows({"thread": 1, "trap": SystemCall.number, **dict.fromkeys(CAUSE_NAMES, 1)})
    assert accounts(run_of(table, (len(CAUSE_NAMES),), {})).by_core.sum() == len(CAUSE_NAMES)


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hello"
    record(image("hello"), folder)
    return folder


def test_tables_show_every_core_and_task(hello: Path) -> None:
    done = call("books", hello)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the books balance: ")
    lines = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert [line for line in lines if line in ("0", "1", "2", "3", "all")] == ["0", "1", "2", "3", "all"]
    for word in ("user", "tlb refill", "kernel entry", "map", "sigma0", "root", "hello"):
        assert word in lines


def test_json_has_what_the_tables_have(hello: Path) -> None:
    done = call("books", "--json", hello)
    document = json.loads(done.stdout)
    assert document["balanced"] is True
    clocks = open_run(hello).clocks
    assert clocks is not None
    assert [core["cycles"] for core in document["cores"]] == list(clocks)
    for line in [*document["cores"], *document["tasks"]]:
        assert sum(line["causes"].values()) == line["cycles"]
    assert sum(task["cycles"] for task in document["tasks"]) == sum(clocks)


@pytest.mark.parametrize("as_json", [False, True])
def test_books_that_do_not_balance_are_told_in_one_line(hello: Path, as_json: bool, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hello, tmp_path / "run"))
    table = np.fromfile(folder / "ledger.bin", ROW)
    table["map"][10] += 1
    table.tofile(folder / "ledger.bin")
    (folder / "seal.json").unlink()
    done = call("books", folder, *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert f"the books do not balance: core 0, cycle {table['start'][11]}: a row starts here" in done.stderr
    assert done.stderr.count("\n") == 1
    if as_json:
        document = json.loads(done.stdout)
        assert document["balanced"] is False
        assert (document["imbalance"]["core"], document["imbalance"]["cycle"]) == (0, table["start"][11])
    else:
        assert done.stdout == ""
