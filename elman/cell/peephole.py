"""Long short-term memory whose gates see the cell state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class PeepholeLSTM(Cell):
    """LSTM with peepholes, a weight a unit: i = sigmoid(. + p_i * c(t-1)), f = sigmoid(. + p_f * c(t-1)),
    g = tanh(.), c = f*c(t-1) + i*g, o = sigmoid(. + p_o * c), h = o*tanh(c), y = h, with . = U x + W h(t-1) + b.

        layer = elman.Recurrent(elman.cell.PeepholeLSTM(28, 128))

    It can tell times exactly, since a closed output gate hides the cell from h but not from the gates.
    Shapes: x (B, I), h and c (B, H), peepholes (H,), y (B, H). Rows of U and W in the order i, f, g, o. U starts
    uniform in +-1/sqrt(I), each block of W orthogonal, peepholes uniform in +-0.1, biases zero but 1 for the forget
    gate.
    Source: Gers, Schraudolph, Schmidhuber, "Learning precise timing with LSTM recurrent networks", JMLR 3 (2002).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 4 * hidden_size)
        self.W = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peep_i, self.peep_f, self.peep_o = (
            nn.Parameter(nn.init.uniform_(torch.empty(hidden_size), -0.1, 0.1)) for _ in range(3)
        )
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        nn.init.ones_(self.U.bias[hidden_size : 2 * hidden_size])

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
        i, f, g, o = (self.U(x) + self.W(h)).chunk(4, -1)  # (B, H) each
        i, f, g = torch.sigmoid(i + self.peep_i * c), torch.sigmoid(f + self.peep_f * c), torch.tanh(g)
        c = f * c + i * g
        o = torch.sigmoid(o + self.peep_o * c)
        for name, gate in (("input_gate", i), ("forget_gate", f), ("candidate", g), ("output_gate", o)):
            self.watch(name, gate)
        h = o * torch.tanh(c)
        return h, (h, c)
