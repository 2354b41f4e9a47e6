"""Registers: `g`, `G XX…`, `p n`, `P n=XX…`."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, hex_bytes, number


@dataclass(frozen=True, slots=True)
class ReadRegisters:
    """All of the selected thread."""


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """All, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """One, by its number in the target description."""

    index: int


@dataclass(frozen=True, slots=True)
class WriteRegister:
    """One."""

    index: int
    data: bytes


Request = ReadRegisters | WriteRegisters | ReadRegister | WriteRegister


def parse_all(payload: bytes) -> Request:
    """`G…`."""
    return WriteRegisters(hex_bytes(payload[1:]))


def parse_one(payload: bytes) -> Request:
    """`p n` and `P n=…`."""
    if payload.startswith(b"p"):
        return ReadRegister(number(payload[1:]))
    index, equals, data = payload[1:].partition(b"=")
    if not equals:
        raise PacketError("no value for the register")
    return WriteRegister(number(index), hex_bytes(data))
