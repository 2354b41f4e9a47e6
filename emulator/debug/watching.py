"""Watchpoints of a machine: where the watched bytes lie in RAM, and whether the kernel has written them.

A watchpoint names bytes of a task. What is watched is RAM, so whoever changes it is noticed, through any
mapping; where the bytes lie is looked up anew after every kernel entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from l4lab.emulator.debug.debugport import Watch

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import DebuggedMachine
    from l4lab.emulator.debug.stops import Watchpoint


class Watching:
    """What the shim of one machine watches."""

    def __init__(self, machine: DebuggedMachine) -> None:
        self._machine = machine
        self._watched: list[tuple[Watchpoint, Watch]] = []
        self._before: list[bytes] = []

    def resolve(self, watchpoints: Iterable[Watchpoint]) -> None:
        """Watch these from now on, where they lie now; parts that are not mapped are nowhere."""
        resolved: list[tuple[Watchpoint, Watch]] = []
        for watchpoint in watchpoints:
            task = self._machine.kernel.tasks.get(watchpoint.task)
            for address, size_bytes in watchpoint.pieces() if task is not None else ():
                found = task.space.tables.translate(address) if task is not None else None
                if found is not None:
                    watch = Watch(found.physical, size_bytes, watchpoint.write, watchpoint.read)
                    resolved.append((watchpoint, watch))
        if resolved != self._watched:
            self._watched = resolved
            self._machine.port.set_watches(watch for _, watch in resolved)
        self._before = self._read()  # the machine may have paused right before a kernel entry

    def hit(self, number: int) -> Watchpoint:
        """The watchpoint that the shim has stopped at."""
        return self._watched[number][0]

    def before_entry(self) -> None:
        """The kernel is about to be entered."""
        self._before = self._read()

    def written_by_kernel(self) -> Watchpoint | None:
        """A watchpoint whose bytes have changed since the kernel entry began."""
        for (watchpoint, watch), before, now in zip(self._watched, self._before, self._read(), strict=True):
            if watch.write and before != now:
                return watchpoint
        return None

    def _read(self) -> list[bytes]:
        ram = self._machine.ram.bytes_
        return [bytes(ram[watch.physical : watch.physical + watch.size_bytes]) for _, watch in self._watched]
