"""Files of the target, for reading: `vFile:open`, `pread`, `fstat`, `close`, `setfs`. gdb fetches programs so."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, hex_bytes, number, numbers


@dataclass(frozen=True, slots=True)
class SetFilesystem:
    """Whose files are meant; all see the same."""

    pid: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """`flags`: the protocol's own; 0 is for reading."""

    path: str
    flags: int


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Bytes from `offset` on."""

    handle: int
    size_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class StatFile:
    """What is known about it."""

    handle: int


@dataclass(frozen=True, slots=True)
class CloseFile:
    """No more of it."""

    handle: int


Request = SetFilesystem | OpenFile | ReadFile | StatFile | CloseFile


def parse(payload: bytes) -> Request | None:
    """`vFile:operation:parameters`; None for one that changes files."""
    operation, _, rest = payload[len(b"vFile:") :].partition(b":")
    if operation == b"setfs":
        return SetFilesystem(number(rest))
    if operation == b"open":
        parts = rest.split(b",")
        if len(parts) != 3:
            raise PacketError("vFile:open needs a path, flags and a mode")
        return OpenFile(hex_bytes(parts[0]).decode("utf-8", "replace"), number(parts[1]))
    if operation == b"pread":
        return ReadFile(*numbers(rest, b",", 3))
    if operation == b"fstat":
        return StatFile(number(rest))
    return CloseFile(number(rest)) if operation == b"close" else None
