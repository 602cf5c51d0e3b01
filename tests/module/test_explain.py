"""What explain and check say, to the word where it matters."""

import pytest
import torch
from torch import nn

import elman
from elman import InputError


class Transform(elman.Cell):
    """A step with an operation that no graph has a place for."""

    def step(self, x, h):
        h = torch.fft.fft(h).real + x.mean(-1, keepdim=True)
        return h, (h,)


class Blocked(elman.Cell):
    """A step whose state has no gradient to the state before: right, and unusual."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.W = nn.Linear(input_size + hidden_size, hidden_size)

    def step(self, x, h):
        h = torch.tanh(self.W(torch.cat([x, h.detach()], -1)))
        return h, (h,)


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient  # straight through


class Straight(elman.Cell):
    """A step with a gradient of its own making, which no trace of its values shows."""

    def step(self, x, h):
        h = 0.5 * h + Own.apply(x.mean(-1, keepdim=True) + 0 * h)
        return h, (h,)


def test_explain_shows_the_parts_the_backend_and_what_it_costs():
    said = elman.explain(elman.Recurrent(elman.cell.LSTM(8, 16)), torch.randn(10, 4, 8))
    assert said.backends == ("fused",)
    for words in (
        "LSTM: x (T=10, B=4, I=8), float32, cpu",
        "backend: fused",
        "before:",
        "during:",
        "after:",
        "matmul(h(t-1), self.W.weight, transposed)",
        "lstm.py:",
        "carried: h(t) = ",
        ", prev:h(t))",
        "saved:0 = v",
        "add(d:y(t), dL/dh(t))",
        "carried: dL/dh(t-1) = ",
        "GFLOP",
        "bytes of sequences written",
        "1 products in it",
    ):
        assert words in str(said), words


def test_explain_names_states_and_their_gradients_by_the_direction():
    layer = elman.Recurrent(elman.cell.GRU(8, 16), reverse=True)
    forward, back = str(elman.explain(layer, torch.randn(10, 4, 8))).split("\nbackward\n")
    assert "h(t+1)" in forward
    assert "carried: h(t) = " in forward
    assert "h(t-1)" not in forward
    assert "carried: dL/dh(t+1) = " in back
    assert "dL/dh(t)" in back


def test_explain_says_what_checkpoint_makes_of_it():
    x = torch.randn(100, 2, 4)
    lines = str(elman.explain(elman.Recurrent(elman.cell.LSTM(4, 8), checkpoint="sqrt"), x)).splitlines()
    of_states, saved = 2 * 4 * (8 + 8), 2 * 4 * 7 * 8  # bytes a step: h and c; what seven values of width 8 take
    assert lines[-1] == (
        f"checkpoint: segments of 10 steps, computed again in backward: {10 * of_states:,} bytes of states and "
        f"{10 * saved:,} of what is saved of one segment, in place of {100 * saved:,} of what is saved of all steps"
    )


def test_explain_goes_through_a_stack_and_names_each_layer():
    net = elman.Stacked(elman.cell.LSTM(3, 4), nn.Dropout(0.5), elman.cell.GRU(4, 5))
    said = elman.explain(net, torch.randn(6, 2, 3))
    assert said.backends == ("fused", "fused")
    assert "LSTM: x (T=6, B=2, I=3)" in str(said)
    assert "GRU: x (T=6, B=2, I=4)" in str(said)


def test_explain_names_the_operation_and_its_line():
    with pytest.warns(elman.BackendWarning, match=r"Transform runs on the plain backend: test_explain\.py:\d+"):
        said = elman.explain(elman.Recurrent(Transform(3, 4)), torch.randn(5, 2, 3))
    assert said.backends == ("plain",)
    assert "the step uses _fft_r2c, which has no place in elman's graph" in str(said)


def test_explain_needs_a_recurrent_layer():
    with pytest.raises(InputError, match="explain: Linear ran no recurrent layer of elman's"):
        elman.explain(nn.Linear(3, 4), torch.randn(2, 3))


def test_explain_and_check_say_what_they_lack():
    class Blind(elman.Cell):
        def step(self, x, h):
            return torch.zeros_like(x), (torch.zeros_like(h),)

    with pytest.raises(elman.InputError, match="what it is called with"):
        elman.explain(elman.Recurrent(elman.cell.GRU(3, 3)))
    with pytest.raises(elman.CellError, match="nothing that Blind.step returns depends on x"):
        elman.check(Blind(3, 3))


def test_strict_refuses_what_cannot_be_compiled():
    layer = elman.Recurrent(Transform(3, 4), strict=True)
    with pytest.raises(elman.CellError, match=r"test_explain\.py:\d+: the step uses _fft_r2c.*strict=True"):
        layer(torch.randn(5, 2, 3))


def test_strict_lets_a_wrong_step_raise_its_own_error():
    class Wrong(elman.Cell):
        def step(self, x, h):
            raise ValueError("boom")

    with pytest.raises(ValueError, match=r"^boom(\n|$)"):
        elman.Recurrent(Wrong(3, 3), strict=True)(torch.zeros(2, 1, 3))


def test_a_gradient_of_its_own_making_is_kept():
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    with pytest.warns(elman.BackendWarning, match="does not give the step's own gradients"):
        y, _ = elman.Recurrent(Straight(3, 4))(x)
    (found,) = torch.autograd.grad(y.sum(), x)
    with elman.backend("plain"):
        (want,) = torch.autograd.grad(elman.Recurrent(Straight(3, 4))(x)[0].sum(), x)
    assert torch.equal(found, want)


def test_a_detached_state_stays_detached():
    cell = Blocked(3, 4).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    y, _ = elman.Recurrent(cell, strict=True)(x)
    (found,) = torch.autograd.grad(y[-1].sum(), x)
    assert torch.equal(found[:-1], torch.zeros_like(found[:-1]))
    assert found[-1].abs().min() > 0


@pytest.mark.parametrize("kind", [elman.cell.Elman, elman.cell.GRU, Blocked])
def test_check_proves_a_cell(kind):
    report = elman.check(kind(3, 5))
    assert report.ok
    assert report.backend == "fused"
    for what in ("values, forward (", "gradients, reverse, lengths and resets", "chunks of 3", "second derivatives"):
        assert what in str(report)
    assert "a Python loop" in str(report)


def test_check_leaves_the_cell_as_it_was():
    cell = elman.cell.GRU(3, 5)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    elman.check(cell)
    assert all(torch.equal(value, before[name]) for name, value in cell.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in cell.parameters())


def test_check_finds_a_cell_that_forgets_its_batch():
    class Mixing(elman.Cell):
        def step(self, x, h):
            h = torch.tanh(h + x.mean())  # over the batch too
            return h, (h,)

    with pytest.warns(elman.BackendWarning):
        report = elman.check(Mixing(3, 4))
    assert not report.ok
    assert "a row alone and in its batch" in report.failures
    assert "FAILED" in str(report)


def test_explain_draws_none_of_the_users_random_numbers():
    net, cell = elman.Stacked(elman.cell.LSTM(3, 4), nn.Dropout(0.5)), elman.cell.GRU(3, 4)
    torch.manual_seed(0)
    elman.explain(net, torch.zeros(6, 2, 3))
    elman.check(cell)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))
