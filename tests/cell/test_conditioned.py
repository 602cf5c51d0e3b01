"""A vector conditions a sequence as input, as first state, or both -- by hand, and through layers."""

import pytest
import torch
from tolerance import all_close, close

import elman
from elman.cell import GRU, LSTM, Conditioned, Elman

T, B, I, H, C = 6, 4, 5, 4, 3  # noqa: E741


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def by_hand(cell, x, v):
    """The recurrence of Elman's cell within, with U = [U, R]."""
    inner = cell.cell
    U, b, W = inner.U.weight, inner.U.bias, inner.W.weight
    h = torch.zeros(x.shape[1], H, dtype=x.dtype)
    if cell.into != "input":
        h = torch.tanh(v @ cell.starts["h"].weight.t() + cell.starts["h"].bias)
    ys = []
    for t in range(len(x)):
        a = b + h @ W.t() + x[t] @ U[:, :I].t()
        h = torch.tanh(a if cell.into == "state" else a + v @ U[:, I:].t())
        ys.append(h)
    return torch.stack(ys)


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
@pytest.mark.parametrize("into", ["input", "state", "both"])
def test_the_equation(into, backend):
    torch.manual_seed(0)
    cell = Conditioned(Elman(I if into == "state" else I + C, H), C, into).double()
    x, v = drawn(T, B, I), drawn(B, C)
    with elman.backend(backend):
        y, _ = elman.Recurrent(cell)(x, context=v)
    want = by_hand(cell, x, v)
    close(y, want)
    leaves, weights = [x, v, *cell.parameters()], torch.randn_like(want)
    all_close(*(torch.autograd.grad((o * weights).sum(), leaves, retain_graph=True) for o in (y, want)))


def test_a_reset_begins_with_the_vector_again():
    torch.manual_seed(0)
    layer = elman.Recurrent(Conditioned(LSTM(I + C, H), C, "both").double())
    x, v = drawn(T, B, I), drawn(B, C)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2] = True
    close(layer(x, context=v, reset=reset)[0][2:], layer(x[2:], context=v)[0])


def test_a_given_state_takes_the_place_of_the_vectors():
    torch.manual_seed(0)
    layer = elman.Recurrent(Conditioned(GRU(I + C, H), C, "both").double())
    x, v = drawn(T, B, I), drawn(B, C)
    whole, last = layer(x, context=v)
    first, state = layer(x[:2], context=v)
    second, end = layer(x[2:], state, context=v)
    close(torch.cat([first, second]), whole)
    all_close(end, last)


def test_parts_nest_and_stack():
    torch.manual_seed(0)
    low = Conditioned(GRU(I + C, H), C)
    net = elman.Stacked(low, Conditioned(LSTM(H, H), C, "state"), elman.Bidirectional(GRU(H, 3), GRU(H, 3)))
    y, state = net(torch.randn(T, B, I), context=torch.randn(B, C))
    assert y.shape == (T, B, 6)
    assert len(state) == 3


def test_one_name_has_one_owner():
    with pytest.raises(elman.CellError, match="uses the name 'context' itself"):
        Conditioned(Conditioned(GRU(I + C, H), C), C, "state")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conditioned(GRU(5, 4), 3, "output"), elman.OptionError, "into must be one of input, state, both"),
        (lambda: Conditioned(GRU(5, 4), 0), elman.OptionError, "context_size must be a whole number"),
        (lambda: Conditioned(GRU(5, 4), 5), elman.CellError, r"I \+ 5 numbers; GRU takes 5"),
        (lambda: Conditioned(torch.nn.Linear(5, 4), 3), elman.CellError, "goes around an elman.Cell; got a Linear"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("into", ["input", "state"])
@pytest.mark.parametrize("shape", [(B, C + 1), (B + 1, C), (T, B, C), (C,)])
def test_a_vector_of_another_shape(into, shape):
    layer = elman.Recurrent(Conditioned(GRU(I + (C if into == "input" else 0), H), C, into))
    with pytest.raises(elman.InputError, match=r"context must be a tensor \(B=4, C=3\)"):
        layer(torch.randn(T, B, I), context=torch.randn(shape))
    with pytest.raises(elman.InputError, match="the step needs the context 'context'"):
        layer(torch.randn(T, B, I))
