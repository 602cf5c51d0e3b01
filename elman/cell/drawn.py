"""What the parts with random numbers share: names of context that are still free, and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.cell.base import Cell, first_parameter


def free_names(cell: Cell, names: Sequence[str]) -> list[str]:
    """The names, all with the same number behind them where the cell within uses one of them: "keep_h_2"."""
    taken = cell.signature.context | frozenset(cell.signature.state) if isinstance(cell, Cell) else frozenset()
    count, found = 1, list(names)
    while taken & set(found):
        count += 1
        found = [f"{name}_{count}" for name in names]
    return found


def dropout_mask(shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    """0 with probability `rate`, else 1/(1 - rate), so that the mean is 1."""
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device).bernoulli_(1 - rate).div_(1 - rate)


def real(x: Tensor, cell: Cell) -> Tensor:
    """A tensor of the type that masks of this call have: x, or a parameter where x holds whole numbers."""
    return x if x.is_floating_point() else first_parameter(cell)
