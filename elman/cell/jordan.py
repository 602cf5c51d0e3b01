"""The network of Jordan (1986), whose only memory is its last output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elman.cell.base import Cell, State
from elman.cell.checked import whole_number
from elman.cell.start import orthogonal_blocks, uniform_input


class Jordan(Cell):
    """Recurrence from the output only: h = tanh(b + W y(t-1) + U x), y = c + V h.

        layer = elman.Recurrent(elman.cell.Jordan(3, 16, 2))

    Weaker than Elman's network, since y must carry what is to be remembered; but with y(t-1) given, as teacher forcing
    does, its steps no longer depend on each other.
    Shapes: x (B, I), state y (B, K), hidden layer h (B, H), y (B, K). U and V start uniform in +-1/sqrt of their
    inputs, W orthogonal, b and c zero. Errors: CellError where a size is no whole number of at least 1.
    Source: M. Jordan, "Serial order: a parallel distributed processing approach" (1986); in this form: Goodfellow,
    Bengio, Courville, "Deep Learning" (2016), figure 10.4.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.output_size = whole_number(self, "output_size", output_size)
        self.state_sizes = {"y": output_size}
        self.U = nn.Linear(input_size, hidden_size)
        self.W = nn.Linear(output_size, hidden_size, bias=False)
        self.V = nn.Linear(hidden_size, output_size)
        for linear in (self.U, self.V):
            uniform_input(linear)
        orthogonal_blocks(self.W, 1)

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, State]:
        h = torch.tanh(self.U(x) + self.W(y))  # (B, H)
        self.watch("h", h)
        y = self.V(h)
        return y, (y,)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, {self.output_size}"
