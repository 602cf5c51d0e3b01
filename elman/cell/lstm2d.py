"""Long short-term memory over two dimensions, for `elman.Grid`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.start import orthogonal_blocks, uniform_input


class LSTM2D(Cell):
    """Two-dimensional LSTM: i, f, e, o = sigmoid(.), g = tanh(.) of x, h_left, h_up;
    c = f*c_left + e*c_up + i*g, h = o*tanh(c), y = h.

        layer = elman.Grid(elman.cell.LSTM2D(1, 16))

    Each state is [h, c] side by side: what comes from the left neighbour, and from the one above.
    Shapes: x (B, I), left and up (B, 2H), y (B, H). Rows of U, W_left and W_up in the order i, f, e, g, o.
    U starts uniform in +-1/sqrt(I), each block of both W orthogonal, over sqrt(2) since two are added; biases zero: the
    forget gates begin at 1/2 each, so that c neither grows nor fades along a path of many neighbours.
    Source: Graves, Fernandez, Schmidhuber, "Multi-dimensional recurrent neural networks" (2007), without peepholes.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"left": 2 * hidden_size, "up": 2 * hidden_size}
        self.U = nn.Linear(input_size, 5 * hidden_size)
        self.W_left = nn.Linear(hidden_size, 5 * hidden_size, bias=False)
        self.W_up = nn.Linear(hidden_size, 5 * hidden_size, bias=False)
        uniform_input(self.U)
        for W in (self.W_left, self.W_up):
            orthogonal_blocks(W)
            with torch.no_grad():
                W.weight.mul_(0.5**0.5)

    def step(self, x: Tensor, left: Tensor, up: Tensor) -> tuple[Tensor, State]:
        h_left, c_left = left.chunk(2, -1)  # (B, H) each
        h_up, c_up = up.chunk(2, -1)
        gates = self.U(x) + self.W_left(h_left) + self.W_up(h_up)  # (B, 5H)
        i, f, e, g, o = gates.chunk(5, -1)
        i, f, e, g, o = i.sigmoid(), f.sigmoid(), e.sigmoid(), g.tanh(), o.sigmoid()
        for name, gate in (("input_gate", i), ("forget_left", f), ("forget_up", e), ("output_gate", o)):
            self.watch(name, gate)
        c = f * c_left + e * c_up + i * g
        h = o * torch.tanh(c)
        both = torch.cat([h, c], -1)
        return h, (both, both)
