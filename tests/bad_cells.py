"""Cells that go wrong, each at a line of its own which ends in a mark."""

from pathlib import Path

import torch
from torch import nn

import elman


class Bad(elman.Cell):
    """A vanilla RNN whose drive and state go through `spoil` first; healthy but for that."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)
        self.W = nn.Linear(hidden_size, hidden_size, bias=False)

    def step(self, x, h):
        h = torch.tanh(self.U(x) + self.W(self.spoil(x, h)))
        return h, (h,)


class Log(Bad):
    """log of a number below zero, where x is large."""

    def spoil(self, x, h):
        level = 5 - x.amax(-1, keepdim=True)
        return h * torch.log(level)  # Log


class Divide(Bad):
    """0 / 0, where x is large."""

    def spoil(self, x, h):
        room = torch.relu(5 - x.amax(-1, keepdim=True))
        return h * (room / room)  # Divide


class Root(Bad):
    """A root at exactly 0, where x is large: finite forward, infinite backward."""

    def spoil(self, x, h):
        room = self.U.bias[:1].exp() * (5 - x.amax(-1, keepdim=True))
        return h * room.sqrt()  # Root


class Gate(Bad):
    """exp in place of sigmoid in the second of two gates, which overflows where x is large."""

    def spoil(self, x, h):
        wide = x.amax(-1, keepdim=True).square()
        keep = torch.sigmoid(h)
        self.watch("keep", keep)
        forget = torch.exp(6 * wide + 0 * h)  # Gate
        self.watch("forget", forget)
        return h * keep / forget * forget


class Growing(elman.Cell):
    """A state that doubles at each step, and overflows after 128 of them."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)

    def step(self, x, h):
        h = 2 * h + 0 * self.U(x) + 1.5  # Growing
        return torch.tanh(h) + 0 * h, (h,)


class Own(torch.autograd.Function):
    """A square whose gradient is wrong."""

    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0.0


class Custom(Bad):
    """An operation with a gradient of its own that is not finite."""

    def spoil(self, x, h):
        return h * Own.apply(1 + h)  # Custom


def line_of(name):
    """file:line of a cell's mark."""
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1):
        if line.endswith(f"  # {name}"):
            return f"{Path(__file__).name}:{number}"
    raise LookupError(name)
