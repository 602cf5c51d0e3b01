"""How far back a network's gradients reach, and how long what it reads stays in its state."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from elman.look.curves import drawing, plain
from elman.look.page import INK, Section, picture
from elman.task.dynamics import Effect
from elman.task.inside import Reach

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = ("o-", "s--", "^:")
FLOOR = 1e-12  # of what is drawn: beyond it nothing is told


def reach(view: Reach) -> Figure:
    """|dL(t) / dh(t-k)| against the lag k, both on log scales, with the truncation window marked."""
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.subplots()
        for (name, norms), style in zip(view.norms.items(), STYLES):
            known = {lag: norm for lag, norm in norms.items() if norm > FLOOR}
            axes.plot(list(known), list(known.values()), style, ms=4, lw=1.2, label=name)
        axes.axvline(view.window, color=INK, lw=0.8, ls=":")
        axes.annotate(
            f" window of {view.window}", (view.window, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8
        )
        over_steps(axes, "lag k, steps", "|dL(t) / dh(t-k)|")
        return figure


def over_steps(axes: Any, steps: str, size: str) -> None:
    """Both axes on log scales with plain numbers, steps by their doubling, and a legend."""
    axes.set(xlabel=steps, ylabel=size, yscale="log")
    axes.set_xscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        plain(axis)
    axes.legend()


def section(view: Reach) -> Section:
    """The curve, and what it says of the longest lag."""
    own = next(iter(view.norms.values()))
    first, last = min(own), max(own)
    share = own[last] / own[first] if own[first] else 0.0
    left = f"{share:.1%}" if share >= 0.001 else f"{share:.0e}"
    said = (
        f"The gradient of a symbol's loss with respect to the state k steps before. After {last} steps {left} of "
        f"what it is after {first} is left; in training gradients flow through {view.window} steps."
    )
    figure = reach(view)
    return Section("How far back it remembers", picture(figure, said), figures={"reach": figure})


def effect(view: Effect) -> Figure:
    """How far apart the states of two readings are against the steps since a symbol was exchanged, both log scales."""
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 3), layout="constrained")
        axes = figure.subplots()
        for (name, found), style in zip(view.distances.items(), cycle(STYLES)):
            axes.plot(range(1, len(found) + 1), found.clamp(min=FLOOR).tolist(), style[1:], lw=1.2, label=name)
        axes.axhline(1, color=INK, lw=0.8, ls=":")
        axes.annotate(" unrelated texts", (0, 1), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        over_steps(axes, "steps, 1: the exchanged symbol itself", "distance")
        return figure


def effects(view: Effect) -> Section:
    """The curves, and after how many steps a tenth of the first difference is left."""
    figure = effect(view)
    told = []
    for name, found in view.distances.items():
        below = (found < found[0] / 10).nonzero()
        told.append(f"{name}: {f'{int(below[0])} steps' if len(below) else f'more than {len(found) - 1} steps'}")
    said = (
        f"One symbol was exchanged for another, at {view.places} places, and all that follows left as it was. How far "
        "apart the states of both readings are, where 1 is as far as those of unrelated places in the text. Below a "
        f"tenth of the first difference after: {', '.join(told)}."
    )
    return Section("What one symbol leaves behind", picture(figure, said), figures={"effect": figure})
