"""Capabilities: what a task may name, and with which rights.

A task's table maps an index to a `Capability`. Mapping one makes a copy (there is no tree, ABI
sheet section 7); the object counts its *counted* capabilities and dies when the last of them is
taken away, and then all others, weak ones too, go with it.
"""

from __future__ import annotations

from typing import Final

from l4lab.kernel.quota import Quota
from l4lab.kernel.units import PAGE_BYTES

SLOTS_PER_PAGE: Final = 256


class KernelObject:
    """What a capability can name.

    `name`: for people; `name_bytes`: as a program has given it, if one has.
    `capabilities`: all of them, in the order they were made. `counted`: how many keep the object
    alive, less `deducted`, what dec_refcnt took off or, negative, put on (both may be negative). `permanent`:
    the kernel keeps it, whoever lets go. `quota` paid `charged_bytes`. `last_core`, `locked_until_cycles`:
    see `contention`.
    """

    __slots__ = (
        "alive",
        "capabilities",
        "charged_bytes",
        "counted",
        "deducted",
        "last_core",
        "locked_until_cycles",
        "name",
        "name_bytes",
        "number",
        "permanent",
        "quota",
    )

    kind: str = "object"

    def __init__(self, number: int, quota: Quota, charged_bytes: int) -> None:
        self.number = number
        self.name = ""
        self.name_bytes = b""
        self.quota = quota
        self.charged_bytes = charged_bytes
        self.capabilities: dict[Capability, None] = {}
        self.counted = 0
        self.deducted = 0
        self.alive = True
        self.permanent = False
        self.last_core = -1
        self.locked_until_cycles = 0

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<{self.kind} #{self.number}{name}{'' if self.alive else ' dead'}>"


class Capability:
    """One slot's content. `rights`, `extra` (specific to the kind of object): words of the interface."""

    __slots__ = ("counted", "extra", "index", "object", "rights", "table")

    def __init__(
        self, obj: KernelObject, rights: int, extra: int, counted: bool, table: CapabilityTable, index: int
    ) -> None:
        self.object = obj
        self.rights = rights
        self.extra = extra
        self.counted = counted
        self.table = table
        self.index = index

    def __repr__(self) -> str:
        weak = "" if self.counted else " weak"
        return f"<cap {self.index:#x} rights {self.rights:#x}{weak} {self.object!r}>"


class CapabilityTable:
    """A task's capabilities. `slots`: index -> capability, only occupied ones.

    The table is paid for by the page of SLOTS_PER_PAGE slots, from the first use of one of them until
    the task ends. `pages`: the numbers of those paid for; membership only.
    """

    __slots__ = ("pages", "quota", "slots")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.slots: dict[int, Capability] = {}
        self.pages: set[int] = set()

    def reserve(self, index: int) -> bool:
        """Have the page of slot `index` paid for; False if the quota refuses."""
        page = index // SLOTS_PER_PAGE
        if page not in self.pages:
            if not self.quota.charge(PAGE_BYTES):
                return False
            self.pages.add(page)
        return True

    def places(self, first: int, end: int) -> int:
        """How many places a walk over the slots from `first` up to `end` sees: a page without slots counts once."""
        pages = [
            page for page in self.pages if first // SLOTS_PER_PAGE <= page <= (end - 1) // SLOTS_PER_PAGE
        ]
        all_pages = (end - 1) // SLOTS_PER_PAGE - first // SLOTS_PER_PAGE + 1
        slots = sum(
            min(end, (page + 1) * SLOTS_PER_PAGE) - max(first, page * SLOTS_PER_PAGE) for page in pages
        )
        return all_pages - len(pages) + slots

    def free(self) -> None:
        """Give back what was paid; the table must be empty."""
        self.quota.refund(len(self.pages) * PAGE_BYTES)
        self.pages.clear()


def insert(
    table: CapabilityTable, index: int, obj: KernelObject, rights: int, extra: int, counted: bool
) -> bool:
    """Put a capability into the empty slot `index`; False if the table's quota refuses."""
    if not table.reserve(index):
        return False
    cap = Capability(obj, rights, extra, counted, table, index)
    table.slots[index] = cap
    obj.capabilities[cap] = None
    if counted:
        obj.counted += 1
    return True


def drop(cap: Capability) -> bool:
    """Empty the slot. True if the object has to die now: the last counted capability went, or the last of all."""
    obj = cap.object
    del cap.table.slots[cap.index]
    del obj.capabilities[cap]
    if cap.counted:
        obj.counted -= 1
    ends = not obj.capabilities or (cap.counted and obj.counted <= 0)
    return ends and not obj.permanent
