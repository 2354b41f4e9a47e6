"""What there is to reproduce, and where results go: for the command line, which must answer at once.

The code of a figure is `tools/paper/figures/NAME.py`; `tools/paper/reproduce.py` says what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ALL: Final = "all"
"""The name of all of them."""

FIGURES: Final = {
    "fig5": "cross-core and same-core IPC",
    "table1": "one-way IPC on three x86 processors",
    "fig4": "allocation and free with one memory server for 1 to 48 cores",
    "fig9": "the memory benchmark, one server against a pager on each core",
    "fig10": "allocation and free with a pager on each core",
    "fig11": "outstanding pages, with a pager on each core",
    "page_cycles": "where the cycles of one page go, by cause: explains figures 4, 9 and 10",
}
"""Name -> what it is, in the order in which they are made."""

DEFAULT_OUT: Final = Path("l4lab-out")


def listing(more: dict[str, str]) -> str:
    """A line for each figure and for each of `more`, for people."""
    lines = FIGURES | more
    width = max(map(len, lines)) + 2
    return "\n".join(f"  {name:{width}}{what}" for name, what in lines.items())
