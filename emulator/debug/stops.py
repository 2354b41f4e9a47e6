"""What a debugger stops at, what it is asked to do, and what it says when it has.

Tasks and threads are named by their numbers: after going back in time the same thread may be another
Python object.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from l4lab.kernel.frame import FPU_AREA, FPU_VALID
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.emulator.debug.catching import Catch, Happening
    from l4lab.emulator.debug.debugged import DebuggedMachine, Position
    from l4lab.emulator.results import StopReason
    from l4lab.kernel.thread import Thread


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Stop before the instruction at `address`, in task `task`; None: in every task."""

    address: int
    task: int | None = None


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """Stop when these bytes of task `task` change (`write`), or at any access to them (`read`)."""

    address: int
    size_bytes: int
    task: int
    write: bool = True
    read: bool = False

    def pieces(self) -> list[tuple[int, int]]:
        """(address, size) of the parts that lie on one page each."""
        parts = []
        at, end = self.address, self.address + self.size_bytes
        while at < end:
            size = min(end, (at // PAGE_BYTES + 1) * PAGE_BYTES) - at
            parts.append((at, size))
            at += size
        return parts


class StopKind(enum.Enum):
    """Why the machine stands still."""

    STEP = "step"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    CATCHPOINT = "catchpoint"
    ENTRY = "kernel entry"
    PLACE = "there"
    NEW_TASK = "new task"
    NO_STEP = "the step does not come to its end"
    INTERRUPTED = "interrupted"
    START = "start of the run"
    END = "end of the run"
    BUG = "bug in l4lab"


@dataclass(frozen=True, slots=True)
class Stop:
    """Where and why. `thread`: whom it concerns; None: nobody, on an idle core. `text`: for people.

    `result`: how the run ended, if it did.
    """

    kind: StopKind
    position: Position
    core: int
    thread: Thread | None
    text: str = ""
    watchpoint: Watchpoint | None = None
    catch: Catch | None = None
    happening: Happening | None = None
    result: StopReason | None = None


class GoalKind(enum.Enum):
    """How far to go, if nothing else stops the machine before."""

    END = enum.auto()
    STEP = enum.auto()
    ENTRY = enum.auto()
    CLOCK = enum.auto()


@dataclass(frozen=True, slots=True)
class Goal:
    """What a person asks for when letting the machine go on.

    STEP: `thread` completes an instruction, and goes on while it is among the `size_bytes` bytes at
    `first`. ENTRY: the next kernel entry of any core has been served. CLOCK: `core` reaches the cycle
    `clock_cycles`.
    """

    kind: GoalKind = GoalKind.END
    thread: int | None = None
    first: int = 0
    size_bytes: int = 0
    core: int = 0
    clock_cycles: int = 0


TO_THE_END = Goal()
"""Let it run."""


class Edit(Protocol):
    """Something that a person changes by hand."""

    def apply(self, machine: DebuggedMachine) -> None:
        """Make the change; it may be made again whenever the run is."""

    def frames(self) -> tuple[int, ...]:
        """The RAM frames that it writes."""


@dataclass(frozen=True, slots=True)
class MemoryEdit:
    """Bytes in one frame of RAM."""

    physical: int
    data: bytes

    def apply(self, machine: DebuggedMachine) -> None:
        """Write them; code that was there is forgotten."""
        machine.ram.bytes_[self.physical : self.physical + len(self.data)] = self.data
        machine.engine.forget_code(self.physical // PAGE_BYTES, 1)

    def frames(self) -> tuple[int, ...]:
        """Its frame."""
        return (self.physical // PAGE_BYTES,)


@dataclass(frozen=True, slots=True)
class RegisterEdit:
    """Words of the frame of thread `thread`, from index `first` on (`kernel/frame.py`)."""

    thread: int
    first: int
    words: tuple[int, ...]

    def apply(self, machine: DebuggedMachine) -> None:
        """Write them; x87 and SSE registers must not be live in a core then."""
        frame = machine.kernel.threads[self.thread].frame
        if self.first >= FPU_AREA:
            machine.engine.sync_fpu(frame)
            machine.engine.drop_fpu(frame)
            frame[FPU_VALID] = 1
        for offset, word in enumerate(self.words):
            frame[self.first + offset] = word

    def frames(self) -> tuple[int, ...]:
        """None: registers of threads are no guest memory."""
        return ()


def step(thread: int, first: int = 0, size_bytes: int = 0) -> Goal:
    """One instruction of thread `thread`, or out of a range of addresses."""
    return Goal(GoalKind.STEP, thread, first, size_bytes)
