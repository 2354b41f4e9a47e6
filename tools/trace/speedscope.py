"""A run as a profile for speedscope: for each core, what its time went to, by task, function and cause.

One profile for each core, in nanoseconds. A stack is task, then function, then what its cycles were: user code and
TLB refills, or the kernel's causes. The kernel's time counts for the function that entered it. User code is
looked at every SAMPLE_CYCLES and at kernel entries, and each piece counts for where it ended. What nobody
asked for, the timer and interrupts, stands by itself, and so does idling.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final

from l4lab.emulator.costs import MILLICYCLES_PER_CYCLE
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import TRAP_NAMES
from l4lab.tools.ledger.accounts import IDLE, INTERRUPTS, NOT_ASKED_FOR, USER_CAUSES, account_name
from l4lab.tools.runs.rundir import Run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.source import Clock, Stretch

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
_SPOOL_SAMPLES: Final = 4096
_WRAP: Final = 1 << 32
_PIECE_BYTES: Final = 1 << 16

Stack = tuple[str, ...]


def write_speedscope(run: Run, symbols: Symbols, stretches: Iterable[Stretch], out: IO[str]) -> None:
    """The profile of some of `run`. Samples lie in temporary files until their core's turn has come."""
    profile = _Profile(run, symbols)
    try:
        for stretch in stretches:
            profile.add(stretch)
        profile.write(out)
    finally:
        profile.close()


class _Samples:
    """Samples of one core, in a temporary file: number of a stack, nanoseconds."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="l4lab-")  # noqa: SIM115
        self._pending = array("q")
        self.start_ns: int | None = None
        self.end_ns = 0

    def begin(self, ns: int) -> None:
        """What is told begins here, if nothing has been told yet."""
        if self.start_ns is None:
            self.start_ns = self.end_ns = ns

    def add(self, stack: int, ns: int) -> None:
        pending = self._pending
        if pending and pending[-2] == stack:
            pending[-1] += ns
            return
        if len(pending) >= 2 * _SPOOL_SAMPLES:
            pending.tofile(self._file)
            del pending[:]
        pending.extend((stack, ns))

    def pieces(self) -> Iterator[array[int]]:
        """All of them, some at a time: stack, nanoseconds, stack, …; then no more may be added."""
        self._pending.tofile(self._file)
        del self._pending[:]
        self._file.seek(0)
        while data := self._file.read(_PIECE_BYTES):
            piece = array("q")
            piece.frombytes(data)
            yield piece

    def close(self) -> None:
        self._file.close()


class _Profile:
    """All cores' samples, and the stacks that they are of."""

    def __init__(self, run: Run, symbols: Symbols) -> None:
        self._run = run
        self._symbols = symbols
        self._clock = Clock(run.mhz)
        self._frames: dict[str, int] = {}
        self._stacks: dict[Stack, int] = {}
        self._cores = [_Samples() for _ in range(run.cores)]

    def add(self, stretch: Stretch) -> None:
        samples = self._cores[stretch.core]
        at = stretch.start
        samples.begin(self._clock.ns(at))
        task, function = self._place(stretch)
        parts: list[tuple[Stack, int]] = []
        if not stretch.thread:
            parts.append(((account_name(self._run, IDLE),), stretch.entry - at))
        else:
            for piece in _cut(stretch, function, self._symbols, self._run.tlb_miss_millicycles):
                causes = zip(USER_CAUSES, (piece.room, piece.refill, piece.fpu), strict=True)
                parts += [((task, piece.function, name), n) for name, n in causes if n]
        trap = TRAP_NAMES[stretch.trap] if stretch.trap < len(TRAP_NAMES) else "kernel"
        whose = (task, function)
        if stretch.trap in NOT_ASKED_FOR:
            whose = (account_name(self._run, INTERRUPTS), trap)
        parts += [((*whose, name), n) for name, n in zip(CAUSE_NAMES, stretch.kernel, strict=True) if n]
        for stack, cycles in parts:
            at += cycles
            ns = self._clock.ns(at)
            if ns > samples.end_ns:
                samples.add(self._stacks.setdefault(stack, len(self._stacks)), ns - samples.end_ns)
                samples.end_ns = ns

    def _place(self, stretch: Stretch) -> tuple[str, str]:
        """Task, and the function that the stretch ended in."""
        run, thread = self._run, stretch.thread
        task = run.task_name(run.homes.get(thread, 0)) if run.homes.get(thread) else run.thread_name(thread)
        for event in stretch.events:
            if event.thread == thread and event.kind == events.ENTER:
                return task, self._symbols.function(thread, event.b or event.a)
            if event.thread == thread and event.kind in (events.FAULT, events.EXCEPTION):
                return task, self._symbols.function(thread, event.b)
        return task, "(somewhere)"

    def write(self, out: IO[str]) -> None:
        out.write(f'{{"$schema":{json.dumps(SCHEMA)},\n')
        out.write(f'"name":{json.dumps(self._run.image_name, ensure_ascii=False)},\n')
        out.write('"exporter":"l4lab","activeProfileIndex":0,\n"profiles":[')
        stacks = self._numbered()
        for number, samples in enumerate(self._cores):
            out.write(",\n" if number else "\n")
            out.write(f'{{"type":"sampled","name":"core {number}","unit":"nanoseconds",')
            out.write(f'"startValue":{samples.start_ns or 0},"endValue":{samples.end_ns},\n"samples":[')
            _write_list(out, (stacks[number] for piece in samples.pieces() for number in piece[0::2]))
            out.write('],\n"weights":[')
            _write_list(out, (str(ns) for piece in samples.pieces() for ns in piece[1::2]))
            out.write("]}")
        frames = [{"name": name} for name in self._frames]
        out.write(f'],\n"shared":{{"frames":{json.dumps(frames, ensure_ascii=False)}}}}}\n')

    def _numbered(self) -> list[str]:
        """By number of a stack, its frames' numbers as JSON."""
        return [
            f"[{','.join(str(self._frames.setdefault(name, len(self._frames))) for name in stack)}]"
            for stack in self._stacks
        ]

    def close(self) -> None:
        for samples in self._cores:
            samples.close()


@dataclass(slots=True)
class _Piece:
    """Of user code: what it took, and how much of that was not its own instructions."""

    function: str
    cycles: int
    misses: int
    refill: int = 0
    fpu: int = 0

    @property
    def room(self) -> int:
        """Cycles that are not accounted for yet."""
        return self.cycles - self.refill - self.fpu


def _cut(stretch: Stretch, function: str, symbols: Symbols, tlb_miss_millicycles: int) -> list[_Piece]:
    """The user code of a stretch, cut where it was looked at; `function`: where it ended."""
    pieces: list[_Piece] = []
    at, misses = stretch.start, 0
    for event in stretch.events:
        if event.kind == events.SAMPLE:
            until = min(max(stretch.entry - event.b, at), stretch.entry)
            name = symbols.function(stretch.thread, event.a)
            pieces.append(_Piece(name, until - at, (event.partner - misses) % _WRAP if pieces else 0))
            at, misses = until, event.partner
    pieces.append(
        _Piece(function, stretch.entry - at, (stretch.tlb_misses - misses) % _WRAP if pieces else 0)
    )
    _, refill, fpu = stretch.user
    for piece in reversed(pieces):  # the misses of the first are those that are left
        mine = piece.misses * tlb_miss_millicycles // MILLICYCLES_PER_CYCLE
        piece.refill = min(mine if piece is not pieces[0] else refill, refill, piece.cycles)
        refill -= piece.refill
    for piece in pieces:
        more = min(refill, piece.room)
        piece.refill, refill = piece.refill + more, refill - more
        piece.fpu = min(fpu, piece.room)
        fpu -= piece.fpu
    return pieces


def _write_list(out: IO[str], values: Iterator[str]) -> None:
    """The inside of a JSON list."""
    separator = ""
    while some := list(islice(values, _SPOOL_SAMPLES)):
        out.write(separator + ",".join(some))
        separator = ","
