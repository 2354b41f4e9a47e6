"""What a figure's measurement gives: published statements beside ours, numbers, words, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4lab.tools.bench.published import Residual
from l4lab.tools.common import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Step = Callable[[str], None]
"""Is told what is done next."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure or table. `remarks`: what one should know when looking at it, a paragraph each, for the README."""

    title: str
    residuals: tuple[Residual, ...]
    remarks: tuple[str, ...]
    data: dict[str, Any]
    configurations: tuple[dict[str, Any], ...]
    size_inches: tuple[float, float]
    draw_on: Callable[[Figure], None] = field(repr=False)

    def draw(self, folder: Path, stem: str) -> tuple[str, ...]:
        """Write the figure; returns the names of its files."""
        with plots.canvas(*self.size_inches) as figure:
            self.draw_on(figure)
            return plots.save(figure, folder, stem)
