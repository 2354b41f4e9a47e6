"""`l4lab boot --gdb` as a person starts and ends it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from support.command import call
from support.handshake import Signpost
from support.programs import compile_program, write_manifest
from support.real_gdb import Boot, answers, needs_gdb, run_gdb


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root task that never ends, and says so after a million cycles."""
    folder = tmp_path_factory.mktemp("looping")
    source = """
        #include <l4/print.h>
        int main(void)
        {
            for (volatile int turn = 0; turn < 1000000; turn++);
            printf("looping\\n");
            for (;;);
        }"""
    compile_program(source, folder / "looping")
    return write_manifest(folder / "looping.toml", "looping")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("hello", "-S"), "-S waits for gdb: expected --gdb ADDR, too"),
        (("hello", "--gdb", "0", "--json"), "--gdb goes with none of --json"),
        (("hello", "--gdb", "nonsense"), "found 'nonsense', expected [HOST:]PORT or the path of a socket"),
        (
            ("hello", "--gdb", "127.0.0.1:99999"),
            "--gdb 127.0.0.1:99999: found port 99999, expected 0 to 65535",
        ),
        (("hello", "--gdb", ":123456"), "--gdb :123456: found port 123456, expected 0 to 65535"),
        (("nothing-like-that", "--gdb", "0"), "nothing-like-that"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], why: str) -> None:
    done = call("boot", *arguments)
    assert done.returncode == 2 and why in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stopped", [True, False])
def test_whoever_ends_it_from_outside_leaves_nothing_behind(
    looping: Path, tmp_path: Path, number: signal.Signals, stopped: bool
) -> None:
    path = tmp_path / "gdb"
    boot = Boot(looping, address=str(path), stopped=stopped)
    try:
        script = Path(boot.script)
        assert script.exists() and path.exists()
        if not stopped:
            boot.wait_for_output("looping")
        boot.process.send_signal(number)
        boot.end()
    finally:
        boot.kill()
    assert boot.code == 128 + number
    assert not script.parent.exists() and not path.exists()
    assert not any("Traceback" in line for line in boot.said)


@needs_gdb
def test_ctrl_c_in_gdb_stops_the_machine_where_it_is(looping: Path, tmp_path: Path) -> None:
    boot = Boot(looping)
    post = Signpost(tmp_path / "post")

    def press_ctrl_c() -> None:
        number = int(post.wait())
        boot.wait_for_output("looping")
        os.kill(number, signal.SIGINT)

    person = threading.Thread(target=press_ctrl_c)
    person.start()
    try:
        commands = [f"shell echo $PPID > {post.path}", "continue", "p $cycles > 1000000", "bt 1", "kill"]
        printed = dict(answers(run_gdb(boot, commands, tmp_path)))
        boot.end()
    finally:
        boot.kill()
        person.join()
        post.close()
    assert "received signal SIGINT" in printed["continue"]
    assert printed["p $cycles > 1000000"] == "$1 = 1\n"
    # On a busy host that is right behind the system call that has printed, else in the loop.
    assert "main ()" in printed["bt 1"] or "system_call ()" in printed["bt 1"]
    assert boot.code == 130


@needs_gdb
def test_a_gdb_without_the_script_gets_programs_and_names_through_the_connection(tmp_path: Path) -> None:
    boot = Boot("pagefault")
    try:
        port = next(line for line in boot.said if "connect at" in line).rpartition(" ")[2]
        script = tmp_path / "own.gdb"
        script.write_text(f"set architecture i386\ntarget remote {port}\n", encoding="utf-8")
        boot.script = str(script)
        printed = dict(answers(run_gdb(boot, ["bt", "info threads", "monitor where", "detach"], tmp_path)))
        boot.end()
    finally:
        boot.kill()
    assert printed["bt"].startswith("#0  _start () at lib/crt0.S:")
    assert '"sigma0"' in printed["info threads"]
    assert boot.code == 0
