"""Wide plans that do products without state for all steps at once, as with large matrices: against the oracle."""

import oracle
import pytest
import torch
from cells import context_of, irregular, make
from oracle import gradients
from tolerance import all_close, close

import elman
from elman.compiler.emit import cpu

SIZE = (7, 4, 3, 5)  # T, B, I, H: four rows for one thread
KINDS = ("elman", "lstm", "gru", "uneven", "jumpy", "lstm-learned", "attend-additive", "decoder", "row-of-a-grid")


@pytest.fixture
def plans(monkeypatch, threads):
    """The plans of all kernels made, every matrix taken to be large, on one thread."""
    made, plan = [], cpu.plan

    def noted(*given):
        made.append(plan(*given))
        return made[-1]

    monkeypatch.setattr(cpu, "LARGE", 0)
    monkeypatch.setattr(cpu, "plan", noted)
    threads(1)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_values_and_gradients_are_the_oracles(kind, reverse, plans):
    cell, x, state = make(kind, SIZE)
    context, (lengths, reset) = context_of(cell, x), irregular(*SIZE[:2])
    with elman.backend("fused"):
        y, last = elman.Recurrent(cell, reverse=reverse)(x, state, lengths=lengths, reset=reset, **context)
        found = gradients(cell, x, state, context, y, last)
    want, ends = oracle.run(cell, x, state, lengths, reset, reverse, cell.output_size, **context)
    close(y, want, "y")
    all_close(last, ends, "last state")
    all_close(found, gradients(cell, x, state, context, want, ends), "gradient")
    assert plans
    assert all(plan.wide and plan.hoisted for plan in plans)


def test_the_product_of_x_is_ahead_and_its_gradient_behind(plans):
    cell, x, state = make("lstm", SIZE)
    y, _ = elman.Recurrent(cell, strict=True)(x, state)
    y.sum().backward()
    forward, back = plans
    assert [n.op.name for n in forward.ahead].count("MATMUL") == 1
    assert [n.op.name for n in back.behind].count("MATMUL") == 1
    assert [n.op.name for n in back.behind].count("OUTER") == 2


@pytest.mark.parametrize(("rows", "width", "hoisted"), [(12, 512, True), (13, 512, False), (12, 128, False)])
def test_few_rows_and_large_matrices_are_hoisted(rows, width, hoisted, monkeypatch):
    made, plan = [], cpu.plan
    monkeypatch.setattr(cpu, "plan", lambda *given: made.append(plan(*given)) or made[-1])
    x = torch.randn(2, rows * torch.get_num_threads(), width)
    with torch.no_grad():
        elman.Recurrent(elman.cell.LSTM(width, width), strict=True)(x)
    (found,) = made
    assert (found.wide, found.hoisted) == (True, hoisted)


class Beside(elman.Cell):
    """Products of x and of h that wait for no state, some of them of what torch computes beside the kernel."""

    def __init__(self):
        super().__init__(5, 7)
        self.A, self.B, self.P, self.Q = (torch.nn.Linear(n, 7) for n in (5, 5, 7, 7))
        self.R = torch.nn.Linear(7, 7)

    def step(self, x, h):
        h = torch.tanh(self.B(x.abs()) + self.A(x) + self.R(h))
        return self.P(h) + self.Q(h).sigmoid(), (h,)


LAYOUTS = {
    "batch first": lambda T, B, K: torch.randn(B, T, K).transpose(0, 1),
    "every second step": lambda T, B, K: torch.randn(2 * T, B, K)[::2],
    "a part of the batch": lambda T, B, K: torch.randn(T, 2 * B, K)[:, :B],
    "a part of the columns": lambda T, B, K: torch.randn(T, B, K + 3)[..., 1:-2],
    "columns first": lambda T, B, K: torch.randn(K, T, B).permute(1, 2, 0),
    "one step again and again": lambda T, B, K: torch.randn(1, B, K).expand(T, B, K),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("B", "count"), [(1, 1), (2, 1), (4, 2)])
def test_uneven_rows_reach_what_torch_computes_beside(layout, B, count, threads):
    threads(count)
    torch.manual_seed(0)
    cell, x, dy = Beside(), LAYOUTS[layout](6, B, 5), LAYOUTS[layout](6, B, 7)
    x.requires_grad_()
    found = []
    for name in ("fused", "plain"):
        with elman.backend(name):
            torch.full((4096,), torch.nan)  # what memory may hold that is used again
            y, _ = elman.Recurrent(cell)(x)
            found.append([y, *torch.autograd.grad(y, [x, *cell.parameters()], dy)])
    all_close(*found, "values and gradients")


class Largest(elman.Cell):
    """The largest of what torch computes ahead of the kernel, and backward computes again."""

    def __init__(self):
        super().__init__(33, 65)
        self.W = torch.nn.Linear(33, 65)

    def step(self, x, h):
        v = x.sigmoid() * x
        h = 0.5 * h + v.amax(-1, keepdim=True) - v.amin(-1, keepdim=True)
        return self.W(v), (h,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_is_found_again_in_backward(dtype, threads):
    threads(1)
    torch.manual_seed(0)
    cell, x = Largest().to(dtype), torch.randn(6, 2, 33, dtype=dtype, requires_grad=True)
    found = []
    for name in ("fused", "plain"):
        with elman.backend(name):
            y, (h,) = elman.Recurrent(cell)(x)
            found.append(torch.autograd.grad(y.sum() + h.sum(), [x, *cell.parameters()]))
    all_close(*found, "gradients")
