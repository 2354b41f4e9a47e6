"""The scheduler: strict priorities, round robin inside one, one ready queue for each core.

What runs on a core is two things: a thread, and the scheduling context whose priority and quantum
it uses. They differ after a donation: a call runs the server on the caller's context until the
core is next rescheduled. A thread runs only on the core it was given; nothing is balanced.

Rules and their order are the real kernel's, as measured: ABI sheet section 6, "Scheduling".
A thread that becomes ready goes to the *front* of its priority; only the end of a quantum sends it
to the back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from l4lab.kernel.timeouts import WakeUpQueue

if TYPE_CHECKING:
    from l4lab.kernel.memory import Space
    from l4lab.kernel.thread import Thread


class ReadyQueue:
    """The threads of one core that could run but do not.

    `_levels`: priority -> threads, next one first. `_occupied`: bit p set while level p has one.
    """

    __slots__ = ("_levels", "_occupied")

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[Thread, None]] = {}
        self._occupied = 0

    def __bool__(self) -> bool:
        return self._occupied != 0

    def top_priority(self) -> int:
        """The highest priority that is waiting; -1 if none is."""
        return self._occupied.bit_length() - 1

    def add(self, thread: Thread, *, front: bool) -> None:
        """Queue a thread that is not queued."""
        priority = thread.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = OrderedDict()
        level[thread] = None
        if front:
            level.move_to_end(thread, last=False)
        self._occupied |= 1 << priority
        thread.queued = True

    def remove(self, thread: Thread) -> None:
        """Take a queued thread out, before its priority changes."""
        level = self._levels[thread.priority]
        del level[thread]
        if not level:
            self._occupied &= ~(1 << thread.priority)
        thread.queued = False

    def pop(self) -> Thread | None:
        """The thread to run next, taken out; None if there is none."""
        if not self._occupied:
            return None
        priority = self._occupied.bit_length() - 1
        level = self._levels[priority]
        thread, _ = level.popitem(last=False)
        if not level:
            self._occupied &= ~(1 << priority)
        thread.queued = False
        return thread

    def threads(self) -> list[Thread]:
        """Everything queued, in the order it would run; for people and invariants."""
        return [t for priority in sorted(self._levels, reverse=True) for t in self._levels[priority]]


class Core:
    """One core as the kernel sees it.

    `current`: what runs; None: idle. `context`: whose priority and quantum it uses; the same thread
    unless the time was donated. `reschedule`: `current` must not simply go on. `space`: whose page
    directory is loaded, None while it idles. `context_since_cycles`: since when `context` has been
    running. `interrupted`: an interrupt has come since the last change of space, so nothing may have
    run in that. `last_core`, `locked_until_cycles`: of its queue of DRQs, see `contention`.
    `idle_cycles`, `switches`: for people.
    """

    __slots__ = (
        "context",
        "context_since_cycles",
        "current",
        "idle_cycles",
        "interrupted",
        "last_core",
        "locked_until_cycles",
        "number",
        "ready",
        "reschedule",
        "space",
        "switches",
        "wake_ups",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Thread | None = None
        self.context: Thread | None = None
        self.context_since_cycles = 0
        self.ready = ReadyQueue()
        self.wake_ups = WakeUpQueue()
        self.reschedule = False
        self.space: Space | None = None
        self.interrupted = False
        self.last_core = number
        self.locked_until_cycles = 0
        self.idle_cycles = 0
        self.switches = 0


def outranks_running(core: Core, thread: Thread) -> bool:
    """The wake-up rule: at least the priority of both the running context and the running thread."""
    current, context = core.current, core.context
    if current is None or context is None:
        return True
    return thread.priority >= context.priority and thread.priority >= current.priority
