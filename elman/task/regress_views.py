"""What a regression makes of the rows that it did not learn from, put together to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elman.data.table import Table
from elman.task.fits import Ahead, Answers, Forecast, Forecasts, Places, Stretch, spread
from elman.task.tally import middle
from elman.task.windows import Window

if TYPE_CHECKING:
    from elman.task.regress import Regress

TARGETS = 4  # that are shown, the first ones
FORECASTS = 6  # that are shown
MEASURED = 2000  # forecasts whose errors are measured
STRETCHES = 4  # that are shown
ROWS = 200  # of a stretch
BEFORE = 200  # rows that are read before a stretch, so that the state is one that goes on
PAST = 4  # times the steps ahead: so much of what a forecast reads is shown
LEAST = 48  # steps, at least


def views(task: Regress, examples: Sequence[Window]) -> list[Any]:
    """Of windows, at least one, in evaluation: forecasts, and how far ahead they see; in step, answers."""
    if task.options.horizon:
        return [forecasts(task, examples), by_step(task, examples)]
    return [answers(task, examples)]


def forecasts(task: Regress, examples: Sequence[Window]) -> Forecasts:
    """Some of the windows, from the first to the last, with what was forecast there."""
    o, known = task.options, task.known
    windows = [examples[i] for i in spread(len(examples), FORECASTS)]
    found = known.in_units(task.model(task.batch(windows)))  # (B, N, D, Q)
    naive = known.in_units(task.naive(windows)[..., None])[..., 0]
    past = min(o.context, max(PAST * o.horizon, LEAST))
    shown = [
        Forecast(
            named(w.table, w.at, w.end), places(w.table, w.at - past, w.end),
            true(task, w.table, w.at - past, w.end)[:, :TARGETS], found[i, :, :TARGETS], naive[i, :, :TARGETS],
        )
        for i, w in enumerate(windows)
    ]  # fmt: skip
    return Forecasts(known.targets[:TARGETS], len(known.targets), o.levels, shown, len(examples), o.context, o.season)


def by_step(task: Regress, examples: Sequence[Window]) -> Ahead:
    """The errors of all windows by the step ahead; of very many, those of some, evenly spread."""
    o, known = task.options, task.known
    windows = [examples[i] for i in spread(len(examples), MEASURED)]
    errors = torch.zeros(2, o.horizon, len(known.targets), dtype=torch.float64)
    count = torch.zeros_like(errors[0])
    for numbers in task.in_batches(windows):
        batch = [windows[i] for i in numbers]
        y, seen = task.asked(batch)
        for sums, said in zip(errors, (task.model(task.batch(batch))[..., middle(o.levels)], task.naive(batch))):
            sums += ((said - y).abs() * seen).double().sum(0)
        count += seen.sum(0)
    error, naive = (errors / count * known.deviation[known.at])[..., :TARGETS]  # nan where nothing is known
    return Ahead(known.targets[:TARGETS], len(known.targets), error, naive, o.season, len(windows), len(examples))


def answers(task: Regress, examples: Sequence[Window]) -> Answers:
    """Some stretches of the rows asked for, from the first to the last."""
    starts = [(w, at) for w in examples for at in range(w.at, max(w.at + 1, w.end - ROWS + 1), ROWS)]
    shown = [stretch(task, *starts[i]) for i in spread(len(starts), STRETCHES)]
    return Answers(shown, BEFORE, sum(w.end - w.at for w in examples))


def stretch(task: Regress, w: Window, at: int) -> Stretch:
    """The rows from `at` on, after some rows that are read before them."""
    known, end, begin = task.known, min(at + ROWS, w.end), max(0, at - BEFORE)
    inputs = known.inputs([(w.table, begin, end)], task.options.missing == "fill")
    out, alone = task.model(inputs)[0], task.follower.without_memory(inputs)
    found, beside = (
        None if values is None else known.in_units(values[at - begin :, 0])[:, :TARGETS] for values in (out, alone)
    )
    assert found is not None
    one, targets = len(known.columns) == 1, known.targets
    return Stretch(
        named(w.table, at, end), places(w.table, at, end), targets[:TARGETS], len(targets), task.options.levels,
        true(task, w.table, at, end)[:, :TARGETS], found, beside,
        known.columns[0] if one else "", w.table.values[at:end, 0] if one else None,
    )  # fmt: skip


def true(task: Regress, table: Table, begin: int, end: int) -> Tensor:
    """The targets of rows in their own units, (T, D), nan where they are missing."""
    at = task.known.at
    return table.values[begin:end, at].where(table.seen[begin:end, at], torch.nan)


def places(table: Table, begin: int, end: int) -> Places:
    return table.times[begin:end] or range(begin + 1, end + 1)


def named(table: Table, begin: int, end: int) -> str:
    """Where rows lie, for people."""
    where = f"rows {begin + 1:,} to {end:,}" if end > begin + 1 else f"row {end:,}"
    if table.times:
        time = table.times[begin]
        where = f"from {time:%Y-%m-%d %H:%M} on, {where}"
    return f"{Path(table.name).name}, {where}"
