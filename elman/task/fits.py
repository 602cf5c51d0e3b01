"""What there is to see of a regression: forecasts beside what came, answers in step, and how they came to fit.

Shapes: P steps of the past, N ahead, T rows in step, D targets, Q outputs for each value: its quantiles, or one. All
values are in the units of their columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import torch
from torch import Tensor

from elman.errors import DataError
from elman.task.tally import middle

Places = Sequence[datetime] | Sequence[int]
"""Where values stand: their times, or the numbers of their rows, from 1."""
ALIKE = 0.01  # of the range of an input: how far two values of it that pass for one lie apart
APART = 0.5  # of the range of a target: how far its values there must lie apart to tell anything


@dataclass(frozen=True)
class Forecast:
    """What was forecast at a place of a table, and what came."""

    name: str  # where it lies
    places: Places  # P + N
    true: Tensor  # (P + N, D), nan where it is missing
    found: Tensor  # (N, D, Q)
    naive: Tensor  # (N, D)


@dataclass(frozen=True)
class Forecasts:
    """Some forecasts, of how many that could be made, of some targets, of how many columns; how many steps each read;
    the season of the naive one."""

    targets: tuple[str, ...]
    columns: int
    levels: tuple[float, ...]  # of Q quantiles; empty for one value
    shown: Sequence[Forecast]
    of: int
    context: int
    season: int


@dataclass(frozen=True)
class Ahead:
    """The mean absolute error by the step ahead, and that of the naive forecast, (N, D), nan where it is unknown, over
    so many forecasts of how many, for some targets, of how many columns."""

    targets: tuple[str, ...]
    columns: int
    error: Tensor
    naive: Tensor
    season: int
    count: int
    of: int

    @property
    def better(self) -> list[int]:
        """At how many of the steps ahead each target's error is below that of the naive forecast."""
        return [int(count) for count in (self.error < self.naive).sum(0)]


@dataclass(frozen=True)
class Stretch:
    """Rows that were answered in step; `alone`: by a network without memory, where there is one beside; x: what was
    read, where that is one column."""

    name: str  # where it lies
    places: Places  # T
    targets: tuple[str, ...]
    columns: int  # that are answered with, some of them shown
    levels: tuple[float, ...]
    true: Tensor  # (T, D), nan where it is missing
    found: Tensor  # (T, D, Q)
    alone: Tensor | None = None  # (T, D, Q)
    input: str = ""
    x: Tensor | None = None  # (T,)

    @property
    def twins(self) -> tuple[int, int] | None:
        """Two rows with one input and the most different answers; none where no input has several, or not one column
        is read and one answered with."""
        if self.x is None or self.true.shape[1] != 1:
            return None
        known = self.true.isfinite()[:, 0].nonzero()[:, 0]
        x, y = self.x[known], self.true[known, 0]
        if len(known) < 2 or not y.max() > y.min():
            return None
        near = (x[:, None] - x).abs() <= ALIKE * (x.max() - x.min())
        apart = (y[:, None] - y).abs() * near / (y.max() - y.min())
        one, other = divmod(int(apart.argmax()), len(known))
        return (int(known[one]), int(known[other])) if apart[one, other] > APART else None


@dataclass(frozen=True)
class Answers:
    """Stretches of rows, each read with so many rows before it, of how many rows."""

    shown: Sequence[Stretch]
    before: int
    of: int


@dataclass(frozen=True)
class Learning:
    """One stretch as it was answered after so many steps of training."""

    frames: Mapping[int, Stretch]


def spread(count: int, most: int) -> list[int]:
    """Numbers below `count`, at most so many, evenly from the first to the last."""
    return list(range(count)) if count <= most else [k * (count - 1) // (most - 1) for k in range(most)]


def saved(stretch: Stretch, whole: bool) -> dict[str, Any]:
    """A stretch as JSON: what was answered, of quantiles the middle one, and, with `whole`, what was asked."""
    best = middle(stretch.levels)
    answers = {
        "found": listed(stretch.found[..., best]),
        "alone": None if stretch.alone is None else listed(stretch.alone[..., best]),
    }
    if not whole:
        return answers
    times = [place.isoformat() if isinstance(place, datetime) else place for place in stretch.places]
    return {
        "name": stretch.name, "places": times, "targets": stretch.targets, "columns": stretch.columns,
        "input": stretch.input, "x": None if stretch.x is None else listed(stretch.x), "true": listed(stretch.true),
        **answers,
    }  # fmt: skip


def restored(snapshots: Sequence[Mapping[str, Any]]) -> Learning:
    """From what `saved` gave at several steps, the first of them whole. Errors: DataError where it is not that."""
    try:
        first = snapshots[0]
        places = [datetime.fromisoformat(place) if isinstance(place, str) else place for place in first["places"]]
        asked = Stretch(
            first["name"], places, tuple(first["targets"]), first["columns"], (), tensor(first["true"]), torch.empty(0),
            input=first["input"], x=None if first["x"] is None else tensor(first["x"]),
        )  # fmt: skip
        frames = {}
        for snapshot in snapshots:
            alone = None if snapshot["alone"] is None else tensor(snapshot["alone"])[..., None]
            frames[snapshot["step"]] = replace(asked, found=tensor(snapshot["found"])[..., None], alone=alone)
        return Learning(frames)
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"not the snapshots of a run: {error!r:.80}") from None


def listed(values: Tensor) -> Any:
    """Nested lists for JSON, to five digits; None where a value is missing."""
    return rounded(values.tolist())


def rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [*map(rounded, values)]
    return float(f"{values:.5g}") if math.isfinite(values) else None


def tensor(values: Any) -> Tensor:
    """What `listed` gave, as a tensor."""
    return torch.tensor(numbers(values), dtype=torch.float64)


def numbers(values: Any) -> Any:
    """Nested lists with nan in place of None."""
    return [*map(numbers, values)] if isinstance(values, list) else math.nan if values is None else values
