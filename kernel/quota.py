"""Kernel memory as a budget: who pays for what the kernel keeps.

Every factory has a `Quota`: a limit in bytes. What is charged goes against it and against the kernel's own
share of RAM, the top. A factory that makes another lends it its whole limit at once, and gets it back when
the other has been deleted and all that it paid for is gone. Refusal is a return value, never an exception.

Source: ABI sheet section 7, "Quota"; the real kernel's `ram_quota.cpp` and `factory.cpp`.
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
    """One budget. `used_bytes` <= `limit_bytes` holds at all times.

    `top`: the kernel's share of RAM, charged with the same; None for the top itself. `used_bytes`: charged, and
    lent to others. `lender`: who lent the limit, and counts it as used; None if nobody has to get it back.
    `closed`: its factory has been deleted; nothing is charged or lent any more.
    """

    __slots__ = ("closed", "lender", "limit_bytes", "top", "used_bytes")

    def __init__(self, limit_bytes: int, top: Quota | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.top = top
        self.lender: Quota | None = None
        self.used_bytes = 0
        self.closed = False

    def charge(self, size_bytes: int) -> bool:
        """Take `size_bytes` from this budget and from the top; False, and nothing taken, if one refuses."""
        if self.closed or self.used_bytes + size_bytes > self.limit_bytes:
            return False
        if self.top is not None and not self.top.charge(size_bytes):
            return False
        self.used_bytes += size_bytes
        return True

    def refund(self, size_bytes: int) -> None:
        """Give back what `charge` took. Raises KernelBug if more comes back than was taken."""
        self._return(size_bytes)
        if self.top is not None:
            self.top.refund(size_bytes)

    def lend(self, limit_bytes: int) -> Quota | None:
        """A budget of `limit_bytes` out of this one; None if so much is not left. Unlimited ones lend freely."""
        lent = Quota(limit_bytes, self.top)
        if self.limit_bytes != UNLIMITED:
            if self.closed or self.used_bytes + limit_bytes > self.limit_bytes:
                return None
            self.used_bytes += limit_bytes
            lent.lender = self
        return None if self.closed else lent

    def close(self) -> None:
        """Nothing more is charged. Once nothing is charged, the lender has the limit back."""
        self.closed = True
        self._return(0)

    def _return(self, size_bytes: int) -> None:
        if self.used_bytes < size_bytes:
            raise KernelBug(f"quota refund of {size_bytes} bytes, only {self.used_bytes} charged")
        self.used_bytes -= size_bytes
        if self.closed and not self.used_bytes and self.lender is not None:
            lender, self.lender = self.lender, None
            lender._return(self.limit_bytes)
