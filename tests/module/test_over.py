"""Gradients that are written over what forward saved: the same to the bit, and never where it is needed once more."""

import threading
from contextlib import suppress

import pytest
import torch
from cells import CELLS, context_of, make
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import elman
from elman.compiler.emit import threads as kernel_threads
from elman.compiler.emit.over import lying_over, side_by_side

pytest.importorskip("llvmlite")
WIDE = (7, 16, 4, 8)  # T, B, I, H


@pytest.fixture
def lying(monkeypatch):
    """How many values the calls that were worked out have put over others."""
    counts = []

    def counted(*given):
        found = lying_over(*given)
        counts.append(len(found))
        return found

    monkeypatch.setattr("elman.compiler.emit.places.lying_over", counted)
    return counts


def trained(layer, x, keep=False, **context):
    """The gradients of a training step, and its graph."""
    loss = layer(x, **context)[0].sin().sum()
    return again(loss, layer, x, keep), loss


def again(loss, layer, x, keep=False):
    leaves = [x, *layer.parameters()]
    return torch.autograd.grad(loss, leaves, retain_graph=keep, materialize_grads=True)


def same(found, want):
    return all(map(torch.equal, found, want))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", CELLS)
def test_the_same_gradients_whether_the_graph_is_kept_or_not(kind, reverse):
    cell, x, _ = make(kind, WIDE, torch.float32)
    layer, context = elman.Recurrent(cell, reverse=reverse, strict=True), context_of(cell, x)
    for _ in range(2):  # the second time with memory that has been written over
        want, loss = trained(layer, x, keep=True, **context)
        assert same(again(loss, layer, x, keep=True), want)  # nothing was, while the graph is kept
        assert same(again(loss, layer, x), want)
        assert same(trained(layer, x, **context)[0], want)


@pytest.mark.parametrize(("kind", "times"), [("lstm", 1), ("gru", 1), ("peephole-lstm", 1), ("elman", 0)])
def test_which_lie_over_others(kind, times, lying):
    cell, x, _ = make(kind, WIDE, torch.float32)
    trained(elman.Recurrent(cell), x)
    assert lying == [0, times]  # nothing forward
    trained(elman.Recurrent(cell), x, keep=True)
    assert sum(lying) == times


def test_in_segments_each_replay_is_written_over(lying):
    cell, x, _ = make("lstm", (80, 16, 4, 8), torch.float64)
    want, _ = trained(elman.Recurrent(cell), x)
    del lying[:]
    found, _ = trained(elman.Recurrent(cell, checkpoint=9), x)
    assert sum(lying) >= 2  # the last segment's, and those of replays
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-11)


def test_between_forward_and_backward_a_checkpoint_holds_states_before_segments_alone():
    cell, x, _ = make("lstm", (80, 16, 4, 8), torch.float32)
    y, _ = elman.Recurrent(cell, checkpoint=20)(x)
    held = [t.shape for t in y.grad_fn.saved_tensors if t.dim() == 3 and t.shape not in (x.shape, y.shape)]
    assert held == [(4, 16, 8)] * 2  # h and c, before each of four
    assert y.grad_fn.lease is None


class ReadsGate(elman.Cell):
    """The gate goes through a matrix, too, whose gradient reads it of all steps when the kernel is over."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U, self.V = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)

    def step(self, x, h):
        gate = torch.sigmoid(self.U(x) + h)
        h = h * gate + torch.tanh(self.V(gate))
        return h, (h,)


class ReadsLate(elman.Cell):
    """The gate's gradient is known before all else that reads the gate: it is read by a later sweep again."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U, self.W = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)

    def step(self, x, h):
        inner = torch.sigmoid(self.U(x) + self.W(h))
        h = torch.softmax(inner * h, -1) + inner
        return h, (h,)


@pytest.mark.parametrize("kind", [ReadsGate, ReadsLate])
def test_what_is_read_once_more_is_not_written_over(kind):
    torch.manual_seed(0)
    layer, x = elman.Recurrent(kind(4, 8).double(), strict=True), torch.randn(7, 16, 4, dtype=torch.float64)
    x.requires_grad_()
    found, _ = trained(layer, x)
    with elman.backend("plain"):
        want, _ = trained(layer, x)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-11)


def test_what_hooks_keep_is_not_written_over():
    held = []
    cell, x, _ = make("lstm", WIDE, torch.float32)
    layer = elman.Recurrent(cell)
    with saved_tensors_hooks(lambda t: held.append(t) or len(held) - 1, lambda i: held[i]):
        loss = layer(x)[0].sin().sum()
    before = [t.clone() for t in held]
    again(loss, layer, x)
    torch.testing.assert_close(held, before, rtol=0, atol=0, equal_nan=True)


def test_a_backward_that_ended_halfway_is_not_run_again(monkeypatch):
    """Of nodes that ran before this one torch itself knows that they are gone; here there are none."""
    cell, x, _ = make("lstm", WIDE, torch.float32)
    y = elman.Recurrent(cell)(x)[0]

    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(kernel_threads, "parallel", full)
        with pytest.raises(MemoryError):
            y.backward(torch.ones_like(y))
    with pytest.raises(RuntimeError, match="run forward again"):
        y.backward(torch.ones_like(y))


def test_what_another_thread_reads_is_not_written_over(lying):
    cell, x, _ = make("lstm", WIDE, torch.float32)
    layer = elman.Recurrent(cell)
    want, loss = trained(layer, x, keep=True)
    node = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    with node.saved.reading():
        assert same(again(loss, layer, x, keep=True), want)
        assert same(again(loss, layer, x), want)
    assert sum(lying) == 0


def test_threads_that_share_a_graph_get_right_gradients_or_an_error():
    """torch asks that all of them keep it; here one does not."""
    cell, x, _ = make("lstm", (200, 16, 4, 32), torch.float32)
    layer = elman.Recurrent(cell)
    want, _ = trained(layer, x)
    for _ in range(20):
        y = layer(x)[0]
        given = y.detach().cos()  # no node is ahead of the layer's own
        found = []

        def work(keep, y=y, given=given, found=found):
            with suppress(RuntimeError):
                found.append(torch.autograd.grad(y, [x, *layer.parameters()], given, retain_graph=keep))

        threads = [threading.Thread(target=work, args=(keep,)) for keep in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found
        assert all(same(each, want) for each in found)


def test_columns_must_lie_beside_each_other_in_rows_that_are_wide_enough():
    rows = (24, 12, 1)
    at = {(rows, 40): "c", (rows, 36): "b", (rows, 32): "a"}
    assert side_by_side(at, 12, 4) == ["a", "b", "c"]
    assert side_by_side(at, 16, 4) == []  # one too few
    assert side_by_side({**at, (rows, 44): "d"}, 16, 4) == []  # the next row's
    assert side_by_side({(rows, 32): "a", (rows, 40): "c"}, 8, 4) == []  # apart
    assert side_by_side({(rows, 32): "a", ((40, 20, 1), 36): "b"}, 8, 4) == []  # other rows
