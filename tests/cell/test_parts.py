"""Parts around cells: their masks' statistics, their equations on given masks, and what they draw."""

import sys

import oracle
import pytest
import torch
from cells import irregular
from tolerance import all_close, close

import elman
from elman.cell import (  # fmt: skip
    GRU,
    LSTM,
    Conditioned,
    DropConnect,
    Elman,
    LayerNormLSTM,
    ProjectedLSTM,
    Rate,
    Residual,
    Variational,
    Zoneout,
)

T, B, I, H = 7, 4, 5, 6  # noqa: E741
BACKENDS = ("plain", "reference", "fused")

PARTS = {
    "zoneout": lambda: Zoneout(LSTM(I, H), {"c": 0.5, "h": 0.05}),
    "zoneout-gru": lambda: Zoneout(GRU(I, H), 0.3),
    "variational": lambda: Variational(LSTM(I, H), input=0.2, output=0.3, state=0.4),
    "variational-c": lambda: Variational(LSTM(I, H), state={"h": 0.4, "c": 0.1}),
    "drop-connect": lambda: DropConnect(LSTM(I, H), "W.weight", 0.5),
    "rate": lambda: Rate(I, H, noise=0.3, excitatory=0.5),
    "nested": lambda: Residual(
        Zoneout(DropConnect(Variational(ProjectedLSTM(I, H, I), 0.2, 0.2, 0.2), "cell.P.weight", 0.3), 0.2)
    ),
    "twice": lambda: Zoneout(
        Zoneout(DropConnect(DropConnect(GRU(I, H), "W.weight", 0.2), "cell.W.weight", 0.4), 0.1), 0.3
    ),
}
parts = pytest.mark.parametrize("kind", PARTS)
backends = pytest.mark.parametrize("backend", BACKENDS)


def make(kind, T=T):
    torch.manual_seed(0)
    cell = PARTS[kind]().double()
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.rand(B, w, dtype=torch.float64, requires_grad=True) for w in cell.state_sizes.values())
    return cell, x, state


def pulled(leaves, y, last):
    """Gradients of one number that every output enters with a weight of its own."""
    torch.manual_seed(3)
    total = sum((value * torch.randn_like(value)).sum() for value in (y, *last))
    return torch.autograd.grad(total, leaves, materialize_grads=True)


def chance(mask, of=0.0):
    """How often a mask has this value."""
    return (mask == of).double().mean().item()


@parts
@backends
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_on_given_masks_values_and_gradients_are_the_oracles(kind, backend, reverse):
    cell, x, state = make(kind)
    lengths, reset = irregular(T, B)
    masks = cell.draw(x)
    assert masks.keys() == cell.signature.context
    with elman.backend(backend):
        y, last = elman.Recurrent(cell, reverse=reverse)(x, state, lengths=lengths, reset=reset, **masks)
    want, final = oracle.run(cell, x, state, lengths, reset, reverse, y.shape[-1], **masks)
    close(y, want)
    all_close(last, final)
    leaves = [x, *state, *cell.parameters()]
    all_close(pulled(leaves, y, last), pulled(leaves, want, final))


@parts
def test_a_seed_draws_the_same_bits_whatever_the_backend(kind):
    cell, x, state = make(kind)
    found = []
    for backend in (*BACKENDS, "fused"):
        torch.manual_seed(11)
        with elman.backend(backend):
            found.append(elman.Recurrent(cell)(x, state)[0])
        after = torch.rand(())
    assert torch.equal(found[2], found[3])
    for y in found[1:]:
        close(y, found[0])
    torch.manual_seed(11)
    cell.draw(x)
    assert torch.equal(torch.rand(()), after)  # nothing else was drawn, on any backend
    assert not torch.equal(elman.Recurrent(cell)(x, state)[0], found[0])


@parts
def test_in_evaluation_nothing_is_drawn(kind):
    cell, x, state = make(kind)
    layer = elman.Recurrent(cell).eval()
    before = torch.get_rng_state()
    y, _ = layer(x, state)
    assert cell.draw(x) == {}
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layer(x, state)[0], y)


@parts
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_parts_run_fused(kind, training):
    cell, x, state = make(kind)
    layer = elman.Recurrent(cell.train(training), strict=True)
    assert elman.explain(layer, x, state).backends == ("fused",)


def test_zoneout_by_hand():
    cell, x, (h, c) = make("zoneout")
    keep_h, keep_c = (torch.rand(T, B, H) < 0.5 for _ in range(2))
    y, last = elman.Recurrent(cell, strict=True)(x, (h, c), keep_h=keep_h, keep_c=keep_c)
    for t in range(T):
        _, (new_h, new_c) = cell.cell.step(x[t], h, c)
        h, c = torch.where(keep_h[t], h, new_h), torch.where(keep_c[t], c, new_c)
        close(y[t], h, f"step {t}")
    all_close(last, (h, c))


def test_zoneout_in_evaluation_is_the_mean_of_one_step():
    cell, x, state = make("zoneout")
    layer, many = elman.Recurrent(cell), 4000
    torch.manual_seed(1)
    wide = [v.detach().repeat_interleave(many, -2) for v in (x[:1], *state)]
    _, drawn = layer(wide[0], tuple(wide[1:]))
    _, expected = layer.eval()(x[:1], state)
    for found, want in zip(drawn, expected):
        assert (found.unflatten(0, (B, many)).mean(1) - want).abs().max() < 0.03


def test_zoneout_keeps_each_state_as_often_as_it_should_anew_at_each_step():
    torch.manual_seed(0)
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
    cell, x, (h, c) = make("variational")
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
    torch.manual_seed(0)
    x = torch.zeros(1, 4000, I)
    for name, mask in Variational(LSTM(I, 50), 0.2, 0.5, {"c": 0.1}).draw(x).items():
        rate = {"mask_input": 0.2, "mask_output": 0.5, "mask_state_c": 0.1}[name]
        assert chance(mask) == pytest.approx(rate, abs=0.01)
        assert mask.mean().item() == pytest.approx(1, abs=0.02)
        assert sorted(mask.unique().tolist()) == pytest.approx([0, 1 / (1 - rate)])


def test_drop_connect_by_hand_and_its_mask():
    cell, x, state = make("drop-connect")
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


def test_a_part_takes_after_its_cell():
    inner = ProjectedLSTM(I, H, 3).learn_initial()
    part = Zoneout(Variational(inner, 0.1), 0.1)
    assert (part.input_size, part.hidden_size, part.state_sizes) == (I, H, {"h": 3, "c": H})
    assert part.signature.state == ("h", "c")
    assert [tuple(s.shape) for s in part.initial(2)] == [(2, 3), (2, H)]
    assert sum(p.numel() for p in part.parameters()) == sum(p.numel() for p in inner.parameters())
    assert "initial_h" in dict(part.learn_initial().cell.cell.named_parameters())
    _, _, seen = elman.Recurrent(part)(torch.randn(T, B, I), watch=("forget_gate", "c"))
    assert seen["forget_gate"].shape == (T, B, H)


def test_names_of_context_stay_apart_when_parts_nest():
    thrice = Zoneout(Zoneout(Zoneout(LSTM(I, H), {"h": 0.1}), {"h": 0.2, "c": 0.2}), {"c": 0.3})
    assert sorted(thrice.signature.context) == ["keep_c", "keep_c_2", "keep_h", "keep_h_2"]
    assert sorted(thrice.each_step) == sorted(thrice.signature.context)
    twice = DropConnect(DropConnect(GRU(I, H), "W.weight", 0.1), "cell.W.bias", 0.2)
    assert twice.whole == ("drop_W_weight", "drop_cell_W_bias")


def test_parts_go_around_a_cell_with_context_and_inside_it():
    v, x = torch.randn(B, 2), torch.randn(T, B, I)
    inside = Conditioned(Variational(Zoneout(LSTM(I + 2, H), 0.1), 0.2, 0.3, 0.1), 2)
    around = Zoneout(Conditioned(LSTM(I + 2, H), 2), 0.1)
    for cell in (inside, around, Residual(Conditioned(GRU(I + 2, I), 2))):
        y, _ = elman.Recurrent(cell, strict=True)(x, context=v)
        assert y.shape[:2] == (T, B)


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


WRONG = {
    "zoneout above 1": (
        lambda: Zoneout(LSTM(I, H), 1.1),
        elman.OptionError,
        "rate of 'h' must be a number from 0 to 1",
    ),
    "zoneout below 0": (lambda: Zoneout(LSTM(I, H), {"c": -0.1}), elman.OptionError, "rate of 'c' must be .* got -0.1"),
    "zoneout of a word": (lambda: Zoneout(LSTM(I, H), "some"), elman.OptionError, "got 'some'"),
    "no such state": (lambda: Zoneout(LSTM(I, H), {"m": 0.1}), elman.CellError, "LSTM has no state 'm'; it has h, c"),
    "no cell": (
        lambda: Zoneout(torch.nn.Linear(I, H), 0.1),
        elman.CellError,
        "goes around an elman.Cell; got a Linear",
    ),
    "input of 1": (
        lambda: Variational(GRU(I, H), 1.0),
        elman.OptionError,
        "input must be a number from 0 to 1, less than",
    ),
    "output of -1": (lambda: Variational(GRU(I, H), output=-1), elman.OptionError, "output must be .* got -1"),
    "state of nan": (lambda: Variational(GRU(I, H), state=float("nan")), elman.OptionError, "rate of 'h' must be"),
    "state of another": (lambda: Variational(GRU(I, H), state={"c": 0.1}), elman.CellError, "GRU has no state 'c'"),
    "mask of no cell": (lambda: Variational(GRU, 0.1), elman.CellError, "goes around an elman.Cell"),
    "width unknown": (
        lambda: Variational(Conditioned(GRU(I + 2, H), 2), output=0.1),
        elman.CellError,
        "Conditioned needs context, .* put Variational around the cell inside it",
    ),
    "no such weight": (
        lambda: DropConnect(GRU(I, H), "V.weight", 0.5),
        elman.CellError,
        "GRU has no weight 'V.weight'; it has U.weight, U.bias, W.weight, W.bias",
    ),
    "weight dropped": (lambda: DropConnect(GRU(I, H), "W.weight", 1), elman.OptionError, "rate must be .* less than 1"),
    "weight of no cell": (lambda: DropConnect(None, "W.weight", 0.5), elman.CellError, "goes around an elman.Cell"),
    "widths": (
        lambda: Residual(GRU(I, H)),
        elman.CellError,
        "their widths must agree; GRU takes x of width 5 and returns y of width 6",
    ),
    "residual of no cell": (lambda: Residual(3), elman.CellError, "goes around an elman.Cell; got a int"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    build, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        build()


def test_a_residual_whose_width_is_known_late():
    layer = elman.Recurrent(Residual(Conditioned(GRU(I + 2, H), 2)))
    with (
        elman.backend("plain"),
        pytest.raises(elman.CellError, match="Conditioned takes x of width 5 and returns y of"),
    ):
        layer(torch.randn(T, B, I), context=torch.randn(B, 2))


def test_a_mask_of_another_shape_than_the_weight():
    layer = elman.Recurrent(DropConnect(GRU(I, H), "W.weight", 0.5))
    with elman.backend("plain"), pytest.raises(elman.InputError, match=r"must have the weight's shape \(18, 6\); got"):
        layer(torch.randn(T, B, I), drop_W_weight=torch.ones(6, 6))


@parts
def test_a_part_is_proved_by_check_with_what_it_draws(kind, monkeypatch):
    monkeypatch.setattr(sys.modules["elman.module.check"], "ROUNDS", 1)
    cell = PARTS[kind]()
    before = torch.get_rng_state()
    report = elman.check(cell)
    assert report.ok, report
    assert report.backend == "fused"
    assert torch.equal(torch.get_rng_state(), before)  # none of the caller's random numbers


def test_layer_norm_inside_a_part_is_fused_too():
    cell = Zoneout(LayerNormLSTM(I, H), 0.1)
    assert elman.explain(elman.Recurrent(cell, strict=True), torch.randn(T, B, I)).backends == ("fused",)
