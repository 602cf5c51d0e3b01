"""Narrow plans in which every thread has columns of its own, of gates and states too: against the oracle."""

import oracle
import pytest
import torch
from cells import irregular, make
from oracle import gradients
from tolerance import all_close, close
from torch import nn

import elman
from elman.compiler.emit import cpu
from elman.compiler.emit import plan as planning
from elman.compiler.emit.columns import worthwhile
from elman.compiler.emit.flow import Flow
from elman.compiler.emit.target import NoTarget, host

try:
    PANEL = Flow(host(), "f64").panel
except NoTarget as reason:
    pytest.skip(str(reason), allow_module_level=True)

KINDS = ("elman", "lstm", "gru", "min-gru", "lstm-learned", "peephole-lstm", "original-gru")


class Chained(elman.Cell):
    """Two products, the second of a value that no output keeps; a number a row that two sweeps need; a wide state."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"h": hidden_size, "both": 2 * hidden_size}
        self.first, self.second = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, 4 * hidden_size)

    def step(self, x, h, both):
        pace = torch.sigmoid(x[:, :1] * x[:, 1:2])
        inner = torch.tanh(self.first(h) + pace)
        a, b, c, d = self.second(inner).chunk(4, -1)
        both = torch.cat([torch.sigmoid(a), pace * b], -1) + 0.5 * both
        h = torch.tanh(c * both[:, self.hidden_size :] + d * both[:, : self.hidden_size])
        return h * pace, (h, both)


class LowRank(elman.Cell):
    """A product whose left side is a product, and two of the same state in different phases."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.down, self.up, self.late = (nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(3))

    def step(self, x, h):
        inner = self.up(self.down(h)) + x[:, :1]
        h = torch.tanh(self.late(h) * inner) + self.late(torch.sigmoid(inner))
        return h, (h,)


class Late(elman.Cell):
    """A state whose next value is written before a product reads the one before, which others may be slow to read."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"h": hidden_size, "g": hidden_size}
        self.keep = nn.Parameter(torch.randn(hidden_size))
        self.one, self.two = (nn.Linear(hidden_size, 4 * hidden_size, bias=False) for _ in range(2))

    def step(self, x, h, g):
        inner = torch.tanh(h * self.keep + x[:, :1])
        i, f, o, z = (self.one(inner) + self.two(g)).chunk(4, -1)
        h = torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * z + f)
        return h, (h, 0.5 * g + inner)


OWN = {"chained": Chained, "low-rank": LowRank, "late": Late}


@pytest.fixture(params=[False, True], ids=["worthwhile", "always"])
def plans(request, monkeypatch):
    """The plans of all kernels made; with columns apart where it pays, or wherever it can be."""
    made, plan = [], cpu.plan
    monkeypatch.setattr(cpu, "plan", lambda *given: made.append(plan(*given)) or made[-1])
    if request.param:
        monkeypatch.setattr(planning, "worthwhile", lambda inside: True)
    return made


def always():
    """Columns are apart wherever they can be."""
    return planning.worthwhile is not worthwhile


def cell_of(kind, hidden_size):
    if kind in OWN:
        torch.manual_seed(0)
        return OWN[kind](3, hidden_size).double()
    return make(kind, (1, 1, 3, hidden_size))[0]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (9, 1)], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", [*KINDS, *OWN])
def test_values_and_gradients_are_the_oracles(kind, reverse, size, count, threads, plans):
    threads(count)
    T, B = size
    cell = cell_of(kind, 6 * PANEL)
    x = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
    state = tuple(s.detach().clone().normal_().requires_grad_() for s in cell.initial(B))
    lengths, reset = irregular(T, B) if T > 2 else (None, None)
    with elman.backend("fused"):
        y, last = elman.Recurrent(cell, reverse=reverse)(x, state, lengths=lengths, reset=reset)
        found = gradients(cell, x, state, {}, y, last)
    want, ends = oracle.run(cell, x, state, lengths, reset, reverse, cell.output_size)
    close(y, want, "y")
    all_close(last, ends, "last state")
    all_close(found, gradients(cell, x, state, {}, want, ends), "gradient")
    if always():
        assert plans[0].period == 6 * PANEL


def test_columns_are_apart_where_threads_then_read_less_of_each_other(plans):
    cell = elman.cell.LSTM(3, 2 * PANEL).double()
    y, _ = elman.Recurrent(cell)(torch.randn(2, 1, 3, dtype=torch.float64))
    y.sum().backward()
    forward, back = [plan.period for plan in plans]
    assert forward == 2 * PANEL
    assert back == (2 * PANEL if always() else 0)  # its left sides are four times as wide as its products


def test_columns_that_do_not_divide_evenly_stay_together(threads, plans):
    threads(2)
    for width, period in ((3 * PANEL, 0), (4 * PANEL, 4 * PANEL), (4 * PANEL + 1, 0)):
        with torch.no_grad():
            elman.Recurrent(elman.cell.LSTM(3, width).double())(torch.randn(2, 1, 3, dtype=torch.float64))
        assert plans.pop().period == period
