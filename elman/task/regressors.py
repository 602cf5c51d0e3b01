"""The networks of regress: one that forecasts from a window of the past, and one that answers in step.

Shapes: T steps, N of them ahead, B rows, C columns that are read, D targets, M inputs of the calendar, Q outputs for
each value: its quantiles, or one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.task.networks import stack


class Inputs(NamedTuple):
    """What a network reads of a batch, standardised."""

    values: Tensor  # (T, B, C)
    missing: Tensor  # (T, B, C), 1 where a value is missing; (T, B, 0) where none can be
    clock: Tensor  # (T, B, M)


class Sizes(NamedTuple):
    """What a network must fit."""

    columns: int  # C
    targets: tuple[int, ...]  # which columns a forecaster forecasts; a follower has as many outputs
    masked: bool
    clock: int  # M
    outputs: int  # Q

    @property
    def width(self) -> int:
        return self.columns * (2 if self.masked else 1) + self.clock


class Forecaster(nn.Module):
    """The next N values of each target from a window of the past: recurrent layers, a linear map of their last output.

    With `centre` "last" the window's last values are subtracted and added again to the forecast; with "window" its
    mean, and it is divided by its deviation. With `apart` each column is a row of its own, all through the same
    weights. With `segment` so many steps are read at once.
    Sources: Zeng and others, "Are transformers effective for time series forecasting?" (2022), for the last value; Kim
    and others, "Reversible instance normalization" (2022), for mean and deviation; Lin and others, "SegRNN" (2023), for
    segments and columns apart.
    """

    def __init__(self, options: Any, sizes: Sizes) -> None:
        super().__init__()
        o = options
        self.apart, self.segment, self.centre, self.targets = o.apart, o.segment, o.centre, list(sizes.targets)
        self.shape = (o.horizon, 1 if o.apart else len(sizes.targets), sizes.outputs)
        width = Sizes(1, (0,), *sizes[2:]).width if o.apart else sizes.width
        self.recurrent = stack(o.cell, width * o.segment, o.hidden, o.layers, False, o.dropout)
        self.output = nn.Linear(o.hidden, self.shape[0] * self.shape[1] * self.shape[2])

    def forward(self, inputs: Inputs) -> Tensor:
        """(B, N, D, Q), standardised."""
        values, missing, clock = inputs
        T, B, C = values.shape
        base, spread = self.level(values)  # (B, C) each
        values = (values - base) / spread
        if self.apart:
            values, missing = values.reshape(T, B * C, 1), missing.reshape(T, B * C, -1)
            clock = clock.repeat_interleave(C, 1)
        x = torch.cat([values, missing, clock], -1)  # (T, B, I)
        if self.segment > 1:
            x = x.unflatten(0, (-1, self.segment)).transpose(1, 2).flatten(2)  # (T / segment, B, segment I)
        y, _ = self.recurrent(x)
        out = self.output(y[-1]).unflatten(-1, self.shape)  # (B, N, D, Q), or (B C, N, 1, Q)
        if self.apart:
            out = out.unflatten(0, (B, C)).squeeze(3).transpose(1, 2)
        out = out if self.training else out.sort(-1).values  # no quantile lies below a lower one
        return out * spread[:, None, self.targets, None] + base[:, None, self.targets, None]

    def level(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What is subtracted from each row's columns, and what they are divided by, (B, C) each."""
        if self.centre == "window":
            return values.mean(0), values.std(0, unbiased=False) + 1e-3
        base = values[-1] if self.centre == "last" else torch.zeros_like(values[0])
        return base, torch.ones_like(base)


class Follower(nn.Module):
    """The targets of each step from the inputs up to it, the state going in and coming out.

    With `beside` a network without memory, which sees the inputs of the step alone, stands beside it to compare.
    """

    def __init__(self, options: Any, sizes: Sizes) -> None:
        super().__init__()
        o = options
        self.shape = (len(sizes.targets), sizes.outputs)
        outputs = len(sizes.targets) * sizes.outputs
        self.recurrent = stack(o.cell, sizes.width, o.hidden, o.layers, False, o.dropout)
        self.output = nn.Linear(o.hidden, outputs)
        self.memoryless = None
        if o.beside:
            self.memoryless = nn.Sequential(nn.Linear(sizes.width, o.hidden), nn.Tanh(), nn.Linear(o.hidden, outputs))

    def forward(self, inputs: Inputs, state: Any = None, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """(T, B, D, Q), standardised, and the state after the last step; reset (T, B) begins rows anew."""
        y, state = self.recurrent(torch.cat(inputs, -1), state, reset=reset)
        out = self.output(y).unflatten(-1, self.shape)
        return out if self.training else out.sort(-1).values, state

    def without_memory(self, inputs: Inputs) -> Tensor | None:
        """What the network beside makes of each step, (T, B, D, Q); None where there is none."""
        if self.memoryless is None:
            return None
        return self.memoryless(torch.cat(inputs, -1)).unflatten(-1, self.shape)

    def initial(self, batch_size: int) -> Any:
        return self.recurrent.initial(batch_size)
