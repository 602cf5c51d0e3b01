"""What there is to see of a classifier: which labels it takes for which, and where it is most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WORST = 24  # mistakes that are shown


@dataclass(frozen=True)
class Confusion:
    """How often a label (row) was taken for another (column): counts (K, K)."""

    labels: tuple[str, ...]
    counts: Tensor


@dataclass(frozen=True)
class Mistake:
    """An example that was taken for something else, and how sure the network was of that; its text or its picture."""

    name: str
    label: str
    found: str
    p: float
    text: str = ""
    pixels: Tensor | None = None  # (R, C, channels) of uint8


@dataclass(frozen=True)
class Mistakes:
    """The worst mistakes, the surest first, of how many in how many examples."""

    worst: Sequence[Mistake]
    count: int
    of: int


def confusion(labels: Sequence[str], found: Tensor, targets: Tensor) -> Confusion:
    """Of the labels found and those that are right, both (N,)."""
    K = len(labels)
    return Confusion(tuple(labels), torch.bincount(targets * K + found, minlength=K * K).view(K, K))


def surest(p: Tensor, wrong: Tensor) -> list[int]:
    """The numbers of the examples (N,) that are wrong, those with the greatest p first, as many as are shown."""
    numbers = wrong.nonzero()[:, 0]
    return numbers[p[numbers].argsort(descending=True)][:WORST].tolist()
