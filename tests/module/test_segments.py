"""Segments of `checkpoint` in few launches of a kernel, and one by one where they do not suit: the same gradients."""

import pytest
import torch
from cells import CELLS, context_of, irregular, make
from tolerance import all_close

import elman
from elman.compiler.emit import repeat, threads

pytest.importorskip("llvmlite")


@pytest.fixture
def launches(monkeypatch):
    """The number of launches so far."""
    made, parallel = [], threads.parallel
    monkeypatch.setattr(threads, "parallel", lambda *given: made.append(given) or parallel(*given))
    return made


class Shared(elman.Cell):
    """One matrix on the input and on the state, so that torch adds its two gradients."""

    def __init__(self):
        super().__init__(4, 4)
        self.W = torch.nn.Parameter(torch.randn(4, 4) * 0.4)

    def step(self, x, h):
        h = torch.tanh(x @ self.W + h @ self.W)
        return h, (h,)


def trained(layer, x):
    """Everything that a training step gives."""
    x = x.detach().requires_grad_()
    y, last = layer(x)
    (y.sin().sum() + sum(s.cos().sum() for s in last)).backward()
    found = [y, *last, x.grad, *(p.grad for p in layer.parameters())]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Elman", "PeepholeLSTM", "LayerNormLSTM"])
def test_many_segments_in_few_launches(kind, rows, reverse, launches):
    torch.manual_seed(0)
    width = 64 if rows < 9 else 4  # the gradient to x is of whole panels where it is made behind the kernel
    cell, x = getattr(elman.cell, kind)(width, 5).double(), torch.randn(203, rows, width, dtype=torch.float64)
    want = trained(elman.Recurrent(cell, reverse=reverse), x)
    del launches[:]
    got = trained(elman.Recurrent(cell, reverse=reverse, checkpoint=4), x)
    assert len(launches) <= 15  # of 51 segments, each of which ran twice and back
    all_close(got, want)


@pytest.fixture
def two_threads(threads):
    threads(2)


@pytest.fixture
def parts(monkeypatch):
    """Into how many parts of the batch each run of segments was divided."""
    made, run = [], repeat.run
    monkeypatch.setattr(repeat, "run", lambda parts, count: made.append(len(parts)) or run(parts, count))
    return made


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LayerNormLSTM", "OriginalGRU", "PeepholeLSTM", "Elman"])
def test_a_part_of_the_batch_on_a_thread_each(kind, rows, width, reverse, two_threads, parts):
    torch.manual_seed(0)
    cell = getattr(elman.cell, kind)(width, 9).double()
    x = torch.randn(rows, 47, width, dtype=torch.float64).transpose(0, 1)
    whole = trained(elman.Recurrent(cell, reverse=reverse), x)
    with elman.backend("plain"):
        want = trained(elman.Recurrent(cell, reverse=reverse), x)
    got = trained(elman.Recurrent(cell, reverse=reverse, checkpoint=4), x)
    assert parts[-1] == 2
    all_close(got, want)
    all_close(whole, want)


@pytest.mark.parametrize("kind", CELLS)
def test_parts_of_the_batch_have_their_own_context(kind, two_threads, parts):
    """With lengths, resets and a first state, and gradients to all that is given."""
    cell, x, state = make(kind, (23, 7, 4, 5))
    context = context_of(cell, x)
    lengths, reset = irregular(23, 7)
    leaves = [t for t in (x, *state, *context.values(), *cell.parameters()) if t.requires_grad]
    found = []
    for checkpoint in (None, 4):
        layer = elman.Recurrent(cell, checkpoint=checkpoint)
        y, last = layer(x, state, lengths=lengths, reset=reset, **context)
        loss = y.sin().sum() + sum(s.cos().sum() for s in last)
        found.append([y, *last, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
    all_close(*found)
    assert parts[-1] == 2


class Sum(elman.Cell):
    """Its gradient to x is that to the state before the step: a state of backward, all of whose steps go out."""

    def __init__(self):
        super().__init__(4, 4)

    def step(self, x, h):
        h = torch.tanh(h + x)
        return torch.sin(h), (h,)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_state_that_goes_out_of_parts_of_the_batch(reverse, two_threads, parts):
    torch.manual_seed(0)
    x = torch.randn(47, 7, 4, dtype=torch.float64)
    want = trained(elman.Recurrent(Sum(), reverse=reverse), x)
    got = trained(elman.Recurrent(Sum(), reverse=reverse, checkpoint=4), x)
    assert parts[-1] == 2
    all_close(got, want)


def test_one_part_where_rows_are_few_or_matrices_large(two_threads, parts):
    for rows, width in ((5, 4), (6, 300)):
        layer = elman.Recurrent(elman.cell.LSTM(width, width), checkpoint=3)
        layer(torch.randn(20, rows, width))[0].sum().backward()
        assert parts[-1] == 1


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("given", ["a weight used twice", "columns apart", "columns apart in the gradient"])
def test_segments_that_do_not_suit_run_one_by_one(given, rows, launches):
    torch.manual_seed(0)
    cell = (Shared() if given == "a weight used twice" else elman.cell.LSTM(4, 5)).double()
    x = (
        torch.randn(4, rows, 83, dtype=torch.float64).permute(2, 1, 0)
        if given == "columns apart"
        else torch.randn(83, rows, 4, dtype=torch.float64)
    )

    def through(layer):
        y, last = layer(x)
        y = y.transpose(0, 2).contiguous().transpose(0, 2) if "gradient" in given else y
        (y.sin().sum() + sum(s.cos().sum() for s in last)).backward()
        found = [y, *last, *(p.grad for p in layer.parameters())]
        layer.zero_grad()
        return found

    want = through(elman.Recurrent(cell))
    del launches[:]
    got = through(elman.Recurrent(cell, checkpoint=4))
    assert len(launches) > 21
    all_close(got, want)


def test_two_names_of_one_gradient_are_summed_once_each():
    class Biases(elman.Cell):
        def __init__(self):
            super().__init__(4, 4)
            self.W = torch.nn.Linear(4, 4)
            self.b = torch.nn.Parameter(torch.randn(4))

        def step(self, x, h):
            h = torch.tanh(x + self.W(h) + self.b)
            return h, (h,)

    torch.manual_seed(0)
    cell, x = Biases().double(), torch.randn(83, 9, 4, dtype=torch.float64)
    all_close(trained(elman.Recurrent(cell, checkpoint=4), x), trained(elman.Recurrent(cell), x))
