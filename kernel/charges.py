"""What `Memory` has done, billed: it counts its steps, because it knows neither prices nor whom it works for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.costs import MAP, UNMAP

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel


def memory(kernel: Kernel, cause: int) -> None:
    """Bill the mappings removed and pages cleared since the last time, and to `cause` the empty places looked at."""
    done, bill, costs = kernel.memory, kernel.bill, kernel.costs
    bill[UNMAP] += done.removals * costs.unmap_page
    bill[MAP] += done.cleared_pages * costs.clear_page
    bill[cause] += done.range_steps * costs.range_step
    done.removals = done.cleared_pages = done.range_steps = 0
