"""Bytes and packets of the remote protocol: `$payload#checksum`, acknowledgements, Ctrl-C.

Pure: no sockets, no state but what has come in so far. Whatever a client sends, `Decoder.feed` makes
something of it; what is wrong is `Malformed`, not an exception.
Ref: "Debugging with GDB", E.1 "Overview" (framing, escapes, checksums), E.2 "Packet Acknowledgment".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_PACKET_BYTES: Final = 0x4000
"""Most bytes of a payload, both ways; told to gdb as `PacketSize`."""

_ESCAPE: Final = ord("}")
_ESCAPE_XOR: Final = 0x20
_ESCAPED: Final = frozenset(b"$#}*")
_INTERRUPT: Final = 0x03


@dataclass(frozen=True, slots=True)
class Packet:
    """A whole packet whose checksum is right; escapes are undone."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """`+`, or `-`: send it again."""

    received: bool


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ctrl-C: a bare byte 3."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """What is no packet. `framed`: it looked like one, so its sender waits for an answer; `why`: for people."""

    why: str
    framed: bool = True


Incoming = Packet | Acknowledgement | Interrupt | Malformed


def encode(payload: bytes) -> bytes:
    """The packet that carries `payload`, with everything escaped that must be."""
    if not _ESCAPED.isdisjoint(payload):
        escaped = bytearray()
        for byte in payload:
            if byte in _ESCAPED:
                escaped += bytes((_ESCAPE, byte ^ _ESCAPE_XOR))
            else:
                escaped.append(byte)
        payload = bytes(escaped)
    return b"$%s#%02x" % (payload, sum(payload) & 0xFF)


class Decoder:
    """Cuts a stream of bytes into what was sent."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Incoming]:
        """What has become whole with `data`, in order."""
        self._buffer += data
        found: list[Incoming] = []
        while self._buffer:
            first = self._buffer[0]
            if first == ord("$"):
                packet = self._packet()
                if packet is None:
                    break
                found.append(packet)
                continue
            del self._buffer[0]
            if first == ord("+") or first == ord("-"):
                found.append(Acknowledgement(first == ord("+")))
            elif first == _INTERRUPT:
                found.append(Interrupt())
            else:
                found.append(Malformed(f"byte {first:#04x} outside a packet", framed=False))
        return found

    def _packet(self) -> Packet | Malformed | None:
        """The packet that the buffer begins with, taken out; None while it is not whole."""
        end = self._buffer.find(b"#")
        if end < 0 or len(self._buffer) < end + 3:
            if (end if end >= 0 else len(self._buffer)) <= MAX_PACKET_BYTES:
                return None
            self._buffer.clear()
            return Malformed(f"a packet of more than {MAX_PACKET_BYTES} bytes")
        body = bytes(self._buffer[1:end])
        checksum = bytes(self._buffer[end + 1 : end + 3])
        del self._buffer[: end + 3]
        if len(body) > MAX_PACKET_BYTES:
            return Malformed(f"a packet of {len(body)} bytes, expected at most {MAX_PACKET_BYTES}")
        try:
            right = int(checksum, 16) == sum(body) & 0xFF and not checksum.startswith((b"+", b"-", b" "))
        except ValueError:
            right = False
        if not right:
            return Malformed(f"checksum {checksum!r}, expected {sum(body) & 0xFF:02x}")
        return _unescape(body)


def _unescape(body: bytes) -> Packet | Malformed:
    if _ESCAPE not in body:
        return Packet(body)
    plain = bytearray()
    at = 0
    while at < len(body):
        if body[at] == _ESCAPE:
            at += 1
            if at == len(body):
                return Malformed("an escape at the end of a packet")
            plain.append(body[at] ^ _ESCAPE_XOR)
        else:
            plain.append(body[at])
        at += 1
    return Packet(bytes(plain))


def console_packets(text: str) -> Iterator[bytes]:
    """Text for the person at gdb, framed."""
    data = text.encode("utf-8", "replace")
    room = (MAX_PACKET_BYTES - 8) // 2
    for first in range(0, len(data), room):
        yield encode(b"O" + data[first : first + room].hex().encode())
