"""A person follows a page fault in gdb: into the pager, through its allocator, to the mapping, and back in time.

The session is the one that docs/debugger.md shows.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.emulator.machine import Machine
from l4lab.tools.native.build import CHECKOUT
from support.real_gdb import (
    LEFT_OUT,
    Boot,
    agree,
    answers,
    check_document,
    needs_gdb,
    run_gdb,
    section_of,
    session,
)
from support.runs import image

DOCUMENT = CHECKOUT / "docs/debugger.md"
TITLE = "A page fault, step by step"

pytestmark = needs_gdb


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, str]], Boot]:
    """The document's commands, answered anew."""
    commands = [command for command, _ in answers(section_of(DOCUMENT.read_text("utf-8"), TITLE))]
    assert commands
    return session("pagefault", commands, tmp_path_factory.mktemp("gdb"))


def test_the_transcript_in_the_document_is_of_this_session(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    """Numbers may differ. UPDATE_DOCS=1 brings it up to date."""
    check_document(DOCUMENT, TITLE, ran[0])


def test_numbers_may_differ_and_nothing_else() -> None:
    shown = 'cycle 12, core 0: page fault\n* 5.1 Thread 1.2 "x" (core 0, running)  f () at a.c:1\n'
    assert agree(shown, shown.replace("12", "990").replace("f () at a.c:1", "0x12 in ?? ()"))
    assert not agree(shown, shown.replace("fault", "faults"))
    assert not agree(shown, shown + "more\n")
    assert agree(f"first\n{LEFT_OUT}\nlast\n", "first\nsecond\nthird\nlast\n")
    assert not agree(f"first\n{LEFT_OUT}\nlast\n", "first\nsecond\n")


def test_the_fault_is_caught_at_the_instruction(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    caught = [text for command, text in ran[0] if command == "continue"][1]
    assert re.search(r"1 touch +- +read from 0x20000000, not mapped, .*hello/main\.c:12", caught)
    assert "hello.0" in caught and "is_zero (page=0x20000000) at hello/main.c:12" in caught


def test_the_seven_steps_pass_in_order_and_their_cycles_add_up(
    ran: tuple[list[tuple[str, str]], Boot],
) -> None:
    text = "".join(text for _, text in ran[0])
    steps = re.findall(r"^  ([1-7]) (\w+) +([0-9]+|-)  ", text, flags=re.MULTILINE)[:7]
    assert [(number, name) for number, name, _ in steps] == [
        ("1", "touch"),
        ("2", "fault"),
        ("3", "message"),
        ("4", "request"),
        ("5", "frame"),
        ("6", "map"),
        ("7", "resume"),
    ]
    total = re.search(r"together ([0-9]+) cycles", text)
    assert total is not None
    assert sum(int(cycles) for _, _, cycles in steps[1:]) == int(total[1])


def test_the_way_leads_through_the_pagers_source(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    text = "".join(text for _, text in ran[0])
    assert "pma_allocate (pma=" in text and "pager/pma/pma.c:" in text
    assert re.search(r"hello\.0 \(thread \d+\): faulted at 0x20000000; pager\.0 is its pager", text)


def test_the_mapping_appears(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    looks = [text for command, text in ran[0] if command.startswith("monitor ptable")]
    assert "0x20000000: not mapped" in looks[0]
    assert re.search(r"0x20000000: physical 0x[0-9a-f]+\n", looks[1])


def test_back_to_the_fault_it_is_as_it_was(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    """Same instruction, same cycle, and the page is not there."""
    moments = [text for command, text in ran[0] if command == "p $cycles"]
    assert len(moments) >= 2 and moments[0].partition("=")[2] == moments[-1].partition("=")[2]
    looks = [text for command, text in ran[0] if command.startswith("monitor ptable")]
    assert looks[-1] == looks[0]


def test_the_run_ends_as_if_nobody_had_looked(ran: tuple[list[tuple[str, str]], Boot]) -> None:
    machine = Machine(image("pagefault"))
    result = machine.run()
    boot = ran[1]
    assert boot.console == machine.output.decode()
    assert boot.code == result.exit_code == 0
    clock = f"{max(core.clock_cycles for core in machine.cores):,}".replace(",", " ")
    assert f"l4lab: the root task ended with exit code 0, after {clock} cycles" in boot.said


# --- more that one does in gdb ----------------------------------------------------------------------------


def test_watchpoints_forwards_and_backwards(tmp_path: Path) -> None:
    commands = [
        *(
            "tbreak hello/main.c:main",
            "continue",
            "tbreak hello/main.c:23",
            "continue",
            "watch *(int *) 0x20000004",
            "continue",
        ),
        *("x/2xw 0x20000000", "reverse-continue", "x/2xw 0x20000000", "delete", "monitor where"),
    ]
    printed = dict(enumerate(session("pagefault", commands, tmp_path)[0]))
    assert "Old value = 0\nNew value = 1" in printed[5][1]
    assert printed[6][1] == "0x20000000:\t0x00000000\t0x00000001\n"
    assert "Old value = 1\nNew value = 0" in printed[7][1]
    assert printed[8][1] == "0x20000000:\t0x00000000\t0x00000000\n"


def test_functions_of_the_program_can_be_called(tmp_path: Path) -> None:
    """gdb puts all registers back afterwards, also those that nobody may change, and the run goes on as before."""
    commands = [
        "tbreak hello/main.c:main",
        "continue",
        "p $sp",
        "p __udivdi3(100ULL, 7ULL)",
        "p $sp",
        "p $ftag",
    ]
    commands += ["p __udivdi3(__udivdi3(1000ULL, 10ULL), 3ULL)", "bt 1", "p $eip == (int) &main", "continue"]
    transcript, boot = session("hello", commands, tmp_path)
    printed = [text.partition(" = ")[2].strip() for _, text in transcript]
    assert (printed[3], printed[6], printed[5]) == ("14", "33", "65535")
    assert printed[2] == printed[4] and printed[2].startswith("(void *) 0x")
    assert "hello/main.c:" in transcript[7][1]
    assert boot.code == 0 and "16 of 16 fresh pages" in boot.console


def test_stepping_backwards_through_source_and_out_of_functions(tmp_path: Path) -> None:
    commands = [
        *("tbreak hello/main.c:main", "continue", "tbreak snprintf", "continue", "p $instructions"),
        *(
            "stepi 7",
            "reverse-stepi 7",
            "p $instructions",
            "reverse-finish",
            "bt 1",
            "stepi",
            "p $instructions",
        ),
        *("reverse-continue", "p $cycles"),
    ]
    printed = [text for _, text in session("pagefault", commands, tmp_path)[0]]
    assert "snprintf" in printed[3]
    stopped, again, entered = (int(printed[index].partition("=")[2]) for index in (4, 7, 11))
    assert stopped == again
    assert (
        stopped - 10 < entered <= stopped and "snprintf" in printed[10]
    )  # gdb's breakpoint is a little inside
    assert re.search(r"#0 .* greet \(.*hello/main\.c:\d+", printed[9])
    assert "No more reverse-execution history" in printed[12]
    assert printed[13].endswith("= 0\n")


def test_faults_and_messages_back_in_time(tmp_path: Path) -> None:
    commands = [
        *("goto 800000", "back fault", "p $cycles", "back map task=hello.1", "back ipc thread=pager.0"),
        *("forth entry", "goto 0", "p $cycles", "forth fault task=hello.0", "forth step"),
    ]
    printed = [text for _, text in session("pagefault", commands, tmp_path)[0]]
    assert "back fault: hello." in printed[1] and "page fault:" in printed[1]
    assert "of hello.1" in printed[3]
    assert "message from" in printed[4] and "pager.0" in printed[4]
    assert "forth entry" in printed[5]
    assert printed[7] == "$2 = 0\n"
    assert (
        "page fault of hello.0" in printed[8] and "main.c:12" in printed[8]
    )  # over the start of other tasks
    assert re.search(r"^  2 fault .*\n  3 message .* the message is with pager\.0", printed[9], re.MULTILINE)


def test_a_move_that_is_refused_does_not_go_on(tmp_path: Path) -> None:
    """gdb abandons a command of the script at the error."""
    refused = {
        "goto 1 99": "there is no core 99",
        "goto": "expected a cycle",
        "goto 1 2 3 4 5 6 7": "expected a cycle",
        "forth stp": "'stp' cannot be caught",
        "forth step": "no page faults are followed",
        "back": "expected what to catch",
        "back ipc a b c d e f g": "'a' is no filter",
    }
    path = tmp_path / "session.py"
    typed = [each for command in refused for each in (command, "p $cycles")]
    path.write_text(
        "import gdb\n"
        'gdb.execute("tbreak check_page"); gdb.execute("continue")\n'
        f"for command in {['p $cycles', *typed]!r}:\n"
        "    print(f'(gdb) {command}', flush=True)\n"
        "    try:\n"
        "        gdb.execute(command)\n"
        "    except gdb.error as error:\n"
        "        print(f'refused: {error}', flush=True)\n",
        encoding="utf-8",
    )
    boot = Boot("pagefault")
    try:
        printed = answers(run_gdb(boot, [f"source {path}", "continue"], tmp_path))
        boot.end()
    finally:
        boot.kill()
    cycles = {text.partition("=")[2] for command, text in printed if command == "p $cycles"}
    assert len(cycles) == 1 and int(cycles.pop()) > 0
    said = dict(printed)
    for command, why in refused.items():
        assert f"error: {why}" in said[command] and "refused: " in said[command]
    assert boot.code == 0


def test_leaving_and_coming_back(tmp_path: Path) -> None:
    """Each gdb finds the machine where the one before has left it."""
    boot = Boot("pagefault")
    try:
        commands = ["tbreak hello/main.c:main", "continue", "p $cycles", "maintenance flush register-cache"]
        killed = run_gdb(boot, [*commands, "shell kill -9 $PPID"], tmp_path)
        at = dict(answers(killed))["p $cycles"]
        again = dict(answers(run_gdb(boot, ["p $cycles", "info inferiors", "bt", "detach"], tmp_path)))
        assert again["p $cycles"] == at
        assert "main (argc=1" in again["bt"]
        boot.end()
    finally:
        boot.kill()
    assert "l4lab: gdb has gone; the machine waits for another one" in boot.said
    assert boot.code == 0


def test_a_socket_with_a_path(tmp_path: Path) -> None:
    boot = Boot("pagefault", address=str(tmp_path / "gdb"))
    try:
        printed = answers(run_gdb(boot, ["info threads"], tmp_path))
        boot.end()
    finally:
        boot.kill()
    assert '"sigma0"' in printed[0][1] and '"core 1"' in printed[0][1]
    assert not (tmp_path / "gdb").exists()
