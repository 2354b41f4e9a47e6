"""`goto`, `back`, `forth` given at a breakpoint, which gdb steps over first: they are made from where they were given.

And what gdb shows of other threads after such a step.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import Pause, Position
from l4lab.emulator.debug.stops import MemoryEdit
from l4lab.kernel.fiasco.abi import SYSTEM_CALL_PAGE
from l4lab.kernel.frame import EIP
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.debug.gdb.registers import REGISTERS
from support.gdb_client import Client
from support.real_gdb import needs_gdb, session

TOUCH = 0x804_8110
"""Where `hello` of `pagefault` reads a fresh page."""
NAMES = [register.name for register in REGISTERS]


# --- gdb --------------------------------------------------------------------------------------------------


def cycles(text: str) -> int:
    return int(text.partition(" = ")[2])


@needs_gdb
@pytest.mark.parametrize(
    ("image", "place", "moves"),
    [
        ("hello", "hello/main.c:main", ["goto 200000"]),
        ("hello", "system_call", ["forth ipc", "goto 300000", "back create"]),
        ("pagefault", "client_entry", ["back fault", "forth map", "goto 0"]),
        ("pagefault", f"*{TOUCH:#x}", ["forth fault", "forth step", "forth step", "back ipc"]),
    ],
)
def test_the_breakpoint_makes_no_difference(image: str, place: str, moves: list[str], tmp_path: Path) -> None:
    """Each move leads where it leads without one."""
    start = ["tbreak is_zero", "continue"] if place.startswith("*") else []
    looks = [each for move in moves for each in (move, "monitor where", "p $pc", "p $cycles")]
    plain, _ = session(image, [*start, f"tbreak {place}", "continue", *looks], tmp_path)
    printed, boot = session(
        image, [*start, f"break {place}", "continue", *looks, "delete", "continue"], tmp_path
    )
    # Snapshots depend on the host; what is told of a breakpoint is not that of a temporary one.
    text, expected = (
        [re.sub(r", \d+ snapshots", "", found) for _, found in answers[len(start) + 2 :][: len(looks)]]
        for answers in (printed, plain)
    )
    assert text == expected and len(text) == len(looks)
    assert boot.code == 0


@needs_gdb
def test_registers_of_other_threads_are_those_of_now(tmp_path: Path) -> None:
    """gdb keeps those of all threads but the one that steps alone, for which the others' time has gone on."""
    look = "thread apply all -q p $pc"
    commands = [*("tbreak is_zero", "continue", f"break *{TOUCH:#x}", "continue"), look, "stepi", look]
    commands += ["maintenance flush register-cache", look]
    printed = [re.sub(r"\$\d+ = ", "", text) for _, text in session("pagefault", commands, tmp_path)[0]]
    assert printed[4] != printed[6] == printed[8]


# --- packets ----------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Client:
    """`hello.0` stands at its breakpoint; the page that it is going to read is not there."""
    return at(TOUCH, "hello.0")


def at(address: int, task: str) -> Client:
    """gdb has taken out the breakpoint that a thread stands at."""
    client = Client()
    while task not in {client.machine.kernel.tasks[number].name for number in client.debugger.known_tasks}:
        client.ask("vCont;c")
    client.ask(f"Hg{client.thread(task)}")
    assert client.ask(f"Z0,{address:x},1") == "OK"
    assert client.go_on()["thread"] == client.thread(task)
    client.ask(f"Hg{client.thread(task)}")
    assert client.ask(f"z0,{address:x},1") == "OK"
    return client


def step_aside(client: Client, task: str) -> dict[str, str]:
    thread = client.thread(task)
    stop = client.stop(client.ask(f"vCont;s:{thread}"))
    assert stop["thread"] == thread
    return stop


MOVES = ["goto 0", "goto 100000", "goto 720000", "goto 1200000 1", "goto 99999999", "back fault", "back map"]
MOVES += ["back fault task=root", "forth entry", "forth fault", "forth ipc", "forth unmap", "forth destroy"]


@pytest.mark.parametrize("move", MOVES)
def test_each_move_is_made_from_where_it_was_given(client: Client, move: str) -> None:
    began = client.machine.position
    client.command(move)
    expected = client.go_on()
    place, text = client.machine.position, client.text
    client.debugger.go_to(began)
    client.command(move)
    client.text = ""
    assert step_aside(client, "hello.0")["signal"] == "05" and client.text == ""
    assert client.machine.position != began
    assert client.go_on() == expected
    assert (client.machine.position, client.text) == (place, text.partition("`)\n")[2])


def test_nothing_is_told_and_nothing_stops_on_the_way(client: Client) -> None:
    client.command("catch fault")
    client.command("steps on")
    client.ask(f"Hg{client.thread('pager.0')}")
    client.ask(f"Z0,{client.symbol('pager', 'client_entry'):x},1")
    client.command("quietly goto 1")
    client.text = ""
    stop = step_aside(client, "hello.0")
    assert stop["signal"] == "05" and stop["08"] != TOUCH.to_bytes(4, "little").hex() and client.text == ""
    assert client.go_on()["signal"] == "00" and client.text.startswith("goto 1 core 0: ")


def test_whoever_enters_the_kernel_has_left_its_instruction() -> None:
    """However long the system call takes, and whoever must answer it."""
    client = at(SYSTEM_CALL_PAGE, "root")
    clock = client.machine.cores[0].vcpu.clock_cycles
    client.command("goto 0")
    stop = step_aside(client, "root")
    assert stop["08"] == (SYSTEM_CALL_PAGE + 2).to_bytes(4, "little").hex()
    assert client.machine.cores[0].vcpu.clock_cycles - clock < 1000
    assert client.go_on()["replaylog"] == "begin"


def write_code(client: Client, code: bytes, address: int = TOUCH) -> None:
    """At the instruction that `hello.0` stands at."""
    task = client.frame_owner("hello.0").task
    assert task is not None
    found = task.space.tables.translate(address)
    assert found is not None and address % PAGE_BYTES + len(code) <= PAGE_BYTES
    client.debugger.edit(MemoryEdit(found.physical, code))


def refused(client: Client, stop: dict[str, str], began: Position) -> bool:
    """The machine is where it was, and gdb stops there."""
    assert client.machine.position == began and stop["08"] == TOUCH.to_bytes(4, "little").hex()
    return stop["signal"] == "00" and "not from here: hello.0 does not leave" in client.text


def test_an_instruction_that_is_not_left(client: Client) -> None:
    """`jmp .`: gdb would take the step for another hit, again and again."""
    write_code(client, b"\xeb\xfe")
    began = client.machine.position
    client.command("goto 0")
    assert refused(client, step_aside(client, "hello.0"), began)
    client.text = ""
    client.ask(f"vCont;s:{client.thread('hello.0')};c")  # nothing is left of the move
    assert client.machine.position > began and client.text == ""


@pytest.mark.parametrize("locked", [False, True])
def test_a_move_that_is_given_up_loses_nothing_that_has_waited(client: Client, locked: bool) -> None:
    """The pager has come past its breakpoint while the thread made its step before."""
    thread = client.thread("hello.0")
    client.ask(f"Hg{client.thread('pager.0')}")
    client.ask(f"Z0,{client.symbol('pager', 'client_entry'):x},1")
    assert step_aside(client, "hello.0")["signal"] == "05"
    began = client.machine.position
    if not locked:
        write_code(client, b"\xeb\xfe", client.frame_owner("hello.0").frame[EIP])
    client.command("goto 0")
    stop = step_aside(client, "hello.0")
    if locked:
        stop = client.stop(client.ask(f"vCont;c:{thread}"))
    assert stop["signal"] == "00" and "not from here" in client.text and client.machine.position == began
    assert client.go_on()["thread"] == client.thread("pager.0") and client.machine.position < began


def test_a_fault_that_nobody_answers(client: Client) -> None:
    began = client.machine.position
    pager = client.frame_owner("pager.0")
    client.command("goto 0")
    client.debugger.probes.clear()
    client.ask(f"Hg{client.thread('pager.0')}")
    assert client.ask("P8=00000000") == "OK" and pager.frame[EIP] == 0  # it will fault, and nobody helps it
    began = client.machine.position
    assert refused(client, step_aside(client, "hello.0"), began)


def test_all_rounds_of_a_string_instruction(client: Client) -> None:
    write_code(client, b"\x66\xf3\xab")  # rep stosw
    for name, value in (("ecx", 100), ("edi", client.frame_owner("hello.0").frame[4] - 0x400)):
        assert client.ask(f"P{NAMES.index(name):x}={value.to_bytes(4, 'little').hex()}") == "OK"
    client.command("goto 0")
    stop = step_aside(client, "hello.0")
    assert stop["signal"] == "05" and stop["08"] == (TOUCH + 3).to_bytes(4, "little").hex()


def test_whoever_interrupts_the_step_gives_up_the_move(client: Client) -> None:
    began = client.machine.position
    client.command("goto 0")
    client.meanwhile = lambda: b"\x03"
    breathe = client.machine._breathe
    client.machine._breathe = lambda phase: client.machine._stand_still(Pause.BREATH, phase)  # type: ignore[method-assign]
    stop = step_aside(client, "hello.0")
    client.machine._breathe = breathe  # type: ignore[method-assign]
    client.meanwhile = lambda: b""
    assert stop["signal"] == "02" and client.machine.position == began
    assert client.go_on()["replaylog"] == "end"


def test_new_tasks_on_the_way_are_told_of_and_the_move_goes_on() -> None:
    plain, client = at(SYSTEM_CALL_PAGE, "sigma0"), at(SYSTEM_CALL_PAGE, "sigma0")
    for each in (plain, client):
        each.command("steps on")
        each.command("forth fault task=hello.1")
        each.text = ""
    step_aside(client, "sigma0")
    assert client.go_on() == plain.go_on() and client.machine.position == plain.machine.position
    told = [line for line in client.text.splitlines() if line.startswith("cycle ")]
    assert client.text == plain.text and len(told) > 10 and len(told) == len(set(told))
    assert {client.process("pager.0"), client.process("hello.1")} <= client.debugger.known_tasks


def test_a_move_back_in_time_needs_no_step(client: Client) -> None:
    """gdb does not step over breakpoints backwards."""
    client.command("goto 0")
    assert client.stop(client.ask("bc"))["replaylog"] == "begin"
