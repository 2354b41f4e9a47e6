"""The ledger: every cycle of every core, booked to core, thread, cause and request; and what happened.

One row is one stretch of a core's time: idling, then user code of one thread, then the kernel entry
that ended it. The books balance: a core's rows follow one another without gap, and their cycles
add up to its clock. Next to the rows stand the events (`kernel/events.py`), which tell how the stretches
of different threads and cores depend on each other.

Rows and events are collected as flat lists of integers, which is the cheapest there is, and go to their files
in batches: memory stays bounded, and a run that is killed leaves whole records. `tools/runs/rundir.py`
reads them back. All little endian, whatever the host.
"""

from __future__ import annotations

import struct
from io import FileIO
from pathlib import Path
from typing import Final

from l4lab.emulator.errors import OperatorError
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.events import EventLog

ROWS_FILE: Final = "ledger.bin"
EVENTS_FILE: Final = "events.bin"

WIDE_COLUMNS: Final = ("start", "entry")
"""The first columns, of 64 bits; all others have 32."""
NARROW_COLUMNS: Final = (
    "core",
    "thread",
    "request",
    "trap",
    "tlb misses",
    "fpu switches",
    "served",
    "sent to",
    "sent tag",
    *CAUSE_NAMES,
)
"""A row is what a core did from cycle `start` on. Until `entry`, when the kernel was entered for the reason
`trap` (`kernel.traps`), it ran user code of `thread`, which worked for `request`; `thread` 0: it idled.
`tlb misses`, `fpu switches`: how often the thread had had them by then, modulo 2**32. From `entry` on, the
kernel did what stands under its causes, in cycles, for the request `served`. Request 0: nobody's. `sent to`,
`sent tag`: the first message that `thread` sent in this entry, see `kernel.events.EventLog`.
"""

ROW_COLUMNS: Final = len(WIDE_COLUMNS) + len(NARROW_COLUMNS)
ROW_BYTES: Final = 8 * len(WIDE_COLUMNS) + 4 * len(NARROW_COLUMNS)
EVENT_BYTES: Final = 8 + 4 * (len(events.COLUMNS) - 1)
SAMPLE_CYCLES: Final = 1000
"""How often a trace notes where user code is."""
BATCH_ROWS: Final = 1024  # a power of two; fewer cost more calls, more cost cache misses
BATCH_VALUES: Final = BATCH_ROWS * ROW_COLUMNS
"""How long `Ledger.rows` or what the log has pending may become before `flush` is due."""

_ROW_FORMAT: Final = f"{len(WIDE_COLUMNS)}Q{len(NARROW_COLUMNS)}I"
_EVENT_FORMAT: Final = f"Q{len(events.COLUMNS) - 1}I"


class Ledger:
    """Takes rows and events, for files in `folder`; without one they are kept in memory.

    `rows`: what the machine extends, one row after the other, in the order of the columns; it calls
    `flush` when that has become BATCH_VALUES long. `log`: what the kernel extends. `trace`: whether
    events for looking on are wanted too.
    """

    __slots__ = ("_event_sink", "_row_sink", "log", "rows", "trace")

    def __init__(self, folder: Path | None = None, *, trace: bool = False) -> None:
        self.rows: list[int] = []
        self.log = EventLog()
        self.trace = trace
        self._row_sink = _Sink(folder / ROWS_FILE if folder else None, _ROW_FORMAT, ROW_COLUMNS)
        self._event_sink = _Sink(folder / EVENTS_FILE if folder else None, _EVENT_FORMAT, len(events.COLUMNS))

    def flush(self) -> None:
        """Write down what has collected. Raises OperatorError if that cannot be done."""
        self._row_sink.take(self.rows)
        self._event_sink.take(self.log.pending)

    def close(self) -> None:
        """Write what is left; no more rows after this."""
        self.flush()
        self._row_sink.close()
        self._event_sink.close()

    @property
    def row_count(self) -> int:
        """How many rows have been written down."""
        return self._row_sink.count

    @property
    def event_count(self) -> int:
        """How many events have been written down."""
        return self._event_sink.count

    def row_data(self) -> bytes:
        """All rows so far of a ledger without folder, ROW_BYTES each."""
        self.flush()
        return bytes(self._row_sink.kept)

    def event_data(self) -> bytes:
        """All events so far of a ledger without folder, EVENT_BYTES each."""
        self.flush()
        return bytes(self._event_sink.kept)


class _Sink:
    """A file, or memory, that takes records of `columns` integers packed by `record_format`."""

    __slots__ = ("_columns", "_file", "_format", "_packers", "_path", "count", "kept")

    def __init__(self, path: Path | None, record_format: str, columns: int) -> None:
        self.kept = bytearray()
        self.count = 0
        self._path = path
        self._columns = columns
        self._format = record_format
        self._packers: dict[int, struct.Struct] = {}
        self._file: FileIO | None = None
        if path is not None:
            try:
                self._file = FileIO(path, "wb")
            except OSError as error:
                raise _unwritable(path, error) from None

    def take(self, values: list[int]) -> None:
        """Write the records in `values` and empty it."""
        left = len(values) // self._columns
        self.count += left
        first, at_once = 0, BATCH_ROWS
        while left:
            while at_once > left:
                at_once >>= 1
            behind = first + at_once * self._columns
            part = values if behind == len(values) and not first else values[first:behind]
            self._write(self._packer(at_once).pack(*part))
            left -= at_once
            first = behind
        values.clear()

    def _packer(self, count: int) -> struct.Struct:
        """What packs `count` records, made on first use; powers of two only, which are few."""
        packer = self._packers.get(count)
        if packer is None:
            packer = self._packers[count] = struct.Struct("<" + self._format * count)
        return packer

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self.kept += data
            return
        try:
            written = self._file.write(data)
            while written is not None and written < len(data):
                data = data[written:]
                written = self._file.write(data)
        except OSError as error:
            assert self._path is not None
            raise _unwritable(self._path, error) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _unwritable(path: Path, error: OSError) -> OperatorError:
    return OperatorError(f"cannot write {path}: {error.strerror}")
