"""Forecasts beside what came, and how far ahead they see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from elman.look.curves import COLOURS, drawing, marks
from elman.look.page import INK, Section, choice, escape, picture
from elman.look.series import above, banded, dated, left_out, short
from elman.task.fits import Ahead, Forecast, Forecasts
from elman.task.tally import middle, naively

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forecast(view: Forecasts, one: Forecast) -> Figure:
    """What came before and after, the forecast with the bands between its quantiles, and the naive one; a panel for
    each target."""
    past, D = len(one.true) - len(one.found), len(view.targets)
    before: Any = one.places[:past]
    after: Any = one.places[past:]
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 1.1 + 1.7 * D), layout="constrained")
        few, best = marks(len(after)), middle(view.levels)
        for d, axes in enumerate(figure.subplots(D, 1, sharex=True, squeeze=False)[:, 0]):
            axes.plot(before, one.true[:past, d], color=INK, lw=1.2, **marks(past))
            axes.plot(after, one.true[past:, d], "--", color=INK, lw=1.2, label="what came", **few)
            axes.plot(after, one.naive[:, d], ":", color=COLOURS[1], label=naively(view.season), **few)
            axes.plot(after, one.found[:, d, best], color=COLOURS[0], label="forecast", **few)
            banded(axes, after, one.found[:, d], view.levels)
            axes.axvline(before[-1], color=INK, lw=0.6, ls=":")
            axes.set_ylabel(short(view.targets[d]), parse_math=False)
        dated(axes, one.places)
        above(figure)
        return figure


def ahead(view: Ahead) -> Figure:
    """The mean absolute error by the step ahead, beside that of the naive forecast; a panel for each target."""
    with drawing() as make:
        figure: Figure = make.Figure(figsize=(9, 3), layout="constrained")
        steps = range(1, len(view.error) + 1)
        for d, axes in enumerate(figure.subplots(1, len(view.targets), squeeze=False)[0]):
            axes.plot(steps, view.error[:, d], color=COLOURS[0], label="forecast", **marks(len(steps)))
            axes.plot(steps, view.naive[:, d], ":", color=COLOURS[1], label=naively(view.season), **marks(len(steps)))
            axes.set_title(short(view.targets[d]), fontsize=9, parse_math=False)
            axes.set_ylim(0, 1.1 * float(torch.stack([view.error[:, d], view.naive[:, d]]).nan_to_num().max()) or 1.0)
            axes.set_xlim(0.5, len(steps) + 0.5)
            axes.set_xlabel("steps ahead")
            axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        figure.axes[0].set_ylabel("mean absolute error")
        above(figure)
        return figure


def section(view: Forecasts) -> Section:
    """The forecasts, one of which is seen."""
    figures = {f"forecast-{k}": forecast(view, one) for k, one in enumerate(view.shown, 1)}
    past = len(view.shown[0].true) - len(view.shown[0].found)
    cut = f", of which the last {past} are drawn" if past < view.context else ""
    said = f"Each reads {view.context} steps{cut}, and forecasts {len(view.shown[0].found)}."
    items = {
        f"{k}. {one.name}": picture(figure, f"{one.name}. {said}")
        for k, (one, figure) in enumerate(zip(view.shown, figures.values()), 1)
    }
    note = f"{len(view.shown)} of {view.of:,} forecasts, evenly from the first to the last; in the columns' own units."
    note += left_out(len(view.targets), view.columns)
    body = f"{choice('forecast', items)}<p class='note'>{escape(note)}</p>"
    return Section("What it forecasts", body, figures=figures)


def seen_ahead(view: Ahead) -> Section:
    """The errors by step, and up to where they are below the naive ones."""
    figure, steps = ahead(view), len(view.error)
    reach = [f"{name} at {better} of {steps} steps" for name, better in zip(view.targets, view.better)]
    many = "all" if view.count == view.of else f"{view.count:,} of"
    said = (
        f"Mean absolute error in the columns' own units, over {many} {view.of:,} forecasts. "
        f"Better than {naively(view.season)}: "
        f"{', '.join(reach)}.{left_out(len(view.targets), view.columns)}"
    )
    return Section("How far ahead it sees", picture(figure, said), figures={"ahead": figure})
