"""Steps that pass things through or use one matrix twice, and context in another order: against the plain loop."""

import pytest
import torch
from tolerance import close
from torch import nn

import elman


class Passed(elman.Cell):
    """A state that becomes a parameter, which a product ahead of the loop reads too."""

    def __init__(self):
        super().__init__(4, 4)
        self.V, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

    def step(self, x, h):
        self.watch("z", torch.where(x > 0, self.b, x) @ self.V)
        return h, (torch.where(x > 0, self.b, self.b),)


class Twice(elman.Cell):
    """One matrix in two products, neither of whose gradients needs a state."""

    def __init__(self):
        super().__init__(4, 4)
        self.W = nn.Linear(4, 4, bias=False)

    def step(self, x, h):
        self.watch("z", x)
        h = torch.tanh(x + h * 0.5)
        return self.W(torch.relu(self.W(h))), (h,)


class Tied(elman.Cell):
    """The same with one of the products transposed, and one of the input."""

    def __init__(self):
        super().__init__(4, 4)
        self.W = nn.Parameter(torch.randn(4, 4) * 0.4)

    def step(self, x, h):
        self.watch("z", h)
        return torch.relu(h @ self.W.t()) @ self.W, (x @ self.W,)


class Same(elman.Cell):
    """Two states that become the same, each of them watched as it was before."""

    def __init__(self):
        super().__init__(4, 4)
        self.state_sizes = {"h": 4, "c": 4}
        self.V = nn.Parameter(torch.randn(4, 4) * 0.4)

    def step(self, x, h, c):
        self.watch("z", torch.cat([h, c], -1))
        self.watch("before", h)
        self.watch("other", c)
        new = torch.tanh(x + h * 0.3 + c @ self.V)
        return new, (new, new)


class Sums(elman.Cell):
    """Products that are only added, beside one whose sum is read as well; one state is neither output nor watched."""

    def __init__(self):
        super().__init__(4, 4)
        self.state_sizes = {"h": 4, "c": 4}
        self.A, self.B, self.C = (nn.Parameter(torch.randn(4, 4) * 0.4) for _ in range(3))
        self.out = nn.Linear(4, 4)

    def step(self, x, h, c):
        part = h @ self.A + x @ self.B
        self.watch("z", part)
        new = torch.tanh(c @ self.C + 0.5 + x @ self.C + (part + h @ self.B))
        return self.out(new) + x @ self.A, (new, torch.sin(part + c @ self.A + new @ self.C))


class Stays(elman.Cell):
    """A state that stays as it is, and leaves as the output, beside one that reads it."""

    def __init__(self):
        super().__init__(4, 4)
        self.state_sizes = {"h": 4, "c": 4}
        self.W = nn.Linear(4, 4)

    def step(self, x, h, c):
        self.watch("z", c)
        return h, (h, torch.tanh(self.W(h) + c + x))


class Sliced(elman.Cell):
    """A state that becomes columns of the input, which leave as the output, beside one that reads it."""

    def __init__(self):
        super().__init__(4, 4)
        self.state_sizes = {"h": 2, "c": 4}
        self.W = nn.Linear(2, 4)

    def step(self, x, h, c):
        self.watch("z", torch.cat([h, c], -1))
        return x[:, 1:3], (x[:, 1:3], torch.tanh(self.W(h) + c))


def found(cell, rows, watch, **options):
    """Everything that a call gives, and all gradients."""
    torch.manual_seed(1)
    x = torch.randn(5, rows, 4, requires_grad=True)
    state = tuple(torch.randn(rows, size).requires_grad_() for size in cell.state_sizes.values())
    y, last, seen = elman.Recurrent(cell, **options)(x, state, watch=watch)
    (y.cos() + sum(value.sin().sum(-1, keepdim=True) for value in seen.values())).sum().backward()
    gradients = [value.grad for value in (x, *state, *cell.parameters())]
    cell.zero_grad()
    return [y, *last, *seen.values(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"reverse": True}, {"checkpoint": 1}, {"checkpoint": 2}, {"checkpoint": 3, "reverse": True}],
    ids=["plain", "reverse", "checkpoint", "segments", "segments in reverse"],
)
@pytest.mark.parametrize("kind", [Passed, Twice, Tied, Same, Sums, Stays, Sliced])
def test_rare_steps(kind, options, rows):
    torch.manual_seed(0)
    cell = kind()
    watch = ("before", "other") if kind is Same else ("z",)
    with elman.backend("plain"):
        want = found(cell, rows, watch, **options)
    with elman.backend("fused"):
        got = found(cell, rows, watch, **options)
    assert len(got) == len(want)
    for one, other in zip(got, want):
        close(one, other, "value")


def test_context_in_another_order_is_found_by_name():
    """Strides are compared name by name, not in the order in which a caller gives them."""

    def step(x, h, *, a, b):
        h = torch.tanh(x + h * a + b)
        return h, (h,)

    x, state = torch.randn(5, 8, 4), torch.zeros(8, 4)
    whole, row = torch.randn(8, 4), torch.randn(4).expand(8, 4)
    with torch.no_grad(), elman.backend("fused"):
        elman.scan(step, x, (state,), a=whole, b=row)
        y, _ = elman.scan(step, x, (state,), b=whole, a=row)
    with torch.no_grad(), elman.backend("plain"):
        want, _ = elman.scan(step, x, (state,), a=row, b=whole)
    close(y, want, "y")


def test_a_chain_of_a_thousand_operations():
    """No pass and no emitter calls itself as deep as a step is."""

    def step(x, h):
        for i in range(500):
            h = h * 0.99 + (torch.tanh(x) if i % 2 else x)
        return h, (h,)

    found = []
    for name in ("fused", "plain"):
        torch.manual_seed(0)
        x, state = torch.randn(3, 2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
        with elman.backend(name):
            y, _ = elman.scan(step, x, state)
        found.append((y, *torch.autograd.grad(y.sum(), [x, state])))
    for one, other in zip(*found):
        close(one, other, "value")
