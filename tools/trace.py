"""`l4lab trace`: a recorded run for a trace viewer, for a profile viewer, or as text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from l4lab.emulator.inputs import printable
from l4lab.tools.recording import RunError
from l4lab.tools.rundir import Run, last_run, open_run
from l4lab.tools.symbols import Symbols
from l4lab.tools.trace_perfetto import write_perfetto
from l4lab.tools.trace_source import checked
from l4lab.tools.trace_speedscope import write_speedscope
from l4lab.tools.trace_text import text_lines

STDOUT: Final = "-"
_TELL_ROWS: Final = 4096
_LONG_ROWS: Final = 20_000


def show_trace(folder: Path | None, *, perfetto: str | None, speedscope: str | None, text: str | None) -> int:
    """`l4lab trace`. Writes each of the files that are named. Returns the exit code; raises RunError."""
    run = checked(open_run(folder if folder is not None else last_run()))
    symbols = Symbols(run)
    if perfetto is not None:
        with _file(perfetto) as out, _progress(run, perfetto) as done:
            write_perfetto(run, symbols, out, done)
    if speedscope is not None:
        with _file(speedscope) as out, _progress(run, speedscope) as done, _as_text(out) as stream:
            write_speedscope(run, symbols, stream, done)
    if text is not None:
        with _file(text) as out, _progress(run, text) as done, _as_text(out) as stream:
            for line in text_lines(run, symbols, done):
                stream.write(line + "\n")
    return 0


@contextmanager
def _file(name: str) -> Iterator[IO[bytes]]:
    """The file to write. What cannot be written in whole is removed."""
    if name == STDOUT:
        yield sys.stdout.buffer
        return
    path = Path(name)
    try:
        out = path.open("wb")
    except OSError as error:
        raise RunError(f"cannot write {printable(path)}: {error.strerror}") from None
    try:
        with out:
            yield out
    except OSError as error:
        _remove(path)
        raise RunError(f"cannot write {printable(path)}: {error.strerror}") from None
    except BaseException:
        _remove(path)
        raise


@contextmanager
def _as_text(out: IO[bytes]) -> Iterator[TextIO]:
    """`out`, which stays open, for text."""
    stream = TextIOWrapper(out, encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        stream.detach()


def _remove(path: Path) -> None:
    """`path`, if it is a file and no device."""
    if path.is_file():
        path.unlink()


@contextmanager
def _progress(run: Run, name: str) -> Iterator[Callable[[], None]]:
    """What to call after each stretch: a bar on a terminal, for long runs."""
    console = Console(stderr=True)
    if not console.is_terminal or name == STDOUT or len(run.rows) < _LONG_ROWS:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(name), total=len(run.rows))
        count = 0

        def done() -> None:
            nonlocal count
            count += 1
            if count % _TELL_ROWS == 0:
                bar.update(task, completed=count)

        yield done
