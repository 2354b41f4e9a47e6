"""`l4lab check mutation`: mutants are planted where they belong, tests judge them, verdicts are kept."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.tools.check.mutation.judge import SURVIVED, Verdict
from l4lab.tools.check.mutation.mutants import Mutant, mutants_of, put
from l4lab.tools.check.mutation.report import read_equivalent, read_verdicts, run_mutation, summary
from l4lab.tools.native.build import CHECKOUT

VICTIM = '''
"""A module to make mutants of."""

LIMIT = 4


class Counter:
    """With a method and a default."""

    __slots__ = ("count",)

    def __init__(self, count=1):
        self.count = count

    @staticmethod
    def within(value):
        return value < LIMIT

    def twice(self):
        return self.count + self.count
'''

JUDGING = """
import sys, importlib, json
sys.path.insert(0, {folder!r})
import pytest, victim
from l4lab.tools.check.mutation.judge import Judge
from l4lab.tools.check.mutation.mutants import mutants_of

verdicts = []
judge = Judge({{"victim": victim}}, mutants_of(victim), verdicts.append, jobs=2)
code = pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", {folder!r}, {folder!r}],
                   plugins=[judge])
answer = [int(code), judge.flaw, [[str(each.mutant), each.by] for each in verdicts]]
print(json.dumps(answer), file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """mutmut looks for its configuration in the current folder."""
    monkeypatch.chdir(CHECKOUT)


@pytest.fixture
def victim(tmp_path: Path) -> ModuleType:
    """The module above, loaded."""
    (tmp_path / "victim.py").write_text(VICTIM, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("victim", tmp_path / "victim.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(module: ModuleType, after: str) -> tuple[Mutant, str]:
    """The mutant with this line, and the module's text."""
    [(mutant, text)] = [found for found in mutants_of(module) if found[0].after == after]
    return mutant, text()


def test_mutants_are_within_functions_and_say_what_differs(victim: ModuleType) -> None:
    """Methods, static ones, and defaults; what is executed at import is left alone."""
    changes = [(mutant.function, mutant.before, mutant.after) for mutant, _ in mutants_of(victim)]
    assert ("Counter.within", "return value < LIMIT", "return value <= LIMIT") in changes
    assert ("Counter.__init__", "def __init__(self, count=1):", "def __init__(self, count=2):") in changes
    assert all(function.startswith("Counter.") for function, _, _ in changes)
    assert len({mutant.key for mutant, _ in mutants_of(victim)}) == len(changes)


@pytest.mark.parametrize(
    ("after", "before_and_after"),
    [
        ("return value <= LIMIT", ([True, False, 2], [True, True, 2])),
        ("def __init__(self, count=2):", ([True, False, 2], [True, False, 4])),
        ("return self.count - self.count", ([True, False, 2], [True, False, 0])),
    ],
)
def test_a_mutant_reaches_whoever_holds_the_function(
    victim: ModuleType, after: str, before_and_after: tuple[list[object], list[object]]
) -> None:
    """By whatever name, and objects that exist already: the function itself changes."""
    within, counter = victim.Counter.within, victim.Counter
    observed = []
    for text in (None, find(victim, after)):
        if text is not None:
            put(victim, text[0].function, text[1])
        observed.append([within(3), within(4), counter().twice()])
    assert tuple(observed) == before_and_after


def test_a_mutant_keeps_its_key_when_other_functions_change(victim: ModuleType, tmp_path: Path) -> None:
    """So that a verdict holds as long as the function does."""
    before = find(victim, "return value <= LIMIT")[0]
    (tmp_path / "victim.py").write_text(VICTIM.replace("count=1", "count=7"), encoding="utf-8")
    import linecache

    linecache.checkcache()
    assert find(victim, "return value <= LIMIT")[0] == before


def judged(folder: Path, tests: str) -> tuple[int, str, dict[str, str]]:
    """pytest's code, the flaw, and mutant -> what found it, with these tests as judges."""
    (folder / "victim.py").write_text(VICTIM, encoding="utf-8")
    (folder / "test_victim.py").write_text(tests, encoding="utf-8")
    script = JUDGING.format(folder=str(folder))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    code, flaw, verdicts = json.loads(run.stderr.splitlines()[-1])
    return code, flaw, {mutant.partition(": ")[2]: by for mutant, by in verdicts}


def test_tests_find_what_they_look_at_and_nothing_else(tmp_path: Path) -> None:
    """A failure, an exception and an endless loop are found, each by the test that met it; the rest survives."""
    tests = """
import victim
def test_limit():
    assert not victim.Counter.within(4)
def test_twice():
    counter = victim.Counter(3)
    while counter.twice() != 6:
        pass
"""
    code, flaw, verdicts = judged(tmp_path, tests)
    assert (code, flaw) == (0, "")
    assert verdicts["return value < LIMIT  ->  return value <= LIMIT"] == "test_victim.py::test_limit"
    assert verdicts["return self.count + self.count  ->  return self.count - self.count"] == "ran too long"
    assert verdicts["self.count = count  ->  self.count = None"] == "test_victim.py::test_twice"
    assert verdicts["def __init__(self, count=1):  ->  def __init__(self, count=2):"] == SURVIVED


def test_a_test_that_fails_without_a_mutant_is_named(tmp_path: Path) -> None:
    """Its verdicts would say nothing."""
    tests = "def test_good(): pass\ndef test_bad(): assert False\n"
    assert judged(tmp_path, tests) == (0, "test_victim.py::test_bad", {})


def test_a_session_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """Before anything is judged."""
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=r"--session .*session\.jsonl: (File exists|Not a directory)"):
        run_mutation(
            CHECKOUT, only=["timeouts"], limit=1, again=False, jobs=1,
            session=tmp_path / "file/session.jsonl", as_json=False,
        )  # fmt: skip


def test_verdicts_are_read_again_but_for_a_line_that_was_cut_short(tmp_path: Path) -> None:
    """What an interrupted run leaves; the last verdict on a mutant counts."""
    path = tmp_path / "session.jsonl"
    assert read_verdicts(path) == {}
    lines = (
        '{"key": "a", "by": "survived"}',
        '{"key": "b", "by": "t"}',
        '{"key": "a", "by": "u"}',
        '{"key": "c"',
    )
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\n[1]\n")
    assert read_verdicts(path) == {"a": "u", "b": "t"}


def test_the_score_leaves_out_what_is_equivalent(tmp_path: Path) -> None:
    """And an equivalent mutant that a test finds is not one."""
    path = tmp_path / "equivalent.toml"
    path.write_text('[[group]]\nreason = "no one reads it"\nmutants = ["b", "c"]\n', encoding="utf-8")
    outcomes = {"a": "x::1", "b": SURVIVED, "c": "x::2", "d": SURVIVED}
    verdicts = [Verdict(Mutant("m", "f", "1", "2", key), by) for key, by in outcomes.items()]
    document = summary(verdicts, 9, read_equivalent(path))
    assert (document["mutants"], document["judged"], document["killed"], document["equivalent"]) == (
        9,
        4,
        2,
        1,
    )
    assert document["score"] == pytest.approx(2 / 3, abs=1e-4)
    assert [each["key"] for each in document["survivors"]] == ["d"]
    assert document["found_by"] == {"x": 2}


def test_every_equivalent_mutant_has_a_reason() -> None:
    """A sentence, not a word."""
    assert all(
        len(reason.split()) > 4
        for reason in read_equivalent(CHECKOUT / "tests/equivalent_mutants.toml").values()
    )
