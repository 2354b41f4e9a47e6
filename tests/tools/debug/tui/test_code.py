"""Instructions and source lines around a place."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from l4lab.kernel.frame import EIP
from l4lab.tools.debug.tui.code import disassemble, line_range, source_lines
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.native.build import CHECKOUT
from l4lab.tools.runs.programs import Place
from support.runs import image
from support.sessions import ON_ONE_CORE, to_first_fault


@pytest.fixture(scope="module")
def session() -> DebugSession:
    """At the first page fault of a program whose source is here."""
    session = DebugSession(image("pagefault"))
    to_first_fault(session, ON_ONE_CORE)
    return session


def test_instructions_before_and_behind_are_those_that_run(session: DebugSession) -> None:
    """Decoded from a known start, not from somewhere in the middle of one: stepping passes the same addresses."""
    thread, task = session.thread, session.task
    assert thread is not None and task is not None
    start = session.machine.position
    passed = []
    for _ in range(6):
        session.step_back()
        assert session.thread is not None
        passed.append(session.thread.frame[EIP])
    session.debugger.go_to(start)
    found = disassemble(session.machine, session.programs, task, thread.frame[EIP], 12, 12)
    addresses = [instruction.address for instruction in found]
    assert set(passed) <= {*addresses}
    assert addresses[12] == thread.frame[EIP]
    assert all(1 <= after - before <= 15 for before, after in itertools.pairwise(addresses))


def test_targets_have_names(session: DebugSession) -> None:
    task = session.task
    program = session.programs.of_task(session.machine, task)
    assert task is not None and program is not None
    main = program.symbols.address_of("main")
    assert main is not None
    found = disassemble(session.machine, session.programs, task, main, 0, 40)
    jumps = [i.operands for i in found if i.mnemonic.startswith("j")]
    assert jumps and all(name.startswith("main+0x") for name in jumps)


def test_nothing_is_decoded_where_nothing_is_mapped(session: DebugSession) -> None:
    assert session.task is not None
    assert disassemble(session.machine, session.programs, session.task, 0x30000000, 5, 5) == []


def test_line_range_holds_one_line(session: DebugSession) -> None:
    thread = session.thread
    assert thread is not None
    program = session.programs.of_task(session.machine, thread.task)
    assert program is not None
    found = line_range(program, thread.frame[EIP])
    assert found is not None
    first, end = found
    here = program.place_at(thread.frame[EIP])
    assert first <= thread.frame[EIP] < end
    assert {program.place_at(address) for address in range(first, end)} == {here}
    assert program.place_at(first - 1) != here and program.place_at(end) != here
    assert line_range(None, 0) is None


def test_source_is_found_and_what_is_not_here_is_none(tmp_path: Path) -> None:
    text = (CHECKOUT / "userland/hello/main.c").read_text("utf-8").splitlines()
    lines = source_lines(Place("hello/main.c", 12), tmp_path, 2, 2)
    assert lines == [(number, text[number - 1].expandtabs(4)) for number in (10, 11, 12, 13, 14)]
    assert source_lines(Place("nowhere.c", 1), tmp_path, 2, 2) == []
    (tmp_path / "own.c").write_text("one\ntwo\n\xff", encoding="latin-1")
    assert source_lines(Place("own.c", 2), tmp_path, 5, 5)[:2] == [(1, "one"), (2, "two")]
    assert source_lines(Place("\0", 2), tmp_path, 5, 5) == []
    assert source_lines(Place("own.c", 99), tmp_path, 1, 1) != []
