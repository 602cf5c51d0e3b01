"""What the parts with random numbers share: names of context that are still free, and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.cell.base import Cell, first_parameter

PARTS = 2**16


def free_names(cell: Cell, names: Sequence[str]) -> list[str]:
    """The names, all with the same number behind them where the cell within uses one of them: "keep_h_2"."""
    taken = cell.signature.context | frozenset(cell.signature.state) if isinstance(cell, Cell) else frozenset()
    count, found = 1, list(names)
    while taken & set(found):
        count += 1
        found = [f"{name}_{count}" for name in names]
    return found


def drawn(shape: Sequence[int], probability: float, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """1 with a probability (to 1 in 65,536 on a CPU), else 0; on the device of `like`, of its type if of none given.

    On a CPU 16 random bits are compared for each entry, four entries of one draw: far quicker than `bernoulli_`.
    """
    made = torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)
    ones = round(probability * PARTS)  # of so many equal parts
    if like.device.type != "cpu" or ones <= 0:
        return made.bernoulli_(probability)
    bits = torch.empty(-(-made.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return torch.le(bits[: made.numel()].view(made.shape), ones - 1 - PARTS // 2, out=made)


def dropout_mask(shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    """0 with probability `rate`, else 1/(1 - rate), so that the mean is 1."""
    mask = drawn(shape, 1 - rate, like)
    return mask.div_(1 - rate) if rate < 1 else mask


def real(x: Tensor, cell: Cell) -> Tensor:
    """A tensor of the type that masks of this call have: x, or a parameter where x holds whole numbers."""
    return x if x.is_floating_point() else first_parameter(cell)
