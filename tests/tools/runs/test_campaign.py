"""Many runs in processes of their own: kept, not repeated, and not lost when something goes wrong."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from l4lab.tools.runs import campaign
from l4lab.tools.runs.campaign import CampaignError, Job, key_of, run_all
from support import jobs as work
from support.handshake import PATIENCE_SECONDS, Signpost


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, float]] = []

    def finished(self, name: str, seconds: float, done: float, left_seconds: float | None) -> None:
        self.done.append((name, done))

    def going_on(self, names: Sequence[str], done: float, left_seconds: float | None) -> None:
        assert names
        assert 0 <= done <= 1


def job(folder: Path, name: str, weight: float = 1.0, do: Callable[..., dict[str, Any]] = work.count) -> Job:
    return Job(name, name, weight, functools.partial(do, folder, name))


def marks(folder: Path, *names: str) -> list[int]:
    """How often each job was done."""
    return [len((folder / name).read_text()) if (folder / name).exists() else 0 for name in names]


def test_jobs_are_done_once_in_processes_of_their_own(tmp_path: Path) -> None:
    """A second campaign finds the results of the first, and does what is new."""
    kept = tmp_path / "runs"
    notes = Notes()
    first = run_all([job(tmp_path, "a"), job(tmp_path, "b", 3.0)], kept, 2, notes)
    assert [first[key].document["name"] for key in ("a", "b")] == ["a", "b"]
    assert len({entry.document["process"] for entry in first.values()}) == 2
    assert sorted(name for name, _ in notes.done) == ["a", "b"]
    assert notes.done[-1][1] == 1.0
    again = run_all([job(tmp_path, name) for name in "abc"], kept, 1)
    assert marks(tmp_path, "a", "b", "c") == [1, 1, 1]
    assert again["a"] == first["a"]


def test_jobs_with_the_same_key_are_one(tmp_path: Path) -> None:
    """Two figures may need the same run."""
    run_all([job(tmp_path, "a"), job(tmp_path, "a")], tmp_path / "runs", 2)
    assert marks(tmp_path, "a") == [1]


def test_the_heaviest_goes_first(tmp_path: Path) -> None:
    """So that none is left alone at the end."""
    notes = Notes()
    weights = {"light": 1.0, "heavy": 9.0, "middle": 3.0}
    run_all([job(tmp_path, name, weight) for name, weight in weights.items()], tmp_path / "runs", 1, notes)
    assert [name for name, _ in notes.done] == ["heavy", "middle", "light"]
    assert [done for _, done in notes.done] == pytest.approx([9 / 13, 12 / 13, 1.0])


DAMAGED = (
    "",
    '{"result": {',
    "[]",
    "[" * 100_000,
    '{"result": {}}',
    '{"host_seconds": 1, "result": null}',
    '{"host_seconds": 1, "result": {"a": 1}}',
    '{"host_seconds": 1, "result": {"a": 1}, "seal": ""}',
)


def test_a_result_that_was_cut_off_or_changed_is_made_anew(tmp_path: Path) -> None:
    """As after a crash of the host, or an editor."""
    kept = tmp_path / "runs"
    run_all([job(tmp_path, "a"), job(tmp_path, "b")], kept, 2)
    path = kept / "a.json"
    damaged = (*DAMAGED, path.read_text().replace('"a"', '"c"'), (kept / "b.json").read_text())
    for text in damaged:
        path.write_text(text, encoding="ascii")
        assert run_all([job(tmp_path, "a")], kept, 1)["a"].document["name"] == "a"
    assert marks(tmp_path, "a", "b") == [1 + len(damaged), 1]


def _folder_with_a_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep/file").write_text("x")
    path.chmod(0)


def _unreadable(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)


OTHER_THINGS: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "folder with a folder": _folder_with_a_folder,
    "pipe": os.mkfifo,
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "link to a folder": lambda path: path.symlink_to(path.parent),
    "link to itself": lambda path: path.symlink_to(path),
    "unreadable": _unreadable,
}


@pytest.mark.parametrize("what", OTHER_THINGS)
def test_what_is_no_file_is_made_anew(tmp_path: Path, what: str) -> None:
    """Whatever has come where a result was kept; others stay as they are."""
    kept = tmp_path / "runs"
    run_all([job(tmp_path, "a"), job(tmp_path, "b")], kept, 2)
    (kept / "a.json").unlink()
    OTHER_THINGS[what](kept / "a.json")
    for _ in range(2):
        assert run_all([job(tmp_path, "a")], kept, 1)["a"].document["name"] == "a"
    assert (kept / "a.json").is_file() and not (kept / "a.json").is_symlink()
    assert marks(tmp_path, "a", "b") == [2, 1]
    assert sorted(path.name for path in kept.iterdir()) == ["a.json", "b.json"]


def test_one_that_fails_is_one_line_and_the_others_are_kept(tmp_path: Path) -> None:
    """What is not begun is left; what is done need not be done again."""
    kept = tmp_path / "runs"
    plan = [job(tmp_path, "good", 9.0), job(tmp_path, "bad", 5.0, work.fail), job(tmp_path, "later")]
    with pytest.raises(CampaignError, match=r"^bad: there is no such machine$"):
        run_all(plan, kept, 1)
    assert marks(tmp_path, "good", "bad", "later") == [1, 1, 0]
    run_all([plan[0], plan[2]], kept, 1)
    assert marks(tmp_path, "good", "later") == [1, 1]


def test_one_that_dies_is_one_line(tmp_path: Path) -> None:
    """Its exit code is all there is to say."""
    with pytest.raises(CampaignError, match=r"^a: the run ended with code 9$"):
        run_all([job(tmp_path, "a", do=work.die)], tmp_path / "runs", 1)


def test_a_full_disk_is_one_line_with_the_path_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither half a result nor a temporary file of one."""
    kept = tmp_path / "runs"
    path = re.escape(str(kept / "a.json"))
    with pytest.raises(CampaignError, match=f"^a: cannot write {path}: File too large$"):
        run_all([job(tmp_path, "a", do=work.fill_disk)], kept, 1)
    temporary = re.escape(tempfile.gettempdir())
    with pytest.raises(CampaignError, match=f"^b: temporary files in {temporary}: File too large$"):
        run_all([job(tmp_path, "b", do=work.fill_temporary)], kept, 1)
    assert list(kept.iterdir()) == []


ORPHANS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from l4lab.tools.runs.campaign import run_all
from tools.runs.test_campaign import job
from support import jobs

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_all([job(folder, name, do=jobs.report) for name in ("a", "b")], folder / "runs", 2)
"""


def test_workers_whose_parent_was_killed_leave_silently(tmp_path: Path) -> None:
    """No traceback each, on a terminal that somebody else has by then."""
    script = tmp_path / "campaign.py"
    script.write_text(ORPHANS, encoding="ascii")
    tests = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(script), str(tmp_path), str(tests)]
    begun = Signpost(tmp_path / work.BEGUN)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
        assert {begun.wait(), begun.wait()} == {"a", "b"}
        parent.kill()
        said = parent.communicate(timeout=PATIENCE_SECONDS)[1]  # all that have stderr have ended
    begun.close()
    assert said == b""
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_was_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Ctrl-C ends all; done stays done."""
    kept = tmp_path / "runs"
    plan = [job(tmp_path, "done", 9.0), job(tmp_path, "stopped", 5.0, work.be_interrupted)]
    with pytest.raises(KeyboardInterrupt):
        run_all(plan, kept, 1)
    run_all([plan[0], job(tmp_path, "stopped", 5.0)], kept, 1)
    assert marks(tmp_path, "done", "stopped") == [1, 2]


def test_whatever_else_runs_is_stopped_and_cleans_up(tmp_path: Path) -> None:
    """Temporary files of a run that nobody wants any more do not stay."""
    os.mkfifo(tmp_path / work.BEGUN)
    plan = [job(tmp_path, "long", 9.0, work.last), job(tmp_path, "stopped", 5.0, work.be_interrupted_then)]
    with pytest.raises(KeyboardInterrupt):
        run_all(plan, tmp_path / "runs", 2)
    assert marks(tmp_path, "long") == [1]


def test_code_that_changes_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of other code must not be kept under this key."""
    monkeypatch.setattr(campaign, "code_digest", lambda: "of other code")
    with pytest.raises(CampaignError, match="the code of l4lab has changed"):
        run_all([job(tmp_path, "a")], tmp_path / "runs", 1)
    assert marks(tmp_path, "a") == [0]


def test_code_that_changes_while_a_run_uses_it_is_noticed(tmp_path: Path) -> None:
    """Some of it may have been imported after the change."""
    with pytest.raises(CampaignError, match="the code of l4lab has changed"):
        run_all([job(tmp_path, "a", do=work.edit)], tmp_path / "runs", 1)
    assert marks(tmp_path, "a") == [1]
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("kernel/ipc.py", True),
        ("emulator/machine.py", True),
        ("_native/vcpu.so", True),
        ("tools/bench/pma_ledger.py", True),
        ("tools/runs/recording.py", True),
        ("tools/new/module.py", True),
        ("tools/paper/figures/fig4.py", False),
        ("tools/paper/plots.py", False),
        ("tools/paper/result_pages.py", False),
        ("tools/debug/tui/app.py", False),
        ("tools/__pycache__/plots.pyc", False),
    ],
)
def test_keys_stand_for_all_code_that_has_part_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, counts: bool
) -> None:
    """A run reads its own ledger, too, with the tools' code. What only draws may change."""
    monkeypatch.setattr(campaign, "PACKAGE_DIR", tmp_path)
    path = tmp_path / changed
    path.parent.mkdir(parents=True)
    path.write_text("before", encoding="ascii")
    campaign.code_digest.cache_clear()
    before = campaign.code_digest()
    path.write_text("after", encoding="ascii")
    campaign.code_digest.cache_clear()
    try:
        assert (campaign.code_digest() != before) == counts
    finally:
        campaign.code_digest.cache_clear()


def test_what_keys_do_not_stand_for_exists_and_no_run_may_use_it(tmp_path: Path) -> None:
    """So nobody can give a run a part that changes unnoticed."""
    tools = Path(campaign.__file__).parents[1]
    assert all((tools / name).is_dir() for name in campaign.NOT_IN_RUNS)
    with pytest.raises(CampaignError, match=r"^a: the run used tools/paper, found in NOT_IN_RUNS"):
        run_all([job(tmp_path, "a", do=work.draw)], tmp_path / "runs", 1)
    assert not (tmp_path / "runs/a.json").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "runs").write_text("a file", encoding="ascii")
    with pytest.raises(CampaignError, match="expected a folder to keep results in"):
        run_all([job(tmp_path, "a")], tmp_path / "runs", 1)


def test_keys_change_with_every_part() -> None:
    """And not with the order of a mapping."""
    assert key_of("a", {"b": 1, "c": 2}) == key_of("a", {"c": 2, "b": 1})
    assert len({key_of("a"), key_of("b"), key_of("a", 1), key_of("a", {"b": 1})}) == 4


def test_results_are_json(tmp_path: Path) -> None:
    """Anybody can read them."""
    run_all([job(tmp_path, "a")], tmp_path / "runs", 1)
    assert json.loads((tmp_path / "runs/a.json").read_text())["result"]["name"] == "a"
