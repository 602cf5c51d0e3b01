"""Firing rates in continuous time, as in models of cortex."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elman.cell.base import Cell, State
from elman.cell.checked import positive, probability
from elman.cell.start import orthogonal_blocks, uniform_input
from elman.errors import OptionError

RADIUS = 1.5  # the largest eigenvalue of W under Dale's law to begin with, as in the paper


class Rate(Cell):
    """Rates of neurons in continuous time, tau dr/dt = -r + f(W r + U x + b + noise), by Euler steps of dt:
    r = (1 - dt/tau) r(t-1) + (dt/tau) f(W r(t-1) + U x + b + noise), y = r, f a ReLU (override `activation`).

        layer = elman.Recurrent(elman.cell.Rate(3, 100, tau=100.0, dt=20.0, noise=0.15, excitatory=0.8))

    tau and dt: in one unit, milliseconds for neurons, 0 < dt <= tau. noise: white noise sqrt(2 tau) noise xi(t) enters
    every unit in training; once a unit has filtered it, it has this standard deviation, whatever dt (small beside tau).
    excitatory: Dale's law. So large a fraction of the units, the first ones, have outgoing weights (columns of W) of at
    least 0, the rest of at most 0, and none meets itself: W = abs(W.weight) * signs, as `connections` gives it.
    Shapes: x (B, I), r (B, H), y (B, H). Context: noise (T, B, H), in place of what is drawn, added as it is.
    U starts uniform in +-1/sqrt(I), b zero, W orthogonal; under Dale's law from a gamma distribution of shape 2, both
    signs of the same total, with a spectral radius of 1.5. Errors: OptionError for numbers out of range.
    Source: Song, Yang, Wang (2016), PLoS Comput Biol 12: e1004792, there for the currents; for the rates as here:
    Yang, Joglekar, Song, Newsome, Wang (2019), Nature Neuroscience 22.
    """

    each_step = private = ("noise",)
    signs: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        tau: float = 100.0,
        dt: float = 20.0,
        noise: float = 0.0,
        excitatory: float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.tau, self.dt = positive("tau", tau), positive("dt", dt)
        if dt > tau:
            raise OptionError(f"dt must not be above tau, or a step overshoots; got dt={dt}, tau={tau}")
        self.noise = positive("noise", noise, zero=True)
        self.U = nn.Linear(input_size, hidden_size)
        self.W = nn.Linear(hidden_size, hidden_size, bias=False)
        uniform_input(self.U)
        orthogonal_blocks(self.W)
        self.register_buffer("signs", None)
        if excitatory is not None:
            self.signs = by_dale(self.W.weight, probability("excitatory", excitatory))

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        if not self.training or not self.noise:
            return {}
        drawn = torch.randn(*x.shape[:2], self.hidden_size, dtype=self.W.weight.dtype, device=x.device)
        return {"noise": drawn * (self.noise * math.sqrt(2 * self.tau / self.dt))}

    def connections(self) -> Tensor:
        """W (H, H), from column to row, with the signs of Dale's law."""
        return self.W.weight if self.signs is None else self.W.weight.abs() * self.signs

    def step(self, x: Tensor, r: Tensor, *, noise: Tensor | None = None) -> tuple[Tensor, State]:
        a = self.U(x) + F.linear(r, self.connections())  # (B, H)
        a = a if noise is None else a + noise
        self.watch("a", a)
        part = self.dt / self.tau
        r = (1 - part) * r + part * self.activation(a)
        return r, (r,)

    def activation(self, a: Tensor) -> Tensor:
        return torch.relu(a)


@torch.no_grad()
def by_dale(weight: Tensor, excitatory: float) -> Tensor:
    """Signs (H, H) by column, with 0 on the diagonal; the weights are made as they start under Dale's law."""
    H = len(weight)
    count = round(excitatory * H)
    signs = torch.ones(H)
    signs[count:] = -1
    mask = signs.repeat(H, 1).fill_diagonal_(0)
    weight.copy_(torch.distributions.Gamma(2.0, 1.0).sample((H, H)))
    if 0 < count < H:
        weight[:, count:] *= count / (H - count)
    radius = torch.linalg.eigvals(weight * mask).abs().max()
    if radius > 0:
        weight *= RADIUS / radius
    return mask
