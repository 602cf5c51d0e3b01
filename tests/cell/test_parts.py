"""What holds for every part around a cell: the oracle on given masks, what is drawn, names, nesting, errors."""

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
