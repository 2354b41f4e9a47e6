"""Reading a run directory back. What is in it, and who writes it: `tools/runs/recording.py`."""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from l4lab.emulator.files.inputs import printable, why_no_file
from l4lab.emulator.ledger import EVENTS_FILE, ROWS_FILE
from l4lab.emulator.vcpu import MAX_CORES
from l4lab.kernel import events
from l4lab.kernel.traps import HostStop
from l4lab.tools.runs.recording import (
    EVENT_COLUMNS,
    FORMAT,
    LAST_RUN,
    LEDGER_FILE,
    ROW_COLUMNS,
    RUN_FILE,
    RunError,
    described_columns,
)
from l4lab.tools.runs.seal import check_seal

CHUNK_RECORDS: Final = 1 << 17

Records = npt.NDArray[np.void]
Integers = npt.NDArray[np.int64]
_T = TypeVar("_T")

ROW: Final = np.dtype([(name, f"<u{bits // 8}") for name, bits in ROW_COLUMNS])
EVENT: Final = np.dtype([(name, f"<u{bits // 8}") for name, bits in EVENT_COLUMNS])
_NUMBER_MAX: Final = (1 << 32) - 1
_NUMBER_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, opened. `rows`, `events`: mapped from their files, not read; see `event_chunks`.

    `clocks`: each core's clock at the end; None if the run was killed and nobody knows.
    `names`: number of an object -> its name. `homes`: number of a thread -> that of its task.
    """

    folder: Path
    document: dict[str, Any]
    rows: Records
    events: Records
    cores: int
    clocks: tuple[int, ...] | None
    profile: str
    mhz: int
    tlb_miss_millicycles: int
    fpu_switch_millicycles: int
    trace: bool
    names: dict[int, str]
    homes: dict[int, int]

    def row_chunks(self) -> Iterator[Records]:
        """The rows in pieces that fit into memory, with their events, in the order of booking.

        All rows that enter the kernel at the same cycle are in the same piece.
        """
        first = first_event = 0
        while first < len(self.rows):
            behind = min(first + CHUNK_RECORDS, len(self.rows))
            if first_event + CHUNK_RECORDS < len(self.events):
                cycle = _cycle_of(self.events[first_event + CHUNK_RECORDS])
                fitting = bisect_left(self.rows, cycle, lo=first, hi=behind, key=_entry_of)
                behind = max(fitting, first + 1)
            while behind < len(self.rows) and self.rows["entry"][behind] == self.rows["entry"][behind - 1]:
                behind += 1
            yield np.asarray(self.rows[first:behind])
            last = _entry_of(self.rows[behind - 1])
            first_event = bisect_right(self.events, last, lo=first_event, key=_cycle_of)
            first = behind

    def event_chunks(self) -> Iterator[Records]:
        """The events in pieces that fit into memory, in the order of happening.

        Among them those that only the ledger has (`kernel.events.EventLog`), with 0 for what it does not tell.
        """
        first = 0
        for rows in self.row_chunks():
            entries = rows["entry"][rows["trap"] != HostStop.number]
            until = int(entries.max()) if len(entries) else 0
            behind = bisect_right(self.events, until, lo=first, key=_cycle_of)
            yield _with_messages(rows, np.asarray(self.events[first:behind]))
            first = behind
        if first < len(self.events):
            yield np.asarray(self.events[first:])

    def events_between(self, first_cycle: int, last_cycle: int) -> Records:
        """The events of the kernel entries from `first_cycle` to `last_cycle`, as `event_chunks` has them."""
        rows = self.rows[
            bisect_left(self.rows, first_cycle, key=_entry_of) : bisect_right(
                self.rows, last_cycle, key=_entry_of
            )
        ]
        records = self.events[
            bisect_left(self.events, first_cycle, key=_cycle_of) : bisect_right(
                self.events, last_cycle, key=_cycle_of
            )
        ]
        return _with_messages(np.asarray(rows), np.asarray(records))

    @property
    def image_name(self) -> str:
        """The file name of the manifest that was booted, as far as known."""
        found: object = self.document
        for key in ("configuration", "manifest", "name"):
            found = found.get(key) if isinstance(found, dict) else None
        return printable(found) if isinstance(found, str) else "run"

    def thread_name(self, number: int) -> str:
        """What to call a thread: its task's name, and its own where that says more."""
        if not number:
            return "nobody"
        name = self.names.get(number, "")
        home = self.names.get(self.homes.get(number, 0), "")
        if not name or name == home:
            return f"{home} #{number}" if home else f"thread #{number}"
        return f"{home}: {name} #{number}" if home else f"{name} #{number}"

    def object_name(self, kind: str, number: int) -> str:
        """What to call an object of that kind (`events.OBJECT_KINDS`)."""
        if kind == "thread":
            return self.thread_name(number)
        return f"{kind} {self.names.get(number, '')}".rstrip() + f" #{number}"

    def receiver_name(self, number: int) -> str:
        """What to call whom a message is sent to: a thread, or else a gate."""
        return self.thread_name(number) if number in self.homes else f"gate #{number}"

    def task_name(self, number: int) -> str:
        """What to call a task."""
        return self.names.get(number) or (f"task #{number}" if number else "no task")


def _cycle_of(event: Records) -> int:
    return int(event["cycle"])


def _entry_of(row: Records) -> int:
    return int(row["entry"])


def _with_messages(rows: Records, records: Records) -> Records:
    """`records` and the events that `rows` stand for, which come first in their kernel entries."""
    sending = np.flatnonzero(rows["sent to"])
    if not len(sending):
        return records
    beginning = sending[(rows["sent to"][sending] & events.BEGINS) != 0]
    found = np.concatenate(
        [_sent(rows[beginning], events.IPC), _sent(rows[sending], events.MESSAGE), records]
    )
    keys = rows["entry"] * np.uint64(MAX_CORES) + rows["core"]
    order = np.argsort(keys, kind="stable")
    places = np.searchsorted(keys[order], records["cycle"] * np.uint64(MAX_CORES) + records["core"])
    entries = order[np.minimum(places, len(order) - 1)]
    return found[np.argsort(np.r_[beginning, sending, entries], kind="stable")]


def _sent(rows: Records, kind: int) -> Records:
    """An event for each of the rows, about the message it has."""
    made = np.zeros(len(rows), EVENT)
    made["cycle"], made["core"], made["thread"] = rows["entry"], rows["core"], rows["thread"]
    made["kind"] = kind
    if kind == events.IPC:
        made["kind"] |= (rows["sent to"] & events.OPEN_ENDED) << events.EXTRA_SHIFT
    made["partner"] = rows["sent to"] >> events.SENT_TO_SHIFT
    made["request"] = rows["served"]
    made["a"] = rows["sent tag"]
    return made


def last_run() -> Path:
    """The run that was recorded last from the current folder. RunError, which tells how, if there is none."""
    if not LAST_RUN.is_dir():
        found = "no run was recorded from here" if not LAST_RUN.is_symlink() else "the last run has gone"
        raise RunError(f"{LAST_RUN}: {found}: expected RUN, or `l4lab boot pma --out run` before")
    return Path(os.path.relpath(LAST_RUN.resolve()))


def open_run(folder: Path | None) -> Run:
    """The run in `folder`; None: the last one. Raises RunError, one line, for what is not a run with a ledger."""
    folder = last_run() if folder is None else folder
    shown = printable(folder)
    if not folder.is_dir():
        raise RunError(
            f"{shown}: found {'a file' if folder.exists() else 'nothing'}, expected a folder that "
            f"`l4lab boot --out` has written"
        )
    document = read_json(folder / RUN_FILE, "a folder that `l4lab boot --out` has written")
    header = _Header(folder / LEDGER_FILE, read_json(folder / LEDGER_FILE, "a run with --ledger"))
    ended = header.clocks is not None
    run = Run(
        folder=folder,
        document=document,
        rows=_map_records(folder / ROWS_FILE, ROW, header.count("rows") if ended else None),
        events=_map_records(folder / EVENTS_FILE, EVENT, header.count("events") if ended else None),
        cores=header.integer("cores", 1, MAX_CORES),
        clocks=header.clocks,
        profile=printable(header.values.get("profile")),
        mhz=header.integer("mhz", 1),
        tlb_miss_millicycles=header.integer("tlb_miss_millicycles", 0),
        fpu_switch_millicycles=header.integer("fpu_switch_millicycles", 0),
        trace=bool(header.values.get("trace")),
        names=header.names(),
        homes=header.homes(),
    )
    if run.clocks is None:
        run.homes.update(_homes_from_events(run))
    elif len(run.clocks) != run.cores:
        raise header.error("clocks", f"{len(run.clocks)} clocks", f"one for each of {run.cores} cores")
    check_seal(folder, RunError)
    return run


class _Header:
    """ledger.json, whose values are looked at before they are used."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values
        if values.get("format") != FORMAT:
            raise self.error("format", repr(values.get("format")), f"{FORMAT}, which this l4lab reads")
        for name, columns in (("rows", ROW_COLUMNS), ("events", EVENT_COLUMNS)):
            found = values.get(name)
            if not isinstance(found, dict) or found.get("columns") != described_columns(columns):
                raise self.error(f"{name}.columns", "others", "those of this l4lab")
        clocks = values.get("clocks")
        if clocks is not None and not (
            isinstance(clocks, list) and all(type(clock) is int and 0 <= clock < 1 << 63 for clock in clocks)
        ):
            raise self.error("clocks", repr(clocks), "a list of cycles")
        self.clocks = tuple(clocks) if clocks is not None else None

    def error(self, key: str, found: str, expected: str) -> RunError:
        return RunError(f"{printable(self.path)}: {key}: found {printable(found)}, expected {expected}")

    def integer(self, key: str, least: int, most: int = _NUMBER_MAX) -> int:
        value = self.values.get(key)
        if type(value) is not int or not least <= value <= most:
            raise self.error(key, repr(value), f"a number from {least} to {most}")
        return value

    def count(self, name: str) -> int:
        """How many records there are; the columns have been looked at, so the table is there."""
        value = self.values[name].get("count")
        if type(value) is not int or value < 0:
            raise self.error(f"{name}.count", repr(value), "a number from 0 on")
        return value

    def names(self) -> dict[int, str]:
        return {number: printable(name) for number, name in self._numbered("names", str)}

    def homes(self) -> dict[int, int]:
        found = dict(self._numbered("homes", int))
        if not all(0 <= task <= _NUMBER_MAX for task in found.values()):
            raise self.error("homes", "other numbers", "those of tasks")
        return found

    def _numbered(self, key: str, kind: type[_T]) -> Iterator[tuple[int, _T]]:
        table = self.values.get(key)
        if not isinstance(table, dict):
            raise self.error(key, repr(table), "a table")
        for number, value in table.items():
            if not (number.isascii() and number.isdecimal() and len(number) <= _NUMBER_DIGITS):
                raise self.error(key, repr(number), "numbers of objects as keys")
            if type(value) is not kind:
                raise self.error(f"{key}.{number}", repr(value), f"a value of type {kind.__name__}")
            yield int(number), value


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A file of a run directory. RunError if it is not there (`expected`: what would have been) or no JSON table."""
    obstacle = why_no_file(path)
    if obstacle is not None:
        raise RunError(f"{printable(path)}: found {obstacle}, expected {expected}")
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{printable(path)}: {error.strerror}, expected {expected}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{printable(path)}: not JSON ({printable(error)})") from None
    if not isinstance(found, dict):
        raise RunError(f"{printable(path)}: found a {type(found).__name__}, expected a table")
    return found


def _map_records(path: Path, dtype: np.dtype[np.void], expected: int | None) -> Records:
    """The records of `path`. `expected`: how many; None: as many whole ones as a killed run has left."""
    obstacle = why_no_file(path)
    if obstacle is not None:
        raise RunError(f"{printable(path)}: found {obstacle}, expected the records of a run")
    size_bytes = path.stat().st_size
    if expected is not None and size_bytes != expected * dtype.itemsize:
        raise RunError(
            f"{printable(path)}: found {size_bytes} bytes, expected {expected} records of {dtype.itemsize}"
        )
    count = size_bytes // dtype.itemsize
    return np.memmap(path, dtype, "r", shape=(count,)) if count else np.empty(0, dtype)


def kinds_of(records: Records) -> Integers:
    """The kinds of events, without what stands in their extra bits."""
    return (records["kind"] & events.KIND_MASK).astype(np.int64)


def _homes_from_events(run: Run) -> dict[int, int]:
    homes: dict[int, int] = {}
    for chunk in run.event_chunks():
        bound = chunk[kinds_of(chunk) == events.BOUND]
        homes.update(zip(bound["thread"].tolist(), bound["partner"].tolist(), strict=True))
    return homes
