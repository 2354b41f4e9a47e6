"""Names of threads and numbers as the remote protocol writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

ALL: Final = -1
ANY: Final = 0

_HEX: Final = re.compile(rb"[0-9a-fA-F]+")
MAX_NUMBER: Final = 1 << 64


class PacketError(Exception):
    """A payload that is not what its first letters promise; the client gets an error reply."""


@dataclass(frozen=True, slots=True)
class ThreadId:
    """`pPID.TID`, or `TID` alone. -1: all, 0: any. `pid` None: the client does not speak of processes."""

    pid: int | None
    tid: int

    def encode(self) -> bytes:
        """As in a packet."""
        tid = b"-1" if self.tid == ALL else b"%x" % self.tid
        if self.pid is None:
            return tid
        return b"p%s.%s" % (b"-1" if self.pid == ALL else b"%x" % self.pid, tid)


def parse_thread_id(text: bytes) -> ThreadId:
    """The thread id that `text` is. Raises PacketError."""
    if not text.startswith(b"p"):
        return ThreadId(None, _number_or_all(text))
    pid, dot, tid = text[1:].partition(b".")
    return ThreadId(_number_or_all(pid), _number_or_all(tid) if dot else ALL)


def _number_or_all(text: bytes) -> int:
    return ALL if text == b"-1" else number(text)


def number(text: bytes) -> int:
    """A hexadecimal number without sign. Raises PacketError."""
    if not _HEX.fullmatch(text):
        raise PacketError(f"{text!r} is not a hexadecimal number")
    value = int(text, 16)
    if value >= MAX_NUMBER:
        raise PacketError(f"{value:#x} has more than 64 bits")
    return value


def numbers(text: bytes, separator: bytes, count: int) -> list[int]:
    """`count` hexadecimal numbers. Raises PacketError."""
    parts = text.split(separator)
    if len(parts) != count:
        raise PacketError(f"{text!r} is not {count} numbers")
    return [number(part) for part in parts]


def hex_bytes(text: bytes) -> bytes:
    """The bytes that pairs of hexadecimal digits stand for. Raises PacketError."""
    if len(text) % 2 or (text and not _HEX.fullmatch(text)):
        raise PacketError("an odd number of digits, or none")
    return bytes.fromhex(text.decode("ascii"))
