"""The contracts of a layer, over cells, directions, odd sizes and types, against the oracle."""

import copy
from itertools import product

import oracle
import pytest
import torch
from cells import CASES, CELLS, THOROUGH, context_of, cut, irregular, make
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import gradients, scalar
from tolerance import all_close, close

import elman

ROWS = ("whole", "lengths", "reset", "both")
EVERY = [  # in single precision the less usual cells have all masks at once only; backwards in time all or none
    (kind, size, dtype, rows, reverse)
    for (kind, size), dtype, rows, reverse in product(CASES, (torch.float32, torch.float64), ROWS, (False, True))
    if kind in THOROUGH or (rows == "both" if dtype == torch.float32 else not reverse or rows in ("whole", "both"))
]
cells = pytest.mark.parametrize("kind", CELLS)
cases = pytest.mark.parametrize(("kind", "size"), CASES, ids=str)
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@pytest.fixture(params=["plain", "reference", "fused"], autouse=True)
def backend(request):
    """Every contract holds for every way of running."""
    with elman.backend(request.param):
        yield request.param


def width(cell):
    return cell.output_size


@pytest.mark.parametrize(("kind", "size", "dtype", "rows", "reverse"), EVERY, ids=str)
def test_values_and_gradients_are_the_oracles(kind, size, dtype, reverse, rows):
    cell, x, state = make(kind, size, dtype)
    context = context_of(cell, x)
    lengths, reset = irregular(*size[:2])
    how = {
        "whole": {},
        "lengths": {"lengths": lengths},
        "reset": {"reset": reset},
        "both": {"lengths": lengths, "reset": reset},
    }[rows]
    y, last = elman.Recurrent(cell, reverse=reverse)(x, state, **how, **context)
    want, want_last = oracle.run(cell, x, state, reverse=reverse, width=width(cell), **how, **context)
    close(y, want, "y")
    all_close(last, want_last, "last state")
    assert last._fields == tuple(cell.state_sizes)
    found, wanted = (gradients(cell, x, state, context, *run) for run in ((y, last), (want, want_last)))
    all_close(found, wanted, "gradient")


@cells
@directions
@pytest.mark.parametrize("rows", ["whole", "both"])
@torch.no_grad()
def test_values_without_gradients_are_the_oracles(kind, reverse, rows):
    """What is not to be differentiated has kernels of its own, which save nothing."""
    cell, x, state = make(kind, (7, 4, 3, 5))
    context = context_of(cell, x)
    lengths, reset = irregular(7, 4)
    how = {"lengths": lengths, "reset": reset} if rows == "both" else {}
    y, last = elman.Recurrent(cell, reverse=reverse)(x, state, **how, **context)
    want, want_last = oracle.run(cell, x, state, reverse=reverse, width=width(cell), **how, **context)
    close(y, want, "y")
    all_close(last, want_last, "last state")


@cells
@directions
def test_second_derivatives_are_the_oracles(kind, reverse):
    cell, x, state = make(kind, (4, 3, 2, 3))
    context = context_of(cell, x)
    lengths, reset = irregular(4, 3)
    run = elman.Recurrent(cell, reverse=reverse)(x, state, lengths=lengths, reset=reset, **context)
    want = oracle.run(cell, x, state, lengths, reset, reverse, width(cell), **context)
    all_close(*(gradients(cell, x, state, context, *r, twice=True) for r in (run, want)), "second")


@cases
@types
def test_a_sequence_is_its_chunks_is_its_steps(kind, size, dtype):
    cell, x, state = make(kind, size, dtype)
    context = context_of(cell, x)
    _, reset = irregular(*size[:2])
    layer = elman.Recurrent(cell)
    whole, last = layer(x, state, reset=reset, **context)
    for chunk in (1, 2, 3):
        ys, carried = [], state
        for t in range(0, len(x), chunk):
            part = slice(t, t + chunk)
            y, carried = layer(x[part], carried, reset=reset[part], **cut(cell, context, part))
            ys.append(y)
        close(torch.cat(ys), whole, f"chunks of {chunk}")
        all_close(carried, last, f"state after chunks of {chunk}")


@cells
def test_a_reverse_sequence_is_its_chunks_from_the_end(kind):
    cell, x, state = make(kind, (7, 3, 4, 5))
    context = context_of(cell, x)
    layer = elman.Recurrent(cell, reverse=True)
    whole, last = layer(x, state, **context)
    ys, carried = [], state
    for t in (6, 3, 0):
        part = slice(t, t + 3)
        y, carried = layer(x[part], carried, **cut(cell, context, part))
        ys.insert(0, y)
    close(torch.cat(ys), whole)
    all_close(carried, last)


@cells
@directions
def test_a_row_depends_neither_on_its_batch_nor_on_its_padding(kind, reverse):
    cell, x, state = make(kind, (7, 4, 3, 5))
    lengths, reset = irregular(7, 4)
    layer = elman.Recurrent(cell, reverse=reverse)
    x, context = x.detach(), {name: value.detach() for name, value in context_of(cell, x).items()}
    for b, n in enumerate(lengths):
        for poisoned in (x, *(context[name] for name in cell.each_step if name in context)):
            poisoned[n:, b] = float("nan")
        reset[n:, b] = True
    for value in (x, *context.values()):
        value.requires_grad_(value.is_floating_point())
    y, last = layer(x, state, lengths=lengths, reset=reset, **context)
    assert y.isfinite().all()
    found = gradients(cell, x, state, context, y, last)
    assert all(g.isfinite().all() for g in found)
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        assert torch.equal(y[n:, b], torch.zeros_like(y[n:, b]))
        assert torch.equal(found[0][n:, b], torch.zeros_like(x[n:, b]))
        own = tuple(s[row] for s in state)
        if n:
            alone, own = layer(x[:n, row], own, reset=reset[:n, row], **cut(cell, context, slice(n), row))
            close(y[:n, row], alone, f"row {b}")
        all_close(tuple(s[row] for s in last), own, f"state of row {b}")


@directions
def test_no_gradient_crosses_a_reset_but_a_learned_state_gets_its_own(reverse):
    cell, x, state = make("lstm-learned", (6, 2, 3, 4))
    reset = torch.zeros(6, 2, dtype=torch.bool)
    reset[3] = True
    y, _ = elman.Recurrent(cell, reverse=reverse)(x, state, reset=reset)
    late = y[:3] if reverse else y[3:]
    dx, dh, learned = torch.autograd.grad(late.sum(), [x, state[0], cell.initial_h], materialize_grads=True)
    early = dx[3:] if reverse else dx[:3]
    assert torch.equal(early, torch.zeros_like(early))
    assert torch.equal(dh, torch.zeros_like(dh))
    assert learned.abs().max() > 0


@cells
def test_batch_first_is_the_same_with_the_axes_exchanged(kind):
    cell, x, state = make(kind, (7, 3, 4, 5))
    lengths, reset = irregular(7, 3)
    context, names = context_of(cell, x), tuple(cell.state_sizes)
    flipped = {k: v.transpose(0, 1) if k in cell.each_step else v for k, v in context.items()}
    y, last, seen = elman.Recurrent(cell)(x, state, lengths=lengths, reset=reset, watch=names, **context)
    turned = elman.Recurrent(cell, batch_first=True)
    y2, last2, seen2 = turned(x.transpose(0, 1), state, lengths=lengths, reset=reset.T, watch=names, **flipped)
    assert torch.equal(y2, y.transpose(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(last, last2))
    assert all(torch.equal(seen2[name], seen[name].transpose(0, 1)) for name in seen)


@cells
def test_both_directions_side_by_side(kind):
    size = (7, 3, 4, 5)
    one, x, state = make(kind, size)
    other = CELLS[kind](4, 5).double()
    context = context_of(one, x)
    lengths, reset = irregular(7, 3)
    y, last = elman.Bidirectional(one, other)(x, (state, state), lengths=lengths, reset=reset, **context)
    ahead = oracle.run(one, x, state, lengths, reset, False, width(one), **context)
    back = oracle.run(other, x, state, lengths, reset, True, width(one), **context)
    close(y, torch.cat([ahead[0], back[0]], -1))
    all_close(last, (ahead[1], back[1]))


@directions
def test_a_stack_is_its_layers_one_after_another(reverse):
    torch.manual_seed(0)
    low, high = elman.cell.LSTM(4, 6).double(), elman.cell.GRU(3, 5).double()
    between = torch.nn.Linear(6, 3).double()
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    lengths, reset = irregular(7, 3)
    net = elman.Stacked(
        elman.Recurrent(low, reverse=reverse), between, elman.Recurrent(high, reverse=reverse), torch.nn.Tanh()
    )
    y, (first, second) = net(x, lengths=lengths, reset=reset)
    inner, want_first = oracle.run(low, x, None, lengths, reset, reverse)
    want, want_second = oracle.run(high, between(inner), None, lengths, reset, reverse)
    close(y, want.tanh())
    all_close((first, second), (want_first, want_second))


def test_a_stack_keeps_y_zero_beyond_the_lengths_whatever_its_last_part():
    net = elman.Stacked(elman.cell.GRU(2, 3), torch.nn.Linear(3, 2))
    y, _ = net(torch.randn(5, 2, 2), lengths=[5, 2])
    assert torch.equal(y[2:, 1], torch.zeros(3, 2))
    assert y[:2, 1].abs().min() > 0


def test_context_is_the_same_at_every_step():
    cell, x, state = make("uneven", (6, 3, 2, 4))
    bias = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y, last = elman.Recurrent(cell)(x, state, bias=bias)
    want, want_last = oracle.run(cell, x, state, width=5, bias=bias)
    close(y, want)
    close(*torch.autograd.grad(scalar(y, last), bias), *torch.autograd.grad(scalar(want, want_last), bias))


def test_context_reaches_the_layers_of_a_stack_that_take_it():
    cell, x, _ = make("uneven", (6, 3, 2, 4))
    net = elman.Stacked(cell, elman.cell.GRU(5, 3).double())
    bias = torch.randn(3, 4, dtype=torch.float64)
    y, _ = net(x, bias=bias)
    want, _ = elman.Recurrent(net.parts[1].cell)(elman.Recurrent(cell)(x, bias=bias)[0])
    assert torch.equal(y, want)


@cells
def test_scan_of_the_bare_step_is_the_layer(kind):
    cell, x, state = make(kind, (7, 3, 4, 5))
    lengths, _ = irregular(7, 3)
    context = context_of(cell, x)
    y, last = elman.scan(cell.step, x, state, lengths=lengths, **context)
    want, want_last = elman.Recurrent(cell)(x, state, lengths=lengths, **context)
    close(y, want)
    all_close(last, want_last)


def test_scan_resets_to_the_state_it_was_given():
    def step(x, total):
        total = total + x
        return total, (total,)

    reset = torch.tensor([[False], [False], [True], [False]])
    y, last = elman.scan(step, torch.ones(4, 1, 1), torch.full((1, 1), 10.0), reset=reset)
    assert y.flatten().tolist() == [11, 12, 11, 12]
    assert last.total.item() == 12


def test_watched_values_states_and_their_gradients():
    cell, x, state = make("lstm", (5, 2, 3, 4))
    y, last, seen = elman.Recurrent(cell)(x, state, watch=("h", "c", "forget_gate", "input_gate"))
    assert list(seen) == ["h", "c", "forget_gate", "input_gate"]
    assert torch.equal(seen["h"], y)
    assert torch.equal(seen["c"][-1], last.c)
    before = torch.cat([state[1][None], seen["c"][:-1]])
    a = cell.U(x) + cell.W(torch.cat([state[0][None], y[:-1]]))
    close(seen["forget_gate"], a.chunk(4, -1)[1].sigmoid())
    close(seen["c"], seen["forget_gate"] * before + seen["input_gate"] * a.chunk(4, -1)[2].tanh())
    (gradient,) = torch.autograd.grad(seen["forget_gate"][-1].sum(), state[0])
    assert gradient.abs().max() > 0


def test_a_name_watched_twice_is_watched_once():
    _, _, seen = elman.Recurrent(elman.cell.GRU(3, 4))(torch.randn(5, 2, 3), watch=("h", "h"))
    assert seen["h"].shape == (5, 2, 4)


def test_states_are_copied_and_saved_like_tuples():
    _, state = elman.Recurrent(elman.cell.LSTM(3, 4))(torch.randn(5, 2, 3))
    again = copy.deepcopy(type(state)(*(value.detach() for value in state)))
    assert type(again) is type(state)
    assert torch.equal(again.c, state.c)


def test_padding_reaches_no_gradient_even_where_zero_would():
    def step(x, h, *, w):
        h = h + w * x / x.norm(dim=-1, keepdim=True)
        return h, (h,)

    w = torch.ones(2, requires_grad=True)
    x = torch.ones(4, 3, 2)
    x[2:, 1] = float("inf")
    y, _ = elman.scan(step, x, torch.zeros(3, 2), lengths=[4, 2, 4], w=w)
    y.sum().backward()
    assert y.isfinite().all()
    assert w.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["plain"], indirect=True)
def test_a_whole_number_in_the_state_stays_whole():
    def step(x, count):
        return x, (count + 1,)

    _, (count,) = elman.scan(step, torch.ones(1000, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.long))
    assert count.item() == 1000


def test_watched_values_of_several_layers_come_layer_by_layer_and_end_with_the_row():
    net = elman.Bidirectional(elman.cell.LSTM(3, 4), elman.cell.GRU(3, 4))
    _, _, (ahead, back) = net(torch.randn(5, 2, 3), lengths=[5, 2], watch="candidate")
    assert ahead["candidate"].shape == back["candidate"].shape == (5, 2, 4)
    assert torch.equal(ahead["candidate"][2:, 1], torch.zeros(3, 4))


def test_watching_changes_nothing_and_is_over_when_the_call_is():
    cell, x, state = make("gru", (5, 2, 3, 4))
    layer = elman.Recurrent(cell)
    plain, _ = layer(x, state)
    watched, _, _ = layer(x, state, watch=("candidate",))
    assert torch.equal(plain, watched)
    cell.step(x[0], *state)
    cell.step(x[0], *state)  # outside a layer, watch is silent


@pytest.mark.parametrize("backend", ["plain"], indirect=True)
def test_an_integer_x_leaves_the_state_its_own_type():
    class Tally(elman.Cell):
        def __init__(self):
            super().__init__(1, 3)
            self.table = torch.nn.Embedding(5, 3)

        def step(self, x, h):
            h = torch.tanh(h + self.table(x[:, 0]))
            return h, (h,)

    y, state = elman.Recurrent(Tally())(torch.randint(0, 5, (4, 2, 1)))
    assert y.dtype == state.h.dtype == torch.float32


def test_the_same_answer_twice_to_the_bit():
    def once():
        cell, x, state = make("lstm", (9, 4, 6, 33), torch.float32)
        y, last = elman.Recurrent(cell)(x, state)
        return y, gradients(cell, x, state, {}, y, last)

    one, two = once(), once()
    assert torch.equal(one[0], two[0])
    assert all(torch.equal(a, b) for a, b in zip(one[1], two[1]))


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(), T=st.integers(1, 9), B=st.integers(1, 5), reverse=st.booleans(), kind=st.sampled_from(sorted(CELLS))
)
def test_any_mixture_of_lengths_and_resets(data, T, B, reverse, kind):
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    reset = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=B, max_size=B), min_size=T, max_size=T)))
    cell, x, state = make(kind, (T, B, 2, 3))
    context = context_of(cell, x)
    y, last = elman.Recurrent(cell, reverse=reverse)(x, state, lengths=lengths, reset=reset, **context)
    want, want_last = oracle.run(cell, x, state, lengths, reset, reverse, width(cell), **context)
    close(y, want)
    all_close(last, want_last)
