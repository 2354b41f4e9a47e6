"""`l4lab inspect`: the state shown is that of the recorded run, and what cannot be shown is one line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.tools.debug.inspect import DEFAULT_VIEWS, show_inspect
from l4lab.tools.debug.inspect_views import KINDS, Looked, views
from l4lab.tools.debug.named import DebugError
from l4lab.tools.debug.tui.screenshot import picture
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.ledger.timeline import OPERATION_KINDS, Operations, Timeline
from l4lab.tools.native.build import CHECKOUT
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.replay import Moment, ReplayError, find_source, reach
from l4lab.tools.runs.rundir import open_run
from support.command import call
from support.runs import image, record
from support.sessions import ACROSS, to_first_fault

FAULT = 22
PAGE = CHECKOUT / "docs/debugger.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run of `pagefault`."""
    folder = tmp_path_factory.mktemp("inspect") / "run"
    record(image("pagefault"), folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """Its run.json, to be spoilt."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run / "run.json", folder)
    return folder


def spoil(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change run.json."""
    document = json.loads((folder / "run.json").read_bytes())
    change(document)
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")


def looked(run: Path, moment: Moment) -> Looked:
    found = reach(find_source(str(run), None), moment)
    return Looked(found.machine, Programs(found.manifest))


# --- the moment -----------------------------------------------------------------------------------------


def test_numbers_of_operations_are_those_of_the_ledger(run: Path) -> None:
    """`--fault N` and `--ipc N` stop where `l4lab why` says that the fault or the IPC of that number is."""
    ledger = Operations(Timeline(open_run(run)))
    for number in (1, FAULT, ledger.count(OPERATION_KINDS[0])):
        operation = ledger.get(OPERATION_KINDS[0], number)
        assert operation is not None
        machine = looked(run, Moment(fault=number)).machine
        thread = machine.cores[operation.core].decision.thread
        assert thread is not None
        assert machine.cores[operation.core].clock_cycles == operation.cycle
        assert (thread.number, thread.frame[8]) == (operation.thread, operation.eip)
    for number in (1, 25):
        operation = ledger.get(OPERATION_KINDS[2], number)
        assert operation is not None
        found = reach(find_source(str(run), None), Moment(ipc=number))
        core = found.machine.cores[operation.core]
        assert core.clock_cycles == operation.cycle + core.decision.kernel_cycles
        assert found.text.startswith(f"ipc {number}, ")


def test_cycle_is_the_first_moment_at_or_beyond(run: Path) -> None:
    machine = looked(run, Moment(cycle=500_000)).machine
    clock = machine.cores[0].clock_cycles
    assert clock >= 500_000
    assert looked(run, Moment(cycle=clock)).machine.cores[0].clock_cycles == clock


def test_end_is_that_of_the_record(run: Path) -> None:
    found = reach(find_source(str(run), None), Moment())
    recorded = json.loads((run / "run.json").read_bytes())["result"]
    assert [core.clock_cycles for core in found.machine.cores] == [
        core["clock_cycles"] for core in recorded["cores"]
    ]


def test_run_with_a_limit_ends_there(tmp_path: Path) -> None:
    machine, _ = record(image("pagefault"), tmp_path / "run", max_cycles=500_000)
    found = reach(find_source(str(tmp_path / "run"), None), Moment())
    assert [c.clock_cycles for c in found.machine.cores] == [c.clock_cycles for c in machine.cores]
    with pytest.raises(ReplayError, match="--cycle: found 800000, expected at most"):
        reach(find_source(str(tmp_path / "run"), None), Moment(cycle=800_000))


def test_interrupted_run_is_shown_about_where_it_stopped(copy: Path) -> None:
    def interrupt(document: dict[str, Any]) -> None:
        document["result"]["reason"] = "host_stop"
        document["result"]["cycles"] = 500_000

    spoil(copy, interrupt)
    found = reach(find_source(str(copy), None), Moment())
    assert max(core.clock_cycles for core in found.machine.cores) >= 500_000
    assert found.machine.entries < reach(find_source("pagefault", None), Moment()).machine.entries


# --- views ----------------------------------------------------------------------------------------------


def test_views_show_the_fault_under_way(run: Path) -> None:
    """While the pager serves it: who waits for whom, the message, and the calls down to the instruction."""
    ledger = Operations(Timeline(open_run(run)))
    faults = [
        ledger.get(OPERATION_KINDS[0], number + 1) for number in range(ledger.count(OPERATION_KINDS[0]))
    ]
    fault = next(fault for fault in faults if fault is not None and fault.core == 1)
    assert fault.resumed is not None
    states = {}
    for cycle in range(fault.cycle + 2000, fault.resumed, 2000):
        now = looked(run, Moment(cycle=cycle))
        for sender, receiver, what, state in views(now, "messages")[0].rows:
            if (sender, receiver, what) == ("hello.1", "pager.0", "page fault, read from 0x20000000"):
                states.setdefault(state, now)
        if len(states) == 2:
            break
    assert set(states) >= {"under way to the other core", "being served"}
    here = states["being served"]
    (chain,) = views(here, "bt:pager.0")
    assert [row[0] for row in chain.rows if row[0]] == ["pager.0", "hello.1"]
    assert any("main" in str(row[2]) for row in chain.rows)
    here = looked(run, Moment(cycle=fault.resumed + 10_000))
    (tree,) = views(here, "mapdb:hello.1:0x20000000")
    assert [str(row[0]).strip() for row in tree.rows] == ["sigma0", "root", "pager.0", "hello.1"]
    (walk,) = views(states["being served"], "ptable:hello.1:0x20000000")
    assert walk.title.endswith("not mapped")


@pytest.mark.parametrize("name", KINDS)
def test_every_view_has_rows_or_says_so(run: Path, name: str) -> None:
    here = looked(run, Moment(fault=FAULT))
    for view in views(here, name):
        assert view.title
        assert all(len(row) == len(view.columns) for row in view.rows)


def test_letters_of_the_real_debugger_are_understood(run: Path) -> None:
    here = looked(run, Moment(fault=FAULT))
    for letter, name in (("lp", "threads"), ("s", "tasks"), ("m", "mapdb"), ("p", "ptable"), ("O", "caps")):
        assert views(here, letter) == views(here, name)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("thread", "found no view 'thraed' (did you mean \"thread\"?)"),
        ("caps:nobody", "caps:nobody: found no task 'nobody'"),
        ("bt:", "bt: found no thread ''"),
        ("bt:hello.9", "bt:hello.9: found no thread 'hello.9'"),
        ("ptable:hello.0:x", "found 'x', expected a number"),
        ("mapdb:hello.0:0x30000000", "0x30000000 is not mapped in hello.0"),
        ("mapdb:-1", "found '-1', expected a number"),
        ("objects:gates", "found 'gates', expected one of thread, task, gate"),
        ("memory:x", "found 'x' too much, expected nothing behind the name"),
        ("caps:a:b", "found 'b' too much, expected one task"),
    ],
)
def test_view_that_is_not_there_is_one_line(run: Path, asked: str, expected: str) -> None:
    here = looked(run, Moment(fault=FAULT))
    with pytest.raises(DebugError) as caught:
        views(here, "thraed" if asked == "thread" else asked)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


# --- what cannot be shown -------------------------------------------------------------------------------


def test_other_program_is_refused(copy: Path) -> None:
    spoil(copy, lambda document: document["configuration"]["boot"]["modules"][1].update(sha256="0" * 64))
    with pytest.raises(ReplayError, match=r"configuration\.boot\.modules\[1\]\.sha256: found 0000"):
        find_source(str(copy), None)


def test_other_result_is_refused(copy: Path) -> None:
    spoil(copy, lambda document: document["result"].update(cycles=1))
    with pytest.raises(ReplayError, match=r"result\.cycles: found 1, but run again it is \d+"):
        reach(find_source(str(copy), None), Moment())


def test_run_that_never_ended_has_no_end(copy: Path) -> None:
    spoil(copy, lambda document: document.update(result=None))
    with pytest.raises(ReplayError, match="has not ended"):
        reach(find_source(str(copy), None), Moment())
    assert reach(find_source(str(copy), None), Moment(fault=1)).text.startswith("fault 1,")


def test_manifest_of_ones_own_is_found_beside_the_run_or_by_image(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_bytes(image("pagefault").path.read_bytes())
    folder = tmp_path / "run"
    record(find_source(str(own), None).manifest, folder, max_cycles=20_000)
    assert find_source(str(folder), None).manifest.path == own
    moved = own.rename(tmp_path / "moved.toml")
    with pytest.raises(ReplayError, match=r"found no mine\.toml among .* expected --image PATH"):
        find_source(str(folder), None)
    assert find_source(str(folder), str(moved)).max_cycles == 20_000
    with pytest.raises(ReplayError, match=r"configuration\.boot\..*: found .* has .*; expected what was run"):
        find_source(str(folder), "hello")
    with pytest.raises(OperatorError, match="--image goes with the folder of a run"):
        find_source("pagefault", "pagefault")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"configuration": {}}', "[" * 100_000])
def test_what_is_no_run_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(OperatorError) as caught:
        find_source(str(tmp_path), None)
    assert "run.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (Moment(fault=5300), r"--fault: found 5300, expected 1 to \d+: the run has no more"),
        (Moment(ipc=9900), r"--ipc: found 9900, expected 1 to \d+"),
        (Moment(cycle=5, core=2), "--core: found 2, expected 0 to 1"),
        (Moment(cycle=1 << 60), r"expected at most \d+, where"),
    ],
)
def test_moment_that_the_run_does_not_have(run: Path, moment: Moment, expected: str) -> None:
    with pytest.raises(ReplayError, match=expected):
        reach(find_source(str(run), None), moment)


# --- the documentation ----------------------------------------------------------------------------------


def normal(text: str) -> str:
    """`text` without what moves with cycles and addresses."""
    return " ".join(re.sub(r"\b(0x[0-9a-f]+|[0-9]+([ _][0-9]+)*)\b", "0", text).split())


def test_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are not compared. With UPDATE_DOCS set, page and picture are brought up to date instead."""
    session = DebugSession(image("pagefault"))
    to_first_fault(session, ACROSS)
    for _ in range(3):
        session.next_fault_step()
    cycle = session.moment.clock
    page = PAGE.read_text("utf-8")
    block = re.search(r"^\$ \./l4lab inspect pagefault --cycle (\S+) ([^\n]*)\n(.*?)^```$", page, re.M | re.S)
    assert block is not None
    asked = tuple(block[2].split())
    assert show_inspect("pagefault", asked, Moment(cycle=cycle), image=None, as_json=False) == 0
    printed = capsys.readouterr().out
    if "UPDATE_DOCS" in os.environ:
        now = f"$ ./l4lab inspect pagefault --cycle {cycle:_} {block[2]}\n{printed}```"
        PAGE.write_text(page.replace(block[0], now), encoding="utf-8")
        PAGE.with_name("debugger-tui.svg").write_text(asyncio.run(picture()), encoding="utf-8")
    else:
        assert normal(printed) == normal(block[3]), "UPDATE_DOCS=1 will do, if this is as it should be"


# --- the command ----------------------------------------------------------------------------------------


def test_json_has_what_the_tables_have(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_inspect(str(run), ("threads",), Moment(fault=FAULT), image=None, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    here = looked(run, Moment(fault=FAULT))
    (view,) = views(here, "threads")
    assert document["views"] == [{"view": "threads", **json.loads(json.dumps(view.as_dict()))}]
    assert document["moment"]["clocks"] == [core.clock_cycles for core in here.machine.cores]


def test_list_as_json_has_what_the_list_has() -> None:
    """Asked for as one does: `--list --json`."""
    plain, as_json = (call("inspect", "--list", *more).stdout for more in ((), ("--json",)))
    found = json.loads(as_json)["views"]
    assert [view["view"] for view in found] == list(KINDS)
    assert [
        f"{view['view'] + view['arguments']:<32}{view['meaning']}" for view in found
    ] == plain.splitlines()


def test_command_line(run: Path) -> None:
    """The default views of an image at a fault; a mistake is one line and exit code 2."""
    done = call("inspect", "pagefault", "--fault", str(FAULT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(f"pagefault.toml: fault {FAULT}, before the kernel acts")
    assert done.stdout.count("\n\n") == len(DEFAULT_VIEWS)
    done = call("inspect", str(run), "--cycle", "5", "--fault", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
