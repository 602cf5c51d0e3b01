"""Parts around cells by hand, on given masks, and the statistics of the masks that they draw."""

import pytest
import torch
from tolerance import all_close, close

import elman
from elman.cell import GRU, LSTM, DropConnect, Elman, Residual, Variational, Zoneout

T, B, I, H = 7, 4, 5, 6  # noqa: E741


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def made(cell):
    """A cell in float64, an input that wants gradients, and a state."""
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    return cell.double(), x, tuple(torch.rand(B, H, dtype=torch.float64) for _ in cell.state_sizes)


def chance(mask, of=0.0):
    """How often a mask has this value."""
    return (mask == of).double().mean().item()


def test_zoneout_by_hand():
    cell, x, (h, c) = made(Zoneout(LSTM(I, H), {"c": 0.5, "h": 0.05}))
    keep_h, keep_c = (torch.rand(T, B, H) < 0.5 for _ in range(2))
    y, last = elman.Recurrent(cell, strict=True)(x, (h, c), keep_h=keep_h, keep_c=keep_c)
    for t in range(T):
        _, (new_h, new_c) = cell.cell.step(x[t], h, c)
        h, c = torch.where(keep_h[t], h, new_h), torch.where(keep_c[t], c, new_c)
        close(y[t], h, f"step {t}")
    all_close(last, (h, c))


def test_zoneout_in_evaluation_is_the_mean_of_one_step():
    cell, x, state = made(Zoneout(LSTM(I, H), {"c": 0.5, "h": 0.05}))
    layer, many = elman.Recurrent(cell), 4000
    wide = [v.detach().repeat_interleave(many, -2) for v in (x[:1], *state)]
    _, drawn = layer(wide[0], tuple(wide[1:]))
    _, expected = layer.eval()(x[:1], state)
    for found, want in zip(drawn, expected):
        assert (found.unflatten(0, (B, many)).mean(1) - want).abs().max() < 0.03


def test_zoneout_keeps_each_state_as_often_as_it_should_anew_at_each_step():
    masks = Zoneout(LSTM(I, 50), {"c": 0.5, "h": 0.05}).draw(torch.zeros(100, 20, I))
    assert {name: (m.dtype, tuple(m.shape)) for name, m in masks.items()} == {
        "keep_c": (torch.bool, (100, 20, 50)),
        "keep_h": (torch.bool, (100, 20, 50)),
    }
    assert chance(masks["keep_c"], True) == pytest.approx(0.5, abs=0.01)
    assert chance(masks["keep_h"], True) == pytest.approx(0.05, abs=0.005)
    together = (masks["keep_c"][1:] & masks["keep_c"][:-1]).double().mean().item()
    assert together == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("rate", "moves"), [(0.0, True), (1.0, False)])
def test_zoneout_at_its_ends(rate, moves):
    layer = elman.Recurrent(Zoneout(GRU(I, H), rate))
    for training in (True, False):
        y, _ = layer.train(training)(torch.randn(T, B, I), (torch.ones(B, H),))
        assert (y != 1).all() if moves else (y == 1).all()


def test_variational_by_hand_with_the_same_masks_at_all_steps():
    cell, x, (h, c) = made(Variational(LSTM(I, H), input=0.2, output=0.3, state=0.4))
    masks = cell.draw(x)
    assert {name: tuple(m.shape) for name, m in masks.items()} == {
        "mask_input": (B, I),
        "mask_output": (B, H),
        "mask_state_h": (B, H),
    }
    y, last = elman.Recurrent(cell, strict=True)(x, (h, c), **masks)
    for t in range(T):
        out, (h, c) = cell.cell.step(x[t] * masks["mask_input"], h * masks["mask_state_h"], c)
        close(y[t], out * masks["mask_output"], f"step {t}")
    all_close(last, (h, c))
    drawn, _ = elman.Recurrent(cell)(x)
    zeros = drawn == 0
    assert torch.equal(zeros.all(0), zeros.any(0))  # a unit of a row is dropped at all steps or at none
    assert zeros.any()


def test_masks_of_dropout_have_the_mean_1():
    x = torch.zeros(1, 4000, I)
    for name, mask in Variational(LSTM(I, 50), 0.2, 0.5, {"c": 0.1}).draw(x).items():
        rate = {"mask_input": 0.2, "mask_output": 0.5, "mask_state_c": 0.1}[name]
        assert chance(mask) == pytest.approx(rate, abs=0.01)
        assert mask.mean().item() == pytest.approx(1, abs=0.02)
        assert sorted(mask.unique().tolist()) == pytest.approx([0, 1 / (1 - rate)])


def test_drop_connect_by_hand_and_its_mask():
    cell, x, state = made(DropConnect(LSTM(I, H), "W.weight", 0.5))
    many = torch.stack([cell.draw(x)["drop_W_weight"] for _ in range(200)])
    assert many.shape[1:] == cell.cell.W.weight.shape
    assert chance(many) == pytest.approx(0.5, abs=0.01)
    assert (many.mean(0) - 1).abs().mean() < 0.1
    weight, mask = cell.cell.W.weight, many[0]
    y, _ = elman.Recurrent(cell, strict=True)(x, state, drop_W_weight=mask)
    plain = LSTM(I, H).double()
    plain.load_state_dict(cell.cell.state_dict())
    with torch.no_grad():
        plain.W.weight.mul_(mask)
    close(y, elman.Recurrent(plain)(x, state)[0])
    assert cell.cell.W.weight is weight
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert torch.equal(gradient == 0, mask == 0)


def test_drop_connect_puts_the_weight_back_after_an_error():
    class Broken(Elman):
        def step(self, x, h):
            raise RuntimeError("no")

    cell = DropConnect(Broken(I, H), "W.weight", 0.5)
    weight = cell.cell.W.weight
    with pytest.raises(RuntimeError, match="no"):
        cell.step(torch.zeros(B, I), torch.zeros(B, H), drop_W_weight=torch.ones(H, H))
    assert cell.cell.W.weight is weight


@pytest.mark.parametrize("backend", ["plain", "fused"])
def test_residual_adds_the_input(backend):
    cell, x = GRU(H, H), torch.randn(T, B, H)
    with elman.backend(backend):
        y, state = elman.Recurrent(Residual(cell))(x)
        want, last = elman.Recurrent(cell)(x)
    close(y, want + x)
    assert torch.equal(state.h, last.h)


def test_whole_numbers_as_input_get_masks_of_the_parameters_type():
    class Table(elman.Cell):
        def __init__(self):
            super().__init__(1, H)
            self.table = torch.nn.Embedding(5, H)

        def step(self, x, h):
            h = torch.tanh(h + self.table(x[:, 0]))
            return h, (h,)

    with elman.backend("plain"):
        y, _ = elman.Recurrent(Variational(Table(), state=0.5))(torch.randint(0, 5, (T, B, 1)))
    assert y.dtype == torch.float32


def test_a_residual_around_a_cell_whose_y_is_not_as_wide_as_it_says():
    class Wide(Elman):
        def step(self, x, h):
            y, state = super().step(x, h)
            return torch.cat([y, y], -1), state

    layer = elman.Recurrent(Residual(Wide(H, H)))
    with (
        elman.backend("plain"),
        pytest.raises(elman.CellError, match="Wide takes x of width 6 and returns y of width 12"),
    ):
        layer(torch.randn(T, B, H))


def test_a_mask_of_another_shape_than_the_weight():
    layer = elman.Recurrent(DropConnect(GRU(I, H), "W.weight", 0.5))
    with elman.backend("plain"), pytest.raises(elman.InputError, match=r"must have the weight's shape \(18, 6\); got"):
        layer(torch.randn(T, B, I), drop_W_weight=torch.ones(6, 6))
