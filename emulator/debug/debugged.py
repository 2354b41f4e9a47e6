"""A machine that can be stopped anywhere and goes on as if it had not been.

`DebuggedMachine` runs exactly as `Machine` does. Wherever that passes a kernel entry or a stretch of
user code, this one asks its `Control` whether to pause, and the shim stops inside a stretch
(`debugport`). To pause is to wait, right there: the run loop has a thread of its own, which runs only
while `go_on` waits for it, so nothing of the loop's order depends on pauses.

Every point of a run has a `Position`. Runs are deterministic, so a position is reached again by
running again, with or without pauses on the way.
"""

from __future__ import annotations

import enum
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from l4lab.emulator.debug.debugport import DebugPort
from l4lab.emulator.machine import NEVER, CoreState, Machine
from l4lab.emulator.results import StopReason
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import INSTRUCTIONS
from l4lab.kernel.state import TimerSet
from l4lab.kernel.traps import HOST_STOP, Trap

if TYPE_CHECKING:
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.kernel.state import Effect
    from l4lab.kernel.thread import Thread

AFTER_ENTRY: Final = 0
IN_USER_CODE: Final = 1
BEFORE_ENTRY: Final = 2
_PATIENCE_SECONDS: Final = 5


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
    BETWEEN_TURNS = enum.auto()
    """`breathe` was called: now snapshots can be taken and restored."""
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


class Control(Protocol):
    """Who decides where the machine pauses. Asked on the machine's thread, while nobody else runs."""

    def count_for(self, thread: Thread) -> Count | None:
        """Where the stretch of `thread` that is about to run has to stop; None: nowhere."""

    def pauses_between(self, core: CoreState) -> bool:
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

    def pauses_between(self, core: CoreState) -> bool:
        """Never."""
        return False

    def pauses_before(self, entry: Entry) -> bool:
        """Never."""
        return False

    def pauses_after(self, entry: Entry) -> bool:
        """Never."""
        return False


class _Unwind(BaseException):
    """Ends the run loop in the middle of a turn; what it leaves behind is overwritten by a snapshot."""


class Runner:
    """A thread for the run loop. Either it runs or whoever called `go_on` does, never both."""

    def __init__(self, body: Callable[[], Pause]) -> None:
        self._body = body
        self._machine_turn = threading.Semaphore(0)
        self._debugger_turn = threading.Semaphore(0)
        self._outcome: Pause | None = None
        self._error: BaseException | None = None
        self._unwinding = False
        self._in_body = False
        self._thread: threading.Thread | None = None

    def go_on(self, poll: Callable[[], None] | None, poll_seconds: float, hurry: Callable[[], None]) -> Pause:
        """Let the body run until it pauses, returns or raises. `poll` is called while it runs.

        If that raises, or somebody presses Ctrl-C, `hurry` is called, the next pause awaited, and the same raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="machine", daemon=True)
            self._thread.start()
        self._machine_turn.release()
        try:
            while not self._debugger_turn.acquire(timeout=poll_seconds):
                if poll is not None:
                    poll()
        except BaseException:
            hurry()
            self._debugger_turn.acquire(timeout=_PATIENCE_SECONDS)  # or it had just been acquired
            raise
        error, self._error = self._error, None
        if error is not None:
            raise error
        assert self._outcome is not None
        return self._outcome

    def pause(self) -> None:
        """Called by the body: wait until it is to go on."""
        self._outcome = Pause.CONTROL
        self._debugger_turn.release()
        self._machine_turn.acquire()
        if self._unwinding:
            raise _Unwind

    def unwind(self) -> None:
        """If the body has paused, end it there."""
        if self._in_body:
            self._unwinding = True
            self._machine_turn.release()
            self._debugger_turn.acquire()
            self._unwinding = False

    def _loop(self) -> None:
        while True:
            self._machine_turn.acquire()
            self._in_body = True
            try:
                self._outcome = self._body()
            except _Unwind:
                pass
            except BaseException as error:
                self._error = error
            self._in_body = False
            self._debugger_turn.release()


class DebuggedMachine(Machine):
    """See the module's header.

    `steps`, `retired`, `phase`: see `Position`. `paused_core`: on which core the last pause was.
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
        super().__init__(manifest, console=self._console_once(console) if console is not None else None)
        self.port = DebugPort(self.engine)
        self.control: Control = NoControl()
        self.limit_cycles = limit_cycles
        self.halt_steps = NEVER
        self.steps = 0
        self.retired = 0
        self.phase = AFTER_ENTRY
        self.paused_core: CoreState = self.cores[0]
        self.ended: StopReason | None = None
        self._counted: tuple[Thread, Count] | None = None
        self._breathing = False
        self._ahead = False
        self._turn: CoreState | None = None
        self._runner = Runner(self._body)

    def _console_once(self, console: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """What is printed again because time was turned back is not shown again."""
        shown = 0

        def show(data: bytes) -> None:
            nonlocal shown
            fresh = len(self.output) - shown
            if fresh > 0:
                shown += fresh
                console(data[-fresh:])

        return show

    @property
    def position(self) -> Position:
        """Where the run is; meaningful while it is paused."""
        return Position(self.steps, self.retired, self.phase)

    def reached_cycles(self, running: CoreState) -> tuple[int, ...]:
        """For each core the cycle that it is at, or, if it is idle, up to which nothing can happen to it any more.

        `running`: the core that had the last step. Depends on the position in the run alone, and only grows.
        """
        now = min(self._next_moment(core) if core is running else core.moment for core in self.cores)
        if now == NEVER:
            now = max(core.clock_cycles for core in self.cores)
        return tuple(max(core.clock_cycles, now) for core in self.cores)

    def go_on(self, poll: Callable[[], None] | None = None, poll_seconds: float = 1.0) -> Pause:
        """Run on until something pauses the machine. Raises KernelBug as `run` does.

        `poll`: called now and then on the caller's thread, while the machine runs: it may call
        `breathe` and `stop`, and look at nothing.
        """
        return self._runner.go_on(poll, poll_seconds, self._hurry)

    def _hurry(self) -> None:
        self.breathe()
        self.stop()

    def breathe(self) -> None:
        """Pause soon, between two turns."""
        self._breathing = True

    def abandon(self) -> None:
        """Leave the turn that the machine is in the middle of, for good: a snapshot is about to be restored."""
        self._runner.unwind()

    def restored(self) -> None:
        """A snapshot has been restored: what the shim was told to stop at is not part of it."""
        self._turn = self._counted = None
        self._ahead = self._breathing = False
        self.port.stop_at_count(None)

    def _body(self) -> Pause:
        self.ended = None
        try:
            reason = self._run(self.limit_cycles)
        except KernelBug:
            self.phase = BEFORE_ENTRY  # of the entry that has failed
            raise
        core, self._turn = self._turn, None
        if core is None:
            self.ended = reason
            self.phase = AFTER_ENTRY
            return Pause.ENDED
        # `_run` has left its agenda as it was at the beginning of the turn.
        moment = core.moment = self._next_moment(core)
        if moment == NEVER:
            heapq.heappop(self._agenda)
        else:
            heapq.heapreplace(self._agenda, (moment, core.number))
        self._breathing = False
        self.phase = AFTER_ENTRY
        self.paused_core = core
        return Pause.BETWEEN_TURNS

    # --- where `Machine` passes by ------------------------------------------------------------------

    def _run_ahead(self, core: CoreState, thread: Thread, now: int, others: int, limit: int) -> Trap:
        """Several stretches of one core. After it the turn may end, which changes nothing."""
        self._ahead = True
        trap = super()._run_ahead(core, thread, now, others, limit)
        self._ahead = False
        if self._breathing:
            self._turn = core
            return HOST_STOP
        return trap

    def _run_core(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        """A stretch of user code. Stops inside it do not end it."""
        control, frame = self.control, thread.frame
        while True:
            count = control.count_for(thread)
            if count is not None or self._counted is not None:
                self._set_count(thread, count)
            before = frame[INSTRUCTIONS]
            trap = super()._run_core(core, thread, now, horizon)
            self.retired += frame[INSTRUCTIONS] - before & 0xFFFFFFFF
            if trap is not HOST_STOP:
                self.steps += 1
                if self.steps >= self.halt_steps and control.pauses_between(core):
                    self._pause(AFTER_ENTRY, core)
                if self._breathing and not self._ahead:
                    self._turn = core
                    return HOST_STOP
                return trap
            self._pause(IN_USER_CODE, core)

    def _set_count(self, thread: Thread, count: Count | None) -> None:
        wanted = (thread, count) if count is not None else None
        if wanted == self._counted:
            return
        self._counted = wanted
        if count is None:
            self.port.stop_at_count(None)
        else:
            self.port.stop_at_count(thread.frame, *count)

    def _serve(self, core: CoreState, trap: Trap, now: int) -> None:
        entry = Entry(core, trap, now)
        if self.control.pauses_before(entry):
            self._pause(BEFORE_ENTRY, core)
        super()._serve(core, trap, now)
        self.steps += 1
        if self.control.pauses_after(entry):
            self._pause(AFTER_ENTRY, core)
        if self._breathing and self._ahead:
            core.decision.effects = _END_OF_TURN

    def _pause(self, phase: int, core: CoreState) -> None:
        self.phase = phase
        self.paused_core = core
        self._runner.pause()


# Effects that are done already; that there are any makes `_run_ahead` return.
_END_OF_TURN: list[Effect] = [TimerSet(0)]
