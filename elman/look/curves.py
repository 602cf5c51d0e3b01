"""How a training went: loss, learning rate and gradient norm over its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from elman.errors import OptionError
from elman.look.page import INK
from elman.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2f7ed8", "#e8792b", "#3aa655", "#a45bc4", "#c9a227", "#d64545")
FEW = 12  # points


@contextmanager
def drawing() -> Iterator[Any]:
    """matplotlib.figure, in elman's style, while the block runs. Errors: OptionError where matplotlib is missing."""
    try:
        from cycler import cycler
        from matplotlib import figure, rc_context
    except ImportError:
        raise OptionError('pictures need matplotlib: pip install "elman[plot]"') from None
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    style: dict[str, Any] = dict.fromkeys(names, INK)
    style |= {"axes.prop_cycle": cycler(color=COLOURS), "font.size": 9}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.2}
    style |= {"legend.frameon": False, "font.family": "sans-serif"}
    with rc_context(style):  # type: ignore[arg-type]
        yield figure


def tints(colour: str) -> Any:
    """A colour map from the page's own ground to a colour, for pages light and dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list(colour, [(*to_rgb(colour), 0.0), (*to_rgb(colour), 1.0)])


def training(run: Run) -> Figure:
    """Training and validation loss, learning rate and gradient norm over steps, from the run's log."""
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 4.2), layout="constrained")
        loss, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        told = [record for record in run.log if "train" in record]
        steps = [record["step"] for record in told]
        few = marks(len(told))
        loss.plot(steps, [record["train"] for record in told], alpha=0.35, lw=0.8, color=COLOURS[0], **few)
        loss.plot(steps, [record["smoothed"] for record in told], label="training, smoothed", color=COLOURS[0], **few)
        for name, colour in zip(names_of(run), COLOURS[1:]):
            points = [(step, scores[name]) for step, scores in run.validations.items() if scores.get(name) is not None]
            if points:
                loss.plot(*zip(*points), "o-", ms=3, lw=1, label=f"validation: {name}", color=colour)
        loss.set_ylabel("loss, scores")
        loss.legend()
        below.plot(steps, [record["norm"] for record in told], color=COLOURS[2], lw=1, **few)
        below.set_yscale("log")
        below.set_ylabel("gradient norm", color=COLOURS[2])
        beside = below.twinx()
        beside.plot(steps, [record["rate"] for record in told], color=COLOURS[3], lw=1, **few)
        beside.set_ylabel("learning rate", color=COLOURS[3])
        beside.grid(False)
        below.set_xlabel("step")
        below.set_xlim(0, 1.02 * max(1, run.steps))
        if not told:
            below.text(0.5, 0.5, "ended before its first report", transform=below.transAxes, ha="center", va="center")
        return figure


def marks(count: int) -> dict[str, Any]:
    """How so many points are plotted: each for itself where they are few, as a single one makes no line."""
    return {"marker": "o", "ms": 3} if count <= FEW else {}


def names_of(run: Run) -> Sequence[str]:
    """The names of the scores on the data held back, the first one first."""
    return [*dict.fromkeys(name for scores in run.validations.values() for name in scores)]
