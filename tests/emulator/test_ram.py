"""Guest memory: two views of one buffer, at an address the shim can use."""

from __future__ import annotations

import ctypes

import pytest

from l4lab.emulator.ram import MAX_RAM_BYTES, Ram


def test_both_views_and_the_address_show_the_same_memory() -> None:
    ram = Ram(4 << 20)
    ram.words[3] = 0x11223344
    assert bytes(ram.bytes_[12:16]) == b"\x44\x33\x22\x11"
    ram.bytes_[(4 << 20) - 1] = 0xEE
    assert ram.words[-1] == 0xEE000000
    assert ctypes.c_uint32.from_address(ram.address + 12).value == 0x11223344
    assert ram.address % 4096 == 0


def test_it_is_zero_and_as_large_as_asked_for() -> None:
    ram = Ram(8 << 20)
    assert len(ram.bytes_) == ram.size_bytes == 8 << 20
    assert len(ram.words) == 2 << 20
    assert not any(ram.words[:: 1 << 10])


def test_the_largest_takes_no_memory_before_it_is_used() -> None:
    ram = Ram(MAX_RAM_BYTES)
    ram.words[-1] = 1
    assert len(ram.bytes_) == 3 << 30


@pytest.mark.parametrize("size", [0, -4096, 4096, (4 << 20) + 4096, MAX_RAM_BYTES + (4 << 20), 1 << 40])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="expected a multiple of 4 MiB, at most 3 GiB"):
        Ram(size)
