"""Steps that write in place, make tensors of their own, or go around torch's own cells: fused where they may."""

import random
import warnings

import numpy as np
import pytest
import torch
from tolerance import all_close
from torch import nn
from torch.nn import functional as F

import elman


class Written(elman.Cell):
    """A step given as a function of itself, x and h, with parameters of several shapes."""

    def __init__(self, inner):
        super().__init__(5, 5)
        self.inner = inner
        self.p, self.W, self.M = (nn.Parameter(torch.randn(*shape)) for shape in ((5,), (5, 5), (8, 5)))
        self.L, self.wide, self.one = nn.Linear(5, 5), nn.Linear(8, 5), nn.Linear(6, 5, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.cells = nn.ModuleList([nn.RNNCell(5, 5), nn.GRUCell(5, 5), nn.LSTMCell(5, 5)])
        self.log = [torch.zeros(())]

    def step(self, x, h):
        h = torch.tanh(self.inner(self, x, h))
        return h, (h,)


def several(s, x, h):
    g = h * 1
    g += x
    g *= 0.5
    g -= s.L(h)
    return g.clamp_(-2, 2)


def one_after_another(s, x, h):
    g = s.relu(s.L(h))
    y = g + x
    y.mul_(2).add_(h)
    return y


def ones(h, n):
    return torch.ones(len(h), n, dtype=h.dtype)


FUSED = {
    "+=, *=, -=, clamp_": several,
    "ReLU(inplace=True), one method after another": one_after_another,
    "RNNCell": lambda s, x, h: s.cells[0](x, h),
    "GRUCell": lambda s, x, h: s.cells[1](x, h),
    "LSTMCell": lambda s, x, h: s.cells[2](x, (h, x))[1],
    "a row of ones": lambda s, x, h: x + h * torch.ones(5, dtype=h.dtype),
    "a layer norm by ones": lambda s, x, h: x + F.layer_norm(h, (5,), torch.ones(5, dtype=h.dtype)),
    "a number in a tensor": lambda s, x, h: x + h * torch.tensor([0.3], dtype=h.dtype),
    "a number by a parameter": lambda s, x, h: x + h * (s.p * torch.tensor(2.0, dtype=h.dtype)),
    "a number by a matrix": lambda s, x, h: x + h @ (s.W * torch.full((5, 5), 0.5, dtype=h.dtype)),
    "a parameter where it is above zero": lambda s, x, h: x + h * torch.where(s.p > 0, s.p, 0.0),
    "a parameter by the batch": lambda s, x, h: x + h + s.p * ones(h, 5),
    "numbers of numbers": lambda s, x, h: x + h * (ones(h, 5) + 1),
    "addmm with a part of its bias": lambda s, x, h: torch.addmm(s.p, x, s.W, beta=0.5) + h,
    "a product with columns of zeros": lambda s, x, h: x + s.wide(torch.cat([h, 0 * ones(h, 3)], 1)),
    "a product with zeros before": lambda s, x, h: x + s.wide(torch.cat([h.new_zeros(len(h), 3), h], 1)),
    "a product with a column of twos": lambda s, x, h: x + s.one(torch.cat([h, ones(h, 1) + 1], 1)),
    "a product with ones between": lambda s, x, h: torch.cat([x[:, :2], torch.ones_like(h[:, :1]), h], 1) @ s.M,
    "a product of ones": lambda s, x, h: x + h + s.L(torch.ones_like(h)),
    "a mean over an inner dimension": lambda s, x, h: x + torch.stack([x, h, x], 1).mean(1),
}


def a_part(s, x, h):
    g = s.L(h) + x
    g[:, :2] += 1
    return g


def under_a_view(s, x, h):
    g = s.L(h) + x
    v = g[:, :1]
    g += 1
    return g + v


def a_part_of_ones(s, x, h):
    g = ones(h, 5)
    g[:, 0] = 0
    return x + h * g


def a_part_of_a_row(s, x, h):
    g = torch.ones(5, dtype=h.dtype)
    g[0] = 0
    return x + h * g


def by_its_data(s, x, h):
    g = s.L(h) + x
    g.data.mul_(2)
    return g


def a_log(s, x, h):
    s.log[0] += 1
    return x + h


PLAIN = {
    "a part of a value": (a_part, "writes in place with add_"),
    "a value under a view": (under_a_view, "writes in place with add_"),
    "a part of a tensor of ones": (a_part_of_ones, "writes in place with fill_"),
    "a part of a row of ones": (a_part_of_a_row, "after writing to it in place"),
    "a value by its data": (by_its_data, "writes in place with mul_"),
    "a tensor in a list": (a_log, "writes to a tensor that it has not made"),
    "an operation by its sign": (lambda s, x, h: x + h % 2, "the step uses remainder"),
    "Python's random numbers": (lambda s, x, h: x + h * random.random(), "(Python's random numbers)"),
    "numpy's random numbers": (lambda s, x, h: x + h * np.random.rand(), "(numpy's random numbers)"),
}


def found(cell, x, state):
    """Values and gradients, from the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    y, (h,) = elman.Recurrent(cell)(x, (state,))
    each = [x, state, *cell.parameters()]
    got = torch.autograd.grad(y.sum() + h.sin().sum(), each, allow_unused=True, materialize_grads=True)
    return [y, h, *got]


def sample(cell, rows):
    draw = torch.randn(2, 4, rows, 5, dtype=torch.float64)
    return cell.double(), draw[0].requires_grad_(), draw[1, 0].requires_grad_()


@pytest.mark.parametrize("rows", [1, 3, 5, 8])
@pytest.mark.parametrize("what", FUSED)
def test_it_is_fused_and_gives_what_the_plain_loop_gives(what, rows):
    torch.manual_seed(0)
    cell, x, state = sample(Written(FUSED[what]), rows)
    with elman.backend("fused"):
        got = found(cell, x, state)
    with elman.backend("plain"):
        want = found(cell, x, state)
    all_close(got, want)


@pytest.mark.parametrize("what", PLAIN)
def test_it_runs_plainly_and_says_why(what):
    elman.module.outside._said.clear()
    step, reason = PLAIN[what]
    cell, x, state = sample(Written(step), 3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = found(cell, x, state)
    assert len(said) == 1
    assert reason in str(said[0].message)
    assert "test_written.py:" in str(said[0].message) or "random" in reason
    cell.log[0].zero_()
    with elman.backend("plain"):
        all_close(got, found(cell, x, state))
    assert cell.log[0] == (4 if step is a_log else 0)


def test_what_autograd_refuses_is_refused():
    """A value that backward needs is written to: torch's own error, from the plain loop."""

    def step(s, x, h):
        g = torch.sigmoid(s.L(h))
        y = g * 2
        g += x
        return y + g

    cell, x, state = sample(Written(step), 3)
    with elman.backend("plain"), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found(cell, x, state)
    warnings.simplefilter("ignore", elman.BackendWarning)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found(cell, x, state)
