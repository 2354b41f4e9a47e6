"""The kernel's own page frames: page tables, UTCB areas, the system call page.

A contiguous share at the top of RAM, handed out lowest address first. UTCB areas need physically
contiguous runs (so that a UTCB that straddles a page is still one run of words); everything else
takes single frames.
"""

from __future__ import annotations

import heapq

from l4lab.kernel.errors import KernelBug


class KernelFrames:
    """Frames `first_pfn .. first_pfn + count - 1`. O(log n) for single frames."""

    __slots__ = ("_free", "_next", "_taken", "end_pfn", "first_pfn")

    def __init__(self, first_pfn: int, count: int) -> None:
        self.first_pfn = first_pfn
        self.end_pfn = first_pfn + count
        self._next = first_pfn  # frames from here on were never taken
        self._free: list[int] = []  # heap of returned frames below _next
        self._taken: set[int] = set()  # membership only, never iterated

    @property
    def taken_count(self) -> int:
        """How many frames are in use."""
        return len(self._taken)

    def used_frames(self) -> range:
        """The numbers of all frames that are in use or have been; the others were never written."""
        return range(self.first_pfn, self._next)

    def take(self) -> int | None:
        """One frame, contents undefined; None when there is none left."""
        if self._free:
            pfn = heapq.heappop(self._free)
        elif self._next < self.end_pfn:
            pfn = self._next
            self._next += 1
        else:
            return None
        self._taken.add(pfn)
        return pfn

    def take_run(self, count: int) -> int | None:
        """`count` frames in a row; the first one's number, or None."""
        if count == 1:
            return self.take()
        run = self._reuse_run(count)
        if run is None:
            run = self._new_run(count)
        if run is None:
            return None
        self._taken.update(range(run, run + count))
        return run

    def give_back(self, first_pfn: int, count: int = 1) -> None:
        """Return frames. Raises KernelBug for a frame that was not taken."""
        for pfn in range(first_pfn, first_pfn + count):
            if pfn not in self._taken:
                raise KernelBug(f"kernel frame {pfn:#x} returned but not taken")
            self._taken.discard(pfn)
            heapq.heappush(self._free, pfn)

    def is_taken(self, pfn: int) -> bool:
        """True while the frame is in use by the kernel."""
        return pfn in self._taken

    def _new_run(self, count: int) -> int | None:
        """A run that ends in frames never taken; returned ones right below them belong to it."""
        free = set(self._free)
        run = self._next
        while run - 1 in free:
            run -= 1
        if run + count > self.end_pfn:
            return None
        self._free = sorted(free.difference(range(run, self._next)))
        self._next = run + count
        return run

    def _reuse_run(self, count: int) -> int | None:
        """A run among returned frames, lowest first. O(free frames): only UTCB areas of several pages ask."""
        ordered = sorted(self._free)
        start = 0
        for position in range(1, len(ordered) + 1):
            if position < len(ordered) and ordered[position] == ordered[position - 1] + 1:
                if position - start + 1 == count:
                    run = ordered[start]
                    self._free = ordered[:start] + ordered[position + 1 :]
                    return run
            else:
                start = position
        return None
