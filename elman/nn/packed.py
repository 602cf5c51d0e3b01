"""Packed sequences as padded ones and back, with gradients: rows in the order in which torch sorted them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Which step of which row lies where in packed data (N, width), N the steps of all rows."""

    active: Tensor  # (T, B) of bool: the row has this step
    take: Tensor  # (T * B,): what to read for every place of the padded form; anything where there is no step
    place: Tensor  # (N,): where each packed step lies in the padded form

    def padded(self, data: Tensor) -> Tensor:
        """(T, B, width) from (N, width)."""
        return data.index_select(0, self.take).unflatten(0, tuple(self.active.shape))

    def packed(self, x: Tensor) -> Tensor:
        """(N, width) from (T, B, width)."""
        return x.flatten(0, 1).index_select(0, self.place)


def packing(batch_sizes: Tensor, device: torch.device) -> Packing:
    """The places of steps from batch_sizes (T,), the rows that still run at each step, never growing."""
    active = torch.arange(int(batch_sizes[0])) < batch_sizes[:, None]
    flat = active.flatten()
    return Packing(*(t.to(device) for t in (active, flat.cumsum(0) - 1, flat.nonzero().squeeze(1))))
