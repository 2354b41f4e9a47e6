"""How figures look, and how they become files: the same bytes in every run, without a screen.

Colours are those of Okabe and Ito, which people of every kind of colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK: Final = "#000000"
GREY: Final = "#6f6f6f"
ORANGE: Final = "#e69f00"
SKY: Final = "#56b4e9"
GREEN: Final = "#009e73"
YELLOW: Final = "#f0e442"
BLUE: Final = "#0072b2"
VERMILION: Final = "#d55e00"
PURPLE: Final = "#cc79a7"

DPI: Final = 160
_SETTINGS: Final[dict[str, Any]] = {
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every host
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.dpi": DPI,
    "svg.fonttype": "path",
    "svg.hashsalt": "l4lab",
    "path.simplify": False,
}


class PlotError(OperatorError):
    """A figure that cannot be drawn or written."""


@contextmanager
def canvas(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """A figure to draw on, in our style. Raises PlotError if there is no matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(
            f"drawing needs matplotlib ({error}): expected it installed, as by pip install 'l4lab[plot]'"
        ) from None
    settings: Any = dict(mpl.rcParamsDefault) | _SETTINGS
    with mpl.rc_context(rc=settings):
        figure = Figure(figsize=(width_inches, height_inches))
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, folder: Path, stem: str) -> tuple[str, ...]:
    """Write STEM.png and STEM.svg into `folder`, from inside `canvas`; returns the files' names."""
    names = (f"{stem}.png", f"{stem}.svg")
    try:
        figure.savefig(folder / names[0], metadata={"Software": None})
        figure.savefig(folder / names[1], metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise PlotError(f"cannot write {printable(folder / stem)}.*: {error.strerror}") from None
    return names


def statement_band(axes: Axes, low: float, high: float, text: str, *, x: float, y: float) -> None:
    """What a source says without a curve: a band between two values, and its words, which end at `x`, `y`."""
    axes.axhspan(low, high, color=YELLOW, alpha=0.3, linewidth=0)
    axes.text(x, y, text, va="center", ha="right", fontsize=8, style="italic", color=GREY)


def plain_numbers(axes: Axes) -> None:
    """Digits in groups instead of powers of ten on the value axis."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
