"""Long short-term memory with layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class LayerNormLSTM(Cell):
    """LSTM with both products and the cell state normalised over their width: [i, f, g, o] = N(W h) + N(U x) + b,
    c = sigmoid(f) * c + sigmoid(i) * tanh(g), h = sigmoid(o) * tanh(N(c)), y = h; N has a gain and a shift a unit.

        layer = elman.Recurrent(elman.cell.LayerNormLSTM(28, 128))

    Shapes: x (B, I), h and c (B, H), y (B, H). Rows of U and W in the order i, f, g, o; b is the shift of N(U x),
    N(W h) has none. U starts uniform in +-1/sqrt(I), each block of W orthogonal, gains 1 but 0.1 for N(W h)
    (Cooijmans et al. 2017, arXiv:1603.09025: from 1 the gradient vanishes in the gates), shifts 0 but 1 for the forget
    gate.
    Source: Ba, Kiros, Hinton (2016), arXiv:1607.06450, equations 20-22.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 4 * hidden_size, bias=False)
        self.W = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.normal_x = nn.LayerNorm(4 * hidden_size)
        self.normal_h = nn.LayerNorm(4 * hidden_size, bias=False)
        self.normal_c = nn.LayerNorm(hidden_size)
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        nn.init.constant_(self.normal_h.weight, 0.1)
        nn.init.ones_(self.normal_x.bias[hidden_size : 2 * hidden_size])

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
        i, f, g, o = (self.normal_x(self.U(x)) + self.normal_h(self.W(h))).chunk(4, -1)  # (B, H) each
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        for name, gate in (("input_gate", i), ("forget_gate", f), ("candidate", g), ("output_gate", o)):
            self.watch(name, gate)
        c = f * c + i * g
        h = o * torch.tanh(self.normal_c(c))
        return h, (h, c)
