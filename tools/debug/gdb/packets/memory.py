"""Memory: `m addr,length`, `M addr,length:XX…`, `X addr,length:binary`."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, hex_bytes, numbers


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """As many of these bytes as are there."""

    address: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """All of these bytes, or none. No bytes: a question whether `X` is understood."""

    address: int
    data: bytes


Request = ReadMemory | WriteMemory


def parse_read(payload: bytes) -> Request:
    """`m addr,length`."""
    address, size_bytes = numbers(payload[1:], b",", 2)
    return ReadMemory(address, size_bytes)


def parse_write(payload: bytes) -> Request:
    """`M addr,length:XX…`."""
    place, colon, text = payload[1:].partition(b":")
    return _write(place, colon, hex_bytes(text))


def parse_write_binary(payload: bytes) -> Request:
    """`X addr,length:…`, escapes already undone."""
    place, colon, data = payload[1:].partition(b":")
    return _write(place, colon, data)


def _write(place: bytes, colon: bytes, data: bytes) -> WriteMemory:
    address, size_bytes = numbers(place, b",", 2)
    if not colon or size_bytes != len(data):
        raise PacketError(f"{len(data)} bytes, expected {size_bytes}")
    return WriteMemory(address, data)
