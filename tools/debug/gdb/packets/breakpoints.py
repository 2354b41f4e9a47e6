"""Breakpoints and watchpoints: `Z type,addr,kind` and `z type,addr,kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from l4lab.tools.debug.gdb.ids import PacketError, numbers

SOFTWARE: Final = 0
HARDWARE: Final = 1
WRITE_WATCH: Final = 2
READ_WATCH: Final = 3
ACCESS_WATCH: Final = 4


@dataclass(frozen=True, slots=True)
class SetBreakpoint:
    """Insert it, or not `insert`: remove it. `kind`: a watchpoint's size in bytes."""

    insert: bool
    type: int
    address: int
    kind: int


Request = SetBreakpoint


def parse(payload: bytes) -> Request:
    """`Z…` and `z…`. Conditions and commands are not announced, so nobody may send any."""
    if b";" in payload:
        raise PacketError("conditions are not supported")
    kind_of, address, kind = numbers(payload[1:], b",", 3)
    if kind_of > ACCESS_WATCH:
        raise PacketError(f"type {kind_of}, expected 0 to {ACCESS_WATCH}")
    return SetBreakpoint(payload[:1] == b"Z", kind_of, address, kind)
