"""gdb steps one thread alone over its breakpoint; what others are to stop at meanwhile waits for its turn.

While it does, gdb accepts a stop of that thread only: told of another, it ends with `finish_step_over: Assertion`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine, Pause
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import Breakpoint, MemoryEdit, StopKind
from l4lab.kernel import lifecycle
from l4lab.kernel.fiasco.abi import SYSTEM_CALL_PAGE
from l4lab.kernel.frame import EIP, INSTRUCTIONS
from support.gdb_client import Client
from support.real_gdb import needs_gdb, session
from support.runs import image

TOUCH = 0x804_8110
"""Where `hello` of `pagefault` reads a fresh page: a page fault, which its pager serves in `client_entry`."""


# --- gdb --------------------------------------------------------------------------------------------------


@needs_gdb
def test_everybody_at_the_system_call(tmp_path: Path) -> None:
    commands = ["tbreak main", "continue", "break system_call", *["continue"] * 4]
    printed, boot = session("clntsrv", commands, tmp_path)
    assert len(printed) == len(commands)
    for _, text in printed[3:]:
        assert "hit Breakpoint 2" in text and "internal-error" not in text
    assert boot.code == 0


@needs_gdb
def test_a_fault_and_its_pager(tmp_path: Path) -> None:
    """The pager comes past while gdb steps over the instruction that faults."""
    commands = [*("tbreak is_zero", "continue", f"break *{TOUCH:#x}", "continue"), "break client_entry"]
    commands += ["continue", "p $cycles", "thread find hello.0", "continue", "p $instructions"]
    commands += ["info breakpoints", "delete", "continue"]
    printed, boot = session("pagefault", commands, tmp_path)
    assert 'Thread 4.1 "pager.0" hit Breakpoint 3, client_entry' in printed[5][1]
    assert 'Thread 5.1 "hello.0" hit Breakpoint 2, is_zero' in printed[8][1]
    assert re.findall(r"already hit (\d) time", printed[10][1]) == ["2", "1"]
    assert "root task ended" in printed[12][1] and boot.code == 0


@needs_gdb
@pytest.mark.parametrize("name", ["clntsrv", "pagefault"])
def test_every_hit_is_counted_once(name: str, tmp_path: Path) -> None:
    """Of all threads, on all cores, and the run takes the cycles that it takes."""
    debugger = Debugger(DebuggedMachine(image(name)))
    debugger.set_breakpoints([Breakpoint(SYSTEM_CALL_PAGE)])
    hits = 0
    while debugger.resume().kind is StopKind.BREAKPOINT:
        hits += 1
    commands = ["break system_call", "ignore 1 1000000", "continue", "info breakpoints", "monitor where"]
    printed, boot = session(name, commands, tmp_path)
    assert f"already hit {hits} times" in printed[3][1]
    clocks = ", ".join(str(core.clock_cycles) for core in debugger.machine.cores)
    assert f"cycles of the cores: {clocks}\n" in printed[4][1]
    assert boot.code == 0


@needs_gdb
def test_a_step_of_a_person_at_a_breakpoint(tmp_path: Path) -> None:
    """gdb makes it alone, too. What has waited comes with the next command, and lies before."""
    commands = [*("tbreak is_zero", "continue", f"break *{TOUCH:#x}", "continue"), "break client_entry"]
    commands += ["p $instructions", "stepi", "p $instructions", "p $cycles", "continue", "p $cycles"]
    commands += ["reverse-continue", "p $instructions", "continue", "info breakpoints"]
    printed = [text for _, text in session("pagefault", commands, tmp_path)[0]]
    before, stepped, at_the_step, at_the_stop, back = (
        int(printed[index].partition("=")[2]) for index in (5, 7, 8, 10, 12)
    )
    assert stepped == before + 1 and back == before
    assert 'Thread 4.1 "pager.0" hit Breakpoint 3' in printed[9] and at_the_stop < at_the_step
    assert 'Thread 4.1 "pager.0" hit Breakpoint 3' in printed[13]


@needs_gdb
def test_with_scheduler_locking_others_wait_until_it_is_over(tmp_path: Path) -> None:
    commands = [*("tbreak is_zero", "continue", f"break *{TOUCH:#x}", "continue"), "break client_entry"]
    commands += ["set scheduler-locking on", "stepi", "step", "next", "set scheduler-locking off"]
    commands += ["continue", "delete", "continue"]
    printed, boot = session("pagefault", commands, tmp_path)
    for _, text in printed[6:9]:
        assert "pager.0" not in text and "internal-error" not in text
    assert 'Thread 4.1 "pager.0" hit Breakpoint 3' in printed[10][1]
    assert boot.code == 0


@needs_gdb
def test_with_scheduler_locking_a_thread_goes_on_alone(tmp_path: Path) -> None:
    """gdb keeps the frames of others, and ends with `skip_inline_frames: Assertion` where it is told of them."""
    commands = ["tbreak is_zero", "continue", "monitor catch fault", "continue", "set scheduler-locking on"]
    commands += [
        "thread 3.1",
        "finish",
        "goto 0",
        "reverse-continue",
        "set scheduler-locking off",
        "continue",
    ]
    printed, boot = session("pagefault", [*commands, "monitor delete", "continue"], tmp_path)
    text = [text for _, text in printed]
    assert 'Thread 5.1 "hello.0" stopped' in text[3]
    assert "stopped" not in text[6] and "l4_invoke" in text[6]
    for refused in text[7:9]:
        assert "time is one for all" in refused and 'Thread 3.1 "root" stopped' in refused
    assert "page fault of hello.1" in text[10] and 'Thread 6.1 "hello.1" stopped' in text[10]
    assert boot.code == 0


@needs_gdb
@pytest.mark.parametrize(
    ("looking", "found"),
    [
        (["monitor catch map task=pager.0"], "pager.0 mapped 1 page"),
        (["monitor catch ipc thread=pager.0 protocol=page_fault"], "message from hello.0"),
        (["inferior 4", "watch clients[1].table_count", "thread 5.1"], "New value = 1"),
    ],
)
def test_catchpoints_and_watchpoints_of_others(looking: list[str], found: str, tmp_path: Path) -> None:
    commands = [*("tbreak is_zero", "continue", f"break *{TOUCH:#x}", "continue"), *looking, "continue"]
    printed, boot = session("pagefault", [*commands, "delete", "monitor delete", "continue"], tmp_path)
    text = printed[len(commands) - 1][1]
    assert found in text and re.search(r'Thread 4.1 "pager.0" (stopped|hit)', text)
    assert boot.code == 0


# --- packets ----------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Client:
    """`hello.0` stands at its breakpoint; the page that it is going to read is not there."""
    client = Client()
    while "hello.0" not in {task.name for task in client.machine.kernel.tasks.values()} or (
        client.process("hello.0") not in client.debugger.known_tasks
    ):
        client.ask("vCont;c")
    insert(client, "hello.0", TOUCH)
    stop = client.go_on()
    assert stop["thread"] == client.thread("hello.0")
    insert(client, "pager.0", client.symbol("pager", "client_entry"))
    remove(client, "hello.0", TOUCH)
    return client


def insert(client: Client, task: str, address: int, letter: str = "Z") -> None:
    client.ask(f"Hg{client.thread(task)}")
    assert client.ask(f"{letter}0,{address:x},1") == "OK"


def remove(client: Client, task: str, address: int) -> None:
    insert(client, task, address, "z")


def step_alone(client: Client, task: str = "hello.0") -> dict[str, str]:
    thread = client.thread(task)
    stop = client.stop(client.ask(f"vCont;s:{thread}"))
    assert stop["thread"] == thread and client.ask("?").startswith(f"T{stop['signal']}thread:{thread};")
    return stop


def executed(client: Client, task: str) -> int:
    return client.frame_owner(task).frame[INSTRUCTIONS]


def test_it_goes_back_to_what_has_waited_and_on_from_there(client: Client) -> None:
    began, done = client.machine.position, executed(client, "hello.0")
    assert step_alone(client)["signal"] == "05" and executed(client, "hello.0") == done + 1
    ended = client.machine.position
    insert(client, "hello.0", TOUCH)
    stop = client.go_on()
    assert stop["thread"] == client.thread("pager.0") and "swbreak" in stop
    assert began < client.machine.position < ended and executed(client, "hello.0") == done
    stop = client.go_on()  # over the end of the first step, which has been told
    assert stop["thread"] == client.thread("hello.0") and client.machine.position > ended
    assert executed(client, "hello.0") > done + 1


def test_the_waiting_stop_is_passed_by_steps_of_everybody(client: Client) -> None:
    step_alone(client)
    stop = client.stop(client.ask(f"vCont;s:{client.thread('hello.0')};c"))
    assert stop["thread"] == client.thread("pager.0")


def test_a_breakpoint_that_is_gone_by_then_does_not_stop(client: Client) -> None:
    done = executed(client, "hello.0")
    step_alone(client)
    ended = client.machine.position
    remove(client, "pager.0", client.symbol("pager", "client_entry"))
    thread = client.thread("hello.0")
    stop = client.stop(client.ask(f"vCont;s:{thread};c"))
    assert stop["thread"] == thread and client.machine.position > ended
    assert executed(client, "hello.0") == done + 2  # one step from where the first has ended


def test_of_two_that_wait_the_first_comes_first(client: Client) -> None:
    client.command("catch map task=hello.0")
    client.text = ""
    step_alone(client)
    assert client.go_on()["thread"] == client.thread("pager.0")
    assert client.text == ""
    assert client.go_on()["signal"] == "00"
    assert "pager.0 mapped 1 page" in client.text


def test_what_others_stop_at_in_two_steps_of_two_threads(client: Client) -> None:
    """Each step is told once; the first stop that has waited comes back, whoever stepped then."""
    began, done = client.machine.position, executed(client, "hello.0")
    step_alone(client)
    step_alone(client)
    assert executed(client, "hello.0") == done + 2
    step_alone(client, "hello.1")
    ended = client.machine.position
    stop = client.go_on()
    assert stop["thread"] == client.thread("pager.0")
    assert began < client.machine.position < ended


def test_a_stop_of_its_own_ends_the_step(client: Client) -> None:
    client.command("catch fault task=hello.0")
    done = executed(client, "hello.0")
    stop = step_alone(client)
    assert stop["signal"] == "00" and executed(client, "hello.0") == done
    step_alone(client)  # the fault itself, and the pager's breakpoint
    assert executed(client, "hello.0") == done + 1
    assert client.go_on()["thread"] == client.thread("pager.0")


def test_a_change_by_hand_does_not_lose_what_has_waited(client: Client) -> None:
    """It is made again where it was made."""
    step_alone(client)
    ended = client.machine.position
    task = client.frame_owner("hello.0").task
    assert task is not None
    found = task.space.tables.translate(0x2000_0000)
    assert found is not None
    client.debugger.edit(MemoryEdit(found.physical, b"l4lab"))
    assert client.go_on()["thread"] == client.thread("pager.0") and client.machine.position < ended
    assert bytes(client.machine.ram.bytes_[found.physical :][:5]) == bytes(5)
    insert(client, "hello.0", TOUCH)
    client.go_on()
    assert bytes(client.machine.ram.bytes_[found.physical :][:5]) == b"l4lab"


def test_a_new_task_waits_too() -> None:
    """gdb is told of each once, in order, and not while it steps root over the system calls that start them."""

    def told(*, alone: bool) -> tuple[list[str], int]:
        client = Client()
        if alone:
            insert(client, "root", SYSTEM_CALL_PAGE)
        threads, waited = [], 0
        stop = client.stop(client.ask("vCont;c"))
        while "replaylog" not in stop:
            if "library" in stop:
                threads.append(stop["thread"])
            else:
                step_alone(client, "root")
            position = client.machine.position
            stop = client.stop(client.ask("vCont;c"))
            waited += "library" in stop and client.machine.position < position
        return threads, waited

    expected, _ = told(alone=False)
    assert len(expected) == 3
    threads, waited = told(alone=True)
    assert threads == expected and waited >= 1


def test_the_run_ends_in_the_step(client: Client) -> None:
    """Of sigma0, which waits for ever."""
    client.target.clear_breakpoints()
    assert step_alone(client, "sigma0")["replaylog"] == "end"


def test_the_run_ends_in_the_step_and_something_has_waited(client: Client) -> None:
    """The machine is where that is, and whoever goes on is told."""
    client.target.clear_breakpoints()
    insert(client, "pager.0", client.symbol("pager", "client_entry"))
    client.text = ""
    assert step_alone(client, "sigma0")["signal"] == "00" and "the run ends before" in client.text
    position = client.machine.position
    assert client.go_on()["thread"] == client.thread("pager.0") and client.machine.position == position


def test_the_same_in_a_system_call() -> None:
    """The thread has left its instruction, so gdb takes the step for made, and goes on by itself."""

    def at_the_last_wait(hits: int | None) -> tuple[Client, int]:
        client, found = Client(), 0
        insert(client, "sigma0", SYSTEM_CALL_PAGE)
        while found != hits and "replaylog" not in client.go_on():
            found += 1
        return client, found

    client, _ = at_the_last_wait(at_the_last_wait(None)[1])
    remove(client, "sigma0", SYSTEM_CALL_PAGE)
    began = client.machine.position
    insert(client, "root", SYSTEM_CALL_PAGE)
    stop = step_alone(client, "sigma0")
    assert stop["signal"] == "05" and stop["08"] == (SYSTEM_CALL_PAGE + 2).to_bytes(4, "little").hex()
    assert began < client.machine.position
    assert client.go_on()["thread"] == client.thread("root")


def test_a_thread_that_ends_itself(client: Client) -> None:
    """gdb hears that its step is over, and that the thread is no more."""
    remove(client, "pager.0", client.symbol("pager", "client_entry"))
    thread = client.thread("hello.0")
    insert(client, "hello.0", SYSTEM_CALL_PAGE)
    while True:
        client.go_on()
        remove(client, "hello.0", SYSTEM_CALL_PAGE)
        stop = client.stop(client.ask(f"vCont;s:{thread}"))
        assert stop["thread"] == thread
        if client.ask(f"qThreadExtraInfo,{thread}") == f"hello.0: {'ended'}".encode().hex():
            break
        client.ask(f"Hg{thread}")
        assert client.ask(f"Z0,{SYSTEM_CALL_PAGE:x},1") == "OK"
    assert stop["signal"] == "05" and stop["08"] == (SYSTEM_CALL_PAGE + 2).to_bytes(4, "little").hex()
    client.go_on()
    assert (
        client.ask(f"T{thread}") == "OK" and client.ask(f"Hg{thread}") == "OK"
    )  # all of its task that is left
    assert client.ask("p8") == "xxxxxxxx"


def test_a_thread_that_is_killed_at_its_instruction(client: Client) -> None:
    thread = client.frame_owner("hello.0")
    registers = client.ask(f"Hg{client.thread('hello.0')}") and client.ask("g")

    def kills(*_: object) -> None:
        lifecycle.kill(client.machine.kernel, thread)

    client.debugger.observers.append(kills)
    named = client.thread("hello.0")
    stop = client.stop(client.ask(f"vCont;s:{named}"))
    assert (stop["thread"], stop["signal"]) == (named, "00") and "it has ended" in client.text
    assert client.ask(f"Hg{named}") == "OK" and client.ask("g") == registers
    assert client.ask("P0=01000000") == "E16"
    assert named in client.ask("qfThreadInfo")
    assert client.ask(f"m{thread.frame[EIP]:x},4") != ""
    assert client.stop(client.ask(f"vCont;s:{named}"))["thread"]  # there is nobody to step any more


def test_who_interrupts_hears_of_the_thread_that_steps(client: Client) -> None:
    client.meanwhile = lambda: b"\x03"
    client.machine._breathe = lambda phase: client.machine._stand_still(Pause.BREATH, phase)  # type: ignore[method-assign]
    assert step_alone(client, "sigma0")["signal"] == "02"
    assert client.debugger.last_stop.thread is client.frame_owner("sigma0")
    client.meanwhile = lambda: b""
    del client.machine._breathe  # type: ignore[method-assign]
    stop = client.go_on()
    assert stop["thread"] in (client.thread("hello.0"), client.thread("pager.0"))


def test_without_vcont_it_is_the_thread_that_was_chosen_for_going_on(client: Client) -> None:
    thread = client.thread("hello.0")
    assert client.ask(f"Hc{thread}") == "OK"
    assert client.stop(client.ask("s"))["thread"] == thread
    assert client.ask("Hc0") == "OK"
    assert client.stop(client.ask("c"))["thread"] == client.thread("pager.0")


def test_whoever_moves_in_time_forgets_what_has_waited(client: Client) -> None:
    """From where the command was given."""
    for move, expected in (("forth entry", 1), ("goto 2000000", 1), ("back fault", -1)):
        step_alone(client)
        ended = client.machine.position
        client.command(move)
        client.go_on()
        assert (client.machine.position > ended) == (expected > 0), move
        client.command("back fault task=hello.0 address=0x20000000")
        client.go_on()


def test_going_back_from_behind_a_step_meets_what_has_waited(client: Client) -> None:
    step_alone(client)
    stop = client.stop(client.ask("bc"))
    assert stop["thread"] == client.thread("pager.0")
    assert client.stop(client.ask("bs"))["thread"] == client.thread("pager.0")


def told_of_faults(addresses: list[int]) -> list[str]:
    """The lines of `monitor steps on`, with everybody stepped alone over breakpoints of all."""
    client = Client()
    client.command("steps on")
    for address in addresses:
        client.target._breakpoints[0, 0, address] = Breakpoint(address)
    client.text = ""
    stop = client.go_on()
    while "replaylog" not in stop:
        client.ask(f"vCont;s:{stop['thread']}")
        stop = client.go_on()
    return [line for line in client.text.splitlines() if "ended" not in line]


@pytest.fixture(scope="module")
def all_steps() -> list[str]:
    lines = told_of_faults([])
    assert len(lines) > 100
    return lines


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_steps_of_page_faults_are_told_once_and_in_order(everywhere: bool, all_steps: list[str]) -> None:
    """However often the run is had again; and they stop nobody who steps alone."""
    more = [SYSTEM_CALL_PAGE] if everywhere else []
    assert told_of_faults([TOUCH, Client().symbol("pager", "client_entry"), *more]) == all_steps


# --- one thread goes on alone -----------------------------------------------------------------------------


def test_who_goes_on_alone_is_told_of_nobody_else(client: Client) -> None:
    """As with `set scheduler-locking on`."""
    insert(client, "hello.0", TOUCH)
    remove(client, "hello.0", TOUCH)
    step_alone(client)
    insert(client, "hello.0", TOUCH)
    thread = client.thread("hello.0")
    stop = client.stop(client.ask(f"vCont;c:{thread}"))
    assert stop["thread"] == thread and "swbreak" in stop
    position = client.machine.position
    assert client.go_on()["thread"] == client.thread("pager.0") and client.machine.position < position


def test_the_end_of_the_run_is_of_who_goes_on_alone(client: Client) -> None:
    sigma0 = client.thread("sigma0")
    stop = client.stop(client.ask(f"vCont;c:{sigma0}"))
    assert (stop["thread"], stop["replaylog"]) == (sigma0, "end")
    assert client.go_on()["thread"] == client.thread("pager.0")


def test_a_thread_that_ends_while_it_goes_on_alone_stays_where_it_is(client: Client) -> None:
    """Whatever it is asked for, until all go on."""
    client.target.clear_breakpoints()
    thread, began = client.thread("hello.0"), executed(client, "hello.0")
    stop = client.stop(client.ask(f"vCont;c:{thread}"))
    position = client.machine.position
    assert (stop["thread"], stop["signal"]) == (thread, "00") and "it has ended" in client.text
    for request in (f"vCont;s:{thread}", f"vCont;c:{thread}"):
        again = client.stop(client.ask(request))
        assert (again["thread"], again["signal"]) == (thread, "00") and client.machine.position == position
    client.command("goto 1")
    client.ask(f"vCont;c:{thread}")
    assert client.machine.position == position and client.ask("g")[:2] != ""
    back = client.stop(client.ask("bs"))
    assert back["thread"] == thread and began < executed(client, "hello.0")
    assert client.machine.position < position


@pytest.mark.parametrize("move", ["goto 0", "back fault", "forth entry", "forth step"])
def test_nobody_moves_in_time_alone(client: Client, move: str) -> None:
    """gdb accepts no stop of another thread then, and the thread may not be there."""
    client.command("steps on")
    thread, began = client.thread("hello.0"), client.machine.position
    client.command(move)
    client.text = ""
    step_alone(client)
    stop = client.stop(client.ask(f"vCont;c:{thread}"))
    assert (stop["thread"], stop["signal"]) == (thread, "00") and client.machine.position == began
    assert client.text.startswith(f"{move}") and "not from here: time is one for all" in client.text


def test_going_back_alone_is_a_step_of_the_thread_or_nothing(client: Client) -> None:
    """gdb says `Hc` once, and again when it changes; `vCont` says itself who goes on."""
    thread = client.thread("hello.0")
    began, done = client.machine.position, executed(client, "hello.0")
    assert client.ask(f"Hc{thread}") == "OK"
    for _ in range(2):
        stop = client.stop(client.ask("bc"))
        assert (stop["thread"], stop["signal"]) == (thread, "00") and client.machine.position == began
    stop = client.stop(client.ask("bs"))
    assert stop["thread"] == thread and executed(client, "hello.0") == done - 1
    client.command("back fault")
    stop = client.stop(client.ask("bc"))
    assert (stop["thread"], stop["signal"]) == (thread, "00") and executed(client, "hello.0") == done - 1
    assert client.go_on()["thread"] == client.thread("pager.0")
    assert client.ask("Hc0") == "OK"
    assert client.stop(client.ask("bc"))["replaylog"] == "begin"
    assert client.ask(f"Hc{thread}") == "OK"  # who is not there yet
    stop = client.stop(client.ask("bs"))
    assert stop["signal"] == "00" and client.machine.position == type(began)(0, 0, 0)
