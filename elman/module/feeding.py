"""How likely a step is to read the truth as training goes on: schedules for `SequenceModel.loss(truth=...)`.

Source: Bengio, Vinyals, Jaitly, Shazeer, "Scheduled sampling" (2015), arXiv:1506.03099, section 2.4.
"""

from __future__ import annotations

import math


def linear(step: int, slope: float, start: float = 1.0, least: float = 0.0) -> float:
    """max(least, start - slope * step)."""
    return max(least, start - slope * step)


def exponential(step: int, base: float) -> float:
    """base ** step, for a base below 1."""
    return float(base**step)


def inverse_sigmoid(step: int, k: float) -> float:
    """k / (k + exp(step / k)), for k of at least 1: near 1 until about k log k steps."""
    return k / (k + math.exp(min(step / k, 700.0)))
