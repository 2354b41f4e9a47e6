"""Sessions with the real gdb, as a person has them: it reads the script that the run has written, then commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PATIENCE_SECONDS = 120
PROMPT = "(gdb) "

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


def gdb_version() -> str:
    """`13.1`, or so."""
    done = subprocess.run(["gdb", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"(\d+\.\d+)", done.stdout.splitlines()[0])
    assert match is not None
    return match[1]


class Boot:
    """`l4lab boot IMAGE --gdb` in a process of its own, waiting for gdb.

    `script`: of gdb, that it has written. `console`, `code`: what the guest printed and the exit code, from
    `end` on.
    """

    def __init__(self, image: str | Path, *, address: str = "127.0.0.1:0", stopped: bool = True) -> None:
        command = [sys.executable, "-P", "-m", "l4lab.tools.cli", "boot", str(image), "--gdb", address]
        self.process = subprocess.Popen(
            [*command, *(["-S"] if stopped else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.console, self.code = "", 0
        self.said: list[str] = []
        self.script = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            if " -x " in line:
                self.script = line.partition(" -x ")[2].strip()
                break

    def end(self) -> None:
        """Wait until it ends by itself."""
        self.console, rest = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.said += rest.splitlines()
        self.code = self.process.returncode

    def kill(self) -> None:
        """If it has not ended, end it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def run_gdb(boot: Boot, commands: list[str], folder: Path) -> str:
    """What gdb prints, each command behind its prompt; as much as lies behind the connection."""
    lines = ["set pagination off", "set confirm off", "set width 0", "set style enabled off"]
    for command in commands:
        shown = command.replace("\\", "\\\\")
        lines += [f"echo {PROMPT}{shown}\\n", command]
    path = folder / "commands.gdb"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        ["gdb", "-nx", "-q", "-batch", "-x", boot.script, "-x", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
    )
    start = done.stdout.find(PROMPT)
    assert start >= 0, done.stdout
    return done.stdout[start:]


def answers(transcript: str) -> list[tuple[str, str]]:
    """(command, what it printed), in order."""
    parts = re.split(rf"^{re.escape(PROMPT)}", transcript, flags=re.MULTILINE)[1:]
    return [(command, text) for command, _, text in (part.partition("\n") for part in parts)]


def session(image: str | Path, commands: list[str], folder: Path) -> tuple[list[tuple[str, str]], Boot]:
    """Boot, talk, let it run to its end: the answers, and the run."""
    boot = Boot(image)
    watchdog = threading.Timer(PATIENCE_SECONDS, boot.kill)
    watchdog.start()
    try:
        transcript = run_gdb(boot, commands, folder)
        boot.end()
    finally:
        watchdog.cancel()
        boot.kill()
    return answers(transcript), boot
