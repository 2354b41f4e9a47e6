"""`l4lab bench debug`: it measures what it says. Whether that is as fast as promised says its `--check`."""

from __future__ import annotations

import dataclasses
import json

import pytest

from l4lab.kernel.errors import KernelBug
from l4lab.tools.bench.host import debug
from l4lab.tools.bench.host.engine import LOOPS
from l4lab.tools.bench.host.limits import run_bench
from l4lab.tools.bench.pma_image import PmaSetup


def test_a_loop_that_does_other_work_is_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "LOOP_ROUNDS", 2)
    loop = dataclasses.replace(LOOPS[0], iterations=1000)
    assert min(debug.measure_loop(loop)) > 0
    with pytest.raises(KernelBug, match="after 6001 instructions, expected 7001"):
        debug.measure_loop(dataclasses.replace(loop, instructions=7))


def test_a_small_run_has_all_figures_in_json_and_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debug, "RUN", PmaSetup(cores=2, pages=20, tasks=5))
    monkeypatch.setattr(debug, "ROUNDS", 1)
    monkeypatch.setattr(debug, "LOOPS", [dataclasses.replace(loop, iterations=1000) for loop in LOOPS])
    monkeypatch.setattr(debug, "LOOP_ROUNDS", 1)
    assert run_bench("debug", as_json=True, check=False) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {*debug.LIMITS.at_least, *debug.LIMITS.at_most} <= set(figures)
    assert figures["cycles"] > 1_000_000
    monkeypatch.setattr(debug, "measure", lambda: figures)
    assert run_bench("debug", as_json=False, check=False) == 0
    table = capsys.readouterr().out
    assert f"step back: {figures['reverse_step_seconds']:.2f} s at most" in table
