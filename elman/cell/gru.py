"""The gated recurrent unit, in torch's variant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class GRU(Cell):
    """Gated recurrent unit, reset after the product as in torch and cuDNN:
    r, z = sigmoid(.), n = tanh(U x + b + r * (W h + b')), h = (1 - z) * n + z * h, y = h.

        layer = elman.Recurrent(elman.cell.GRU(28, 128))

    Shapes: x (B, I), h (B, H), y (B, H). Rows of U and W in the order r, z, n. Both products have a bias, since the
    second stands inside the reset. U starts uniform in +-1/sqrt(I), each block of W orthogonal, biases zero.
    Source: Cho et al. (2014), arXiv:1406.1078; this variant: section "GRU" of torch.nn.GRU.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 3 * hidden_size)
        self.W = nn.Linear(hidden_size, 3 * hidden_size)
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        nn.init.zeros_(self.W.bias)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        rx, zx, nx = self.U(x).chunk(3, -1)  # (B, H) each
        rh, zh, nh = self.W(h).chunk(3, -1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        n = torch.tanh(nx + r * nh)
        for name, gate in (("reset_gate", r), ("update_gate", z), ("candidate", n)):
            self.watch(name, gate)
        h = (1 - z) * n + z * h
        return h, (h,)
