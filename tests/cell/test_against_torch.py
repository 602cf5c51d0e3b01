"""elman's cells with torch's weights compute what torch.nn.RNN, LSTM and GRU compute, values and gradients."""

import pytest
import torch
from torch import nn

import elman
from elman.cell import GRU, LSTM, Elman, ElmanReLU

PAIRS = {
    "tanh": (Elman, lambda *a, **k: nn.RNN(*a, nonlinearity="tanh", **k)),
    "relu": (ElmanReLU, lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)),
    "lstm": (LSTM, nn.LSTM),
    "gru": (GRU, nn.GRU),
}
SIZES = [(1, 1, 1, 1), (5, 3, 2, 1), (3, 1, 7, 65), (9, 4, 6, 8)]  # T, B, I, H


def copy(cell, theirs, suffix):
    """torch's weights into a cell. torch adds two biases; where the cell has one, it gets their sum."""
    get = lambda name: getattr(theirs, f"{name}_{suffix}").detach()  # noqa: E731
    with torch.no_grad():
        cell.U.weight.copy_(get("weight_ih"))
        cell.W.weight.copy_(get("weight_hh"))
        if cell.W.bias is None:
            cell.U.bias.copy_(get("bias_ih") + get("bias_hh"))
        else:
            cell.U.bias.copy_(get("bias_ih"))
            cell.W.bias.copy_(get("bias_hh"))


def gradients(module, x, y, state):
    """Gradients of one scalar that every output and every last state enters, and of x."""
    flat = [y, *(state if isinstance(state, (tuple, list)) else [state])]
    torch.manual_seed(1)
    scalar = sum((value * torch.randn_like(value)).sum() for value in flat)
    names, parameters = zip(*module.named_parameters())
    found = torch.autograd.grad(scalar, [x, *parameters])
    return found[0], dict(zip(names, found[1:]))


def same(got, want):
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", PAIRS)
def test_one_layer(kind, size, dtype):
    T, B, I, H = size  # noqa: E741
    torch.manual_seed(0)
    ours, theirs = PAIRS[kind]
    theirs = theirs(I, H).to(dtype)
    layer = elman.Recurrent(ours(I, H)).to(dtype)
    copy(layer.cell, theirs, "l0")
    x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    y, state = layer(x)
    want, last = theirs(x)
    last = [s[0] for s in (last if isinstance(last, tuple) else (last,))]
    same(y, want)
    same(tuple(state), tuple(last))
    dx, mine = gradients(layer, x, y, state)
    want_dx, wanted = gradients(theirs, x, want, last)
    scale = max(1.0, *(g.abs().max().item() for g in wanted.values()))
    same(dx, want_dx)
    pairs = {
        "cell.U.weight": "weight_ih_l0",
        "cell.W.weight": "weight_hh_l0",
        "cell.U.bias": "bias_ih_l0",
        "cell.W.bias": "bias_hh_l0",
    }
    for name, gradient in mine.items():
        same(gradient / scale, wanted[pairs[name]] / scale)


@pytest.mark.parametrize("kind", PAIRS)
def test_two_layers_and_both_directions_with_a_given_state(kind):
    torch.manual_seed(0)
    ours, make = PAIRS[kind]
    T, B, I, H = 6, 3, 4, 5  # noqa: E741
    x = torch.randn(T, B, I, dtype=torch.float64)
    for bidirectional in (False, True):
        theirs = make(I, H, num_layers=1 if bidirectional else 2, bidirectional=bidirectional).double()
        cells = [ours(I, H), ours(I if bidirectional else H, H)]
        for cell, suffix in zip(cells, ("l0", "l0_reverse") if bidirectional else ("l0", "l1")):
            copy(cell, theirs, suffix)
        net = (elman.Bidirectional if bidirectional else elman.Stacked)(*cells).double()
        count = len(cells[0].state_sizes)
        given = [torch.randn(2, B, H, dtype=torch.float64) for _ in range(count)]
        want, last = theirs(x, tuple(given) if count > 1 else given[0])
        y, state = net(x, tuple(tuple(g[i] for g in given) for i in range(2)))
        same(y, want)
        for k, value in enumerate(last if isinstance(last, tuple) else (last,)):
            same(torch.stack([layer[k] for layer in state]), value)


@pytest.mark.parametrize("kind", PAIRS)
def test_lengths_are_what_packing_means(kind):
    torch.manual_seed(0)
    ours, make = PAIRS[kind]
    theirs = make(4, 5, bidirectional=True).double()
    cells = [ours(4, 5), ours(4, 5)]
    for cell, suffix in zip(cells, ("l0", "l0_reverse")):
        copy(cell, theirs, suffix)
    net = elman.Bidirectional(*cells).double()
    x, lengths = torch.randn(7, 4, 4, dtype=torch.float64), torch.tensor([3, 7, 1, 5])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    want, last = theirs(packed)
    got, state = net(packed)
    same(got.data, want.data)
    assert torch.equal(got.batch_sizes, want.batch_sizes)
    y, again = net(x, lengths=lengths)
    same(y, nn.utils.rnn.pad_packed_sequence(want)[0])
    for k, value in enumerate(last if isinstance(last, tuple) else (last,)):
        same(torch.stack([direction[k] for direction in state]), value)
        same(torch.stack([direction[k] for direction in again]), value)
