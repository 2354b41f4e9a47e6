"""`monitor` commands: what they show, what they refuse, and that the document lists them all."""

from __future__ import annotations

import re

import pytest

from l4lab.emulator.debug.catching import PROTOCOLS
from l4lab.tools.debug.gdb.documents import JDB_LETTERS
from l4lab.tools.native.build import CHECKOUT
from support.gdb_client import Client

HEAP = 0x2000_0000


@pytest.fixture
def client() -> Client:
    """At the first fault of the first `hello`, with the thread selected."""
    client = Client("pagefault")
    client.command("catch fault task=hello.0")
    client.go_on()
    assert client.ask(f"Hg{client.thread('hello.0')}") == "OK"
    return client


def document() -> str:
    return (CHECKOUT / "docs/debugger.md").read_text(encoding="utf-8")


def test_the_document_lists_the_commands_as_help_does(client: Client) -> None:
    section = document().partition("## Commands of `monitor`\n")[2]
    assert section.partition("```text\n")[2].partition("```")[0] == client.command("help")


def test_what_the_document_tells_to_type_is_understood(client: Client) -> None:
    rows = re.findall(r"`((?:back|forth|goto) [^`]+)`", document().partition("## Back in time")[2])
    assert len(rows) >= 6
    for command in rows:
        if "…" not in command:
            assert not client.command(command).startswith("error"), command
    assert "page_fault" in PROTOCOLS


@pytest.mark.parametrize(
    "command",
    [
        *(
            "threads",
            "tasks",
            "objects",
            "objects task",
            "senders",
            "ready",
            "timeouts",
            "memory",
            "irqs",
            "ipis",
        ),
        *(
            "cores",
            "thread",
            "thread pager.0",
            "thread 8",
            "message",
            "message hello.1",
            "caps",
            "caps sigma0",
        ),
        *(
            "ptable",
            "ptable hello.1",
            "ptable root 0x180000",
            "mapdb 0x8048000",
            "mapdb frame=0x10",
            "bt",
            "bt root",
        ),
        *("info", "info threads", "info mem", "info mem pager.0", "where", "catch", "steps"),
        *JDB_LETTERS,
    ],
)
def test_looking_changes_nothing(client: Client, command: str) -> None:
    place = client.machine.position
    words = {"m": "m 0x8048000"}.get(command, command)
    text = client.command(words)
    assert text and not text.startswith("error"), text
    assert client.machine.position == place and client.debugger._edits == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("blub", "'blub' is no command; `monitor help` lists them"),
        ("threads 1", "found '1', expected nothing more"),
        ("thread nobody", "there is no thread 'nobody'"),
        ("caps nobody", "there is no task 'nobody'"),
        ("objects thing", "'thing' is no kind of object"),
        ("ptable hello.0 zz", "'zz' is no number"),
        ("mapdb", "expected one address"),
        ("mapdb 0x20000000", "0x20000000 is not mapped in hello.0"),
        ("catch thing", "'thing' cannot be caught, expected one of fault"),
        ("catch fault colour=red", "'colour=red' is no filter"),
        ("catch fault address=x", "'x' is no address"),
        ("catch ipc protocol=x", "'x' is no protocol"),
        ("catch fault 0x1000 address=0x2000", "'address=0x2000': found address twice, expected it once"),
        ("delete 9", "there is no catchpoint 9"),
        ("steps maybe", "found 'maybe', expected on or off"),
        ("goto", "expected a cycle"),
        ("goto soon", "'soon' is no number"),
        ("goto 1 7", "there is no core 7, expected 0 to 1"),
        ("goto -1", "-1 is out of range"),
        ("back", "expected what to catch"),
        ("info goto", "there is nothing to tell about 'goto'"),
        ("info mem nobody", "there is no task 'nobody'"),
        ("thread 'x", "No closing quotation"),
    ],
)
def test_what_cannot_be_done_says_why_in_one_line(client: Client, command: str, why: str) -> None:
    text = client.command(command)
    assert text.startswith("error: ") and why in text
    assert text.count("\n") == 1


def test_steps_to_follow_need_a_fault_that_is_caught() -> None:
    client = Client("pagefault")
    assert "no page faults are followed" in client.command("forth step")


def followed(client: Client) -> list[str]:
    """The names of the steps that `forth step` tells until the fault is over."""
    client.text = text = ""
    while "together" not in text:
        assert client.command("quietly forth step") == ""
        assert "replaylog" not in client.go_on()
        text += client.text
    return re.findall(r"^  [1-7] (\w+) ", text, flags=re.MULTILINE)


def test_a_fault_that_one_goes_to_is_followed_from_there() -> None:
    client = Client("pagefault")
    rest = ["fault", "message", "request", "frame", "map", "resume"]
    client.command("forth fault task=hello.0 0x20000000")
    client.go_on()
    assert "page fault: read from 0x20000000" in client.text
    place = client.machine.position
    assert followed(client) == rest
    assert "no page faults are followed" in client.command("forth step")  # that one is over
    client.command("back fault task=hello.0")
    client.go_on()
    assert client.machine.position == place
    text = client.text
    assert "back fault task=hello.0: hello.0: page fault: read from 0x20000000" in text
    assert followed(client) == rest


def test_a_fault_that_one_goes_to_from_the_steps_of_another_is_followed(client: Client) -> None:
    client.command("forth step")
    client.go_on()
    client.command("forth fault task=hello.1")
    client.go_on()
    assert "page fault of hello.1" in client.text
    followed(client)
    assert "back to the instruction of hello.1" in client.text


def test_info_mem_is_as_qemu_prints_it(client: Client) -> None:
    lines = client.command("info mem").splitlines()
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{16}) ([0-9a-f]{16}) u[r-][w-]", line)
        assert match is not None, line
        assert int(match[2], 16) - int(match[1], 16) == int(match[3], 16)
    assert not any(line.startswith(f"{HEAP:016x}") for line in lines)


def test_the_backtrace_goes_on_through_the_message(client: Client) -> None:
    client.command("forth step")
    client.go_on()
    text = client.command("bt pager.0")
    pager, _, hello = text.partition("hello.0 (thread")
    assert "main" in pager and "faulted at 0x20000000; pager.0 is its pager" in hello
    assert re.search(r"#\d+ +0x[0-9a-f]+ in main\+0x[0-9a-f]+ at hello/main\.c:12", hello)


def test_moves_wait_for_the_machine_to_go_on(client: Client) -> None:
    place = client.machine.position
    assert client.command("goto 700000") == "goto 700000 core 0: when the machine next goes on (`continue`)\n"
    assert client.command("quietly goto 800000") == ""
    assert client.machine.position == place
    client.text = ""
    assert client.go_on()["signal"] == "00"
    assert client.text == "goto 800000 core 0: there\n"
    assert client.machine.cores[0].clock_cycles >= 800_000


@pytest.mark.parametrize("command", ["goto 1 99", "quietly goto", "quietly goto 1 99", "quietly forth stp"])
def test_what_is_refused_leaves_the_move_before_it(client: Client, command: str) -> None:
    client.command("goto 700000")
    assert client.command(command).startswith("error: ")
    client.text = ""
    client.go_on()
    assert client.text == "goto 700000 core 0: there\n"


def test_catchpoints_are_numbered_and_removed(client: Client) -> None:
    assert client.command("catch map task=hello.1 0x20000000").startswith(
        "catchpoint 2: map task=hello.1 address=0x20000000-0x20000fff"
    )
    assert client.command("catch") == (
        "1: fault task=hello.0\n2: map task=hello.1 address=0x20000000-0x20000fff\n"
    )
    assert client.command("delete 1") == "1 catchpoints left\n"
    client.text = ""
    client.go_on()
    assert "mapped 1 page from" in client.text and "0x20000000 of hello.1" in client.text
    assert client.command("delete") == "0 catchpoints left\n"
    assert "replaylog" in client.go_on()


@pytest.mark.parametrize(
    ("filters", "missing"),
    [
        ("task=hello.0", ""),
        ("thread=pager.0", ""),
        ("task=nosuch", "; no such task yet: nosuch"),
        ("task=hello.0 thread=99", "; no such thread yet: 99"),
    ],
)
def test_a_catchpoint_for_who_is_not_there_yet_says_so(client: Client, filters: str, missing: str) -> None:
    assert client.command(f"catch fault {filters}") == (
        f"catchpoint 2: fault {filters} (page faults, before the kernel acts){missing}\n"
    )


def test_the_steps_of_every_fault_are_told_and_add_up() -> None:
    client = Client("pagefault")
    assert client.command("steps on") == "the seven steps of every page fault are told\n"
    client.text = ""
    assert client.go_on()["replaylog"] == "end"
    faults = re.split(r"^cycle \d+, core \d+: page fault of .*\n", client.text, flags=re.MULTILINE)[1:]
    assert all("together" in fault for fault in faults) and len(faults) > 30
    own = [fault for fault in faults if "maps the page itself: no message" in fault]
    assert faults[0] in own and "back to the instruction of sigma0" in faults[0]
    for fault in faults:
        numbers = [int(number) for number in re.findall(r"^  ([1-7]) \w+ ", fault, flags=re.MULTILINE)]
        assert numbers == ([1, 2, 7] if fault in own else [1, 2, 3, 4, 5, 6, 7]), fault
        cycles = [int(count) for count in re.findall(r"^  [2-7] \w+ +(\d+)  ", fault, flags=re.MULTILINE)]
        assert re.search(rf"together {sum(cycles)} cycles", fault), fault
