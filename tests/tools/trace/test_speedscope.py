"""`l4lab trace --speedscope`: every core's time, by task, function and cause."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from l4lab.kernel import events
from l4lab.tools.ledger.accounts import ALL_CAUSES, accounts
from l4lab.tools.runs.rundir import Run, kinds_of, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.source import Clock, checked, stretches
from l4lab.tools.trace.text import text_lines
from support.runs import image, record
from support.traces import profile_of, traced_pagefault, traced_single, viewed


@pytest.fixture(scope="module", params=[traced_pagefault, traced_single])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all events."""
    found: Run = request.param(tmp_path_factory.mktemp("run"))
    return found


@pytest.fixture(scope="module")
def pagefault(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One pager for two cores."""
    return traced_pagefault(tmp_path_factory.mktemp("pagefault"))


def test_the_profile_has_every_core_s_time_by_task_function_and_cause(run: Run) -> None:
    document = profile_of(run)
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    assert len(set(frames)) == len(frames)
    assert run.clocks is not None
    samples = 0
    by_cause: Counter[str] = Counter()
    by_task: Counter[str] = Counter()
    for core, profile in enumerate(document["profiles"]):
        assert (profile["type"], profile["name"], profile["unit"]) == (
            "sampled",
            f"core {core}",
            "nanoseconds",
        )
        assert len(profile["samples"]) == len(profile["weights"])
        assert min(profile["weights"]) > 0
        assert sum(profile["weights"]) == profile["endValue"] == Clock(run.mhz).ns(run.clocks[core])
        samples += len(run.rows) * 8
        for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
            by_cause[frames[stack[-1]].strip("()")] += weight
            by_task[frames[stack[0]]] += weight
    sums = accounts(run).by_core.sum(axis=0)
    for name, cycles in zip(ALL_CAUSES, sums.tolist(), strict=True):
        assert abs(by_cause[name] - Clock(run.mhz).ns(cycles)) <= samples  # each is rounded
    assert {"(idle)", "(timer, interrupts)", "sigma0", "root", "pager.0"} <= set(by_task)
    assert {"main", "pma_allocate", "_start"} & set(frames)


def test_functions_are_those_of_the_programs(pagefault: Run) -> None:
    """The fault of a program is blamed on its function that touched the page."""
    symbols = Symbols(pagefault)
    faults = pagefault.events[kinds_of(pagefault.events) == events.FAULT]
    names = {
        symbols.function(int(fault["thread"]), int(fault["b"]))
        for fault in faults
        if pagefault.thread_name(int(fault["thread"])).startswith("hello")
    }
    assert "main" in names
    assert not any(name.startswith("0x") for name in names)
    document = profile_of(pagefault)
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    stacks = {
        tuple(frames[number] for number in stack)
        for profile in document["profiles"]
        for stack in profile["samples"]
    }
    assert ("hello.1", "main", "fault") in stacks


def test_without_trace_only_page_faults_have_a_place(tmp_path: Path) -> None:
    record(image("hello"), tmp_path)
    bare = open_run(tmp_path)
    document = profile_of(bare)
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    functions = {
        frames[stack[1]]
        for profile in document["profiles"]
        for stack in profile["samples"]
        if len(stack) == 3
    } - {"interrupt", "timer"}
    assert {"main", "(somewhere)"} <= functions
    assert viewed(bare).slices


def test_a_run_that_was_killed_can_be_shown_without_names_of_functions(tmp_path: Path) -> None:
    """Nobody has written down clocks and symbols, and the last records may be cut."""
    record(image("hello"), tmp_path, trace=True)
    for name in ("symbols.json", "seal.json"):
        (tmp_path / name).unlink()
    header = json.loads((tmp_path / "ledger.json").read_text())
    header["clocks"], header["names"], header["homes"] = None, {}, {}
    (tmp_path / "ledger.json").write_text(json.dumps(header))
    for name in ("ledger.bin", "events.bin"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-7])
    killed = checked(open_run(tmp_path))
    assert Symbols(killed).function(1, 0x1234) == "0x1234"
    samples = int((kinds_of(killed.events) == events.SAMPLE).sum())
    assert len(list(text_lines(killed, Symbols(killed), stretches(killed)))) == len(killed.events) - samples
    assert viewed(killed).slices
    assert len(profile_of(killed)["profiles"]) == killed.cores


@pytest.mark.network
def test_the_profile_keeps_to_the_published_schema(run: Run, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, for speedscope's own package")
    subprocess.run([npm, "pack", "speedscope@1.25.0"], cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(tmp_path / "speedscope-1.25.0.tgz") as package:
        member = package.extractfile("package/dist/release/file-format-schema.json")
        assert member is not None
        jsonschema.validate(profile_of(run), json.load(member))
