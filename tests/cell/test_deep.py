"""Cells one above the other as one cell: the same as a stack of layers."""

import pytest
import torch
from tolerance import all_close, close

import elman
from elman.cell import GRU, LSTM, Attend, Conditioned, Deep, DropConnect, Elman, Variational, Zoneout

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


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
def test_cells_that_draw_do_not_share_their_masks(backend):
    torch.manual_seed(0)
    low = DropConnect(Variational(Zoneout(LSTM(4, 5), 0.3), output=0.5), "cell.cell.W.weight", 0.5)
    high = DropConnect(Variational(Zoneout(LSTM(5, 5), 0.3), output=0.5), "cell.cell.W.weight", 0.5)
    deep = Deep(low, high)
    x = torch.randn(T, B, 4)
    drawn = deep.draw(x)
    assert set(drawn) == deep.signature.context == set(deep.private)
    assert len(drawn) == 8
    with elman.backend(backend):
        y, _ = elman.Recurrent(deep)(x, **drawn)
        first = {name[:-1]: value for name, value in drawn.items() if name.endswith("1")}
        second = {name[:-1]: value for name, value in drawn.items() if name.endswith("2")}
        want, _ = elman.Recurrent(high)(elman.Recurrent(low)(x, **first)[0], **second)
    close(y, want)


def test_cells_that_prepare_do_not_share_what_they_made():
    torch.manual_seed(0)
    cells = [Attend(GRU(4, 4), 6, "additive", feeding=False) for _ in range(2)]
    memory = torch.randn(B, 7, 6)
    x = torch.randn(T, B, 4)
    y, _ = elman.Recurrent(Deep(*cells))(x, memory=memory)
    close(y, elman.Stacked(*cells)(x, memory=memory)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deep(), "needs at least one cell"),
        (lambda: Deep(GRU(3, 4), torch.nn.Linear(4, 5)), "takes cells; got a Linear"),
        (lambda: Deep(GRU(3, 4), LSTM(5, 6)), "LSTM reads 5 numbers; GRU below it gives 4"),
    ],
)
def test_cells_that_do_not_fit(make, message):
    with pytest.raises(elman.CellError, match=message):
        make()
