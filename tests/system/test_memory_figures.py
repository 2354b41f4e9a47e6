"""The figures of the memory experiment, from real runs that are as small as they can be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from l4lab.tools.bench.pma_experiment import FULL, QUICK, Plan, Results, Sizes, looking_into, measuring
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.bench.pma_ledger import BARS, UNDER_WAY, WAITING, page_cycles
from l4lab.tools.bench.pma_run import BenchmarkError, run_pma
from l4lab.tools.paper import demo
from l4lab.tools.paper.catalogue import FIGURES
from l4lab.tools.paper.outcome import Outcome
from l4lab.tools.paper.reproduce import module_of, needs_runs, reproduce
from l4lab.tools.runs import campaign
from l4lab.tools.runs.campaign import Finished
from l4lab.tools.runs.rundir import open_run

TINY = Sizes(
    name="tiny",
    cores=(1, 3),
    pages=10,
    tasks=1,
    outstanding=(5, 20),
    outstanding_cores=(1, 3),
    outstanding_pages=20,
    ledger_tasks=1,
)
PLAN = Plan(TINY)
MANY_RUNS = {"fig4", "page_cycles"}
NEED_RUNS = [name for name in FIGURES if needs_runs(module_of(name))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Finished]:
    """All runs of all figures; done here, one after the other."""
    found = {}
    for name in NEED_RUNS:
        for job in module_of(name).jobs(PLAN):
            if job.key not in found:
                found[job.key] = Finished(job.work(lambda _: None), 0.1)
    return found


def figure(name: str, finished: Mapping[str, Finished]) -> Outcome:
    module = module_of(name)
    outcome = module.measure(Results(PLAN, finished))
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in MANY_RUNS)) for name in NEED_RUNS]
)
def test_a_figure_is_drawn_and_explained(tmp_path: Path, finished: Mapping[str, Finished], name: str) -> None:
    """PNG, SVG, numbers, a page with the paper's statements and ours; the same bytes each time."""
    pytest.importorskip("matplotlib")
    outcome = figure(name, finished)
    for folder in ("one", "two"):
        reproduce(name, tmp_path / folder, lambda _: outcome, f"l4lab reproduce {name}")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {f"{name}.png", f"{name}.svg", "data.json", "README.md", "SHA256SUMS"}
    for file in names:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    page = (tmp_path / "one/README.md").read_text()
    for residual in outcome.residuals:
        assert residual.what in page
    document = json.loads((tmp_path / "one/data.json").read_text())
    assert document["configurations"]


def test_ratios_are_those_of_the_runs(finished: Mapping[str, Finished]) -> None:
    """One core is 1; what figure 4 says is what the runs said."""
    results = Results(PLAN, finished)
    one, three = (results.of(PLAN.scaling("single", cores))["alloc_cycles"] for cores in (1, 3))
    assert results.ratios("single", "alloc_cycles") == [1.0, three / one]
    (ours,) = [r.ours for r in figure("fig4", finished).residuals if r.what.startswith("single: allocation")]
    assert ours == three / one > 2


def test_pagers_on_each_core_lose_nothing(finished: Mapping[str, Finished]) -> None:
    """The paper's point, within a hundredth."""
    for name in ("fig10", "fig11"):
        for residual in figure(name, finished).residuals:
            if "loss" in residual.what:
                assert residual.ours == pytest.approx(0, abs=1)
                assert residual.unit == "%" and not residual.within
    assert "0.0 are spent on anything that other cores have part in" in " ".join(
        figure("fig10", finished).remarks
    )


@pytest.mark.parametrize(("design", "cores"), [("single", 1), ("percore", 2), ("single", 3), ("l4re", 2)])
def test_the_ledger_accounts_for_every_cycle_of_a_page(tmp_path: Path, design: str, cores: int) -> None:
    """The parts make up the time from the fault, or the call, until the process runs on."""
    setup = PmaSetup(design=design, cores=cores, pages=10, tasks=2)
    result = run_pma(setup, out=tmp_path)
    pages = page_cycles(open_run(tmp_path), setup)
    allocation = pages["allocation"]
    assert allocation.count == cores * 20
    assert tuple(allocation.parts) == BARS
    assert sum(allocation.parts.values()) >= allocation.elapsed
    touch = result.mean("touch") / 20
    assert 0 < touch - allocation.elapsed < 0.06 * touch  # the loop that touches, entering the kernel
    if design == "l4re":
        return
    assert pages["free"].count == cores * 20
    if design == "percore" or cores == 1:  # nobody else is involved, so there is nothing but work
        for sums in pages.values():
            assert sums.parts[WAITING] == sums.parts[UNDER_WAY] == 0
            assert sum(sums.parts.values()) == pytest.approx(sums.elapsed, rel=0.001)
    else:
        assert allocation.parts[WAITING] > allocation.elapsed / 4


def test_jobs_have_keys_of_their_own() -> None:
    """A run with a ledger is another one than without; sizes and profiles count."""
    setups = [Plan(sizes).scaling("single", cores) for sizes in (FULL, QUICK) for cores in (1, 48)]
    keys = [measuring(setup).key for setup in setups] + [looking_into(setups[0]).key]
    assert len(set(keys)) == 5


def test_the_demo_measures_messages_anew_on_another_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is of one profile and one program."""
    before = demo.messages_key()
    monkeypatch.setattr(demo, "PROFILE", "pentium-160")
    assert demo.messages_key() != before


def test_a_run_that_is_not_in_order_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather nothing than a wrong point."""
    monkeypatch.setattr("l4lab.tools.bench.pma_run.books_balance", lambda _: False)
    with pytest.raises(BenchmarkError, match="a run is not in order: the cycles of tasks, kernel and idling"):
        measuring(PLAN.scaling("percore", 1)).work(lambda _: None)


def test_the_demo_shows_three_programs_and_the_main_job(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each program cost; a table whose last row says it all; a figure. The second time it is all kept."""
    monkeypatch.chdir(tmp_path)
    campaign.code_digest.cache_clear()  # of whoever works on the code while tests run
    monkeypatch.setattr(demo, "CORES", (1, 4))
    monkeypatch.setattr(campaign, "host_workers", lambda: 2)
    assert demo.run_demo() == 0
    first = capfdbinary.readouterr().out
    text = first.decode()
    assert text.startswith("Hello from hello!")
    rows = re.findall(r"^(\S.*?)((?:  +\d[\d ]*){5})$", text, re.M)
    assert [rows[0][0], rows[1][0], rows[-1][0]] == ["sigma0", "root", "all"]
    numbers = [[int(cell.replace(" ", "")) for cell in re.split("  +", cells.strip())] for _, cells in rows]
    assert numbers[-1] == [sum(column) for column in zip(*numbers[:-1], strict=True)]
    assert "With 4 cores, one pager takes" in text
    assert "a pager on each core 1.00 times" in text
    assert (tmp_path / "l4lab-out/demo/demo.svg").exists()
    monkeypatch.setattr(campaign, "_worker", None)  # nothing is run again
    assert demo.run_demo() == 0
    assert capfdbinary.readouterr().out == first
