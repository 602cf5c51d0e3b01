"""Tables that are made: a wave and the same wave a quarter later, and hours with days and weeks in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import torch

from elman.data.table import Table, calendar


def sine_cosine(rows: int) -> Table:
    """Columns sine and cosine of one angle that grows by 1 / (10 pi) a row, some 197 rows a turn."""
    angle = torch.arange(rows, dtype=torch.float64) / (10 * math.pi)
    values = torch.stack([angle.sin(), angle.cos()], -1)
    seen = torch.ones_like(values, dtype=torch.bool)
    return Table("sine and cosine made here", ("sine", "cosine"), values, seen, torch.empty(rows, 0))


def hours(rows: int, kinds: Sequence[str], seed: int) -> Table:
    """Columns load and heat, hourly: days and weeks of changing size, and noise that lasts some hours."""
    draw = torch.Generator().manual_seed(seed)
    hour = torch.arange(rows, dtype=torch.float64)
    noise = torch.randn(rows, 3, generator=draw, dtype=torch.float64)
    slow = noise.new_zeros(rows, 3)
    for t in range(1, rows):
        slow[t] = 0.97 * slow[t - 1] + 0.24 * noise[t]
    day, week = 2 * math.pi * hour / 24, 2 * math.pi * hour / 168
    load = 20 + (4 + slow[:, 0]) * day.sin() + 2 * week.sin() + slow[:, 1]
    heat = 8 + (2 + 0.5 * slow[:, 0]) * (day - 1).cos() + slow[:, 2] - 0.5 * slow[:, 1]
    values = torch.stack([load, heat], -1)
    times = tuple(datetime(2024, 1, 1) + timedelta(hours=t) for t in range(rows))
    seen = torch.ones_like(values, dtype=torch.bool)
    return Table("hours made here", ("load", "heat"), values, seen, calendar(times, kinds), times, "time")
