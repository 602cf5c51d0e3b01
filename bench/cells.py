"""The cells that the bench measures: three that torch.nn has, and four that it has not; and all of them for jax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import elman


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
    "LayerNormLSTM": Entry(elman.cell.LayerNormLSTM, 4),
    "PeepholeLSTM": Entry(elman.cell.PeepholeLSTM, 4),
    "OriginalGRU": Entry(elman.cell.OriginalGRU, 3),
    "MinGRU": Entry(elman.cell.MinGRU, 2, recurrent=False),
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
        return x * p[f"{name}.weight"] + p.get(f"{name}.bias", 0)

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
        z, n = jnp.split(linear(p, "U", x), 2, -1)
        h = (1 - sigmoid(z)) * h + sigmoid(z) * n
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
