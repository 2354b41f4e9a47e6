"""A thread that does nothing but trap keeps its core no longer than its time slice: ticks come to it, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import StopReason
from l4lab.kernel.invariants import check_all
from support.books import check_balance
from support.programs import compile_program

KINDS = ("port", "divide", "undefined", "pager")
MOST_CYCLES = 400_000_000
EXPECTED = [*"12345", "worked 1"]


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("stuck.c").read_text(encoding="utf-8")
    return compile_program(source, tmp_path_factory.mktemp("stuck") / "stuck")


def manifest(stuck: Path, kind: str, cores: int = 1) -> Manifest:
    path = stuck.with_name(f"{kind}.toml")
    path.write_text(
        f'[machine]\ncores = {cores}\nram = "16MiB"\n[boot]\nsigma0 = "sigma0"\nroottask = "stuck {kind} 50"\n',
        encoding="utf-8",
    )
    return load_manifest(path)


@pytest.mark.parametrize("kind", KINDS)
def test_others_get_their_time(stuck: Path, kind: str) -> None:
    """Whoever sleeps is woken, and a thread of the same priority gets its turn."""
    ledger = Ledger()
    with Machine(manifest(stuck, kind), ledger=ledger) as machine:
        result = machine.run(MOST_CYCLES)
        check_balance(machine, ledger)
        check_all(machine.kernel)
    assert result.console.decode().splitlines() == EXPECTED
    assert result.reason is StopReason.ROOT_ENDED


def test_a_debugger_sees_the_same(stuck: Path) -> None:
    """Stretches that are cut in pieces are stuck at the same cycles."""
    image = manifest(stuck, "divide")
    with Machine(image) as machine:
        result = machine.run(MOST_CYCLES)
    with DebuggedMachine(image, limit_cycles=MOST_CYCLES) as debugged:
        debugger = Debugger(debugged)
        for cycle in (3_000_000, 3_000_500, 2_000_000, 9_000_000, 1 << 60):
            debugger.go_to_clock(0, cycle)
        assert debugged.cores[0].clock_cycles == result.cycles
        assert bytes(debugged.output) == result.console
