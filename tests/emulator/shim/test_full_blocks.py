"""No block of code ends the process, whatever it is filled with: each sweep runs in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import full_blocks
from support.full_blocks import DONE, MARK, cases

TESTS = Path(full_blocks.__file__).parents[1]
PROCESSES = 2


@pytest.mark.parametrize("sample", ["short", pytest.param("all", marks=pytest.mark.slow)])
def test_blocks_filled_with_one_instruction(tmp_path: Path, sample: str) -> None:
    """470 `into` in one block did: the translator has room for 512 temporaries, and does not look."""
    sweeps = []
    for first in range(PROCESSES):
        mark = tmp_path / f"mark{first}"
        mark.write_bytes(MARK.pack(DONE - 1))
        arguments = [sys.executable, full_blocks.__file__, str(mark), sample, str(first), str(PROCESSES)]
        sweep = subprocess.Popen(
            arguments, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=subprocess.PIPE, text=True
        )
        sweeps.append((mark, sweep))
    died = []
    for mark, sweep in sweeps:
        _, errors = sweep.communicate()
        (number,) = MARK.unpack(mark.read_bytes())
        if sweep.returncode or number != DONE:
            case = cases(sample)[number] if number >= 0 else "the start"
            died.append(f"{case}: exit code {sweep.returncode} {errors[-500:]}")
    assert died == []
