"""Answers in step beside what is right, and how they come to fit while a network learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.look.curves import COLOURS, drawing, marks
from elman.look.film import Film
from elman.look.page import INK, Section, choice, escape, picture
from elman.look.series import above, banded, dated, left_out, short
from elman.task.fits import Answers, Learning, Stretch, spread
from elman.task.tally import middle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES = 30  # at most, of how it came to fit
FAR = 1.0  # ranges of what is right: how far beyond it the frames reach, at most
MARGIN = 0.05  # of a range


def fit(view: Stretch, reach: Sequence[tuple[float, float]] = ()) -> Figure:
    """Answers in step beside what is right, over time; and where one column is read and one answered with, in their
    plane, with two rows marked that have one input and two answers. reach: the lowest and highest value of each target;
    none given: those of what is drawn."""
    D, plane = len(view.targets), view.x is not None and len(view.targets) == 1
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 3.6 if plane else 1.1 + 1.7 * D), layout="constrained")
        grid = figure.add_gridspec(D, 2 if plane else 1, width_ratios=(1.7, 1) if plane else None)
        over = [figure.add_subplot(grid[0, 0])]
        over += [figure.add_subplot(grid[d, 0], sharex=over[0]) for d in range(1, D)]
        for d, axes in enumerate(over):
            curves(axes, view, view.places, d, "over")
            banded(axes, view.places, view.found[:, d], view.levels)
            axes.set_ylabel(short(view.targets[d]), parse_math=False)
            axes.tick_params(labelbottom=d == D - 1)
        dated(over[-1], view.places)
        if view.x is not None and plane:
            beside = figure.add_subplot(grid[0, 1])
            curves(beside, view, view.x, 0, "plane")
            beside.set_xlabel(short(view.input), parse_math=False)
            beside.set_box_aspect(1)
            if reach:
                beside.set_xlim(beyond(view.x, MARGIN))
        for axes, limit in zip(figure.axes, [*reach, *reach]):
            axes.set_ylim(limit)
        above(figure)
        return figure


def curves(axes: Axes, view: Stretch, across: Any, d: int, panel: str) -> None:
    """What is right, what is answered and what is without memory, (T,) each; those that move in a film have ids."""
    few, best = marks(len(view.true)), middle(view.levels)
    axes.plot(across, view.true[:, d], color=INK, lw=1, label="what is right", **few)
    if view.alone is not None:
        alone = view.alone[:, d, best]
        axes.plot(across, alone, color=COLOURS[1], label="without memory", gid=f"alone-{d}-{panel}", **few)
    axes.plot(across, view.found[:, d, best], color=COLOURS[0], label="answered", gid=f"found-{d}-{panel}", **few)
    if view.twins is not None:
        points = [across[k] for k in view.twins], [view.true[k, d] for k in view.twins]
        axes.plot(*points, "o", mfc="none", mec=COLOURS[5], mew=1.6, ms=9, label="one input, two answers")


def answers(view: Answers) -> Section:
    """The stretches, one of which is seen."""
    first = view.shown[0]
    figures = {f"answers-{k}": fit(one) for k, one in enumerate(view.shown, 1)}
    items = {
        f"{k}. {one.name}": picture(figure, f"{one.name}: {errors(one)}.")
        for k, (one, figure) in enumerate(zip(view.shown, figures.values()), 1)
    }
    note = (
        f"{len(view.shown)} stretches, evenly from the first to the last of {view.of:,} rows; each read from "
        f"{view.before} rows before it on. In the columns' own units."
        f"{left_out(len(first.targets), first.columns)}"
    )
    return Section("What it answers", choice("rows", items) + f"<p class='note'>{escape(note)}</p>", figures=figures)


def film(view: Learning) -> Film:
    """The answers of some frames, evenly from the first to the last, as one picture whose lines move."""
    kept = {step: view.frames[step] for step in some(view.frames)}
    last = kept[max(kept)]
    figure = fit(last, [limits([*kept.values()], d) for d in range(len(last.targets))])
    values = {}
    for step, frame in kept.items():
        both = {"found": frame.found, "alone": frame.alone}
        values[f"after {step:,} steps"] = {
            f"{kind}-{d}-{panel}": out[:, d, middle(frame.levels)]
            for kind, out in both.items()
            if out is not None
            for d in range(len(frame.targets))
            for panel in ("over", "plane")
        }
    return Film(figure, values)


def learning(view: Learning) -> Section:
    """The film, and why memory is needed."""
    moving, kept = film(view), some(view.frames)
    last = view.frames[kept[-1]]
    said = {f"after {step:,} steps": f"<p class='note'>{escape(errors(view.frames[step]))}</p>" for step in kept}
    about = f"{last.name}: what is right and what is answered, after {kept[0]:,} to {kept[-1]:,} steps of training."
    note = f"{about} {len(kept)} of {len(view.frames)} snapshots.{left_out(len(last.targets), last.columns)}"
    note += " Answers that lie far off are out of the picture." if far_off([view.frames[step] for step in kept]) else ""
    text = "".join(f"<p>{escape(line)}</p>" for line in why(last))
    body = f"{moving.html('answers', said, note)}{text}"
    return Section("How it came to fit", body, {"film": moving.data()}, {"fit": moving.figure}, {"fit": moving})


def some(frames: Mapping[int, Stretch]) -> list[int]:
    """The steps of the frames, or of too many some, evenly from the first to the last."""
    steps = sorted(frames)
    return [steps[k] for k in spread(len(steps), FRAMES)]


def limits(frames: Sequence[Stretch], d: int) -> tuple[float, float]:
    """The lowest and highest value that is drawn of a target: so that all answers are seen that are not far off."""
    right = frames[0].true[:, d]
    low, high = beyond(right, FAR)
    return beyond(torch.cat([right, answered(frames, d).clamp(low, high)]), MARGIN)


def far_off(frames: Sequence[Stretch]) -> bool:
    """Whether an answer lies where nothing is drawn."""
    ends = [(answered(frames, d), *limits(frames, d)) for d in range(len(frames[0].targets))]
    return any(bool(((values < low) | (values > high)).any()) for values, low, high in ends)


def answered(frames: Sequence[Stretch], d: int) -> Tensor:
    """All answers to a target, with memory and without."""
    both = [out for frame in frames for out in (frame.found, frame.alone) if out is not None]
    return torch.cat([out[:, d, middle(frames[0].levels)] for out in both])


def beyond(values: Tensor, ranges: float) -> tuple[float, float]:
    """The ends of values, and so many of their ranges beyond."""
    known = values[values.isfinite()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    margin = ranges * (high - low) or 1.0
    return low - margin, high + margin


def errors(view: Stretch) -> str:
    """The mean squared error of each target on these rows, in words."""
    said = []
    for d, name in enumerate(view.targets):
        both = [view.found] if view.alone is None else [view.found, view.alone]
        error, *alone = (float(((out[:, d, middle(view.levels)] - view.true[:, d]) ** 2).nanmean()) for out in both)
        said.append(f"{name} {error:.3g}" + "".join(f" ({value:.3g} without memory)" for value in alone))
    return f"mean squared error of {', '.join(said)}"


def why(view: Stretch) -> list[str]:
    """Why memory is needed, where two rows show it."""
    if view.twins is None or view.x is None:
        return []
    read, answer, best = view.input, view.targets[0], middle(view.levels)
    one, other = pair(view, view.true[:, 0], view.true)
    given = " and ".join(pair(view, view.found[:, 0, best], view.true))
    said = [
        f"At the two points that are marked {read} is the same, about {pair(view, view.x, view.x)[0]}, and {answer} is "
        f"{one} and {other}: the row alone does not tell which. The rows before it do, and the network keeps in its "
        f"state what it needs of them: in the end it answers {given}. In the plane of {read} and {answer} it comes to "
        "follow what is right; for a sine and its cosine that is a circle."
    ]
    if view.alone is not None:
        given = " and ".join(pair(view, view.alone[:, 0, best], view.true))
        said.append(
            f"The network without memory sees the row alone, so in the plane it can only be a function of {read}, with "
            "one answer for both points. Least wrong is something between them, for squared errors their mean: in the "
            f"end it answers {given}."
        )
    return said


def pair(view: Stretch, values: Tensor, ends: Tensor) -> list[str]:
    """Values (T,) of the two rows, to a hundredth of the range of others."""
    known = ends[ends.isfinite()]
    digits = 2 - math.floor(math.log10(float(known.max() - known.min()) or 1.0))
    return [f"{round(float(values[k]), digits) + 0.0:g}" for k in view.twins or ()]
