"""Units that cross modules, and the page arithmetic between them."""

from __future__ import annotations

from typing import Final

PAGE_SHIFT: Final = 12
PAGE_BYTES: Final = 1 << PAGE_SHIFT
SUPERPAGE_SHIFT: Final = 22
SUPERPAGE_BYTES: Final = 1 << SUPERPAGE_SHIFT
ADDRESS_LIMIT: Final = 1 << 32


def page_floor(address: int) -> int:
    """The start of the 4 KiB page that holds `address`."""
    return address & ~(PAGE_BYTES - 1)


def page_ceil(address: int) -> int:
    """The first page boundary at or above `address`."""
    return (address + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)
