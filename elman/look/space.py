"""Where a network's state goes while it reads: its two widest directions, a path through them, and fixed points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.look.curves import drawing
from elman.look.page import INK, Section, picture
from elman.task.dynamics import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLOUD = 3000  # states drawn as points
PATH = 25  # symbols, at the end, through which the path is drawn
KINDS = {
    "letters": str.isalpha, "digits": str.isdigit, "line ends": lambda s: "\n" in s, "spaces": str.isspace,
    "other": lambda s: True,
}  # fmt: skip


def components(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of states (N, H): their mean (H,), the two widest directions (H, 2), and the shares of the
    variance along each (2,)."""
    mean = states.mean(0)
    centred = (states - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    share = values.flip(0)[:2] / values.sum().clamp(min=1e-300)
    return mean, vectors.flip(1)[:, :2].to(states.dtype), share


def space(view: Space) -> Figure:
    """States as points, coloured by what was read last; the last of them joined by a path, with its symbols; fixed
    points as rings where they are stable, as crosses where not."""
    mean, directions, share = components(view.states)
    flat = (view.states - mean) @ directions
    kinds = [kind_of(piece) for piece in view.pieces]
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 5.6), layout="constrained")
        axes = figure.subplots()
        chosen = torch.linspace(0, len(flat) - 1, min(CLOUD, len(flat))).long().tolist()
        for kind in KINDS:
            own = [k for k in chosen if kinds[k] == kind]
            if own:
                axes.scatter(flat[own, 0], flat[own, 1], s=5, alpha=0.35, lw=0, label=kind, rasterized=True)
        path = flat[-PATH:].tolist()
        axes.plot(*zip(*path), color=INK, lw=0.8, alpha=0.8)
        for (x, y), piece in zip(path, view.pieces[-PATH:]):
            axes.annotate(visible(piece), (x, y), fontsize=8, ha="center", va="center", parse_math=False)
        if view.fixed is not None and len(view.fixed.points):
            points = (view.fixed.points[:, : len(mean)].to(mean.dtype) - mean) @ directions
            for stable, mark in ((True, "o"), (False, "x")):
                at = points[view.fixed.stable == stable]
                if len(at):
                    name = f"{'stable' if stable else 'unstable'} fixed points"
                    style: dict[str, Any] = {"facecolors": "none", "edgecolors": INK} if stable else {"color": INK}
                    axes.scatter(at[:, 0], at[:, 1], s=60, marker=mark, label=name, **style)
        for axis, k in ((axes.xaxis, 0), (axes.yaxis, 1)):
            axis.set_label_text(f"component {k + 1}: {float(share[k]):.0%} of the variance")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=3)
        return figure


def kind_of(piece: str) -> str:
    return next(name for name, holds in KINDS.items() if holds(piece))


def visible(piece: str) -> str:
    """A symbol that can be seen where it is a space or a line end."""
    return piece.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5")


def section(view: Space) -> Section:
    """The picture, and what was found of fixed points."""
    figure = space(view)
    said = (
        f"The state of {view.name} after each of {len(view.states):,} symbols, along the two directions "
        f"in which it varies most; {min(CLOUD, len(view.states)):,} are drawn, and the path over the last "
        f"{min(PATH, len(view.states))}."
    )
    if view.fixed is not None:
        said += " " + standing(view)
    return Section("Where its state goes", picture(figure, said), figures={"space": figure})


def standing(view: Space) -> str:
    """What there is to say of fixed points."""
    assert view.fixed is not None
    count, stable = len(view.fixed.points), int(view.fixed.stable.sum())
    if not count:
        return f"Where {view.input!r} comes again and again no state was found that stands still."
    largest = view.fixed.eigenvalues[:, 0].abs()
    return (
        f"Where {view.input!r} comes again and again {count} states were found that stand still, {stable} of them "
        f"stable; their largest eigenvalues are {float(largest.min()):.3f} to {float(largest.max()):.3f} in size."
    )
