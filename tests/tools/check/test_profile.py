"""`l4lab profile`: the bundled profiles give what was published of their machines, and one that does not is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import BUNDLED_PROFILES
from l4lab.emulator.files.profile import bundled_profiles, load_profile
from l4lab.tools.bench.pingpong_run import Instrument
from l4lab.tools.bench.published import FIGURES, LOWER_BOUND, RATIOS, SEEDS
from l4lab.tools.check.profile import as_document, check, run_check, show_profile


@pytest.mark.parametrize("name", bundled_profiles())
def test_the_bundled_profiles_give_the_published_figures(name: str) -> None:
    with Instrument() as instrument:
        found = check(name, instrument)
    outside = [(figure.what, one.ours) for figure, one in found.figures if not one.within]
    assert (outside, found.within) == ([], True)
    assert all(figure.low <= one.ours <= figure.high for figure, one in found.figures)


def test_the_lower_bound_is_the_sum_of_the_ledgers_parts() -> None:
    """107 cycles for entering and leaving the kernel, five TLB misses of 9, 20 instructions: 172."""
    with Instrument() as instrument:
        found = check("i486-dx50", instrument)
    assert [float(part.ours) for part in found.parts] == [107, 45, 20]
    assert sum(part.ours for part in found.parts) == LOWER_BOUND.cycles == 172


def test_figure_5_agrees_with_one_of_the_papers_two_ratios() -> None:
    with Instrument() as instrument:
        document = as_document(check("opteron-6174", instrument))
    assert [one["agrees"] for one in document["ratios"]] == [True, False]
    assert document["within"] is True


def test_sources_are_seed_documents() -> None:
    for one in (*FIGURES, *RATIOS, LOWER_BOUND):
        names = re.findall(r"\w+\.txt", one.source)
        assert names and set(names) <= set(SEEDS)


@pytest.fixture
def slow_exit(tmp_path: Path) -> str:
    """The Pentium with a kernel exit of 200 cycles instead of 20, under the same name."""
    text = (BUNDLED_PROFILES / "pentium-160.toml").read_text(encoding="utf-8")
    path = tmp_path / "pentium-160.toml"
    path.write_text(
        text.replace("kernel_exit = { cycles = 20,", "kernel_exit = { cycles = 200,"), encoding="utf-8"
    )
    return str(path)


def test_a_profile_that_does_not_give_them_is_found(
    slow_exit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(slow_exit, as_json=False) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "message between" in line)
    assert re.search(r" 305\.\d  +\+152\.\d %  outside *$", line)
    assert run_check(slow_exit, as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["within"] is False
    assert document["figures"][0]["deviation_percent"] == pytest.approx(152, abs=1)


def test_nothing_is_published_of_a_profile_of_ones_own(tmp_path: Path) -> None:
    text = (BUNDLED_PROFILES / "pentium-160.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        text.replace('name = "pentium-160"', 'name = "mine"'), encoding="utf-8"
    )
    with (
        Instrument() as instrument,
        pytest.raises(OperatorError, match='profile "mine": found no published figures'),
    ):
        check(str(tmp_path / "mine.toml"), instrument)


@pytest.mark.parametrize("name", bundled_profiles())
def test_show_has_every_number_and_its_origin(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_profile(name, as_json=False) == 0
    out = capsys.readouterr().out
    profile = load_profile(name)
    for key in (*profile.cpu, *profile.kernel):
        assert re.search(rf"^  {key} +[\d.]+  \S", out, re.MULTILINE), key
    assert show_profile(name, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == profile.resolved()
