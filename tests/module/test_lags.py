"""The gradient against lag: beside finite differences, and where it must fade by a known factor."""

import pytest
import torch
from torch import nn

import elman
from elman.cell import GRU, LSTM, Elman

T, B = 20, 3


def square(y):
    return (y * torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)).sum(-1).square()


def numbers(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def flat(state):
    return [state] if isinstance(state, torch.Tensor) else [v for part in state for v in flat(part)]


@torch.no_grad()
def by_differences(layer, x, lag, step=1e-6):
    """The same norm from the loss alone: every number of the state moved up and down."""
    _, state = layer(x[: T - lag])
    total = torch.zeros(B, dtype=x.dtype)
    for value in flat(state):
        for i in range(value.shape[1]):
            ends = []
            for sign in (1, -1):
                value[:, i] += sign * step
                ends.append(square(layer(x[T - lag :], state)[0][-1]))
                value[:, i] -= sign * step
            total += ((ends[0] - ends[1]) / (2 * step)).square()
    return total.sqrt().mean().item()


@pytest.mark.parametrize(
    "build",
    [
        lambda: elman.Recurrent(Elman(2, 4)),
        lambda: elman.Recurrent(LSTM(2, 4)),
        lambda: elman.Stacked(GRU(2, 4), nn.Linear(4, 3), LSTM(3, 4)),
    ],
)
def test_it_equals_finite_differences(build):
    torch.manual_seed(0)
    layer, x = build().double(), numbers(T, B, 2)
    found = elman.gradient_by_lag(layer, x, square)
    assert list(found) == [1, 2, 4, 8, 16]
    for lag, norm in found.items():
        assert norm == pytest.approx(by_differences(layer, x, lag), rel=1e-4)
    frozen = build().double().requires_grad_(False)
    frozen.load_state_dict(layer.state_dict())
    assert elman.gradient_by_lag(frozen, x, square) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("radius", [0.3, 0.7, 0.95])
def test_in_a_vanilla_network_it_fades_by_the_spectral_radius_at_each_step(radius):
    """W is a rotation times the radius and inputs are so small that tanh is the identity: the factor is exact."""
    torch.manual_seed(0)
    layer = elman.Recurrent(Elman(2, 6)).double()
    with torch.no_grad():
        nn.init.orthogonal_(layer.cell.W.weight)
        layer.cell.W.weight *= radius
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    found = elman.gradient_by_lag(layer, numbers(70, B, 2, scale=1e-6), lambda y: y.sum(-1))
    for lag in (2, 4, 8, 16, 32, 64):
        assert found[lag] / found[1] == pytest.approx(radius ** (lag - 1), rel=1e-6)
    saturated = elman.gradient_by_lag(layer, numbers(70, B, 2, scale=3.0), lambda y: y.sum(-1))
    assert all(saturated[lag] < found[lag] for lag in found)


def test_what_keeps_the_state_keeps_the_gradient():
    layer = elman.Recurrent(LSTM(2, 4)).double()
    with torch.no_grad():
        layer.cell.W.weight.zero_()
        layer.cell.U.weight.zero_()
        layer.cell.U.bias.zero_()
        layer.cell.U.bias[4:8] = 40.0  # the forget gate is open
    found = elman.gradient_by_lag(layer, numbers(40, B, 2), lambda y: y.sum(-1))
    assert found[32] == pytest.approx(found[1], rel=1e-6)


def test_batch_first_and_a_given_state():
    torch.manual_seed(0)
    one = elman.Recurrent(GRU(2, 4)).double()
    two = elman.Recurrent(one.cell, batch_first=True)
    x, state = numbers(T, B, 2), (numbers(B, 4),)
    assert elman.gradient_by_lag(one, x, square, state) == elman.gradient_by_lag(two, x.transpose(0, 1), square, state)
    assert elman.gradient_by_lag(one, x, square, state) != elman.gradient_by_lag(one, x, square)


def test_what_it_refuses():
    both = elman.Bidirectional(GRU(2, 4), GRU(2, 4)).double()
    with pytest.raises(elman.InputError, match="a part of the layer runs backwards in time"):
        elman.gradient_by_lag(both, numbers(T, B, 2), square)
    layer = elman.Recurrent(GRU(2, 4)).double()
    with pytest.raises(elman.InputError, match="x must have at least 2 steps; got 1"):
        elman.gradient_by_lag(layer, numbers(1, B, 2), square)
    with pytest.raises(elman.InputError, match=r"must be one number a row, \(B=3,\); got a tensor \(3, 4\)"):
        elman.gradient_by_lag(layer, numbers(T, B, 2), lambda y: y)
