"""Sessions with the real gdb, as a person has them: it reads the script that the run has written, then commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.handshake import PATIENCE_SECONDS, read_until

PROMPT = "(gdb) "
LEFT_OUT = "…"
RECORDED_WITH = "13."
"""The documents' transcripts are of this gdb; others word a few lines differently."""


def _missing() -> str:
    """Why there is no gdb to talk to; "" if there is one."""
    if shutil.which("gdb") is None:
        return "gdb is not installed"
    command = ["gdb", "-nx", "-batch", "-ex", "set architecture i386"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "this gdb does not know i386" if "Undefined item" in done.stderr else ""


_REASON = _missing()
needs_gdb = pytest.mark.skipif(bool(_REASON), reason=_REASON)


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
            [*command, *(["-S"] if stopped else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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

    def wait_for_output(self, wanted: str) -> None:
        """Until a line with that has been printed by a guest; such lines are not in `console` then."""
        assert self.process.stdout is not None
        read_until(self.process.stdout, wanted)

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
    # What it says while it leaves belongs to no command.
    text = re.sub(r"^Thread-specific breakpoint .* deleted .*\n", "", done.stdout[start:], flags=re.MULTILINE)
    return re.sub(r"(/[^/\s]+)+/l4lab-[^/\s]+/", "/tmp/l4lab-…/", text)


def answers(transcript: str) -> list[tuple[str, str]]:
    """(command, what it printed), in order."""
    parts = re.split(rf"^{re.escape(PROMPT)}", transcript, flags=re.MULTILINE)[1:]
    return [(command, text) for command, _, text in (part.partition("\n") for part in parts)]


def section_of(page: str, title: str) -> str:
    """The last transcript in a section of a page."""
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return section.rpartition("```console\n")[2].partition("```")[0]


def without_numbers(line: str) -> str:
    """A line as it is whatever the programs' addresses and cycles are; of a thread, without where it is."""
    line = re.sub(r"^(..[0-9.]+ +Thread .*? \(.*?\)) .*", r"\1", line)
    return re.sub(r"\s+", " ", re.sub(r"0x[0-9a-f]+|\d+", "N", line)).strip()


def agree(shown: str, printed: str) -> bool:
    """Whether a document shows what is printed now, but for numbers; a line of dots stands for any lines."""
    lines = [without_numbers(line) for line in printed.splitlines()]
    left_out = False
    for line in shown.splitlines():
        if line == LEFT_OUT:
            left_out = True
            continue
        wanted = without_numbers(line)
        if left_out and wanted in lines:
            del lines[: lines.index(wanted)]
        if not lines or lines.pop(0) != wanted:
            return False
        left_out = False
    return left_out or not lines


def shortened(shown: str, printed: str) -> str:
    """What is printed now, with as much of a list of threads left out as the document does."""
    if LEFT_OUT not in shown:
        return printed
    kept = set(re.findall(r'Thread [0-9.]+ ("[^"]+")', shown))
    lines: list[str] = []
    for line in printed.splitlines():
        name = re.search(r'Thread [0-9.]+ ("[^"]+")', line)
        if name is None or name[1] in kept:
            lines.append(line)
        elif lines[-1] != LEFT_OUT:
            lines.append(LEFT_OUT)
    return "\n".join(lines) + "\n"


def check_document(path: Path, title: str, printed: list[tuple[str, str]]) -> None:
    """The transcript in that section is of this session; with UPDATE_DOCS set it becomes that of this session."""
    if not gdb_version().startswith(RECORDED_WITH):
        pytest.skip(f"the document's is gdb {RECORDED_WITH}x, this is {gdb_version()}")
    page = path.read_text(encoding="utf-8")
    old = section_of(page, title)
    shown = answers(old)
    if "UPDATE_DOCS" in os.environ:
        new = "".join(
            f"{PROMPT}{command}\n{shortened(before, text)}"
            for (command, text), (_, before) in zip(printed, shown, strict=True)
        )
        path.write_text(page.replace(old, new), encoding="utf-8")
        return
    for (command, text), (_, expected) in zip(printed, shown, strict=True):
        assert agree(expected, text), (
            f"UPDATE_DOCS=1 will do, if this is as it should be: {command} prints\n{text}"
        )


def session(image: str | Path, commands: list[str], folder: Path) -> tuple[list[tuple[str, str]], Boot]:
    """Boot, talk, let it run to its end: the answers, and the run."""
    boot = Boot(image)
    try:
        transcript = run_gdb(boot, commands, folder)
        boot.end()
    finally:
        boot.kill()
    return answers(transcript), boot
