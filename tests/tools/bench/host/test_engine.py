"""`l4lab bench engine`: it measures what it says. Whether that is as fast as promised says its `--check`."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import EBX, ECX, ESI
from l4lab.tools.bench.host import engine
from l4lab.tools.bench.host.engine import DATA_ADDRESS, LOOPS, SYSTEM_CALL_CODE, BareEngine, Guest
from l4lab.tools.bench.host.limits import run_bench


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_all_sides_of_a_ratio_do_the_same_work(loop: engine.Loop) -> None:
    """After as many rounds, registers and data are those of the engine alone."""
    iterations = 3000
    guest = Guest(loop.code + SYSTEM_CALL_CODE)
    frame = guest.thread()
    frame[ECX], frame[EBX], frame[ESI] = iterations, DATA_ADDRESS, 0
    guest.run(frame)
    ours = list(frame[:8]), bytes(guest.ram.bytes_[19 << 12 : 20 << 12])
    for fill_tlb in (False, True):
        bare = BareEngine(loop.code, engine.CODE_ADDRESS, DATA_ADDRESS, fill_tlb=fill_tlb)
        bare.run_seconds({"ecx": iterations, "ebx": DATA_ADDRESS, "esi": 0})
        assert bare.state() == ours


def test_miscounted_instructions_are_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROUNDS", 2)
    loop = dataclasses.replace(LOOPS[0], iterations=1000)
    rates = engine.measure_loop(loop)
    assert min(rates.values()) > 0
    with pytest.raises(KernelBug, match="register loop: counted 12002 instructions, expected 14002"):
        engine.measure_loop(dataclasses.replace(loop, instructions=7))


def test_table_and_json_show_the_same_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {
        **{name: max(bound, 0.875) for name, bound in engine.LIMITS.at_least.items()},
        **{f"{loop.name}_loop_ratio_with_tlb": 0.875 for loop in LOOPS},
        **dict.fromkeys(engine.LIMITS.at_most, 1.5),
        "mips": {
            loop.name: {"engine_alone": 100.0, "engine_with_tlb": 90.0, "l4lab": 80.0} for loop in LOOPS
        },
        "entry_us": {"stock_binding": 2.0, "l4lab": 1.0},
    }
    monkeypatch.setattr(engine, "measure", lambda: figures)
    assert run_bench("engine", as_json=True, check=True) == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert run_bench("engine", as_json=False, check=False) == 0
    table = capsys.readouterr().out
    assert re.search(r"memory loop, MIPS +100 +90 +80 +0\.88, 0\.88\n", table)
    assert "48 cores: made in 1.50 s, 2 MiB resident" in table
