"""The simple recurrent network of Elman (1990), with tanh or ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class Elman(Cell):
    """The simple recurrent network: h = tanh(b + W h(t-1) + U x), y = h.

        layer = elman.Recurrent(elman.cell.Elman(3, 5))

    Shapes: x (B, I), h (B, H), y (B, H). U starts uniform in +-1/sqrt(I), W orthogonal, b zero.
    Source: J. Elman, "Finding structure in time", Cognitive Science 14 (1990).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)
        self.W = nn.Linear(hidden_size, hidden_size, bias=False)
        uniform_input(self.U)
        orthogonal_blocks(self.W)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        a = self.U(x) + self.W(h)  # (B, H)
        self.watch("a", a)
        h = self.activation(a)
        return h, (h,)

    def activation(self, a: Tensor) -> Tensor:
        return torch.tanh(a)


class ElmanReLU(Elman):
    """The simple recurrent network with a ReLU: h = max(0, b + W h(t-1) + U x), y = h.

    Shapes as in `Elman`. W starts as the identity, with which a ReLU network keeps what it has seen.
    Source: Le, Jaitly, Hinton, "A simple way to initialize recurrent networks of rectified linear units" (2015).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        nn.init.eye_(self.W.weight)

    def activation(self, a: Tensor) -> Tensor:
        return torch.relu(a)
