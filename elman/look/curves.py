"""How a training went: loss, learning rate and gradient norm over its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from elman.errors import OptionError
from elman.look.page import INK
from elman.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2f7ed8", "#e8792b", "#3aa655", "#a45bc4", "#c9a227", "#d64545")
WIDE = 10  # a score above it makes a scale that shows those below 1 too
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
    """Losses, the other scores, gradient norm, share of clipped steps and learning rate over steps, from the log."""
    told = [record for record in run.log if "train" in record]
    scores = {name: points for name in names_of(run) if (points := measured(run, name))}
    others = {name: points for name, points in scores.items() if name not in run.losses}
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 5.6 if others else 4.2), layout="constrained")
        rows = figure.subplots(3 if others else 2, 1, sharex=True, height_ratios=(2.2, *([1.2] if others else []), 1))
        loss, below = rows[0], rows[-1]
        steps, few = [record["step"] for record in told], marks(len(told))
        loss.plot(steps, [record["train"] for record in told], alpha=0.35, lw=0.8, color=COLOURS[0], **few)
        loss.plot(steps, [record["smoothed"] for record in told], label="training, smoothed", color=COLOURS[0], **few)
        for (name, points), colour in zip(scores.items(), cycle(COLOURS[1:])):
            axes = rows[1] if name in others else loss
            axes.plot(*zip(*points), "o-", ms=3, lw=1, label=f"validation: {name}", color=colour)
        loss.set_ylabel("loss")
        for axes in rows[:-1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        if others:
            rows[1].set_ylabel("scores")
            if max(v for points in others.values() for _, v in points) > WIDE:
                rows[1].set_yscale("symlog", linthresh=1)
        of_steps(below, told)
        below.set_xlim(0, 1.02 * max(1, run.steps))
        return figure


def of_steps(axes: Any, told: Sequence[dict[str, Any]]) -> None:
    """The gradient's norm before it is clipped, how many of the steps were, and the rate."""
    steps, few = [record["step"] for record in told], marks(len(told))
    axes.plot(steps, [record["norm"] for record in told], color=COLOURS[2], lw=1, **few)
    axes.set_yscale("log")
    plain(axes.yaxis)
    axes.set_ylabel("gradient norm", color=COLOURS[2])
    axes.set_xlabel("step")
    beside = axes.twinx()
    beside.plot(steps, [record["rate"] for record in told], color=COLOURS[3], lw=1, **few)
    beside.set_ylabel("learning rate", color=COLOURS[3])
    beside.grid(False)
    clipped = [record.get("clipped", 0.0) for record in told]
    if any(clipped):
        shares = axes.twinx()
        shares.bar(steps, clipped, 0.8 * (steps[-1] / len(steps)), color=COLOURS[1], alpha=0.3, label="clipped")
        shares.set(ylim=(0, 1), yticks=[])
        shares.legend(loc="upper right")
    if not told:
        axes.text(0.5, 0.5, "ended before its first report", transform=axes.transAxes, ha="center", va="center")


def measured(run: Run, name: str) -> list[tuple[int, float]]:
    """Steps and values of a score on the data held back."""
    return [(step, value) for step, scores in run.validations.items() if (value := scores.get(name)) is not None]


def plain(axis: Any) -> None:
    """Numbers on a log scale as 0.01 and 1e-06, at the powers alone, or at others too where it has no two of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    base = axis.get_transform().base
    few = high / low < base**2
    axis.set_major_locator(LogLocator(base, subs=(1.0, 2.0, 5.0) if few and base == 10 else (1.0,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def marks(count: int) -> dict[str, Any]:
    """How so many points are plotted: each for itself where they are few, as a single one makes no line."""
    return {"marker": "o", "ms": 3} if count <= FEW else {}


def names_of(run: Run) -> Sequence[str]:
    """The names of the scores on the data held back, the first one first."""
    return [*dict.fromkeys(name for scores in run.validations.values() for name in scores)]
