"""Long short-term memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class LSTM(Cell):
    """Long short-term memory: gates i, f, o = sigmoid(.), g = tanh(.), c = f*c + i*g, h = o*tanh(c), y = h.

        layer = elman.Recurrent(elman.cell.LSTM(28, 128))
        y, (h, c) = layer(x)

    Shapes: x (B, I), h and c (B, H), y (B, H). Rows of U and W in the order i, f, g, o, as in torch.
    U starts uniform in +-1/sqrt(I), each block of W orthogonal, biases zero but 1 for the forget gate.
    Source: Hochreiter, Schmidhuber (1997); forget gate: Gers, Schmidhuber, Cummins (2000), its bias:
    Jozefowicz, Zaremba, Sutskever (2015).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 4 * hidden_size)
        self.W = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        nn.init.ones_(self.U.bias[hidden_size : 2 * hidden_size])

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
        i, f, g, o = (self.U(x) + self.W(h)).chunk(4, -1)  # (B, H) each
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        for name, gate in (("input_gate", i), ("forget_gate", f), ("candidate", g), ("output_gate", o)):
            self.watch(name, gate)
        c = f * c + i * g
        h = o * torch.tanh(c)
        return h, (h, c)
