"""What gdb knows of inferiors that are not the one it stopped in, and of those that are left over from before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.tools.debug.gdb.script import gdb_script, write_auto_load, write_stand_ins
from l4lab.tools.runs.programs import Programs
from support.gdb_client import Client
from support.programs import compile_program, write_manifest
from support.real_gdb import Boot, answers, needs_gdb, run_gdb, session
from support.runs import image

IS_ZERO = 0x804_8104
"""Where `hello` of `pagefault` begins with a page: once for each."""
IN_HELLO = ["tbreak hello/main.c:main", "continue"]
EVERYBODY = ["sigma0", "core 0", "core 1", "root", "pager.0", "hello.0"]


def values(text: str) -> list[str]:
    return re.findall(r"= (.*)", text)


@needs_gdb
def test_all_inferiors_have_the_machines_registers(tmp_path: Path) -> None:
    """Also those in which gdb has not stopped yet."""
    commands = [*IN_HELLO, "monitor where", "thread apply all -q -ascending p $cycles"]
    commands += [
        "thread apply all -q -ascending p $instructions",
        "thread 4.1",
        "info registers cycles cr3",
    ]
    commands += ["inferior 1", "p $fs_base != 0", "inferior 2", "p $cycles"]
    printed = [text for _, text in session("pagefault", commands, tmp_path)[0]]
    now, other = re.findall(r"cycles of the cores: (\d+), (\d+)", printed[2])[0]
    assert values(printed[3]) == [now, now, other, now, now, now]
    counts = values(printed[4])
    assert counts.pop(2) == "<unavailable>"  # of the idle core
    assert len(counts) == 5 and all(int(count) > 0 for count in counts)
    assert re.search(rf"cycles .* {now}\n", printed[6]) and "cr3 " in printed[6]
    assert values(printed[8]) == ["1"] and values(printed[10]) == [now]


@needs_gdb
def test_conditions_know_them_in_tasks_that_are_still_to_come(tmp_path: Path) -> None:
    commands = ["break client_entry if $cycles > 730000", "continue", "p $cycles", "info breakpoints"]
    printed = [text for _, text in session("pagefault", commands, tmp_path)[0]]
    assert "Error" not in printed[1] and 'Thread 4.1 "pager.0" hit Breakpoint 1' in printed[1]
    assert int(values(printed[2])[0]) > 730_000 and "already hit 1 time" in printed[3]


@needs_gdb
def test_a_breakpoint_in_the_inferior_of_the_cores(tmp_path: Path) -> None:
    """It stops the core, whoever runs on it: gdb passes over stops of threads whose inferior has none there."""
    at = f"*{IS_ZERO:#x}"
    commands = [
        *IN_HELLO,
        "info line is_zero",
        "thread 2.1",
        f"break {at}",
        "continue",
        "p $cycles",
        "stepi",
        "continue",
    ]
    commands += ["delete", "thread 2.2", f"break {at} thread 2.2", "continue", "delete", "continue"]
    printed, boot = session("pagefault", commands, tmp_path)
    text = [text for _, text in printed]
    assert 'Thread 2.1 "core 0" hit Breakpoint 2' in text[5] and int(values(text[6])[0]) > 0
    assert "0x0804810" in text[7] and "hit Breakpoint 2" in text[8]
    assert 'Thread 2.2 "core 1" hit Breakpoint 3' in text[12]
    assert "root task ended" in text[14] and boot.code == 0


def inferiors(text: str) -> list[tuple[str, ...]]:
    """(number, process, program's name) of those that have a process."""
    return re.findall(r"^[* ] (\d+) +process (\d+) .*/(\S+) *$", text, flags=re.MULTILINE)


class Coming:
    """A boot that several sessions, or connections of one, come to. `target`: the command for one more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boot = Boot("pagefault")
        self.target = "target remote " + self.boot.said[-2].rpartition(" ")[2]

    def talk(self, commands: list[str]) -> list[str]:
        return [text for _, text in answers(run_gdb(self.boot, commands, self.folder))]


@pytest.fixture
def coming(tmp_path: Path) -> Coming:
    return Coming(tmp_path)


@needs_gdb
@pytest.mark.parametrize(
    "meanwhile", [[], ["thread 4.1"], ["inferior 2"], ["goto 500000"], ["reverse-stepi 3"]]
)
def test_who_connects_again_finds_everything_where_it_was(coming: Coming, meanwhile: list[str]) -> None:
    """Programs, symbols, numbers of inferiors, breakpoints, registers."""
    look = [
        "info inferiors",
        "thread apply all -q -ascending bt 1",
        "thread apply all -q -ascending p $cycles",
    ]
    commands = [
        *IN_HELLO,
        "tbreak snprintf",
        "continue",
        "break client_entry",
        *meanwhile,
        *look,
        "disconnect",
        coming.target,
        *look,
    ]
    commands += ["continue", "info breakpoints", "delete", "continue"]
    try:
        printed = coming.talk(commands)
        coming.boot.end()
    finally:
        coming.boot.kill()
    first = 5 + len(meanwhile)
    before, after = printed[first : first + 3], printed[first + 5 : first + 8]
    assert inferiors(before[0]) == inferiors(after[0]) and len(inferiors(after[0])) >= 5
    assert values(before[2]) == values(after[2]) and "void" not in after[2]
    assert before[1] == after[1]
    assert "hit Breakpoint 3, client_entry" in printed[-4] and "Error" not in "".join(printed)
    assert "already hit 1 time" in printed[-3] and coming.boot.code == 0


@needs_gdb
def test_with_another_inferior_chosen_each_task_has_its_own_program(coming: Coming) -> None:
    """Numbers are gdb's then: the chosen one is filled first."""
    commands = [
        *IN_HELLO,
        "info inferiors",
        "disconnect",
        "inferior 4",
        coming.target,
        "info inferiors",
        "bt 1",
    ]
    try:
        printed = coming.talk([*commands, "tbreak client_entry", "continue"])
    finally:
        coming.boot.kill()
    before, after = ({pid: name for _, pid, name in inferiors(printed[index])} for index in (2, 6))
    assert before == after and inferiors(printed[2]) != inferiors(printed[6])
    assert "hello/main.c:" in printed[7]
    assert 'pager.0" hit Temporary breakpoint 2, client_entry' in printed[9]


@needs_gdb
def test_every_gdb_numbers_inferiors_alike(coming: Coming) -> None:
    try:
        first = coming.talk([*IN_HELLO, "info inferiors", "info threads", "disconnect"])
        second = coming.talk(["info inferiors", "info threads", "disconnect"])
    finally:
        coming.boot.kill()
    assert inferiors(first[2])[:5] == inferiors(second[0])
    names = [re.findall(r'"([^"]+)"', text)[: len(EVERYBODY)] for text in (first[3], second[1])]
    assert names == [EVERYBODY, EVERYBODY]


def test_processes_are_listed_in_the_order_in_which_they_were_told() -> None:
    client = Client()
    told: list[str] = []

    def look() -> None:
        listed = [each.partition(".")[0] for each in client.ask("qfThreadInfo")[1:].split(",")]
        told.extend(each for each in dict.fromkeys(listed) if each not in told)
        assert list(dict.fromkeys(listed)) == [each for each in told if each in listed]

    look()
    while "replaylog" not in client.stop(client.ask("vCont;c")):
        look()
    look()
    client.command("goto 0")
    client.go_on()
    look()
    assert told == ["p6", "p7", "p1", "pb", "pf", "p13"]


def test_scripts_for_programs_lie_where_gdb_looks_for_them(tmp_path: Path) -> None:
    """Below a folder of their own, by the program's real path; a folder that gdb would take for several is left out."""
    real = tmp_path / "real"
    real.mkdir()
    compile_program("int main(void) { return 0; }", real / "program")
    (tmp_path / "link").symlink_to(real)
    long = "x" * 250
    (real / long).write_bytes((real / "program").read_bytes())
    write_manifest(tmp_path / "x.toml", "link/program", f"link/{long}")
    programs = Programs(load_manifest(tmp_path / "x.toml"))
    folder = write_auto_load(tmp_path, programs, write_stand_ins(tmp_path))
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {f"{str(real / 'program')[1:]}-gdb.gdb", f"{str(tmp_path / 'no-program')[1:]}-gdb.gdb"}
    assert expected <= found and not any(long in name for name in found)
    assert f"add-auto-load-safe-path {folder}\n" in gdb_script("127.0.0.1:1", "x", programs, folder)
    for odd in ("a:b", "a\nb", "a b", "$HOME"):
        assert "auto-load" not in gdb_script("127.0.0.1:1", "x", programs, tmp_path / odd)


def test_an_image_of_bundled_programs_has_one_script_for_each(tmp_path: Path) -> None:
    programs = Programs(image("pagefault"))
    folder = write_auto_load(tmp_path, programs, write_stand_ins(tmp_path))
    assert len(list(folder.rglob("*-gdb.gdb"))) == len({program.path for program in programs.all}) + 1
