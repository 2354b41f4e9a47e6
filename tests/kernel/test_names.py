"""Names that programs give objects, for people: kept byte for byte, and shown as text."""

from __future__ import annotations

import pytest

from l4lab.kernel.fiasco import abi
from support.kernel_world import World, item

TASK = 30


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"a\xffb", "a\\xffb"),
        (b"cut\0off", "cut"),
        (b"x" * 40, "x" * 32),
        (b"x" * 31 + "ö".encode(), "x" * 31 + "\\xc3"),
        (b"", ""),
    ],
)
def test_a_name_comes_back_as_it_was_given(given: bytes, shown: str) -> None:
    world = World()
    task = world.new_task(TASK)
    padded = given.ljust(40, b"\0")
    words = [int.from_bytes(padded[at : at + 4], "little") for at in range(0, 40, 4)]
    debugger = abi.BOOT_CAP_DEBUGGER
    assert (
        world.object_call(debugger, abi.PROTO_DEBUGGER, abi.DEBUGGER_SET_NAME, *words, items=item(TASK)).value
        == 0
    )
    assert task.name == shown
    world.object_call(debugger, abi.PROTO_DEBUGGER, abi.DEBUGGER_GET_NAME, items=item(TASK))
    told = b"".join(word.to_bytes(4, "little") for word in world.message(world.root, 8))
    assert told.split(b"\0")[0] == given[:32].split(b"\0")[0]
