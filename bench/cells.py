"""The cells that the bench measures: elman's own, and four as a user would write them; and all of them for jax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import elman


class LayerNormLSTM(elman.Cell):
    """LSTM with both products and the cell state normalised. Ba, Kiros, Hinton (2016), arXiv:1607.06450, eq. 20-22."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 4 * hidden_size, bias=False)  # the bias is that of normal_x
        self.W = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.normal_x = nn.LayerNorm(4 * hidden_size)
        self.normal_h = nn.LayerNorm(4 * hidden_size)
        self.normal_c = nn.LayerNorm(hidden_size)
        nn.init.constant_(self.normal_h.weight, 0.1)  # from 1 the step is chaotic: no two orders of summing agree

    def step(self, x, h, c):
        i, f, g, o = (self.normal_x(self.U(x)) + self.normal_h(self.W(h))).chunk(4, -1)  # (B, H) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(self.normal_c(c))
        return h, (h, c)


class PeepholeLSTM(elman.Cell):
    """LSTM whose gates see the cell state: i and f the old one, o the new. Gers, Schmidhuber (2000), IJCNN."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 4 * hidden_size)
        self.W = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peep_i = nn.Parameter(0.1 * torch.randn(hidden_size))
        self.peep_f = nn.Parameter(0.1 * torch.randn(hidden_size))
        self.peep_o = nn.Parameter(0.1 * torch.randn(hidden_size))

    def step(self, x, h, c):
        i, f, g, o = (self.U(x) + self.W(h)).chunk(4, -1)  # (B, H) each
        i, f = torch.sigmoid(i + self.peep_i * c), torch.sigmoid(f + self.peep_f * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + self.peep_o * c) * torch.tanh(c)
        return h, (h, c)


class OriginalGRU(elman.Cell):
    """GRU that resets h before the product, n = tanh(U x + W (r * h)). Cho et al. (2014), arXiv:1406.1078."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, 3 * hidden_size)
        self.W = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.W_n = nn.Linear(hidden_size, hidden_size, bias=False)

    def step(self, x, h):
        rx, zx, nx = self.U(x).chunk(3, -1)  # (B, H) each
        rh, zh = self.W(h).chunk(2, -1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        n = torch.tanh(nx + self.W_n(r * h))
        h = z * h + (1 - z) * n
        return h, (h,)


class MinGRU(elman.Cell):
    """GRU whose gate and candidate see x alone: a linear recurrence. Feng et al. (2024), arXiv:2410.01201."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U_z = nn.Linear(input_size, hidden_size)
        self.U_h = nn.Linear(input_size, hidden_size)

    def step(self, x, h):
        z = torch.sigmoid(self.U_z(x))  # (B, H)
        h = (1 - z) * h + z * self.U_h(x)
        return h, (h,)


@dataclass(frozen=True)
class Entry:
    """A cell of the bench, its count of gates G, its rival in torch.nn, and whether a product with h exists."""

    make: Callable[[int, int], elman.Cell]
    gates: int
    rival: Callable[[int, int], nn.Module] | None = None
    recurrent: bool = True

    def flops(self, I: int, H: int) -> int:  # noqa: E741
        """Forward, of one row and one step, products only: 2 G H (I + H)."""
        return 2 * self.gates * H * (I + H * self.recurrent)


CELLS = {
    "Elman": Entry(elman.cell.Elman, 1, nn.RNN),
    "LSTM": Entry(elman.cell.LSTM, 4, nn.LSTM),
    "GRU": Entry(elman.cell.GRU, 3, nn.GRU),
    "LayerNormLSTM": Entry(LayerNormLSTM, 4),
    "PeepholeLSTM": Entry(PeepholeLSTM, 4),
    "OriginalGRU": Entry(OriginalGRU, 3),
    "MinGRU": Entry(MinGRU, 2, recurrent=False),
}


def jax_steps(jax: Any) -> dict[str, Callable[..., Any]]:
    """The same steps in jax.numpy: p holds the cell's parameters by torch's names, step(p, x, *state) -> y, state."""
    jnp, sigmoid = jax.numpy, jax.nn.sigmoid

    def linear(p, name, x):
        y = x @ p[f"{name}.weight"].T
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def normal(p, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    def elman_step(p, x, h):
        h = jnp.tanh(linear(p, "U", x) + linear(p, "W", h))
        return h, (h,)

    def lstm(p, x, h, c):
        i, f, g, o = jnp.split(linear(p, "U", x) + linear(p, "W", h), 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return h, (h, c)

    def gru(p, x, h):
        (rx, zx, nx), (rh, zh, nh) = jnp.split(linear(p, "U", x), 3, -1), jnp.split(linear(p, "W", h), 3, -1)
        r, z = sigmoid(rx + rh), sigmoid(zx + zh)
        h = (1 - z) * jnp.tanh(nx + r * nh) + z * h
        return h, (h,)

    def layer_norm_lstm(p, x, h, c):
        gates = normal(p, "normal_x", linear(p, "U", x)) + normal(p, "normal_h", linear(p, "W", h))
        i, f, g, o = jnp.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(normal(p, "normal_c", c))
        return h, (h, c)

    def peephole_lstm(p, x, h, c):
        i, f, g, o = jnp.split(linear(p, "U", x) + linear(p, "W", h), 4, -1)
        i, f = sigmoid(i + p["peep_i"] * c), sigmoid(f + p["peep_f"] * c)
        c = f * c + i * jnp.tanh(g)
        h = sigmoid(o + p["peep_o"] * c) * jnp.tanh(c)
        return h, (h, c)

    def original_gru(p, x, h):
        (rx, zx, nx), (rh, zh) = jnp.split(linear(p, "U", x), 3, -1), jnp.split(linear(p, "W", h), 2, -1)
        r, z = sigmoid(rx + rh), sigmoid(zx + zh)
        h = z * h + (1 - z) * jnp.tanh(nx + linear(p, "W_n", r * h))
        return h, (h,)

    def min_gru(p, x, h):
        z = sigmoid(linear(p, "U_z", x))
        h = (1 - z) * h + z * linear(p, "U_h", x)
        return h, (h,)

    steps = (elman_step, lstm, gru, layer_norm_lstm, peephole_lstm, original_gru, min_gru)
    return dict(zip(CELLS, steps))


class ScanRunner:
    """jax.lax.scan of the same step, compiled once; its threads are XLA's own. Methods as of the bench's Runner."""

    def __init__(self, name: str, cell: elman.Cell, x: Tensor, cotangent: Tensor, rate: float):
        import jax

        step, self.block = jax_steps(jax)[name], jax.block_until_ready
        self.x, self.p = jax.numpy.array(x), {n: jax.numpy.array(p.detach()) for n, p in cell.named_parameters()}
        weight, first = jax.numpy.array(cotangent), tuple(jax.numpy.array(s) for s in cell.initial(x.shape[1]))

        def forward(p: Any, x: Any) -> Any:
            return jax.lax.scan(lambda state, row: step(p, row, *state)[::-1], first, x)[1]

        def backward(p: Any, x: Any) -> Any:
            y, pull = jax.vjp(forward, p, x)
            return y, *pull(weight)

        def train(p: Any, x: Any) -> Any:
            _, dp, dx = backward(p, x)
            return jax.tree.map(lambda p, d: p - rate * d, p, dp), dx

        self.forward, self.backward, self.train = jax.jit(forward), jax.jit(backward), jax.jit(train, donate_argnums=0)

    def inference(self) -> None:
        self.block(self.forward(self.p, self.x))

    def training(self) -> None:
        self.p, _ = self.block(self.train(self.p, self.x))

    def values(self) -> dict[str, Tensor]:
        y, dp, dx = self.backward(self.p, self.x)
        found = {"y": y, "gradient of x": dx} | {f"gradient of {n}": d for n, d in dp.items()}
        return {n: torch.tensor(v.__array__()) for n, v in found.items()}
