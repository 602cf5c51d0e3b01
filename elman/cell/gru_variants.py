"""Gated recurrent units besides torch's: the original, and the minimal one whose gates see x alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class OriginalGRU(Cell):
    """Gated recurrent unit, reset before the product: r, z = sigmoid(.), n = tanh(U x + b + W_n (r * h)),
    h = z * h + (1 - z) * n, y = h.

        layer = elman.Recurrent(elman.cell.OriginalGRU(28, 128))

    Shapes: x (B, I), h (B, H), y (B, H). Rows of U in the order r, z, n, of W r, z. U starts uniform in +-1/sqrt(I),
    each block of W and W_n orthogonal, biases zero. Source: Cho et al. (2014), arXiv:1406.1078, equations 5-8.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 3 * hidden_size)
        self.W = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.W_n = nn.Linear(hidden_size, hidden_size, bias=False)
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        orthogonal_blocks(self.W_n)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        rx, zx, nx = self.U(x).chunk(3, -1)  # (B, H) each
        rh, zh = self.W(h).chunk(2, -1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        n = torch.tanh(nx + self.W_n(r * h))
        for name, gate in (("reset_gate", r), ("update_gate", z), ("candidate", n)):
            self.watch(name, gate)
        h = z * h + (1 - z) * n
        return h, (h,)


class MinGRU(Cell):
    """Minimal gated unit, linear in its state: z = sigmoid(.), n = ., h = (1 - z) * h + z * n, y = h, with . = U x + b.

        layer = elman.Recurrent(elman.cell.MinGRU(28, 128))

    Gate and candidate see x alone, so that every product stands ahead of the loop; stack layers to mix units over time.
    Shapes: x (B, I), h (B, H), y (B, H). Rows of U in the order z, n. U starts uniform in +-1/sqrt(I), biases zero.
    Source: Feng, Tung, Ahmed, Bengio, Hajimirsadegh (2024), arXiv:2410.01201, section 3.1.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 2 * hidden_size)
        uniform_input(self.U)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        z, n = self.U(x).chunk(2, -1)  # (B, H) each
        z = z.sigmoid()
        for name, gate in (("update_gate", z), ("candidate", n)):
            self.watch(name, gate)
        h = (1 - z) * h + z * n
        return h, (h,)
