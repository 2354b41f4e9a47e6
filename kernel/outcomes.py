"""How mapping a range from one space to another ends, of whatever kind the spaces are."""

from __future__ import annotations

from enum import Enum


class MapOutcome(Enum):
    """What the receiver of a range learns."""

    DONE = 0
    """The source had some of it. Whether that arrived is not said: kernel memory may have been in the way."""
    LACKED = 1
    """The source had nothing of it, or not with a right that was to be passed on."""
    OUT_OF_MEMORY = 2
    """The target's quota or the kernel's memory refused; what came before stays."""
