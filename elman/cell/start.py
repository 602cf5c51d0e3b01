"""How weights start: what the field agrees on, once for all cells."""

from __future__ import annotations

import math

import torch
from torch import nn


def uniform_input(linear: nn.Linear) -> None:
    """Input weights uniform in +-1/sqrt(I), biases zero."""
    bound = 1.0 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.weight, -bound, bound)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def orthogonal_blocks(linear: nn.Linear, blocks: int | None = None) -> None:
    """Recurrent weights (k H, H): each of the k square blocks orthogonal (Saxe, McClelland, Ganguli 2014).

    With `blocks`, so many blocks of equal height, square or not: their rows or columns are orthonormal.
    """
    height = linear.in_features if blocks is None else linear.out_features // blocks
    with torch.no_grad():
        for block in linear.weight.split(height):
            nn.init.orthogonal_(block)
