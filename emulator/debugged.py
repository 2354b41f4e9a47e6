"""A machine that can be stopped anywhere and goes on as if it had not been.

`DebuggedMachine` runs exactly as `Machine` does: the same stretches of user code with the same
deadlines, the same kernel entries in the same order. In between it asks its `Control` whether to
pause: before a kernel entry, after one, or in user code, where the shim stops (`debugport`). Pausing
leaves the core at the head of the agenda with the stretch it was in, so that `go_on` finishes that
stretch with the deadline it had.

Every point of a run has a `Position`. Runs are deterministic, so a position is reached again by
running again, with or without pauses on the way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from l4lab.emulator.debugport import DebugPort
from l4lab.emulator.machine import CoreState, Machine
from l4lab.emulator.results import StopReason
from l4lab.kernel.frame import INSTRUCTIONS
from l4lab.kernel.traps import HOST_STOP, Trap

if TYPE_CHECKING:
    from l4lab.emulator.manifest import Manifest
    from l4lab.kernel.thread import Thread

AFTER_ENTRY: Final = 0
IN_USER_CODE: Final = 1
BEFORE_ENTRY: Final = 2


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A point of a run. Positions are ordered as the run passes them.

    `steps`: kernel entries served and stretches of user code finished so far, of all cores. `retired`:
    instructions completed. `phase`: AFTER_ENTRY, IN_USER_CODE or BEFORE_ENTRY, for what is left open.
    """

    steps: int
    retired: int
    phase: int

    def __str__(self) -> str:
        return f"{self.steps}.{self.retired}.{self.phase}"


START: Final = Position(0, 0, AFTER_ENTRY)


class Entry(NamedTuple):
    """A kernel entry: whose, what for, and at which cycle of the core's clock it begins."""

    core: CoreState
    trap: Trap
    now: int


class Count(NamedTuple):
    """Stop a thread that has executed `instructions` in its life and is not in a range of addresses."""

    instructions: int
    first: int = 0
    size_bytes: int = 0


class Control(Protocol):
    """Who decides where the machine pauses."""

    def count_for(self, thread: Thread) -> Count | None:
        """Where the stretch of `thread` that is about to run has to stop; None: nowhere."""

    def pauses_before(self, entry: Entry) -> bool:
        """Whether to pause with this kernel entry still to be served."""

    def pauses_after(self, entry: Entry) -> bool:
        """Whether to pause with this kernel entry just served, all its effects done."""


class NoControl:
    """Pauses nowhere."""

    def count_for(self, thread: Thread) -> Count | None:
        """Nowhere."""
        return None

    def pauses_before(self, entry: Entry) -> bool:
        """Never."""
        return False

    def pauses_after(self, entry: Entry) -> bool:
        """Never."""
        return False


class _Pause(Exception):
    """Unwinds the run loop; the machine's state is whole."""


class DebuggedMachine(Machine):
    """See the module's header.

    `steps`, `retired`, `phase`: see `Position`. `announced`: the kernel entry that a pause has left to be
    served. `paused_core`: on which core the last pause was.
    """

    def __init__(self, manifest: Manifest, *, console: Callable[[bytes], None] | None = None) -> None:
        super().__init__(manifest, console=console)
        self.port = DebugPort(self.engine)
        self.control: Control = NoControl()
        self.steps = 0
        self.retired = 0
        self.phase = AFTER_ENTRY
        self.announced: Entry | None = None
        self.paused_core: CoreState = self.cores[0]
        self._counted: tuple[Thread, Count] | None = None

    @property
    def position(self) -> Position:
        """Where the run is; meaningful while it is paused."""
        return Position(self.steps, self.retired, self.phase)

    def go_on(self, limit_cycles: int) -> StopReason:
        """Run on until a pause (HOST_STOP) or the end. Raises KernelBug as `run` does."""
        try:
            entry, self.announced = self.announced, None
            if entry is not None:
                self._serve_announced(entry)
                self._reschedule(entry.core)
            return self._run(limit_cycles)
        except _Pause:
            return StopReason.HOST_STOP

    # --- where `Machine` passes by ------------------------------------------------------------------

    def _run_core(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        """A stretch of user code, or what is left of it after a pause."""
        count = self.control.count_for(thread)
        if count is not None or self._counted is not None:
            self._set_count(thread, count)
        frame = thread.frame
        before = frame[INSTRUCTIONS]
        trap = super()._run_core(core, thread, now, horizon)
        self.retired += frame[INSTRUCTIONS] - before & 0xFFFFFFFF
        if trap is HOST_STOP:
            self._hold(core, now)
        else:
            self.steps += 1
        return trap

    def _set_count(self, thread: Thread, count: Count | None) -> None:
        wanted = (thread, count) if count is not None else None
        if wanted == self._counted:
            return
        self._counted = wanted
        if count is None:
            self.port.stop_at_count(None)
        else:
            self.port.stop_at_count(thread.frame, *count)

    def _hold(self, core: CoreState, now: int) -> None:
        """The core stays at the head of the agenda, at the beginning of the stretch that is not finished."""
        core.moment = now
        heapq.heapreplace(self._agenda, (now, core.number))
        self.phase = IN_USER_CODE
        self.paused_core = core

    def _serve(self, core: CoreState, trap: Trap, now: int) -> None:
        entry = Entry(core, trap, now)
        if self.control.pauses_before(entry):
            self.announced = entry
            self.phase = BEFORE_ENTRY
            self.paused_core = core
            raise _Pause
        self._serve_announced(entry)

    def _serve_announced(self, entry: Entry) -> None:
        super()._serve(*entry)
        self.steps += 1
        if self.control.pauses_after(entry):
            self._reschedule(entry.core)
            self.phase = AFTER_ENTRY
            self.paused_core = entry.core
            raise _Pause
