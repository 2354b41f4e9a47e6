"""Do the books of a machine balance, that kept its ledger in memory?"""

from __future__ import annotations

import numpy as np

from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import Machine
from l4lab.tools.ledger.accounts import imbalance
from l4lab.tools.runs.rundir import ROW


def check_balance(machine: Machine, ledger: Ledger) -> None:
    """Every core's rows follow one another without gap and add up to its clock."""
    rows = np.frombuffer(ledger.row_data(), ROW)
    assert len(rows) > 0
    clocks = [core.clock_cycles for core in machine.cores]
    assert imbalance([rows], len(clocks), clocks) is None
