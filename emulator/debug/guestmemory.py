"""A task's memory as it is now, for people who look at it from outside: through its page tables, without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task


def read_memory(machine: Machine, task: Task, address: int, size_bytes: int) -> bytes:
    """The bytes at `address` of a task, as many as are mapped in a row from there on."""
    data = bytearray()
    end = min(address + size_bytes, 1 << 32)
    while address < end:
        found = task.space.tables.translate(address)
        size = min(end, (address // PAGE_BYTES + 1) * PAGE_BYTES) - address
        if found is None or found.physical + size > machine.ram.size_bytes:
            break
        data += machine.ram.bytes_[found.physical : found.physical + size]
        address += size
    return bytes(data)
