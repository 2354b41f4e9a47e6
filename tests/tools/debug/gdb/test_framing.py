"""Bytes and packets: whatever arrives, in whatever pieces, becomes something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lab.tools.debug.gdb.framing import (
    MAX_PACKET_BYTES,
    Acknowledgement,
    Decoder,
    Incoming,
    Interrupt,
    Malformed,
    Packet,
    encode,
)


def decode(data: bytes) -> list[Incoming]:
    return Decoder().feed(data)


def test_a_packet_is_its_payload_and_a_checksum() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert decode(b"$OK#9a") == [Packet(b"OK")]
    assert decode(b"$#00") == [Packet(b"")]
    assert decode(b"$OK#9A") == [Packet(b"OK")]


def test_what_frames_a_packet_is_escaped_inside_one() -> None:
    assert encode(b"$#}*") == b"$}\x04}\x03}]}\x0a#%02x" % (sum(b"}\x04}\x03}]}\x0a") & 0xFF)


@given(st.binary(max_size=300))
def test_what_is_encoded_is_decoded(payload: bytes) -> None:
    assert decode(encode(payload)) == [Packet(payload)]


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_pieces_make_the_same_as_the_whole(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"+".join(encode(payload) + b"\x03" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, found = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert found == decode(stream)
    assert [item.payload for item in found if isinstance(item, Packet)] == payloads


@given(st.binary(max_size=200) | st.text("$#}+-\x030aZ*", max_size=60).map(str.encode))
def test_any_bytes_are_decoded_and_a_good_packet_behind_them_arrives_sooner_or_later(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    # At most three: one to end a packet that was begun, one that is its checksum's, one that counts.
    found = decoder.feed(encode(b"g") * 3)
    assert Packet(b"g") in found


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"$OK#9b", "checksum"),
        (b"$OK#zz", "checksum"),
        (b"$OK#+9", "checksum"),
        (b"$a}#%02x" % (sum(b"a}") & 0xFF), "escape at the end"),
        (b"$" + b"a" * (MAX_PACKET_BYTES + 1) + b"#00", "bytes"),
        (b"$" + b"a" * (MAX_PACKET_BYTES + 5), "more than"),
        (b"x", "outside a packet"),
    ],
)
def test_what_is_no_packet_says_why(data: bytes, why: str) -> None:
    (found,) = decode(data)
    assert isinstance(found, Malformed) and why in found.why
    assert found.framed is (data[:1] == b"$")


def test_a_packet_that_never_ends_takes_no_memory() -> None:
    decoder = Decoder()
    for _ in range(100):
        decoder.feed(b"$" + b"a" * MAX_PACKET_BYTES)
    assert len(decoder._buffer) <= 2 * MAX_PACKET_BYTES + 2
    decoder.feed(b"#00")
    assert decoder.feed(encode(b"g")) == [Packet(b"g")]


def test_acknowledgements_and_ctrl_c() -> None:
    assert decode(b"+-\x03") == [Acknowledgement(True), Acknowledgement(False), Interrupt()]
