"""The books of whole runs: every cycle of every core is booked, once, and the sums are the machine's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from l4lab.emulator.files.inputs import BUNDLED_IMAGES
from l4lab.emulator.results import StopReason
from l4lab.kernel.frame import TLB_MISSES, read_counter
from l4lab.tools.ledger.accounts import ALL_CAUSES, IDLE, USER_CAUSES, accounts, imbalance
from l4lab.tools.runs.rundir import open_run
from support.runs import IMAGES, image, record

CYCLES = 60_000_000


@pytest.mark.parametrize("cores", [1, 4, 8])
@pytest.mark.parametrize("name", IMAGES)
def test_books_balance_and_add_up_to_what_the_machine_counted(name: str, cores: int, tmp_path: Path) -> None:
    machine, result = record(image(name, cores), tmp_path, max_cycles=CYCLES)
    run = open_run(tmp_path)
    assert run.clocks == tuple(core.clock_cycles for core in result.cores)
    assert imbalance(run.row_chunks(), run.cores, run.clocks) is None

    sums = accounts(run)
    user = slice(1, 1 + len(USER_CAUSES))
    assert sums.by_core.sum(axis=1).tolist() == [core.clock_cycles for core in result.cores]
    assert sums.by_core[:, ALL_CAUSES.index("idle")].tolist() == [core.idle_cycles for core in result.cores]
    assert sums.by_core[:, user].sum(axis=1).tolist() == [core.user_cycles for core in result.cores]
    assert int(sums.entries.sum()) == machine.entries
    assert np.array_equal(sum(sums.by_task.values()), sums.by_core.sum(axis=0))
    booked = {run.task_name(task): int(sums.by_task[task][user].sum()) for task in sums.by_task if task >= 0}
    for task in result.tasks:
        # The counters of the tasks round to whole cycles at other moments than the clock does.
        assert booked.pop(task.name.replace("task ", "task #"), 0) == pytest.approx(
            task.user_cycles, rel=1e-3
        )
    assert not booked
    assert IDLE in sums.by_task or result.reason is not StopReason.MAX_CYCLES or cores == 1


def test_refills_are_told_from_instructions(tmp_path: Path) -> None:
    machine, _ = record(image("hello"), tmp_path)
    run = open_run(tmp_path)
    misses = sum(read_counter(thread.frame, TLB_MISSES) for thread in machine.kernel.threads.values())
    misses += sum(task.totals.tlb_misses for task in machine.kernel.ended_tasks)
    refills = accounts(run).by_core.sum(axis=0)[ALL_CAUSES.index("tlb refill")]
    assert misses > 100
    assert refills == pytest.approx(misses * run.tlb_miss_millicycles / 1000, abs=10)


def test_a_run_that_goes_on_after_its_limit_keeps_balanced_books(tmp_path: Path) -> None:
    """The stretch that the limit cuts is booked in two rows."""
    manifest = image("clntsrv")
    record(manifest, tmp_path / "cut", max_cycles=100_001)
    cut = open_run(tmp_path / "cut")
    assert imbalance(cut.row_chunks(), 1, cut.clocks) is None
    assert cut.clocks is not None and cut.clocks[0] >= 100_001


def boot(folder: Path, out: Path, seed: int) -> dict[str, bytes]:
    """`l4lab boot clntsrv.toml --trace` in `folder`, as a process of its own; the files it wrote."""
    subprocess.run(
        [sys.executable, "-P", "-m", "l4lab.tools.cli", "boot", "clntsrv.toml", "--out", str(out), "--trace"],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        check=True,
    )
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_run_directories_of_the_same_inputs_have_the_same_bytes(tmp_path: Path) -> None:
    """Wherever the image lies, wherever the results go, and whatever order hashes have."""
    folders = [tmp_path / "a", tmp_path / "another place"]
    found = []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        shutil.copy(BUNDLED_IMAGES / "clntsrv.toml", folder)
        found.append(boot(folder, folder / f"results of {seed}", seed))
    assert set(found[0]) == {
        *("run.json", "console.txt", "ledger.json", "ledger.bin", "events.bin", "symbols.json", "seal.json")
    }
    assert found[0] == found[1]
