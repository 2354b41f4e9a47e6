"""A machine that can be stopped anywhere and goes on as if it had not been.

`DebuggedMachine` runs exactly as `Machine` does: it is the same run loop. Wherever that passes a kernel
entry or a stretch of user code, this one asks its `Control` whether to pause, and the shim stops inside a
stretch (`debugport`). A pause is a value: the next step is refused, and the loop returns. All that it needs
to know to go on is in the machine, so it is entered again where it was left, and a snapshot can be taken and
restored in between.

Every point of a run has a `Position`. Runs are deterministic, so a position is reached again by
running again, with or without pauses on the way.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from l4lab.emulator.debug.debugport import DebugPort
from l4lab.emulator.machine import NEVER, CoreState, Machine
from l4lab.emulator.results import StopReason
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import INSTRUCTIONS, read_counter
from l4lab.kernel.traps import HOST_STOP, Trap

if TYPE_CHECKING:
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.kernel.thread import Thread

AFTER_ENTRY: Final = 0
IN_USER_CODE: Final = 1
BEFORE_ENTRY: Final = 2
_SLICE_INSTRUCTIONS: Final = 100_000
_LATE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A point of a run. Positions are ordered as the run passes them.

    `steps`: kernel entries served and stretches of user code finished so far, of all cores. `retired`:
    instructions completed. `phase`: AFTER_ENTRY, IN_USER_CODE or BEFORE_ENTRY, for what comes next.
    """

    steps: int
    retired: int
    phase: int

    def __str__(self) -> str:
        return f"{self.steps}.{self.retired}.{self.phase}"


class Pause(enum.Enum):
    """Why `DebuggedMachine.go_on` has come back."""

    CONTROL = enum.auto()
    """The control, or the shim, wanted to pause."""
    BREATH = enum.auto()
    """The time was over that it was to run for."""
    ENDED = enum.auto()
    """There is nothing more to run; see `ended`."""


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


def executed(thread: Thread) -> int:
    """Instructions that the thread has completed in its life."""
    return read_counter(thread.frame, INSTRUCTIONS)


class Control(Protocol):
    """Who decides where the machine pauses."""

    def count_for(self, thread: Thread) -> Count | None:
        """Where the stretch of `thread` that is about to run has to stop; None: nowhere."""

    def pauses_between(self) -> bool:
        """Whether to pause with a stretch just over. Asked once `halt_steps` are made."""

    def pauses_before(self, entry: Entry) -> bool:
        """Whether to pause with this kernel entry still to be served."""

    def pauses_after(self, entry: Entry) -> bool:
        """Whether to pause with this kernel entry just served, all its effects done."""


class NoControl:
    """Pauses nowhere."""

    def count_for(self, thread: Thread) -> Count | None:
        """Nowhere."""
        return None

    def pauses_between(self) -> bool:
        """Never."""
        return False

    def pauses_before(self, entry: Entry) -> bool:
        """Never."""
        return False

    def pauses_after(self, entry: Entry) -> bool:
        """Never."""
        return False


class Screen:
    """What a person has been shown: what is printed again because time was turned back is not shown again."""

    def __init__(self, console: Callable[[bytes], None] | None) -> None:
        self._console = console
        self._shown = 0

    def show(self, output: bytearray) -> None:
        """Show what is new in all that the machine has printed."""
        fresh = len(output) - self._shown
        if fresh > 0 and self._console is not None:
            self._shown += fresh
            self._console(bytes(output[-fresh:]))


NO_CONTROL: Final = NoControl()


class DebuggedMachine(Machine):
    """See the module's header.

    `steps`, `retired`, `phase`: see `Position`. `core`: that of the step it is in, or was in last.
    `ended`: why the run is over, if it is. `limit_cycles`: it ends there. `halt_steps`: from so many
    steps on the control is asked after stretches, too.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        console: Callable[[bytes], None] | None = None,
        limit_cycles: int = NEVER,
    ) -> None:
        self.screen = Screen(console)
        super().__init__(manifest)
        self.port = DebugPort(self.engine)
        self.limit_cycles = limit_cycles
        self.halt_steps = NEVER
        self.steps = 0
        self.retired = 0
        self.phase = AFTER_ENTRY
        self.core: CoreState = self.cores[0]
        self.ended: StopReason | None = None
        self._control: Control = NO_CONTROL
        self._breath_at = math.inf
        self._cuts_stretches = False
        self._pause: Pause | None = None
        # Of a turn that was left: when its stretch began; its trap that waits to be served; whether the
        # control has been asked about the kernel entry that comes next.
        self._stretch_began: int | None = None
        self._over: Trap | None = None
        self._asked = False
        self._ahead = False
        self._counted: tuple[Thread, Count] | None = None

    @property
    def position(self) -> Position:
        """Where the run is; meaningful while it is paused."""
        return Position(self.steps, self.retired, self.phase)

    def reached_cycles(self) -> tuple[int, ...]:
        """For each core the cycle that it is at, or, if it is idle, up to which nothing can happen to it any more.

        Depends on the position in the run alone, and only grows.
        """
        now = min(
            max(core.moment, self._next_moment(core)) if core is self.core else core.moment
            for core in self.cores
        )
        if now == NEVER:
            now = max(core.clock_cycles for core in self.cores)
        return tuple(max(core.clock_cycles, now) for core in self.cores)

    def go_on(self, control: Control = NO_CONTROL, seconds: float = math.inf) -> Pause:
        """Run on until `control` pauses the machine, it ends, or `seconds` of the host are over.

        They are looked at after each step, and inside stretches that take long. Raises KernelBug as `run` does.
        """
        self._control, self._breath_at = control, time.monotonic() + seconds
        self._pause = self.ended = None
        try:
            reason = self._run(self.limit_cycles)
        except KernelBug:
            self.phase = BEFORE_ENTRY  # of the entry that has failed
            raise
        finally:
            self._control = NO_CONTROL
        if self._pause is None:
            self.ended = reason
            self.phase = AFTER_ENTRY
        return self._pause or Pause.ENDED

    def restored(self) -> None:
        """A snapshot has been restored: what the shim was told to stop at is not part of it."""
        self._counted = None
        self.port.stop_at_count(None)

    # --- where `Machine` passes by ------------------------------------------------------------------

    def _run_ahead(self, core: CoreState, thread: Thread, now: int, others: int, limit: int) -> Trap:
        """Several stretches of one core. A pause leaves it; then it is entered again, with the same stretch."""
        self._ahead = True
        try:
            return super()._run_ahead(core, thread, now, others, limit)
        finally:
            self._ahead = False

    def _due(self, core: CoreState, now: int) -> Trap | None:
        return super()._due(core, now) if self._pause is None else HOST_STOP

    def _run_core(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        """A stretch of user code. Pauses inside it do not end it."""
        if self._pause is not None:
            return HOST_STOP
        if self._over is not None:
            trap = core.trap = self._over
            self._over = None
            return trap
        self.core = core
        if self._stretch_began is not None:
            now = self._stretch_began
        trap = self._run_to_the_next_stop(core, thread, now, horizon)
        if trap is HOST_STOP:
            self._stretch_began = now
            return trap
        self._stretch_began = None
        self.steps += 1
        if self.steps >= self.halt_steps and self._control.pauses_between():
            self._stand_still(Pause.CONTROL, AFTER_ENTRY)
        else:
            self._breathe(AFTER_ENTRY)
        return trap

    def _run_to_the_next_stop(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        frame = thread.frame
        while True:
            count = self._control.count_for(thread)
            cut = count is None and (self._cuts_stretches or self.port.watches)
            if cut:
                count = Count(read_counter(frame, INSTRUCTIONS) + _SLICE_INSTRUCTIONS)
            if count is not None or self._counted is not None:
                self._set_count(thread, count)
            before = frame[INSTRUCTIONS]
            trap = super()._run_core(core, thread, now, horizon)
            self.retired += frame[INSTRUCTIONS] - before & 0xFFFFFFFF
            if trap is not HOST_STOP:
                return trap
            if not (cut and self.port.counted(core.vcpu)):
                self._stand_still(Pause.CONTROL, IN_USER_CODE)
                return trap
            self._breathe(IN_USER_CODE)
            if self._pause is not None:
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

    def _serve(self, core: CoreState, trap: Trap, now: int) -> bool:
        if self._pause is None:
            self.core = core
            entry = Entry(core, trap, now)
            if not self._asked and self._control.pauses_before(entry):
                self._asked = True
                self._stand_still(Pause.CONTROL, BEFORE_ENTRY)
        if self._pause is not None:
            if self._ahead:
                self._over = trap
            elif trap is not HOST_STOP:
                core.trap = trap
            return False
        self._asked = False
        super()._serve(core, trap, now)
        self.steps += 1
        if self._control.pauses_after(entry):
            self._stand_still(Pause.CONTROL, AFTER_ENTRY)
        else:
            self._breathe(AFTER_ENTRY)
        return True

    def _write(self, data: bytes) -> None:
        super()._write(data)
        self.screen.show(self.output)

    def _breathe(self, phase: int) -> None:
        """Pause if it is time to. If it has been for long, stretches are cut from now on, so that one sees earlier."""
        late = time.monotonic() - self._breath_at
        if late >= 0:
            self._cuts_stretches |= late > _LATE_SECONDS
            self._stand_still(Pause.BREATH, phase)

    def _stand_still(self, why: Pause, phase: int) -> None:
        """Refuse every further step until somebody lets the machine go on."""
        self._pause = why
        self.phase = phase
