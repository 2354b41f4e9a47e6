"""The ledger: every cycle of every core, booked to core, task, thread, cause and request.

One row is one stretch of a core's time: idling, then user code of one thread, then the kernel entry
that ended it. A row has ROW_BYTES bytes; a run's rows go to one file as they come, so memory
stays bounded, and are read back as a table (`tools/books.py`). The books balance: a core's rows
follow one another without gap, and their cycles add up to its clock.

A *request* is what made the work necessary: one page fault, or one IPC of a thread that served nobody
at the time. Its number goes along with every message sent on its behalf (`kernel/causes.py`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

from l4lab.kernel.costs import CAUSE_NAMES, CAUSES

# Columns: two of 64 bits, then 32-bit ones. All little endian, whatever the host.
WIDE_COLUMNS: Final = ("start", "idle")
NARROW_COLUMNS: Final = (
    "core",
    "task",
    "thread",
    "request",
    "trap",
    "user",
    "tlb refill",
    "fpu switch",
    *CAUSE_NAMES,
)
CYCLE_COLUMNS: Final = ("idle", "user", "tlb refill", "fpu switch", *CAUSE_NAMES)
"""The columns that add up to a core's clock."""

_ROW: Final = struct.Struct(f"<2Q{len(NARROW_COLUMNS)}I")
ROW_BYTES: Final = _ROW.size
_ROWS_IN_MEMORY: Final = 1 << 15


class Ledger:
    """Takes rows. With a `path` they go to that file in pieces; without, they are kept for `data`."""

    __slots__ = ("_buffer", "_file", "_kept", "_used", "row_count")

    def __init__(self, path: Path | None = None) -> None:
        self._buffer = bytearray(_ROWS_IN_MEMORY * ROW_BYTES)
        self._used = 0
        self._kept = bytearray()
        self._file: BinaryIO | None = path.open("wb") if path is not None else None
        self.row_count = 0

    def book(
        self,
        start_cycles: int,
        idle_cycles: int,
        core: int,
        task: int,
        thread: int,
        request: int,
        trap: int,
        user: int,
        refill: int,
        fpu: int,
        bill: list[int],
    ) -> None:
        """One stretch. `task`, `thread`, `request`: 0 for none. `bill`: kernel cycles by cause."""
        _ROW.pack_into(
            self._buffer,
            self._used,
            start_cycles,
            idle_cycles,
            core,
            task,
            thread,
            request,
            trap,
            user,
            refill,
            fpu,
            *bill,
        )
        self._used += ROW_BYTES
        self.row_count += 1
        if self._used == len(self._buffer):
            self._flush()

    def _flush(self) -> None:
        rows = memoryview(self._buffer)[: self._used]
        if self._file is not None:
            self._file.write(rows)
        else:
            self._kept += rows
        self._used = 0

    def close(self) -> None:
        """Write what is left; no more rows after this."""
        self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def data(self) -> bytes:
        """All rows so far of a ledger without file."""
        self._flush()
        return bytes(self._kept)


assert len(NARROW_COLUMNS) == 8 + CAUSES
