"""`l4lab reproduce`: complete results directories, the same bytes whatever the host does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from l4lab.emulator.errors import OperatorError
from l4lab.tools.bench.published import Residual
from l4lab.tools.cli.main import cli
from l4lab.tools.common import plots
from l4lab.tools.common.plots import PlotError
from l4lab.tools.paper import catalogue
from l4lab.tools.paper.catalogue import FIGURES
from l4lab.tools.paper.reproduce import module_of, needs_runs, run_reproduce
from l4lab.tools.runs import campaign

OWN = ("fig5", "table1")
SPIN = "while True: pass"


def reproduce(name: str, out: Path, seed: int) -> dict[str, bytes]:
    """`l4lab reproduce` as a process of its own; the files it wrote."""
    command = [sys.executable, "-P", "-m", "l4lab.tools.cli", "reproduce", name, "--out", str(out)]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module", params=OWN)
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    return request.param, reproduce(request.param, tmp_path_factory.mktemp(request.param), seed=0)


@pytest.mark.slow
def test_another_hash_seed_and_a_busy_host_give_the_same_bytes(
    results: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    name, first = results
    spinners = os.cpu_count() or 1 if name == "table1" else 0
    load = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(spinners)]
    try:
        second = reproduce(name, tmp_path, seed=12345)
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert second.keys() == first.keys()
    assert [file for file in first if first[file] != second[file]] == []


def test_the_directory_is_complete_and_its_hashes_are_right(results: tuple[str, dict[str, bytes]]) -> None:
    name, files = results
    assert files.keys() == {"README.md", "SHA256SUMS", "data.json", f"{name}.png", f"{name}.svg"}
    sums = dict(line.split("  ")[::-1] for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {
        file: hashlib.sha256(content).hexdigest() for file, content in files.items() if file != "SHA256SUMS"
    }


def test_the_figure_is_a_picture_without_dates(results: tuple[str, dict[str, bytes]]) -> None:
    name, files = results
    assert files[f"{name}.png"].startswith(b"\x89PNG\r\n")
    svg = files[f"{name}.svg"]
    ET.fromstring(svg)
    assert b"dc:date" not in svg
    assert b"tEXt" not in files[f"{name}.png"]


def test_data_has_residuals_and_the_resolved_configuration(results: tuple[str, dict[str, bytes]]) -> None:
    name, files = results
    document = json.loads(files["data.json"])
    assert document["command"] == f"l4lab reproduce {name}"
    assert document["configurations"] and all("machine" in one for one in document["configurations"])
    assert document["versions"]["programs"] != "not built"
    assert document["versions"]["matplotlib"] == version("matplotlib")
    for residual in document["residuals"]:
        assert residual["within"] == (residual["low"] <= residual["ours"] <= residual["high"])
    if name == "table1":
        assert {one["what"]: one["published"] for one in document["residuals"]} == {
            "i486-dx50: 8-byte message": 250,
            "i486-dx50: 512-byte message": 900,
            "i486-dx50: lower bound of a message": 172,
            "pentium-160: message between address spaces": 121,
            "haswell-4770: message between address spaces": 301,
        }
        assert all(one["within"] for one in document["residuals"])


def test_the_page_tells_every_residual(results: tuple[str, dict[str, bytes]]) -> None:
    name, files = results
    page = files["README.md"].decode()
    assert f"({name}.png)" in page
    for residual in json.loads(files["data.json"])["residuals"]:
        assert f"| {residual['what']} |" in page
        assert f"- {residual['source']}" in page


@pytest.mark.slow
def test_all_of_them_make_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every statement, every figure, and hashes that `sha256sum --check` takes."""
    monkeypatch.setattr("l4lab.tools.paper.reproduce.FIGURES", {name: FIGURES[name] for name in OWN})
    assert run_reproduce("all", out=tmp_path, as_json=False, quick=True) == 0
    page = (tmp_path / "README.md").read_text()
    assert "Made by `l4lab reproduce all --quick`" in page
    overview = capsys.readouterr().out.split("\nall ")[1]
    for name in OWN:
        assert f"({name}/{name}.png)" in page and (tmp_path / name / f"{name}.png").exists()
        document = json.loads((tmp_path / name / "data.json").read_text())
        assert document["command"] == f"l4lab reproduce {name} --quick"
        for residual in document["residuals"]:
            assert f"| {name}: {residual['what']} |" in page
            assert f"{name}: {residual['what'].split()[0]}" in overview
    for line in (tmp_path / "SHA256SUMS").read_text().splitlines():
        digest, file = line.split("  ")
        assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == digest
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 1 + 4 * len(OWN)


def test_every_figure_has_its_module() -> None:
    """And the help tells of each: it is made of the same list."""
    folder = Path(catalogue.__file__).parent / "figures"
    assert {path.stem for path in folder.glob("*.py")} >= set(FIGURES)
    measured_at_once = [name for name in FIGURES if not needs_runs(module_of(name))]
    assert measured_at_once == ["fig5", "table1"]
    help_text = CliRunner().invoke(cli, ["reproduce", "--help"]).output
    for name, what in FIGURES.items():
        assert re.search(rf"^ +{name} +{re.escape(what)}$", help_text, re.M)


def test_no_such_figure() -> None:
    with pytest.raises(
        OperatorError, match=r'found no figure "fig6" \(did you mean "fig\d"\?\), expected one of'
    ):
        run_reproduce("fig6", out=None, as_json=False)


def test_results_need_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=r"--out .*file.*: .*expected a folder to write to"):
        run_reproduce("table1", out=tmp_path / "file" / "below", as_json=False)


def no_runs(*_: object) -> NoReturn:
    raise AssertionError("a run has begun")


def test_a_file_in_the_way_of_a_folder_is_noticed_before_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the way of the last."""
    monkeypatch.setattr(campaign, "run_all", no_runs)
    (tmp_path / "fig11").write_text("")
    with pytest.raises(OperatorError, match=r"^--out .*/fig11: File exists, expected a folder to write to$"):
        run_reproduce("all", out=tmp_path, as_json=False, quick=True)


def test_a_folder_that_is_not_writable_is_noticed_before_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which `mkdir` does not say of one that exists."""
    monkeypatch.setattr(campaign, "run_all", no_runs)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OperatorError, match=r"not writable, expected a folder to write to$"):
        run_reproduce("fig10", out=tmp_path, as_json=False, quick=True)


def test_matplotlib_is_missed_before_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "run_all", no_runs)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotError, match="drawing needs matplotlib"):
        run_reproduce("fig10", out=tmp_path, as_json=False, quick=True)


class Enough(Exception):
    """Nothing more is to be seen."""


@pytest.mark.parametrize(
    ("options", "results", "runs"),
    [
        ({"quick": False, "out": None}, "l4lab-out/fig10", "l4lab-out/runs"),
        ({"quick": True, "out": None}, "l4lab-out/quick/fig10", "l4lab-out/runs"),
        ({"quick": True, "out": Path("mine")}, "mine", "mine/runs"),
    ],
)
def test_quick_results_do_not_replace_the_full_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], results: str, runs: str
) -> None:
    """A folder of their own, unless one is asked for; runs that are kept are side by side."""

    def look(_jobs: object, kept: Path, *_: object) -> NoReturn:
        assert kept == Path(runs)
        raise Enough

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(campaign, "run_all", look)
    with pytest.raises(Enough):
        run_reproduce("fig10", as_json=False, **options)
    (made,) = [path for path in tmp_path.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert made == tmp_path / results


def test_without_matplotlib_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with (
        pytest.raises(PlotError, match=r"drawing needs matplotlib .*pip install 'l4lab\[plot\]'"),
        plots.canvas(1, 1),
    ):
        pass


@pytest.mark.parametrize(
    ("published", "ours", "deviation", "within"),
    [(100.0, 110.0, 10.0, True), (100.0, 89.0, -11.0, False), (None, 95.0, None, True)],
)
def test_residuals(published: float | None, ours: float, deviation: float | None, within: bool) -> None:
    residual = Residual("what", "statement", "source", published, 90, 110, ours, "cycles")
    assert residual.deviation_percent == pytest.approx(deviation)
    assert residual.within is within
    assert Residual("what", "a few", "source", None, None, None, ours, "").within is None
