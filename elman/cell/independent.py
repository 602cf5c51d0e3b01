"""Units that remember independently of each other: IndRNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import uniform_input


class IndRNN(Cell):
    """Independently recurrent network: h = relu(U x + w * h(t-1) + b), y = h; w is one weight a unit.

        deep = elman.Stacked(elman.cell.IndRNN(28, 128), elman.cell.IndRNN(128, 128))

    Each unit sees only its own past; layers above mix them. Over n steps a unit's past is multiplied by w^n, so w is
    all that needs to be bounded, to about 2^(1/n) where sequences of n steps are to keep their gradients.
    Shapes: x (B, I), h (B, H), w (H,), y (B, H). U starts uniform in +-1/sqrt(I), w uniform in 0..1, so that no unit's
    past grows, b zero. Source: Li, Li, Cook, Zhu, Gao (2018), arXiv:1803.04831.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)
        self.w = nn.Parameter(torch.rand(hidden_size))
        uniform_input(self.U)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        a = self.U(x) + self.w * h  # (B, H)
        self.watch("a", a)
        h = torch.relu(a)
        return h, (h,)
