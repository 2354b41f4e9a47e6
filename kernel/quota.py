"""Kernel memory as a budget: who pays for what the kernel keeps.

Every factory is a `Quota`: a limit in bytes, below a parent. A charge goes against the factory
and all its ancestors, so a child can never hold more than its parent was given. The top of the
tree is the kernel's own share of RAM. Refusal is a return value, never an exception.

Source: ABI sheet section 7, "Quota".
"""

from __future__ import annotations

from typing import Final

from l4lab.kernel.errors import KernelBug

UNLIMITED: Final = 1 << 62

# What each kind of kernel object costs. Sizes of the order of the real kernel's objects; programs
# do not observe exact sizes (ABI sheet section 7), but the sum is really limited.
THREAD_BYTES: Final = 4096
TASK_BYTES: Final = 512
FACTORY_BYTES: Final = 128
GATE_BYTES: Final = 64
IRQ_BYTES: Final = 128
SEMAPHORE_BYTES: Final = 128
MAPPING_BYTES: Final = 32


class Quota:
    """One node of the budget tree. `used_bytes` <= `limit_bytes` holds at all times.

    `closed`: its factory has been deleted; nothing is charged any more, here or below.
    """

    __slots__ = ("closed", "limit_bytes", "parent", "used_bytes")

    def __init__(self, limit_bytes: int, parent: Quota | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.parent = parent
        self.used_bytes = 0
        self.closed = False

    def charge(self, size_bytes: int) -> bool:
        """Take `size_bytes` from this budget and all above it; False, and nothing taken, if one refuses."""
        node: Quota | None = self
        while node is not None:
            if node.used_bytes + size_bytes > node.limit_bytes or node.closed:
                return False
            node = node.parent
        node = self
        while node is not None:
            node.used_bytes += size_bytes
            node = node.parent
        return True

    def refund(self, size_bytes: int) -> None:
        """Give back what `charge` took. Raises KernelBug if more comes back than was taken."""
        node: Quota | None = self
        while node is not None:
            if node.used_bytes < size_bytes:
                raise KernelBug(f"quota refund of {size_bytes} bytes, only {node.used_bytes} charged")
            node.used_bytes -= size_bytes
            node = node.parent
