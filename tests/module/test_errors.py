"""What a layer says when it is given the wrong thing: its words are part of it."""

import re
import sys

import pytest
import torch

import elman
from elman import CellError, InputError
from elman.cell import GRU, LSTM, Elman

X = torch.randn(5, 2, 3)
layer = elman.Recurrent(LSTM(3, 4))
zeros = (torch.zeros(2, 4), torch.zeros(2, 4))

GIVEN_WRONG = {
    "x of two dimensions": (lambda: layer(X[0]), "x must be a tensor of shape (T, B, I); got a tensor of shape (2, 3)"),
    "x of another width": (lambda: layer(torch.randn(5, 2, 7)), "LSTM takes inputs of width 3; got x of width 7"),
    "x a list": (lambda: layer([1.0]), "got a list"),
    "x of another type": (
        lambda: layer(X.double()),
        "x is of torch.float64, LSTM's weights are of torch.float32: give it torch.float32, or turn",
    ),
    "x of whole numbers": (
        lambda: layer(X.long()),
        "x is of torch.int64, LSTM's weights are of torch.float32: give it",
    ),
    "a state of whole numbers": (
        lambda: layer(X, (zeros[0].long(), zeros[1].long())),
        "state 'h' is of torch.int64, LSTM's weights are of torch.float32: give it torch.float32",
    ),
    "no steps": (lambda: layer(X[:0]), "at least one step and one row; got shape (0, 2, 3)"),
    "one state of two": (lambda: layer(X, (zeros[0],)), "state must be a tuple (h, c); got 1 of them"),
    "a bare tensor": (lambda: layer(X, zeros[0]), "state must be a tuple (h, c); got a tensor (2, 4)"),
    "torch's state shape": (
        lambda: layer(X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))),
        "state 'h' must be a tensor (B=2, 4); got a tensor (1, 2, 4)",
    ),
    "a width": (
        lambda: layer(X, (zeros[0], torch.zeros(2, 5))),
        "state 'c' must be a tensor (B=2, 4); got a tensor (2, 5)",
    ),
    "lengths too many": (lambda: layer(X, lengths=[5, 5, 5]), "lengths must be 2 whole numbers, one a row"),
    "lengths too long": (lambda: layer(X, lengths=[5, 6]), "lengths must lie in 0..5, the number of steps; got 5..6"),
    "lengths of fractions": (lambda: layer(X, lengths=torch.tensor([1.0, 2.0])), "lengths must be 2 whole numbers"),
    "reset of numbers": (
        lambda: layer(X, reset=torch.zeros(5, 2)),
        "reset must be a bool tensor of shape (5, 2), true where a sequence begins; got (5, 2) of torch.float32",
    ),
    "reset of a row": (
        lambda: layer(X, reset=torch.zeros(2, dtype=torch.bool)),
        "reset must be a bool tensor of shape (5, 2)",
    ),
    "unknown context": (
        lambda: layer(X, speed=1),
        "unknown argument 'speed': no step here takes any context",
    ),
    "unknown watch": (
        lambda: layer(X, watch=("gate",)),
        "watch: the step names no 'gate'; it has h, c, input_gate, forget_gate, candidate, output_gate",
    ),
    "a stack's state": (
        lambda: elman.Stacked(LSTM(3, 4), GRU(4, 4))(X, zeros[:1]),
        "Stacked: state must be a tuple of 2 states, one a layer; got 1 of them",
    ),
    "an empty stack": (lambda: elman.Stacked(torch.nn.Linear(3, 3)), "Stacked needs at least one cell or layer"),
    "batch_first inside": (
        lambda: elman.Stacked(elman.Recurrent(LSTM(3, 4), batch_first=True)),
        "batch_first belongs on the outermost layer: give it to Stacked",
    ),
    "one cell for two": (lambda: elman.Bidirectional(*[GRU(3, 4)] * 2), "the two directions need a cell each"),
    "layers for cells": (lambda: elman.Bidirectional(layer, layer), "Bidirectional takes two cells"),
    "packed and lengths": (
        lambda: layer(torch.nn.utils.rnn.pack_sequence([X[:, 0]]), lengths=[5]),
        "a PackedSequence carries its own lengths",
    ),
}


@pytest.mark.parametrize("what", GIVEN_WRONG)
def test_input_errors(what):
    call, words = GIVEN_WRONG[what]
    with pytest.raises(InputError, match=re.escape(words)):
        call()


def cell_with(step, **sizes):
    kind = type("Mine", (elman.Cell,), {"step": step})
    cell = kind(3, 4)
    cell.state_sizes.update(sizes)
    return cell


BROKEN = {
    "no step": (lambda: elman.Cell(3, 4), "Cell has no step: define step(self, x, <states>)"),
    "a size of zero": (lambda: GRU(0, 4), "GRU: input_size must be a whole number of at least 1, got 0"),
    "a size of a fraction": (lambda: GRU(3, 4.0), "hidden_size must be a whole number of at least 1, got 4.0"),
    "star arguments": (lambda: cell_with(lambda self, x, *states: (x, states)), "it cannot take *args or **kwargs"),
    "no input": (lambda: cell_with(lambda self: None), "a step takes x and then its states"),
    "no cell": (lambda: elman.Recurrent(torch.nn.Linear(3, 4)), "Recurrent takes an elman.Cell, got a Linear"),
    "only y": (
        lambda: run(lambda self, x, h: h),
        "must return y, (h,) -- a tensor and a tuple of new states; got a tensor (2, 4)",
    ),
    "a bare state": (
        lambda: run(lambda self, x, h: (h, h)),
        "a tensor and a tuple of new states; got a tensor (2, 4), a tensor (2, 4)",
    ),
    "a state lost": (lambda: run(lambda self, x, h, c: (h, (h,))), "takes 2 states (h, c) but returned 1"),
    "a width changed": (
        lambda: run(lambda self, x, h: (x, (x,))),
        "state 'h' goes in as a tensor (2, 4) and comes out as a tensor (2, 3); a state keeps its shape",
    ),
    "y no tensor": (
        lambda: run(lambda self, x, h: (1.0, (h,))),
        "must return a tensor y of shape (B=2, width); got a float",
    ),
    "an in-place step": (lambda: run(in_place), "changes its input or its state in place; write h = h + x"),
    "y of no batch": (lambda: run(lambda self, x, h: (h.sum(0), (h,))), "must return a tensor y of shape (B=2, width)"),
    "a hidden name": (lambda: run(lambda self, x, _h: (_h, (_h,))), "cannot begin with an underscore; rename '_h'"),
    "watched twice": (
        lambda: elman.Recurrent(cell_with(twice))(X, watch=("a",)),
        "watch('a') was called twice in one step",
    ),
}


def run(step):
    return elman.Recurrent(cell_with(step))(X)


def in_place(self, x, h):
    h += 1
    return h, (h,)


def twice(self, x, h):
    self.watch("a", h)
    self.watch("a", h)
    return h, (h,)


@pytest.mark.parametrize("what", BROKEN)
def test_cell_errors(what):
    call, words = BROKEN[what]
    with pytest.raises(CellError, match=re.escape(words)):
        call()


def test_context_that_a_step_needs():
    def step(self, x, h, *, gain):
        return h * gain, (h,)

    with pytest.raises(InputError, match=re.escape("the step needs the context 'gain': pass gain=... to the layer")):
        run(step)
    assert elman.Recurrent(cell_with(step))(X, gain=2.0)[0].shape == (5, 2, 4)


def test_scan_takes_the_state_of_its_step():
    with pytest.raises(InputError, match=re.escape("state must be a tuple (h, c); got 1 of them")):
        elman.scan(lambda x, h, c: (x, (h, c)), X, (torch.zeros(2, 4),))


def test_an_error_inside_a_step_leaves_no_watching_behind():
    def step(self, x, h):
        self.watch("a", h)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        elman.Recurrent(cell_with(step))(X, watch=("a",))
    cell = Elman(3, 4)
    cell.watch("a", X)
    cell.watch("a", X)


class Masked(elman.Cell):
    """A cell with a context that fits the batch or does not."""

    def step(self, x, h, *, m):
        h = h * m + x.mean()
        return h, (h,)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors have no notes before Python 3.11")
def test_a_steps_own_error_tells_what_the_step_was_given():
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        elman.Recurrent(Masked(3, 4))(X, m=torch.ones(5, 4))
    (note,) = caught.value.__notes__
    assert note.startswith(
        "Masked.step was given x: a tensor (2, 3), h: a tensor (2, 4), m: a tensor (5, 4); a context"
    )
    assert "of 2 rows goes by rows" in note


def test_a_cell_that_was_never_begun_is_refused():
    class Bare(Masked):
        def __init__(self):
            self.width = 4

    with pytest.raises(CellError, match="Bare has no sizes: call super"):
        elman.Recurrent(Bare())
