"""Which member of the L4 family a machine's programs see: the one place outside `kernel` that names one.

Whoever has a machine asks its `kernel.interface`; whoever reads a recorded run, or has none yet, asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel.fiasco.interface import FIASCO

if TYPE_CHECKING:
    from l4lab.kernel.interface import Interface

INTERFACE: Final[Interface] = FIASCO
