"""Long short-term memory with a projection: many cells, few numbers to pass on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.checked import whole_number
from elman.cell.start import orthogonal_blocks, uniform_input


class ProjectedLSTM(Cell):
    """LSTM whose output is projected: i, f, o = sigmoid(.), g = tanh(.), c = f*c + i*g, h = P (o*tanh(c)), y = h.

        layer = elman.Recurrent(elman.cell.ProjectedLSTM(40, 1024, 256))
        y, (h, c) = layer(x)

    The product with h costs H * projection_size in place of H * H, as does every layer above.
    Shapes: x (B, I), h (B, projection_size), c (B, H), y (B, projection_size). Rows of U and W in the order i, f, g, o,
    as torch.nn.LSTM with proj_size, which it equals; the peepholes of the paper are left out there and here. U and P
    start uniform in +-1/sqrt of their inputs, each block of W with orthonormal rows or columns, biases zero but 1 for
    the forget gate. Errors: CellError where a size is no whole number of at least 1.
    Source: Sak, Senior, Beaufays (2014), arXiv:1402.1128.
    """

    def __init__(self, input_size: int, hidden_size: int, projection_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.output_size = whole_number(self, "projection_size", projection_size)
        self.state_sizes = {"h": projection_size, "c": hidden_size}
        self.U = nn.Linear(input_size, 4 * hidden_size)
        self.W = nn.Linear(projection_size, 4 * hidden_size, bias=False)
        self.P = nn.Linear(hidden_size, projection_size, bias=False)
        for linear in (self.U, self.P):
            uniform_input(linear)
        orthogonal_blocks(self.W, 4)
        nn.init.ones_(self.U.bias[hidden_size : 2 * hidden_size])

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
        i, f, g, o = (self.U(x) + self.W(h)).chunk(4, -1)  # (B, H) each
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        for name, gate in (("input_gate", i), ("forget_gate", f), ("candidate", g), ("output_gate", o)):
            self.watch(name, gate)
        c = f * c + i * g
        h = self.P(o * torch.tanh(c))  # (B, projection_size)
        return h, (h, c)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, {self.output_size}"
