"""Cells one above the other as one cell: the same as a stack of layers."""

import pytest
import torch
from tolerance import all_close, close

import elman
from elman.cell import GRU, LSTM, Attend, Conditioned, Deep, Elman

T, B = 6, 3


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
def test_it_is_a_stack(backend):
    torch.manual_seed(0)
    cells = LSTM(4, 5), GRU(5, 3), Elman(3, 7)
    deep, stack = Deep(*cells).double().learn_initial(), elman.Stacked(*cells)
    x = torch.randn(T, B, 4, dtype=torch.float64, requires_grad=True)
    lengths, reset = torch.tensor([6, 2, 4]), torch.rand(T, B) < 0.3
    with elman.backend(backend):
        y, last = elman.Recurrent(deep)(x, lengths=lengths, reset=reset)
        want, states = stack(x, lengths=lengths, reset=reset)
    close(y, want)
    all_close(last, [s for state in states for s in state])
    assert last._fields == ("h1", "c1", "h2", "h3")
    leaves = [x, *deep.parameters()]
    all_close(*(torch.autograd.grad(o.square().sum(), leaves, retain_graph=True) for o in (y, want)))


def test_a_deep_decoder_with_attention_is_fused():
    torch.manual_seed(0)
    cell = Conditioned(Attend(Deep(LSTM(4 + 5, 5), LSTM(5, 5)), 6, "additive"), 2, "state")
    context = {"memory": torch.randn(B, 7, 6), "context": torch.randn(B, 2)}
    found = elman.explain(elman.Recurrent(cell), torch.randn(T, B, 4), **context)
    assert set(found.backends) == {"fused"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deep(), "needs at least one cell"),
        (lambda: Deep(GRU(3, 4), torch.nn.Linear(4, 5)), "takes cells; got a Linear"),
        (lambda: Deep(GRU(3, 4), LSTM(5, 6)), "LSTM reads 5 numbers; GRU below it gives 4"),
        (lambda: Deep(elman.cell.Zoneout(GRU(3, 4), 0.1), elman.cell.Zoneout(GRU(4, 4), 0.1)), "two cells have"),
    ],
)
def test_cells_that_do_not_fit(make, message):
    with pytest.raises(elman.CellError, match=message):
        make()
