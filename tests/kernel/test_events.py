"""Records of the log, taken apart by the one decoder."""

from __future__ import annotations

from l4lab.kernel import events
from l4lab.kernel.events import EXTRA_SHIFT, IPC, MESSAGE, OPEN_ENDED, Event, EventLog, decode


def test_records_come_apart_as_they_were_written() -> None:
    log = EventLog()
    log.pending += (1 << 40, 3, IPC | OPEN_ENDED << EXTRA_SHIFT, 7, 8, 9, 10, 11)
    log.pending += ((1 << 40) + 1, 4, MESSAGE, 8, 7, 9, 12, 13)
    first, second = decode(log.pending)
    assert first == Event(1 << 40, 3, IPC, OPEN_ENDED, 7, 8, 9, 10, 11)
    assert second == Event((1 << 40) + 1, 4, MESSAGE, 0, 8, 7, 9, 12, 13)
    assert (first.name, second.name) == ("ipc", "message")


def test_every_kind_fits_beside_its_extra() -> None:
    assert len(events.KIND_NAMES) <= events.KIND_MASK + 1
