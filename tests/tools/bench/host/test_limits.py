"""`l4lab bench … --check`: one run of three has to keep what is promised, and what none keeps is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from l4lab.tools.bench.host import limits
from l4lab.tools.bench.host.limits import Limits

PROMISED = Limits(at_least={"ratio": 0.5}, at_most={"seconds": 2})


def bench(
    *runs: dict[str, Any], check: bool = True
) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """Exit code, what was shown, which runs were not needed."""
    left: Iterator[dict[str, Any]] = iter(runs)
    shown: list[dict[str, Any]] = []
    code = limits.run(lambda: next(left), shown.append, PROMISED, as_json=False, check=check)
    return code, shown, list(left)


GOOD = {"ratio": 0.5, "seconds": 2.0}
SLOW = {"ratio": 0.25, "seconds": 3.0}


def test_a_run_within_all_limits_is_enough() -> None:
    assert bench(GOOD, SLOW) == (0, [GOOD], [SLOW])


def test_a_disturbed_run_is_made_again_and_figures_count_one_by_one() -> None:
    first, second = {"ratio": 0.6, "seconds": 3.0}, {"ratio": 0.4, "seconds": 1.5}
    assert bench(first, second, SLOW) == (0, [second], [SLOW])


def test_what_no_run_keeps_is_named_with_the_best_measured(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [SLOW, {"ratio": 0.4375, "seconds": 1.0}, SLOW]
    assert bench(*runs) == (1, [SLOW], [])
    assert capsys.readouterr().err == "l4lab: ratio: measured 0.438, promised at least 0.5\n"
    assert bench(SLOW, SLOW, SLOW)[0] == 1
    assert capsys.readouterr().err.splitlines()[1] == "l4lab: seconds: measured 3.000, promised at most 2"


def test_without_check_limits_are_nobodys_business(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(SLOW, GOOD, check=False) == (0, [SLOW], [GOOD])
    assert capsys.readouterr().err == ""
