"""The wake-up queue: who wants to be woken when.

A binary heap of deadlines with lazy cancellation: cancelling marks the entry, and the heap is
rebuilt when marked entries outnumber live ones, so ping-pong with finite timeouts stays O(log n)
in *live* timeouts. Equal deadlines expire in the order they were set.

Times are microseconds since boot, the unit of the interface; the tick decides how often the queue
is looked at (ABI sheet section 4: 1 ms granularity).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l4lab.kernel.thread import Thread


class Timeout:
    """One armed timeout. `thread` is None once it was cancelled or has expired."""

    __slots__ = ("_queue", "deadline_us", "order", "thread")

    def __init__(self, queue: WakeUpQueue, deadline_us: int, order: int, thread: Thread) -> None:
        self._queue = queue
        self.deadline_us = deadline_us
        self.order = order
        self.thread: Thread | None = thread

    def cancel(self) -> None:
        """Forget it; harmless if it has expired."""
        if self.thread is not None:
            self.thread = None
            self._queue.one_cancelled()

    def __lt__(self, other: Timeout) -> bool:
        if self.deadline_us != other.deadline_us:
            return self.deadline_us < other.deadline_us
        return self.order < other.order


class WakeUpQueue:
    """One core's armed timeouts, soonest first."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[Timeout] = []
        self._order = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def armed(self) -> list[Timeout]:
        """All live timeouts, soonest first; for people."""
        return sorted(entry for entry in self._heap if entry.thread is not None)

    def arm(self, thread: Thread, deadline_us: int) -> Timeout:
        """Wake `thread` at `deadline_us`; the returned handle can be cancelled."""
        self._order += 1
        timeout = Timeout(self, deadline_us, self._order, thread)
        heapq.heappush(self._heap, timeout)
        return timeout

    def timeouts(self) -> list[Timeout]:
        """The live ones, in no particular order; for invariants."""
        return [entry for entry in self._heap if entry.thread is not None]

    def one_cancelled(self) -> None:
        """A timeout of this queue lost its thread; rebuild when too many have."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.thread is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_deadline_us(self) -> int | None:
        """When the soonest live timeout expires; None if there is none."""
        heap = self._heap
        while heap and heap[0].thread is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0].deadline_us if heap else None

    def pop_expired(self, now_us: int) -> Thread | None:
        """Take the soonest thread whose deadline is at or before `now_us`; None when there is no more."""
        deadline_us = self.next_deadline_us()
        if deadline_us is None or deadline_us > now_us:
            return None
        timeout = heapq.heappop(self._heap)
        thread = timeout.thread
        timeout.thread = None
        return thread
