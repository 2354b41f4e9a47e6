"""What a figure's measurement gives: published statements beside ours, numbers, words, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4lab.tools.paper import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Step = Callable[[str], None]
"""Is told what is done next."""


@dataclass(frozen=True, slots=True)
class Residual:
    """One published statement and what we have for it.

    `published`: the number, None for a statement without one. `low`, `high`: what counts as reproduced,
    None if nothing can be said. `unit`: of all of them.
    """

    what: str
    statement: str
    source: str
    published: float | None
    low: float | None
    high: float | None
    ours: float
    unit: str

    @property
    def deviation_percent(self) -> float | None:
        """Ours against the published number."""
        return (self.ours / self.published - 1) * 100 if self.published else None

    @property
    def within(self) -> bool | None:
        """Whether it counts as reproduced; None if that cannot be said."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.ours <= self.high

    def as_dict(self) -> dict[str, Any]:
        """As data.json has it."""
        deviation = self.deviation_percent
        return {
            "what": self.what,
            "statement": self.statement,
            "source": self.source,
            "published": self.published,
            "low": self.low,
            "high": self.high,
            "ours": round(self.ours, 2),
            "deviation_percent": round(deviation, 2) if deviation is not None else None,
            "within": self.within,
            "unit": self.unit,
        }


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
