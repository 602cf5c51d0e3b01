"""Fixed points, against those that can be computed by hand."""

import pytest
import torch

import elman
from elman.cell import GRU, LSTM, Attend, Elman


def planted(weight, bias=None):
    """A vanilla cell h = tanh(W h + b), the input without effect."""
    H = len(weight)
    cell = Elman(1, H)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.W.weight.copy_(torch.as_tensor(weight))
        if bias is not None:
            cell.U.bias.copy_(torch.as_tensor(bias))
    return cell


def test_two_units_that_hold_a_bit_each_have_nine_fixed_points():
    """h = tanh(2 h) stands still at 0 and at +-0.9575; only the four corners are stable."""
    torch.manual_seed(0)
    found = elman.fixed_points(planted([[2.0, 0.0], [0.0, 2.0]]), torch.zeros(1), torch.rand(200, 2) * 2 - 1)
    a = 0.9575040240772687
    expected = {(round(i * a, 6), round(j * a, 6)) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert {tuple(round(v, 6) + 0.0 for v in point) for point in found.points.tolist()} == expected
    for point, stable, values in zip(found.points, found.stable, found.eigenvalues):
        assert stable == bool((point.abs() > 0.5).all())
        slopes = 2 * (1 - point**2)  # of tanh(2 h)
        assert values.abs().tolist() == pytest.approx(slopes.sort(descending=True).values.tolist(), rel=1e-6)


def test_a_rotation_turns_about_its_one_point():
    turn = torch.tensor([[0.6, -0.6], [0.6, 0.6]])
    found = elman.fixed_points(planted(turn), torch.zeros(1), torch.randn(20, 2))
    assert found.points.tolist() == [pytest.approx([0.0, 0.0], abs=1e-6)]
    assert found.eigenvalues[0, 0].abs().item() == pytest.approx(0.6 * 2**0.5)
    assert found.eigenvalues[0].imag.abs().tolist() == pytest.approx([0.6, 0.6])
    assert found.stable.tolist() == [True]


@pytest.mark.parametrize("build", [lambda: GRU(3, 5), lambda: LSTM(3, 5)], ids=["gru", "lstm"])
def test_a_gated_cell_stays_where_it_is_said_to(build):
    torch.manual_seed(0)
    cell, x = build(), torch.randn(3)
    width = sum(cell.state_sizes.values())
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    found = elman.fixed_points(cell, x, torch.randn(30, width))
    assert len(found.points) >= 1
    states = found.points.float()
    for _ in range(3):
        _, after = cell.step(x.expand(len(states), -1), *states.split(list(cell.state_sizes.values()), -1))
        assert torch.allclose(torch.cat(after, -1), states, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in cell.state_dict().items())


def test_where_nothing_stands_still_nothing_is_found():
    class Counter(elman.Cell):
        def step(self, x, total):
            total = total + 1.0
            return total, (total,)

    found = elman.fixed_points(Counter(1, 2), torch.zeros(1), torch.randn(4, 2))
    assert found.points.shape == (0, 2)
    assert found.stable.shape == (0,)


def test_what_it_refuses():
    cell = Elman(2, 3)
    with pytest.raises(elman.InputError, match=r"x must be one step's input, \(I=2,\); got a tensor \(3,\)"):
        elman.fixed_points(cell, torch.zeros(3), torch.zeros(1, 3))
    with pytest.raises(elman.InputError, match=r"starts must be \(N, S=3\); got a tensor \(1, 4\)"):
        elman.fixed_points(cell, torch.zeros(2), torch.zeros(1, 4))
    with pytest.raises(elman.InputError, match="needs context"):
        elman.fixed_points(Attend(Elman(5, 3), 4), torch.zeros(2), torch.zeros(1, 6))
