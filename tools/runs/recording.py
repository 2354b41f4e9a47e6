"""The run directory: everything one run leaves behind, written as it goes.

    run.json      what was run, with what, and the result; `result` is null until the run has ended
    console.txt   what the guests printed
    ledger.json   what is in the next two: columns, sizes, names, costs; read it before them
    ledger.bin    every cycle of every core (`emulator/ledger.py`)
    events.bin    what happened, and for whom (`kernel/events.py`)
    symbols.json  what the programs' addresses are called (`tools/runs/symbols.py`)
    seal.json     the hashes of all others (`tools/runs/seal.py`)

Those from ledger.json to symbols.json are there if a ledger was kept. One run at a time writes to a folder.
The same inputs give the same bytes. A run that is interrupted, or even killed, can be read as far as it came:
`tools/runs/rundir.py`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from l4lab.emulator import ledger
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import printable
from l4lab.emulator.files.manifest import Manifest
from l4lab.emulator.files.profile import load_profile
from l4lab.emulator.ledger import EVENT_BYTES, EVENTS_FILE, ROW_BYTES, ROWS_FILE, Ledger
from l4lab.emulator.machine import Machine
from l4lab.emulator.stutter import stutters
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import TRAP_NAMES
from l4lab.tools.runs.seal import SEAL_FILE, write_seal

LAST_RUN: Final = Path("l4lab-out/last")
"""A link to the run that was recorded last from the current folder."""

RUN_FILE: Final = "run.json"
CONSOLE_FILE: Final = "console.txt"
LEDGER_FILE: Final = "ledger.json"
SYMBOLS_FILE: Final = "symbols.json"
FORMAT: Final = 1
"""Version of ledger.json and the files it describes; raised when something old cannot be read any more."""

_SEALED: Final = (RUN_FILE, CONSOLE_FILE, LEDGER_FILE, ROWS_FILE, EVENTS_FILE, SYMBOLS_FILE)

ROW_COLUMNS: Final = tuple((name, 64) for name in ledger.WIDE_COLUMNS) + tuple(
    (name, 32) for name in ledger.NARROW_COLUMNS
)
EVENT_COLUMNS: Final = tuple((name, 64 if name == "cycle" else 32) for name in events.COLUMNS)
"""(name, bits) of the columns of ledger.bin and events.bin."""


class RunError(OperatorError):
    """A run directory that cannot be written, or cannot be read."""


class Recording:
    """A run directory in the making. Leaving the context closes its files, whatever happened.

    `console` takes what guests print. `ledger`: for the machine; None if none was asked for.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        document: str,
        *,
        keep_ledger: bool = True,
        trace: bool = False,
    ) -> None:
        """`document`: run.json as it stands before the run. Raises RunError if `folder` cannot be written."""
        self.folder = folder
        self._manifest = manifest
        self._machine: Machine | None = None
        self._claim = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = _claimed(folder)
            for name in (SEAL_FILE, LEDGER_FILE, ROWS_FILE, EVENTS_FILE, SYMBOLS_FILE):
                (folder / name).unlink(missing_ok=True)  # an earlier run's would not belong to this one
            self._console: BinaryIO = (folder / CONSOLE_FILE).open("wb")
        except OSError as error:
            self._release()
            raise RunError(
                f"--out {printable(folder)}: {error.strerror}, expected a folder to write to"
            ) from None
        self.ledger: Ledger | None = None
        try:
            self._write(RUN_FILE, document)
            if keep_ledger:
                self.ledger = Ledger(folder, trace=trace)
                self._write(LEDGER_FILE, _described(manifest, trace, None))
        except BaseException:
            self._console.close()
            self._release()
            raise

    def console_too(self, console: Callable[[bytes], None] | None) -> Callable[[bytes], None]:
        """What takes guest output for this run directory and hands it on to `console`."""
        if console is None:
            return self.console

        def take(data: bytes) -> None:
            self.console(data)
            console(data)

        return take

    @stutters(100)
    def console(self, data: bytes) -> None:
        """Guest output, as it comes."""
        try:
            self._console.write(data)
            self._console.flush()
        except OSError as error:
            raise RunError(
                f"cannot write {printable(self.folder / CONSOLE_FILE)}: {error.strerror}"
            ) from None

    def watch(self, machine: Machine) -> None:
        """`machine` is the one that runs: its names and clocks go to ledger.json in the end."""
        self._machine = machine

    @stutters()
    def finish(self, document: str) -> None:
        """The run has ended and this is its run.json."""
        self._write(RUN_FILE, document)

    @stutters()
    def __enter__(self) -> Self:
        return self

    @stutters()
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._console.close()
            if self.ledger is not None:
                self.ledger.close()
                if self._machine is not None:
                    self._write(LEDGER_FILE, _described(self._manifest, self.ledger.trace, self._machine))
                    from l4lab.tools.runs import symbols

                    self._write(SYMBOLS_FILE, symbols.described(self._manifest, self._machine))
            write_seal(self.folder, _SEALED, RunError)
        finally:
            self._machine = None  # whose console this is: neither keeps the other
            self._release()

    def _release(self) -> None:
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    @stutters()
    def _write(self, name: str, text: str) -> None:
        try:
            # File names may have bytes that are no text: in JSON, they become escapes that lead back to them.
            (self.folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(f"cannot write {printable(self.folder / name)}: {error.strerror}") from None


def _claimed(folder: Path) -> int:
    """A descriptor that keeps others from recording into `folder` as long as it is open, or this process lives.

    RunError if somebody does already. Where folders cannot be locked, nobody is kept out.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            os.close(descriptor)
            raise RunError(
                f"--out {printable(folder)}: found a run that is being recorded there, expected a folder of its own"
            ) from None
    return descriptor


def remember(folder: Path) -> None:
    """From now on `folder` is the last run (LAST_RUN). What cannot be linked to has to be named."""
    fresh = LAST_RUN.with_name(f".last-{os.getpid()}")
    if folder.absolute() == LAST_RUN.absolute():
        return
    with suppress(OSError):
        LAST_RUN.parent.mkdir(exist_ok=True)
        fresh.symlink_to(os.path.relpath(folder, LAST_RUN.parent))
        try:
            fresh.replace(LAST_RUN)
        finally:
            fresh.unlink(missing_ok=True)


def _described(manifest: Manifest, trace: bool, machine: Machine | None) -> str:
    """ledger.json. `machine`: after the run; None before it, when there are no names and clocks yet."""
    profile = load_profile(manifest.profile_path())
    costs = profile.instruction_costs()
    document: dict[str, Any] = {
        "format": FORMAT,
        "byte_order": "little",
        "rows": {
            "file": ROWS_FILE,
            "bytes": ROW_BYTES,
            "columns": described_columns(ROW_COLUMNS),
            "count": None,
        },
        "events": {
            "file": EVENTS_FILE,
            "bytes": EVENT_BYTES,
            "columns": described_columns(EVENT_COLUMNS),
            "count": None,
            "extra_shift": events.EXTRA_SHIFT,
            "kinds": [
                {"name": name, "meaning": meaning}
                for name, meaning in zip(events.KIND_NAMES, events.MEANINGS, strict=True)
            ],
            "object_kinds": list(events.OBJECT_KINDS),
            "request_kinds": list(events.DRQ_KINDS),
        },
        "traps": list(TRAP_NAMES),
        "causes": list(CAUSE_NAMES),
        "trace": trace,
        "profile": profile.name,
        "mhz": profile.mhz,
        "tlb_miss_millicycles": costs.tlb_miss,
        "fpu_switch_millicycles": costs.fpu_switch,
        "cores": manifest.cores,
        "clocks": None,
        "names": {},
        "homes": {},
    }
    if machine is not None and machine.ledger is not None:
        log = machine.ledger.log
        document["rows"]["count"] = machine.ledger.row_count
        document["events"]["count"] = machine.ledger.event_count
        document["clocks"] = [core.clock_cycles for core in machine.cores]
        document["names"] = {str(number): name for number, name in sorted(log.names.items()) if name}
        document["homes"] = {str(number): home for number, home in sorted(log.homes.items())}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def described_columns(columns: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    """Columns as ledger.json has them."""
    return [{"name": name, "bits": bits} for name, bits in columns]
