"""Lines over time, as pictures of regressions have them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from torch import Tensor

from elman.look.curves import COLOURS
from elman.task.fits import Places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG = 24  # characters of a name on an axis


def banded(axes: Axes, places: Any, values: Tensor, levels: Sequence[float]) -> None:
    """Bands from each quantile to that on the other side, of outputs (N, Q)."""
    for low in range(len(levels) // 2):
        high = len(levels) - 1 - low
        look: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.15 + 0.15 * low}
        look["label"] = f"quantiles {levels[low]:g} to {levels[high]:g}"
        if len(values) > 1:
            axes.fill_between(places, values[:, low], values[:, high], lw=0, **look)
        else:
            axes.vlines(places, values[:, low], values[:, high], lw=9, **look)


def dated(axes: Axes, places: Places) -> None:
    """Times along the lowest axis, or numbers of rows."""
    if isinstance(places[0], datetime):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.locator_params(axis="x", nbins=6, integer=True, min_n_ticks=1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("row")


def above(figure: Figure) -> None:
    """One legend for all panels, above them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)


def left_out(shown: int, columns: int) -> str:
    """A sentence where not all columns are shown."""
    return f" The first {shown} of {columns} columns." if shown < columns else ""


def short(name: str) -> str:
    return name if len(name) <= LONG else name[: LONG - 1] + "…"
