"""Snapshots of a debugged machine, and the way back to them.

A snapshot has everything that decides how a run goes on: the contents of the kernel's and the
machine's objects (`memento`), what the vCPUs remember (`state.c`), and RAM. RAM is kept as
differences: the frames that changed since the snapshot before, as far as their contents are new.
Which these are is known: user code's stores go through the shim, and the kernel writes only its own
frames and the kernel info page.

They are taken between two steps of the machine. Everything between two snapshots is reached by running
again, so they need not lie close together.
"""

from __future__ import annotations

import contextlib
import gc
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from l4lab.emulator.debug.debugged import DebuggedMachine, Position, Screen
from l4lab.emulator.debug.debugport import DebugPort
from l4lab.emulator.debug.memento import Memento
from l4lab.emulator.files.manifest import Manifest
from l4lab.emulator.files.profile import Profile
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import Engine, Vcpu
from l4lab.kernel.frame import FPU_CORE, INSTRUCTIONS, read_counter
from l4lab.kernel.units import PAGE_BYTES

BUDGET_BYTES: Final = 512 << 20
"""About how much memory snapshots may take before every other one of the older half is dropped."""

_OPAQUE: Final = (Ram, Engine, Vcpu, DebugPort, Screen, Profile, Manifest, Ledger)
_BYTES_PER_OBJECT: Final = 300
_ZERO_PAGE: Final = bytes(PAGE_BYTES)
_CHUNK_BYTES: Final = 1 << 20


@dataclass(slots=True, eq=False, repr=False)
class Snapshot:
    """One moment.

    `frames`: pfn -> contents of frames that are not as in the snapshot before. `kernel_written`: frames
    declared as such. `counts`: thread number -> instructions it had executed. `reached_cycles`: of each core.
    """

    position: Position
    memento: Memento
    vcpus: tuple[bytes, ...]
    frames: dict[int, bytes]
    kernel_written: tuple[int, ...]
    counts: dict[int, int]
    reached_cycles: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        states = sum(map(len, self.vcpus))
        return len(self.memento) * _BYTES_PER_OBJECT + len(self.frames) * PAGE_BYTES + states

    def executed_by(self, thread: int) -> int:
        """Instructions that thread `thread` had executed; -1 if it did not exist yet, or any more."""
        return self.counts.get(thread, -1)


class History:
    """The snapshots of one machine, by position; there is always one at the start.

    `seconds_per_snapshot`: how long the last one took, in host time.
    """

    def __init__(self, machine: DebuggedMachine) -> None:
        self._machine = machine
        self.seconds_per_snapshot = 0.0
        self._base = _nonzero_frames(machine.ram)
        self._known: dict[int, bytes] = {}  # RAM at `_current`, where it is not as in `_base`
        self._edited_frames: set[int] = set()
        self.snapshots: list[Snapshot] = []
        self._current = 0
        machine.port.take_dirty()
        self.take()

    # --- taking -------------------------------------------------------------------------------------

    def take(self) -> None:
        """Note the present, unless that has been done."""
        position = self._machine.position
        index = self._index_upto(position)
        if self.snapshots and self.snapshots[index].position == position:
            return
        started = time.perf_counter()
        with _without_garbage_collection():
            taken = self._capture(position, index)
        self._keep_following(index, taken)
        self.snapshots.insert(index + 1, taken)
        self._current = index + 1
        self._thin_out()
        self.seconds_per_snapshot = time.perf_counter() - started

    def forget_after(self, position: Position) -> None:
        """The run will go on differently from there: later snapshots are of what will not happen."""
        del self.snapshots[self._index_upto(position) + 1 :]

    def _capture(self, position: Position, before: int) -> Snapshot:
        """The present; `before`: index of the snapshot before it, -1 for the first."""
        machine = self._machine
        kernel = machine.kernel
        for thread in kernel.threads.values():
            if thread.frame[FPU_CORE]:
                machine.engine.sync_fpu(thread.frame)
        return Snapshot(
            position,
            Memento([vars(machine)], _OPAQUE),
            tuple(machine.port.save_vcpu(core.vcpu) for core in machine.cores),
            self._changed_frames(before),
            tuple(_marked(machine.port.kernel_written())),
            {t.number: read_counter(t.frame, INSTRUCTIONS) for t in kernel.threads.values()},
            machine.reached_cycles(),
        )

    def _changed_frames(self, before: int) -> dict[int, bytes]:
        """What is not as in the snapshot at index `before`.

        That may be a later one than `_current`: who goes back and forward again passes snapshots that there are.
        """
        changed: dict[int, bytes] = {}
        candidates = {
            *_marked(self._machine.port.take_dirty()),
            *self._edited_frames,
            *self._kernel_frames(),
        }
        for snapshot in self.snapshots[self._current + 1 : before + 1]:
            candidates.update(snapshot.frames)
        passed = before > self._current
        for pfn in candidates:
            data = self._read(pfn)
            known = self._content_at(before, pfn) if passed else self._known.get(pfn)
            if data != (known or self._base.get(pfn, _ZERO_PAGE)):
                changed[pfn] = data
            if data != self._content_of(pfn):
                self._known[pfn] = data
        self._edited_frames.clear()
        return changed

    def _keep_following(self, before: int, taken: Snapshot) -> None:
        """The snapshot behind `taken` had its differences from that at `before`: now from `taken`."""
        if before + 1 < len(self.snapshots):
            following = self.snapshots[before + 1].frames
            for pfn in taken.frames:
                if pfn not in following:
                    content = self._content_at(before, pfn)
                    following[pfn] = self._base.get(pfn, _ZERO_PAGE) if content is None else content

    def edited_frames(self, frames: Iterable[int]) -> None:
        """The debugger wrote these frames itself."""
        self._edited_frames.update(frames)

    def _thin_out(self) -> None:
        """Keep within the budget: of the older half, every other snapshot goes."""
        if sum(snapshot.size_bytes for snapshot in self.snapshots) <= BUDGET_BYTES:
            return
        for index in range(len(self.snapshots) // 2 - 1, 0, -2):
            if index == self._current:
                continue
            gone = self.snapshots.pop(index)
            following = self.snapshots[index]
            following.frames = {**gone.frames, **following.frames}
            self._current -= self._current > index

    # --- going back -----------------------------------------------------------------------------------

    def last_before(self, position: Position) -> Snapshot:
        """The latest snapshot at or before `position`."""
        return self.snapshots[self._index_upto(position)]

    def last_with(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """The latest snapshot for which the condition holds; the first if it does for none."""
        for snapshot in reversed(self.snapshots):
            if condition(snapshot):
                return snapshot
        return self.snapshots[0]

    def earlier(self, snapshot: Snapshot) -> Snapshot | None:
        """The latest snapshot before that one, which may have been dropped meanwhile; None if it was the first."""
        index = bisect_left(self.snapshots, snapshot.position, key=lambda each: each.position)
        return self.snapshots[index - 1] if index else None

    def restore(self, snapshot: Snapshot) -> None:
        """The machine is at `snapshot` again, in every respect that counts."""
        machine = self._machine
        index = self.snapshots.index(snapshot)
        self._restore_ram(index)
        _restore_kernel_written(machine, snapshot.kernel_written)
        snapshot.memento.restore()
        for core, state in zip(machine.cores, snapshot.vcpus, strict=True):
            machine.port.load_vcpu(core.vcpu, state)
        machine.restored()
        machine.port.take_dirty()
        self._current = index

    def _restore_ram(self, index: int) -> None:
        low, high = sorted((index, self._current))
        affected = {*_marked(self._machine.port.take_dirty()), *self._edited_frames, *self._kernel_frames()}
        for snapshot in self.snapshots[low + 1 : high + 1]:
            affected.update(snapshot.frames)
        self._edited_frames.clear()
        for pfn in affected:
            content = self._content_at(index, pfn)
            if content is None:
                self._known.pop(pfn, None)
                content = self._base.get(pfn, _ZERO_PAGE)
            else:
                self._known[pfn] = content
            if self._read(pfn) != content:
                self._write(pfn, content)

    def _content_at(self, index: int, pfn: int) -> bytes | None:
        """What was in the frame at the snapshot; None: as at the start."""
        for snapshot in self.snapshots[index::-1]:
            content = snapshot.frames.get(pfn)
            if content is not None:
                return content
        return None

    # --- parts ----------------------------------------------------------------------------------------

    def _content_of(self, pfn: int) -> bytes:
        return self._known.get(pfn) or self._base.get(pfn, _ZERO_PAGE)

    def _kernel_frames(self) -> list[int]:
        kernel = self._machine.kernel
        return [kernel.kip_word >> 10, *kernel.frames.used_frames()]

    def _read(self, pfn: int) -> bytes:
        return bytes(self._machine.ram.bytes_[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES])

    def _write(self, pfn: int, content: bytes) -> None:
        self._machine.ram.bytes_[pfn * PAGE_BYTES : (pfn + 1) * PAGE_BYTES] = content
        self._machine.engine.forget_code(pfn, 1)

    def _index_upto(self, position: Position) -> int:
        """Of the latest snapshot at or before `position`."""
        return bisect_right(self.snapshots, position, key=lambda snapshot: snapshot.position) - 1


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """So many new objects would set it off again and again, and none of them is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _restore_kernel_written(machine: DebuggedMachine, wanted: tuple[int, ...]) -> None:
    present = set(_marked(machine.port.kernel_written()))
    for pfn in sorted(present.symmetric_difference(wanted)):
        machine.engine.set_kernel_written(pfn, pfn not in present)


def _marked(flags: bytearray) -> list[int]:
    """The indices of the bytes that are 1."""
    found = []
    index = flags.find(1)
    while index >= 0:
        found.append(index)
        index = flags.find(1, index + 1)
    return found


def _nonzero_frames(ram: Ram) -> dict[int, bytes]:
    """pfn -> contents of all frames that are not empty."""
    zeros = bytes(_CHUNK_BYTES)
    frames: dict[int, bytes] = {}
    for start in range(0, ram.size_bytes, _CHUNK_BYTES):
        chunk = bytes(ram.bytes_[start : start + _CHUNK_BYTES])  # comparing memoryviews is slow
        if chunk == zeros:
            continue
        for offset in range(0, len(chunk), PAGE_BYTES):
            content = chunk[offset : offset + PAGE_BYTES]
            if content != _ZERO_PAGE:
                frames[(start + offset) // PAGE_BYTES] = content
    return frames
