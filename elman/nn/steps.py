"""torch.nn's equations as steps: one layer in one direction, with the weights that its module holds at the moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from elman.cell.base import Cell, State

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class Step(Cell):
    """A step without weights of its own: `hold` lends it those of a module, by their names there less the layer's.

    Shapes: weight_ih (G, I), weight_hh (G, R), biases (G,) or None; G: rows of all gates, R: width of h.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self._parameters.update(dict.fromkeys(WEIGHTS))

    def hold(self, weights: Sequence[Tensor | None], bias: bool) -> None:
        """Take the weights of one layer and direction, in torch's order."""
        names = WEIGHTS if bias else (*WEIGHTS[:2], *WEIGHTS[4:])
        # in place, where the backends look; any tensor may come, as under functional_call, which registering refuses
        self._parameters.update(zip(names, weights))  # type: ignore[arg-type]

    def products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """U x + b and W h + b', (B, G) each."""
        return (
            functional.linear(x, self.weight_ih, self.bias_ih),
            functional.linear(h, self.weight_hh, self.bias_hh),
        )


class RNN(Step):
    """h = tanh(U x + b + W h + b'), or max(0, .): x (B, I), h (B, H), y = h."""

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: str) -> None:
        super().__init__(input_size, hidden_size)
        self.nonlinearity = nonlinearity

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        u, w = self.products(x, h)
        a = u + w
        h = torch.relu(a) if self.nonlinearity == "relu" else torch.tanh(a)
        return h, (h,)


class LSTM(Step):
    """i, f, o = sigmoid(.), g = tanh(.), c = f*c + i*g, h = o*tanh(c): x (B, I), h and c (B, H), y = h.

    With a projection h = V (o*tanh(c)), V (R, H), and h and y are (B, R).
    """

    weight_hr: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, proj_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"h": proj_size or hidden_size, "c": hidden_size}

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, State]:
        u, w = self.products(x, h)
        i, f, g, o = (u + w).chunk(4, -1)  # (B, H) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if self.weight_hr is not None:
            h = functional.linear(h, self.weight_hr)
        return h, (h, c)


class GRU(Step):
    """r, z = sigmoid(.), n = tanh(U x + b + r * (W h + b')), h = (1 - z) * n + z * h: x (B, I), h (B, H), y = h."""

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, State]:
        u, w = self.products(x, h)
        rx, zx, nx = u.chunk(3, -1)  # (B, H) each
        rh, zh, nh = w.chunk(3, -1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        n = torch.tanh(nx + r * nh)
        h = (1 - z) * n + z * h
        return h, (h,)
