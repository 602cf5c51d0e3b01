"""Rate cells: the time constant, noise, and Dale's law."""

import math

import pytest
import torch
from tolerance import close

import elman
from elman.cell import Rate


def test_a_unit_without_connections_decays_with_its_time_constant():
    cell = Rate(1, 3, tau=100.0, dt=0.1)
    with torch.no_grad():
        cell.W.weight.zero_()
        cell.U.weight.zero_()
    _, (r,) = elman.Recurrent(cell)(torch.zeros(1000, 1, 1), (torch.ones(1, 3),))  # one time constant
    assert r.squeeze().tolist() == pytest.approx([math.exp(-1)] * 3, rel=1e-3)


@pytest.mark.parametrize("dt", [2.0, 20.0])
def test_filtered_noise_has_the_deviation_asked_for(dt):
    class Linear(Rate):
        def activation(self, a):
            return a

    torch.manual_seed(0)
    cell = Linear(1, 4, tau=100.0, dt=dt, noise=0.3)
    with torch.no_grad():
        cell.W.weight.zero_()
        cell.U.weight.zero_()
    y, _ = elman.Recurrent(cell)(torch.zeros(2000, 64, 1))
    settled = y[500:]
    expected = 0.3 / math.sqrt(1 - dt / 200.0)  # of the Euler steps; 0.3 in the limit of small dt
    assert settled.std().item() == pytest.approx(expected, rel=0.03)
    assert settled.mean().item() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("backend", ["plain", "reference", "fused"])
def test_given_noise_is_added_to_the_drive_and_gets_its_gradient(backend):
    torch.manual_seed(0)
    cell = Rate(2, 3, noise=0.5, excitatory=0.7).double()
    x, noise = (torch.randn(6, 4, n, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    with elman.backend(backend):
        y, _ = elman.Recurrent(cell)(x, noise=noise)
    r, ys = torch.zeros(4, 3, dtype=torch.float64), []
    for t in range(6):
        r = 0.8 * r + 0.2 * torch.relu(r @ cell.connections().T + cell.U(x[t]) + noise[t])
        ys.append(r)
    close(y, torch.stack(ys))
    found, want = (torch.autograd.grad(v.square().sum(), [noise, cell.W.weight]) for v in (y, torch.stack(ys)))
    for a, b in zip(found, want):
        close(a, b)


@pytest.mark.parametrize("make", [lambda: Rate(2, 3, noise=0.5).eval(), lambda: Rate(2, 3)], ids=["eval", "noise=0"])
def test_nothing_is_drawn(make):
    cell, x = make(), torch.randn(5, 2, 2)
    before = torch.get_rng_state()
    y, _ = elman.Recurrent(cell)(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(elman.Recurrent(cell)(x)[0], y)


def test_dales_law_holds_after_any_training():
    torch.manual_seed(0)
    cell = Rate(3, 20, noise=0.1, excitatory=0.8)
    layer, optimizer = elman.Recurrent(cell, strict=True), torch.optim.SGD(cell.parameters(), lr=0.5)
    first = cell.connections().detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        (layer(torch.randn(10, 8, 3))[0] - 1).square().mean().backward()
        optimizer.step()
    W = cell.connections()
    assert (cell.W.weight < 0).any()  # the weight itself is free
    assert (W[:, :16] >= 0).all()
    assert (W[:, 16:] <= 0).all()
    assert torch.equal(W.diagonal(), torch.zeros(20))
    assert not torch.allclose(W, first)


@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_excitation_and_inhibition_start_in_balance(fraction):
    torch.manual_seed(0)
    W = Rate(3, 400, excitatory=fraction).connections().detach()
    split = round(400 * fraction)
    assert W[:, :split].sum().item() == pytest.approx(-W[:, split:].sum().item(), rel=0.05)
    assert torch.linalg.eigvals(W).abs().max().item() == pytest.approx(1.5, rel=1e-4)


@pytest.mark.parametrize("fraction", [0.0, 0.8, 1.0])
def test_one_unit_meets_nobody(fraction):
    assert Rate(1, 1, excitatory=fraction).connections().tolist() == [[0.0]]


def test_signs_are_saved_with_the_weights():
    torch.manual_seed(0)
    first, second = Rate(2, 10, excitatory=0.8), Rate(2, 10, excitatory=0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.connections(), first.connections())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "tau must be a number above 0"),
        ({"dt": -1.0}, "dt must be a number above 0"),
        ({"dt": float("nan")}, "dt must be a number above 0"),
        ({"tau": 10.0, "dt": 20.0}, "dt must not be above tau"),
        ({"noise": -0.1}, "noise must be a number of at least 0"),
        ({"noise": "much"}, "noise must be a number of at least 0"),
        ({"excitatory": 1.1}, "excitatory must be a number from 0 to 1; got 1.1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(elman.OptionError, match=message):
        Rate(2, 3, **options)
