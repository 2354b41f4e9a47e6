"""The session behind the terminal interface: what its commands do to time, and that they change nothing else."""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from l4lab.emulator.debug.catching import CatchKind
from l4lab.emulator.debug.debugged import Position
from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult, StopReason, collect
from l4lab.kernel.entry import Decision, handle_trap
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.events import FAULT
from l4lab.kernel.frame import EIP
from l4lab.kernel.state import Kernel
from l4lab.kernel.traps import Trap
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.faults import Fault
from l4lab.tools.debug.named import DebugError
from l4lab.tools.debug.tui import panes
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.ledger.timeline import Operations, Timeline
from l4lab.tools.runs.rundir import open_run
from support.handshake import PATIENCE_SECONDS
from support.runs import image, record
from support.sessions import ACROSS, ON_ONE_CORE, to_first_fault


@pytest.fixture(scope="module")
def undisturbed() -> RunResult:
    return Machine(image("pagefault")).run()


@pytest.fixture
def session() -> DebugSession:
    return DebugSession(image("pagefault"))


def wander(session: DebugSession) -> None:
    """Every command, forwards and backwards."""
    to_first_fault(session, ON_ONE_CORE)
    moves: list[Callable[[], object]] = [
        session.step,
        session.next_fault_step,
        session.step_line,
        session.next_entry,
        lambda: session.next_event(CatchKind.IPC),
        session.step_back,
        session.last_fault_step,
        lambda: session.last_event(CatchKind.IPC),
        lambda: session.go_to(800_000),
        lambda: session.last_event(CatchKind.FAULT),
        lambda: session.go_to(300_000),
        lambda: session.toggle_breakpoint("sigma0:main"),
        session.go_back,
        session.restart,
        session.step,
    ]
    for move in moves:
        move()


def test_attaching_changes_no_cycle(session: DebugSession, undisturbed: RunResult) -> None:
    wander(session)
    session.toggle_breakpoint("sigma0:main")
    stop = session.go_on()
    assert (stop.kind, stop.result) == (StopKind.END, StopReason.ROOT_ENDED)
    assert collect(session.machine, StopReason.ROOT_ENDED) == undisturbed


def test_end_of_the_run_is_survived_and_left_backwards(session: DebugSession) -> None:
    session.go_on()
    assert session.moment.ended and "the run is over" in session.moment.text
    for move in (session.step, session.next_fault_step, session.next_entry, session.go_on):
        assert move().kind is StopKind.END
    session.last_event(CatchKind.FAULT)
    assert not session.moment.ended
    assert re.match(r"hello\.[01]: page fault: read from 0x20", session.moment.text)


def test_bug_of_ours_is_a_place_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One can go back from it, and come to it again, from wherever."""

    def fails_late(kernel: Kernel, core: int, trap: Trap, now: int, decision: Decision) -> None:
        if now > 45_000:
            raise KernelBug("planted")
        handle_trap(kernel, core, trap, now, decision)

    monkeypatch.setattr("l4lab.emulator.machine.handle_trap", fails_late)
    session = DebugSession(image("pagefault"))
    places = set()
    for before in (
        lambda: session.next_event(CatchKind.FAULT),
        session.step,
        session.restart,
        session.go_back,
    ):
        before()
        assert session.go_on().kind is StopKind.BUG
        assert session.moment.ended and "planted" in session.moment.text
        places.add(session.machine.position)
        session.last_event(CatchKind.FAULT)
        assert not session.moment.ended
    assert len(places) == 1


# --- page faults ----------------------------------------------------------------------------------------


def walk(session: DebugSession) -> list[tuple[Position, Fault]]:
    """Through the steps of the fault that is shown, from its beginning to its end."""
    passed = []
    while True:
        fault = session.fault
        assert fault is not None
        passed.append((session.machine.position, fault))
        if fault.outcome:
            return passed
        session.next_fault_step()


@pytest.mark.parametrize("name", [ON_ONE_CORE, ACROSS])
def test_steps_add_up_to_the_latency_in_the_books(tmp_path: Path, session: DebugSession, name: str) -> None:
    number = to_first_fault(session, name)
    record(image("pagefault"), tmp_path / "run")
    operation = Operations(Timeline(open_run(tmp_path / "run"))).get(FAULT, number)
    assert operation is not None
    fault = walk(session)[-1][1]
    assert [step.number for step in fault.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert (fault.victim, fault.address, fault.cycle) == (
        operation.thread,
        operation.address,
        operation.cycle,
    )
    assert fault.cycles == operation.latency_cycles


def test_steps_stop_where_each_is_over(session: DebugSession) -> None:
    """On two cores no two steps end in one kernel entry but the last; the thread shown is who works on it."""
    to_first_fault(session, ACROSS)
    passed = walk(session)
    assert [fault.current for _, fault in passed] == [2, 3, 4, 5, 6, 7, 0]
    assert session.thread is not None and session.thread.name == "hello.1"
    assert session.moment.text.startswith("page fault of hello.1, step 7, resume: back to the instruction")


def test_steps_are_the_same_backwards(session: DebugSession) -> None:
    to_first_fault(session, ACROSS)
    passed = walk(session)
    for position, fault in reversed(passed[:-1]):
        session.last_fault_step()
        assert session.machine.position == position
        assert session.faults.faults[fault.victim] == fault
    again = [session.next_fault_step().position for _ in passed[1:]]
    assert again == [position for position, _ in passed[1:]]


def test_fault_that_was_passed_unseen_is_followed_from_its_beginning(session: DebugSession) -> None:
    """Going far without a breakpoint is quick because nobody looks; nothing wrong is shown afterwards."""
    to_first_fault(session, ON_ONE_CORE)
    session.go_to(session.machine.cores[0].clock_cycles + 200_000)
    assert session.fault is None
    session.last_event(CatchKind.FAULT)
    fault = session.fault
    assert fault is not None and fault.current == 2
    cycle = fault.cycle
    for _ in range(6):
        if not fault.outcome:
            session.next_fault_step()
            fault = session.fault
            assert fault is not None and fault.cycle == cycle
    assert fault.outcome and len(fault.steps) == 7


def test_fault_of_sigma0_is_served_by_the_kernel(session: DebugSession) -> None:
    """Its steps are those that it has, and what they take is what the clock has moved."""
    session.next_event(CatchKind.FAULT)
    before = session.machine.cores[0].clock_cycles
    session.next_fault_step()
    fault = session.fault
    assert fault is not None
    took = session.machine.cores[0].clock_cycles - before
    assert [(step.number, step.text) for step in fault.steps[1:]] == [
        (2, "the processor enters the kernel, which maps the page itself: no message"),
        (7, "back to the instruction of sigma0"),
    ]
    assert took == fault.cycles == sum(step.cycles or 0 for step in fault.steps)
    assert fault.outcome == f"over, {took} cycles after the touch"
    assert session.moment.text.startswith("page fault of sigma0, step 7, resume: back")
    shown = panes.fault_steps(session, 80).plain.splitlines()
    assert [line[:2] for line in shown[1:8]] == ["✓1", "✓2", " 3", " 4", " 5", " 6", "✓7"]
    assert shown[2].endswith("enters the kernel, which maps the page itself: no message")
    assert max(map(len, shown)) <= 80


def test_the_fault_shown_is_that_of_the_thread_shown(session: DebugSession) -> None:
    """With two under way at once, each on its core."""
    to_first_fault(session, ACROSS)
    while len([fault for fault in session.faults.faults.values() if not fault.outcome]) < 2:
        session.next_entry()
    for name in (ON_ONE_CORE, ACROSS):
        session.select_thread(next(t.number for t in session.threads() if t.name == name))
        assert session.fault is not None and session.fault.name == name


# --- moving ---------------------------------------------------------------------------------------------


def test_stepping_follows_the_core_into_the_pager_and_back(session: DebugSession) -> None:
    """Instruction, fault, the pager's instructions, and the instruction once more."""
    to_first_fault(session, ON_ONE_CORE)
    victim = session.thread
    assert victim is not None
    eip = victim.frame[EIP]
    names = []
    for _ in range(5000):
        session.step()
        assert session.thread is not None
        if not names or names[-1] != session.thread.name:
            names.append(session.thread.name)
        if names == ["pager.0", "hello.0"]:
            break
    assert names == ["pager.0", "hello.0"]
    assert session.thread.frame[EIP] == eip
    session.step()
    assert session.thread.frame[EIP] != eip
    session.step_back()
    assert session.thread.frame[EIP] == eip


def test_entry_is_named(session: DebugSession) -> None:
    to_first_fault(session, ACROSS)
    fault = session.fault
    assert fault is not None
    session.next_entry()
    where = f"core 1 at cycle {grouped(fault.cycle)}"
    assert session.moment.text == f"kernel entry on {where}: page fault at {fault.address:#x}"


def test_line_step_leaves_the_line(session: DebugSession) -> None:
    to_first_fault(session, ON_ONE_CORE)
    session.toggle_breakpoint("pager.0:pma_allocate")
    session.go_on()
    assert session.moment.text == "breakpoint: pager.0 at pma_allocate"
    lines = []
    for _ in range(4):
        thread = session.thread
        assert thread is not None
        program = session.programs.of_task(session.machine, thread.task)
        assert program is not None
        lines.append(program.place_at(thread.frame[EIP]))
        session.step_line()
    assert all(one != other for one, other in itertools.pairwise(lines))


def test_goto_is_the_same_from_both_sides(session: DebugSession) -> None:
    session.go_to(500_000)
    position = session.machine.position
    session.go_to(900_000)
    session.go_to(500_000)
    assert session.machine.position == position
    assert session.moment.text == "core 0 is at cycle 500 000 or beyond"


def test_choosing_a_thread_chooses_its_core(session: DebugSession) -> None:
    to_first_fault(session, ACROSS)
    session.select_core(0)
    assert session.thread is session.running(0)
    session.select_thread(next(t.number for t in session.threads() if t.name == "hello.1"))
    assert session.core == 1


def test_pause_stops_what_would_run_for_ever(endless: Path) -> None:
    printed = threading.Event()
    session = DebugSession(load_manifest(endless), console=lambda _: printed.set())

    def pause() -> None:
        assert printed.wait(PATIENCE_SECONDS)
        session.pause()

    person = threading.Thread(target=pause)
    person.start()
    stop = session.go_on()
    person.join()
    assert stop.kind is StopKind.INTERRUPTED
    assert session.moment.text == "interrupted"
    clock = session.moment.clock
    session.step()
    assert session.moment.clock > clock


@pytest.mark.parametrize("seed", range(2))
def test_a_random_walk_meets_the_same_machine_at_the_same_place(
    session: DebugSession, undisturbed: RunResult, seed: int
) -> None:
    """Both ways and across, with everything on the screen looked at after each step."""
    chance = random.Random(seed)
    moves: list[Callable[[], object]] = [
        session.step,
        session.step_line,
        session.next_entry,
        lambda: session.next_event(CatchKind.IPC),
        lambda: session.next_event(CatchKind.FAULT),
        session.next_fault_step,
        session.step_back,
        lambda: session.last_event(CatchKind.IPC),
        lambda: session.last_event(CatchKind.FAULT),
        session.last_fault_step,
        lambda: session.go_to(chance.randrange(undisturbed.cycles)),
        lambda: session.select_core(chance.randrange(2)),
    ]
    seen: dict[Position, object] = {}
    for _ in range(60):
        with suppress(DebugError):
            chance.choice(moves)()
        for show in (panes.fault_steps, panes.calls, panes.address_space, panes.console):
            assert show(session).plain
        assert panes.source(session, 12).plain and panes.instructions(session, 16, 50).plain
        threads = session.machine.kernel.threads.values()
        state = [(t.number, t.state, *t.frame[:10]) for t in threads], bytes(session.machine.output)
        assert seen.setdefault(session.machine.position, state) == state
    session.go_on()
    assert collect(session.machine, StopReason.ROOT_ENDED) == undisturbed


# --- breakpoints of tasks to come -----------------------------------------------------------------------


def test_breakpoint_of_a_task_to_come_is_pending_and_met(session: DebugSession) -> None:
    """Only by the task that was named, though another runs the same program; both ways."""
    said = session.toggle_breakpoint("hello.1:printf")
    assert said.startswith("breakpoint at hello.1:printf, pending")
    assert session.breakpoints.pending() == ["hello.1:printf"]
    session.go_on()
    assert session.moment.text == "breakpoint: hello.1 at printf"
    assert session.breakpoints.pending() == []
    met = session.machine.position
    session.go_on()
    assert session.moment.text == "breakpoint: hello.1 at printf" and session.machine.position != met
    session.go_back()
    assert session.machine.position == met
    session.go_back()
    assert session.machine.position == session._start
    session.go_on()
    assert session.machine.position == met
    session.toggle_breakpoint("printf")
    assert session.debugger.breakpoints == ()
    assert session.go_on().kind is StopKind.END


def test_function_without_a_task_is_met_in_every_program_that_has_it(session: DebugSession) -> None:
    session.toggle_breakpoint("main")
    names = set()
    while session.go_on().kind is StopKind.BREAKPOINT:
        assert session.thread is not None and session.moment.text.endswith(" at main")
        names.add(session.thread.name)
    assert {"sigma0", "root", "pager.0", "hello.0", "hello.1"} <= names
    session.toggle_breakpoint("main")
    assert session.debugger.breakpoints == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "pma_alocate",
            "found no function 'pma_alocate' in any program of the image (did you mean \"pma_allocate\"?)",
        ),
        ("hello.0:pma_allocate", "found no function 'pma_allocate' in the program of hello.0"),
        ("hello.0:check_page", "inlined functions have no place of their own"),
        ("helo.0:main", "found no task 'helo.0'"),
    ],
)
def test_bad_breakpoint_of_a_task_to_come_is_one_line(
    session: DebugSession, text: str, expected: str
) -> None:
    with pytest.raises(DebugError) as caught:
        session.toggle_breakpoint(text)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert session.debugger.breakpoints == () and session.breakpoints.pending() == []


# --- what cannot be done --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found no function '' in pager.0"),
        ("pma_alocate", "found no function 'pma_alocate' in pager.0 (did you mean \"pma_allocate\"?)"),
        ("nobody:main", "found no task 'nobody'"),
        ("0xzz", "found '0xzz', expected an address"),
        ("0x1ffffffff", "expected an address"),
        ("\x1b[2J", "found no function '\\x1b[2J'"),
    ],
)
def test_bad_breakpoint_is_one_line(session: DebugSession, text: str, expected: str) -> None:
    to_first_fault(session, ON_ONE_CORE)
    session.next_fault_step()
    with pytest.raises(DebugError) as caught:
        session.toggle_breakpoint(text)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert session.debugger.breakpoints == ()


def test_commands_for_a_thread_need_one(session: DebugSession) -> None:
    for command in (session.step_line, session.step_back):
        with pytest.raises(DebugError, match="the core is idle"):
            command()
    with pytest.raises(DebugError, match="expected 0 to"):
        session.go_to(1 << 62)
    with pytest.raises(DebugError, match="no task is shown"):
        session.toggle_breakpoint("0x1000")
