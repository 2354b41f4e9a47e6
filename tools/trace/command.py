"""`l4lab trace`: a recorded run for a trace viewer, for a profile viewer, or as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Final, TextIO

from l4lab.emulator.files.inputs import printable
from l4lab.emulator.machine import NEVER
from l4lab.tools.common.progress import Progress
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.rundir import Run, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.perfetto import write_perfetto
from l4lab.tools.trace.source import Stretch, checked, within
from l4lab.tools.trace.source import stretches as all_stretches
from l4lab.tools.trace.speedscope import write_speedscope
from l4lab.tools.trace.text import text_lines

STDOUT: Final = "-"
_TELL_ROWS: Final = 4096
_LONG_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write, and where to; None: not that. Of the run, the cycles from `first_cycle` to `last_cycle`."""

    perfetto: str | None = None
    speedscope: str | None = None
    text: str | None = None
    first_cycle: int = 0
    last_cycle: int | None = None


def show_trace(folder: Path | None, wanted: Wanted) -> int:
    """`l4lab trace`. Writes each of the files that are named. Returns the exit code; raises RunError."""
    run = checked(open_run(folder))
    if wanted.last_cycle is not None and wanted.last_cycle < wanted.first_cycle:
        raise RunError(f"--to {wanted.last_cycle}: expected nothing before --from {wanted.first_cycle}")
    symbols = Symbols(run)
    if (name := wanted.perfetto) is not None:
        with _file(name) as out, _stretches(run, wanted, name) as stretches:
            write_perfetto(run, symbols, stretches, out)
    if (name := wanted.speedscope) is not None:
        with _file(name) as out, _as_text(out) as stream, _stretches(run, wanted, name) as stretches:
            write_speedscope(run, symbols, stretches, stream)
    if (name := wanted.text) is not None:
        with _file(name) as out, _as_text(out) as stream, _stretches(run, wanted, name) as stretches:
            stream.writelines(f"{line}\n" for line in text_lines(run, symbols, stretches))
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
def _stretches(run: Run, wanted: Wanted, name: str) -> Iterator[Iterator[Stretch]]:
    """What of the run is wanted; on a terminal it is seen how far it is, if the run is long."""
    found = all_stretches(run)
    if name == STDOUT or len(run.rows) < _LONG_ROWS:
        yield _window(found, wanted)
        return
    with Progress(printable(name), len(run.rows)) as progress:

        def told() -> Iterator[Stretch]:
            for count, stretch in enumerate(found):
                if count % _TELL_ROWS == 0:
                    progress.reach(count)
                yield stretch

        yield _window(told(), wanted)


def _window(found: Iterator[Stretch], wanted: Wanted) -> Iterator[Stretch]:
    if wanted.last_cycle is None and not wanted.first_cycle:
        return found
    return within(found, wanted.first_cycle, NEVER if wanted.last_cycle is None else wanted.last_cycle)
