"""`l4lab bench scale`, with runs so short that its figures mean nothing: they are there and belong together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from l4lab.tools.bench.host import scale
from l4lab.tools.bench.host.limits import run_bench


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "TURNS", 1)
        patch.setattr(scale, "PAIR_CYCLES", 240_000)
        patch.setattr(scale, "WARM_UP_CYCLES", 2_000_000)
        return scale.measure()


def test_the_document(document: dict[str, Any]) -> None:
    cost = document["entry_us"]
    assert cost.keys() == {"1", "12", "48"}
    assert all(0.1 < one < 1000 for one in cost.values())
    assert document["entry_cost_48_over_1"] == pytest.approx(cost["48"] / cost["1"], rel=0.02)
    overhead = document["entry_us_idle_cores"] / cost["1"] - 1
    assert document["idle_cores_overhead"] == pytest.approx(overhead, abs=0.02)
    assert document["limits"] == {"entry_cost_48_over_1": 1.3, "idle_cores_overhead": 0.02}


def test_both_ways_to_print_it(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "measure", lambda: document)
    assert run_bench("scale", as_json=True, check=False) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert run_bench("scale", as_json=False, check=False) == 0
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["cores", "1 busy", "12 busy", "48 busy", "1 busy, 47 idle"]
