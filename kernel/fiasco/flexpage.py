"""Flexpages: a power-of-two piece of one of the spaces, with rights; and where a piece lands.

Ref: ABI sheet section 6, "Flexpage word" and "Placement".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from l4lab.kernel import mapdb, paging
from l4lab.kernel.fiasco import abi

_MEMORY_RIGHTS: Final = tuple(
    (mapdb.READ if bits & abi.RIGHT_R else 0)
    | (mapdb.WRITE if bits & abi.RIGHT_W else 0)
    | (mapdb.EXECUTE if bits & abi.RIGHT_X else 0)
    for bits in range(abi.FPAGE_RIGHTS_MASK + 1)
)


@dataclass(frozen=True, slots=True)
class Flexpage:
    """`address` and `order` are in the unit of the space: bytes of memory, capability slots, ports.

    `address` is aligned down to the size, `named` is as the word has it: a few operations begin there.
    """

    kind: int
    address: int
    order: int
    rights: int
    named: int

    @property
    def is_everything(self) -> bool:
        """The window that matches every kind."""
        return self.kind == abi.FPAGE_TYPE_SPECIAL and self.order == abi.FPAGE_ALL_ORDER


def decode(word: int) -> Flexpage:
    """A flexpage word."""
    kind = word >> abi.FPAGE_TYPE_SHIFT & abi.FPAGE_TYPE_MASK
    order = word >> abi.FPAGE_ORDER_SHIFT & abi.FPAGE_ORDER_MASK
    address = word >> abi.FPAGE_ADDRESS_SHIFT
    if kind == abi.FPAGE_TYPE_MEMORY:
        address <<= abi.FPAGE_ADDRESS_SHIFT
    aligned = address >> order << order if order < 32 else 0
    return Flexpage(kind, aligned, order, word & abi.FPAGE_RIGHTS_MASK, address)


def memory_rights(rights: int) -> int:
    """A flexpage's rights bits as rights to a page (`mapdb`)."""
    return _MEMORY_RIGHTS[rights]


def access_flags(bits: int) -> int:
    """ACCESSED and DIRTY of a page table entry as the flags that unmap returns (section 7)."""
    flags = abi.ACCESS_REFERENCED if bits & paging.ACCESSED else 0
    return flags | (abi.ACCESS_DIRTY if bits & paging.DIRTY else 0)


def place(
    send_address: int, send_order: int, window_address: int, window_order: int, hot_spot: int
) -> tuple[int, int, int]:
    """Source start, target start and order of what a send window and a receive window have in common."""
    if window_order >= send_order:
        offset = hot_spot & ((1 << window_order) - 1)
        return send_address, window_address + (offset >> send_order << send_order), send_order
    offset = hot_spot & ((1 << send_order) - 1)
    return send_address + (offset >> window_order << window_order), window_address, window_order
