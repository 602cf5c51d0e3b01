"""Planted numbers that are not finite, and where elman.locate says that they come from."""

import bad_cells
import pytest
import torch
from bad_cells import Custom, Divide, Gate, Growing, Log, Root, line_of
from torch import nn

import elman
from elman.cell import GRU, LSTM, ElmanReLU

T, B = 12, 4


def inputs(large=5.0, t=7, row=2, steps=T):
    """x below 1, but for one number that the bad cells do not bear."""
    x = torch.rand(steps, B, 3, generator=torch.Generator().manual_seed(1))
    x[t, row, 1] = large
    return x


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def located(net, x, loss=lambda y: y.square().mean(), **options):
    return elman.locate(lambda: loss(net(x, **options)[0]), net)


def expect(found, kind, **fields):
    assert found.kind == kind, found
    assert {name: getattr(found, name) for name in fields} == fields, found


def first_layer(cell):
    return elman.Stacked(cell(3, 5), nn.Dropout(0.1), GRU(5, 5)), "parts.0.cell"


def second_layer(cell):
    return elman.Stacked(elman.Bidirectional(GRU(3, 2), GRU(3, 1)), Shifted(cell(3, 5))), "parts.1.part.cell"


def backwards(cell):
    return elman.Bidirectional(GRU(3, 5), cell(3, 5)), "parts.1.cell"


class Shifted(elman.Layer):
    """A layer inside another of the user's own: one of the rows is made large at a certain step before it."""

    def __init__(self, cell):
        super().__init__()
        self.part = elman.Recurrent(cell)

    def run(self, x, state, rows, watch, context):
        extra = torch.zeros_like(x)
        extra[7, 2] = 10.0
        return self.part.run(x + extra, state, rows, watch, context)

    def initial(self, batch_size):
        return self.part.initial(batch_size)

    def begin(self, batch_size, context):
        return self.part.begin(batch_size, context)

    def check_state(self, state, x):
        return self.part.check_state(state, x)

    def context_names(self):
        return self.part.context_names()


@pytest.mark.parametrize("build", [first_layer, second_layer, backwards])
@pytest.mark.parametrize(
    ("cell", "large", "value", "op", "gates"),
    [
        (Log, 6.0, "nan", "log", ()), (Divide, 5.0, "nan", "div", ()), (Gate, 5.0, "inf", "exp", ("forget",)),
    ],
)  # fmt: skip
def test_a_step_that_goes_wrong(build, cell, large, value, op, gates):
    net, path = build(cell)
    found = located(net, inputs(large))
    expect(found, "forward", value=value, op=op, path=path, step=7, steps=T, row=2, gates=gates)
    assert found.where == line_of(cell.__name__)
    assert found.lag == (7 if build is backwards else 4)
    assert found.line.endswith(f"# {cell.__name__}")


@pytest.mark.parametrize("build", [first_layer, backwards])
def test_a_step_that_goes_wrong_only_on_the_way_back(build):
    net, path = build(Root)
    found = located(net, inputs(5.0))
    expect(found, "backward", op="sqrt", path=path, step=7, row=2, where=line_of("Root"))
    assert found.parameters == (f"{path}.U.bias",)
    assert torch.isfinite(net(inputs(5.0))[0]).all()


def test_a_gradient_of_the_users_own():
    net = elman.Stacked(Custom(3, 5), GRU(5, 5))
    found = located(net, inputs(), lambda y: y.square().sum())
    expect(found, "backward", op="OwnBackward", path="parts.0.cell", step=11, lag=0, where=line_of("Custom"))


def test_an_overflow_that_takes_many_steps():
    """1.5 * (2^k - 1) is beyond float32 after 128 steps, whose last is number 127."""
    found = located(elman.Stacked(Growing(3, 5), GRU(5, 5)), inputs(steps=140))
    expect(found, "forward", value="inf", op="mul", path="parts.0.cell", step=127, where=line_of("Growing"))
    healthy = located(elman.Stacked(Growing(3, 5), GRU(5, 5)), inputs(steps=127))
    assert healthy.kind == "nothing"


@pytest.mark.parametrize("name", ["parts.0.cell.W.weight", "parts.2.cell.U.bias"])
def test_a_parameter(name):
    net = elman.Stacked(LSTM(3, 5), nn.Dropout(0.1), LSTM(5, 5))
    with torch.no_grad():
        net.get_parameter(name).view(-1)[3] = -torch.inf
    found = located(net, inputs())
    expect(found, "parameter", name=name, value="-inf", index=(0, 3) if "W" in name else (3,))
    assert torch.equal(found.batch["x"], inputs())


def test_an_input_and_its_targets():
    net = elman.Stacked(LSTM(3, 5), LSTM(5, 5))
    expect(located(net, inputs(torch.nan)), "input", name="x", index=(7, 2, 1), value="nan")
    target = torch.zeros(T, B, 5)
    target[3, 1, 0] = torch.inf
    found = located(net, inputs(), lambda y: (y - target).square().mean())
    expect(found, "input", index=(3, 1, 0), value="inf")
    assert torch.equal(found.batch["sub.1"], target)


def test_a_state_that_is_carried_in():
    net = elman.Recurrent(LSTM(3, 5))
    state = net.initial(B)
    state.c[1, 4] = torch.nan
    found = elman.locate(lambda: net(inputs(), state)[0].sum(), net, {"state.c": state.c})
    expect(found, "input", name="state.c", index=(1, 4))


def test_a_layer_of_torchs_beside_the_recurrence():
    net = nn.ModuleDict({"low": elman.Recurrent(GRU(3, 5)), "read": nn.Linear(5, 2)})
    found = elman.locate(lambda: (net["read"](net["low"](inputs())[0] * 1e30) * 1e30).mean(), net)
    expect(found, "forward", op="mul", path="")
    with torch.no_grad():
        net["read"].weight.fill_(1e30)
    found = elman.locate(lambda: net["read"](net["low"](inputs())[0] + 1e30).mean(), net)
    expect(found, "forward", value="inf", op="linear", path="read")


def test_torchs_own_modules_unfolded_here():
    net = nn.ModuleDict({"low": elman.nn.GRU(3, 5, bidirectional=True)})
    with torch.no_grad():
        net["low"].bias_ih_l0_reverse.copy_(
            torch.tensor([0.0, -9.0, 9.0]).repeat_interleave(5)
        )  # h is nearly 1 at once
        net["low"].weight_hh_l0_reverse.fill_(3e38)
    found = elman.locate(lambda: net["low"](inputs())[0].mean(), net)
    expect(found, "forward", value="inf", op="linear", step=10, steps=T, lag=10)
    assert found.path.startswith("low")


def test_weights_that_have_grown_by_a_rate_of_a_thousand():
    """A ReLU network by plain gradient descent: its loss overflows, at the step and row that a loop of its own says."""
    net = elman.Stacked(ElmanReLU(3, 5), ElmanReLU(5, 5))
    for _ in range(50):
        loss = net(inputs())[0].square().mean()
        if not loss.isfinite():
            break
        for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters()))):
            p.data -= 1e3 * g.clamp(-1e30, 1e30)
    assert not loss.isfinite()
    y = inputs()
    want = None
    for k, layer in enumerate(net.parts):
        h, ys = torch.zeros(B, 5), []
        for t, x in enumerate(y):
            h = torch.relu(x @ layer.cell.U.weight.T + layer.cell.U.bias + h @ layer.cell.W.weight.T)
            if want is None and not h.isfinite().all():
                want = (f"parts.{k}.cell", t)
            ys.append(h)
        y = torch.stack(ys)
    found = located(net, inputs())
    if want is None:  # it was the square in the loss
        expect(found, "forward", value="inf", step=None, path="", op="square")
    else:
        assert (found.path.rsplit(".", 1)[0] if found.path[-1] in "UW" else found.path, found.step) == want


def test_infinite_masks_are_not_taken_for_the_cause():
    """Attention masks by -inf; the cause is the log beside it."""
    net = elman.Recurrent(Log(3, 5))
    mask = torch.zeros(T, B, 5)
    mask[:, :, 0] = -torch.inf

    def loss(y):
        return (y + mask).softmax(-1)[..., 1:].square().mean()

    expect(located(net, inputs(6.0), loss), "forward", op="log", step=7, row=2)
    assert located(elman.Recurrent(GRU(3, 5)), inputs(), loss).kind == "nothing"
    hidden = located(
        elman.Recurrent(GRU(3, 5)),
        inputs(),
        lambda y: y.masked_fill(torch.ones_like(y) > 0, -torch.inf).softmax(-1).sum(),
    )
    expect(hidden, "forward", value="nan", op="softmax")
    asked = located(elman.Recurrent(GRU(3, 5)), inputs(), lambda y: (y.exp() * torch.inf).sum() + 1)
    expect(asked, "forward", value="inf", op="mul")


def test_gradients_whose_norm_alone_overflows():
    net = elman.Recurrent(GRU(3, 5))
    found = located(net, inputs(), lambda y: 1e30 * y.sum())
    assert found.kind == "norm"
    assert found.name in dict(net.named_parameters())


def test_nothing_is_changed_by_looking():
    net = elman.Stacked(LSTM(3, 5), nn.Dropout(0.5), nn.Linear(5, 5), Log(5, 5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    assert located(net, inputs()).kind == "nothing"
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_loss_that_nothing_was_learned_from():
    assert elman.locate(lambda: torch.zeros(()), elman.Recurrent(GRU(3, 5))).kind == "nothing"


def test_what_is_no_loss_is_refused():
    net = elman.Recurrent(GRU(3, 5))
    with pytest.raises(
        elman.InputError, match=r"must give the loss, a tensor of one number; got a tensor \(12, 4, 5\)"
    ):
        located(net, inputs(), lambda y: y)


def test_it_is_said_in_a_line():
    net, path = first_layer(Gate)
    place = f"at {line_of('Gate')} `{bad_cells_line('Gate')}`, in {path}, step 7 of 12, row 2, watched as forget"
    assert str(located(net, inputs(5.0))) == f"inf first comes from exp {place}"


def bad_cells_line(name):
    number = int(line_of(name).split(":")[1])
    with open(bad_cells.__file__) as file:
        return file.read().splitlines()[number - 1].strip()
