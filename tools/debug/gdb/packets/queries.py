"""Questions and settings: `qSupported`, `qXfer`, `qRcmd`, `QStartNoAckMode`, `qAttached`, QEMU's memory mode."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, hex_bytes, number, numbers


@dataclass(frozen=True, slots=True)
class Supported:
    """What the client can do, as it says."""

    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A piece of a document: `object_` and `annex` name it."""

    object_: str
    annex: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """What a person typed after `monitor`."""

    text: str


@dataclass(frozen=True, slots=True)
class NoAcknowledgements:
    """From now on neither side sends `+`."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Whether the stub made the process (it never has)."""


@dataclass(frozen=True, slots=True)
class SymbolsWanted:
    """The client offers to look up symbols; none are wanted."""


@dataclass(frozen=True, slots=True)
class MemoryMode:
    """Whether addresses are physical: asked (`physical` None) or set."""

    physical: bool | None


@dataclass(frozen=True, slots=True)
class QemuSupported:
    """Which of QEMU's own packets there are."""


Request = (
    Supported
    | Transfer
    | MonitorCommand
    | NoAcknowledgements
    | Attached
    | SymbolsWanted
    | MemoryMode
    | QemuSupported
)


def parse_supported(payload: bytes) -> Request | None:
    """`qSupported[:feature;…]`."""
    name, _, features = payload.partition(b":")
    if name != b"qSupported":
        return None
    return Supported(tuple(part.decode("latin-1") for part in features.split(b";") if part))


def parse_transfer(payload: bytes) -> Request | None:
    """`qXfer:object:read:annex:offset,length`; writing is not for anything here."""
    parts = payload.decode("latin-1").split(":")
    if len(parts) < 3 or parts[2] != "read":
        return None
    if len(parts) < 5:
        raise PacketError("a qXfer without annex or place")
    offset, size_bytes = numbers(parts[-1].encode("latin-1"), b",", 2)
    return Transfer(parts[1], ":".join(parts[3:-1]), offset, size_bytes)


def parse_command(payload: bytes) -> Request:
    """`qRcmd,…`, the text in hexadecimal."""
    return MonitorCommand(hex_bytes(payload.partition(b",")[2]).decode("utf-8", "replace"))


def parse_attached(payload: bytes) -> Request | None:
    """`qAttached[:pid]`."""
    name, colon, pid = payload.partition(b":")
    if name != b"qAttached":
        return None
    if colon:
        number(pid)
    return Attached()


def parse_qemu(payload: bytes) -> Request | None:
    """QEMU's `Qqemu.PhyMemMode:n`."""
    name, _, value = payload.partition(b":")
    return MemoryMode(number(value) != 0) if name == b"Qqemu.PhyMemMode" else None
