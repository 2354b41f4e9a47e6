"""`l4lab debug` from the command line: on a real terminal, and where it cannot be."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.errors import OperatorError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.debug.tui import launch, screenshot
from l4lab.tools.debug.tui.app import DebugApp
from l4lab.tools.debug.tui.session import DebugSession
from support.command import CLI
from support.handshake import PATIENCE_SECONDS, read_some
from support.runs import image


def read_until(terminal: int, wanted: bytes) -> None:
    """What the program writes, until it has written `wanted`."""
    data = b""
    while wanted not in data:
        data += read_some(terminal)


def test_on_a_terminal() -> None:
    """Draws, obeys keys, leaves the terminal as it was, ends with 0."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "TERM": "xterm-256color"}
    child = subprocess.Popen(
        [*CLI, "debug", "pagefault"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    try:
        read_until(ours, b"at the start")
        os.write(ours, b"f")
        read_until(ours, b"fetch from 0x100000")
        os.write(ours, b"q")
        read_until(ours, b"\x1b[?1049l")
        assert child.wait(PATIENCE_SECONDS) == 0
        assert termios.tcgetattr(theirs)[:4] == before[:4]
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)


def test_without_a_terminal_it_says_what_to_do() -> None:
    done = subprocess.run(
        [*CLI, "debug", "pagefault"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "l4lab: debug: found no terminal, expected one; without: `l4lab boot IMAGE --gdb ADDR`\n"
    )


def test_without_textual_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "l4lab.tools.debug.tui.app")
    monkeypatch.setitem(sys.modules, "textual.app", None)
    with pytest.raises(OperatorError, match="pip install textual"):
        launch.debug("pagefault", image=None, max_cycles=None)


def test_bug_of_ours_is_raised_when_the_screen_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    def run(app: DebugApp) -> None:
        stop = app.session.last_stop
        app.session.last_stop = type(stop)(StopKind.BUG, stop.position, 0, None, "bug: two and two")

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(DebugApp, "run", run)
    with pytest.raises(KernelBug, match=r"two and two\ncore 0: cycle"):
        launch.debug("pagefault", image=None, max_cycles=None)


def test_limit_of_cycles_ends_the_run() -> None:
    session = DebugSession(image("pagefault"), max_cycles=300_000)
    assert session.go_on().kind is StopKind.END
    assert session.moment.text == "the run is over: cycle limit reached"


def test_picture_needs_nothing_from_elsewhere() -> None:
    svg = asyncio.run(screenshot.picture())
    assert "@font-face" not in svg
    for text in ("pager.0", "pma_allocate", "client_entry", "frame"):
        assert text in svg
