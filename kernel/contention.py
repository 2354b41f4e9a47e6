"""What it costs that cores share the kernel's data: cache lines that move, locks that are held.

`use` is called where an operation touches an object that another core may have touched last: the
lines come over, at a price that depends on how far apart the cores are. `lock` is called where the
real kernel takes the object's lock: the operation waits until whoever holds it has left the kernel.
Kernel entries are served in order of their beginning, so "holds it" means: until the end of the
entry that took it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from l4lab.kernel.costs import CACHE, LOCK

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel

THREAD_LINES: Final = 3
"""State and queues, saved registers, UTCB header."""
DRQ_LINES: Final = 2
"""Of a core's queue of DRQs: its head with the lock, and the link in the thread that is queued."""
WORDS_PER_LINE: Final = 16
NO_CORE: Final = -1


class Shared(Protocol):
    """An object of the kernel that several cores use. `last_core`: who did last, NO_CORE: nobody yet."""

    last_core: int
    locked_until_cycles: int


def use(kernel: Kernel, obj: Shared, lines: int = 1) -> None:
    """Touch `lines` cache lines of `obj`, exclusively, from the core that is being served."""
    here = kernel.here
    last = obj.last_core
    if last != here:
        obj.last_core = here
        if last != NO_CORE:
            kernel.bill[CACHE] += lines * kernel.line_cycles[last][here]


def lock(kernel: Kernel, obj: Shared) -> None:
    """Take the lock of `obj` until the end of this kernel entry, waiting for whoever has it."""
    use(kernel, obj)
    wait_cycles = obj.locked_until_cycles - kernel.now_cycles - sum(kernel.bill)
    if wait_cycles > 0:
        kernel.bill[LOCK] += wait_cycles
    kernel.held.append(obj)


def release_all(kernel: Kernel, end_cycles: int) -> None:
    """The kernel entry ends at `end_cycles`; so do its locks."""
    for obj in kernel.held:
        obj.locked_until_cycles = end_cycles
    kernel.held.clear()
