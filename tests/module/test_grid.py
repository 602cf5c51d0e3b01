"""A recurrence over rows and columns, against two loops over its places."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import all_close, close
from torch import nn

import elman


class Plus(elman.Cell):
    """What goes right and what goes down differ, in width too; a context enters every step."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"left": hidden_size, "up": hidden_size + 2}
        self.mix = nn.Linear(input_size + 2 * hidden_size + 2, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size + 2)

    def step(self, x, left, up, *, bias=None):
        h = torch.tanh(self.mix(torch.cat([x, left, up], -1)))
        h = h if bias is None else h + bias
        return 2 * h, (h, torch.tanh(self.down(h)))


CELLS = {"lstm": elman.cell.LSTM2D, "plus": Plus}
SIZES = [(1, 1, 1, 1, 1), (2, 3, 4, 1, 5), (3, 1, 5, 2, 65), (1, 4, 1, 3, 2)]  # B, R, C, I, H


def by_places(cell, x, corner=0, edges=None, sizes=None, **context):
    """y and edges by two plain loops, image by image."""
    B, R, C, _ = x.shape
    ys, lefts, ups = [], [], []
    for b in range(B):
        rows, columns = (R, C) if sizes is None else sizes[b]
        first, own = cell.initial(1), {name: value[b : b + 1] for name, value in context.items()}
        left = {r: first[0] if edges is None else edges[0][b : b + 1, r] for r in range(R)}
        up = {c: first[1] if edges is None else edges[1][b : b + 1, c] for c in range(C)}
        found = {}
        for r in range(rows)[:: -1 if corner >= 2 else 1]:
            for c in range(columns)[:: -1 if corner % 2 else 1]:
                found[r, c], (left[r], up[c]) = cell.step(x[b : b + 1, r, c], left[r], up[c], **own)
        zero = torch.zeros(1, cell.output_size, dtype=x.dtype)
        ys.append(torch.stack([torch.cat([found.get((r, c), zero) for c in range(C)]) for r in range(R)]))
        lefts.append(torch.cat([left[r] for r in range(R)]))
        ups.append(torch.cat([up[c] for c in range(C)]))
    return torch.stack(ys), (torch.stack(lefts), torch.stack(ups))


@pytest.fixture(params=["plain", "reference", "fused"], autouse=True)
def backend(request):
    with elman.backend(request.param):
        yield request.param


def made(kind, size, dtype=torch.float64):
    torch.manual_seed(0)
    B, R, C, I, H = size  # noqa: E741
    cell = CELLS[kind](I, H).to(dtype)
    widths = list(cell.state_sizes.values())
    shapes = [(B, R, C, I), (B, R, widths[0]), (B, C, widths[1])]
    x, left, up = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return cell, x, (left, up)


def gradients(outputs, leaves):
    torch.manual_seed(1)
    total = sum((o * torch.randn(o.shape, dtype=o.dtype)).sum() for o in outputs)
    return torch.autograd.grad(total, leaves, materialize_grads=True)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("given_edges", [False, True], ids=["zeros", "edges"])
def test_values_and_gradients_from_one_corner(kind, size, dtype, given_edges):
    cell, x, edges = made(kind, size, dtype)
    y, ends = elman.Grid(cell)(x, edges if given_edges else None)
    want, want_ends = by_places(cell, x, edges=edges if given_edges else None)
    close(y, want)
    all_close(ends, want_ends)
    leaves = [x, *edges, *cell.parameters()]
    all_close(gradients((y, *ends), leaves), gradients((want, *want_ends), leaves))


@pytest.mark.parametrize("merge", ["cat", "sum"])
@pytest.mark.parametrize("sizes", [None, [[3, 4], [2, 1]]], ids=["whole", "sizes"])
def test_four_corners(merge, sizes):
    torch.manual_seed(0)
    cells = [elman.cell.LSTM2D(2, 3).double() for _ in range(4)]
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    y, ends = elman.Grid(*cells, merge=merge)(x, sizes=sizes)
    want = [by_places(cell, x, corner, sizes=sizes) for corner, cell in enumerate(cells)]
    ys = [w for w, _ in want]
    close(y, torch.cat(ys, -1) if merge == "cat" else sum(ys))
    for end, (_, want_end) in zip(ends, want):
        all_close(end, want_end)
    assert y.shape == (2, 3, 4, 12 if merge == "cat" else 3)


def test_a_grid_is_its_pieces_by_rows_and_by_columns():
    cell, x, edges = made("plus", (2, 5, 6, 2, 3))
    grid = elman.Grid(cell)
    whole, ends = grid(x, edges)
    above, middle = grid(x[:, :2], (edges[0][:, :2], edges[1]))
    below, bottom = grid(x[:, 2:], (edges[0][:, 2:], middle.up))
    close(torch.cat([above, below], 1), whole)
    close(bottom.up, ends.up)
    close(torch.cat([middle.left, bottom.left], 1), ends.left)
    left, side = grid(x[:, :, :4], (edges[0], edges[1][:, :4]))
    right, last = grid(x[:, :, 4:], (side.left, edges[1][:, 4:]))
    close(torch.cat([left, right], 2), whole)
    close(last.left, ends.left)


def test_context_and_batch_independence():
    cell, x, _ = made("plus", (3, 4, 5, 2, 3))
    bias = torch.randn(3, 3, dtype=torch.float64)
    y, _ = elman.Grid(cell)(x, bias=bias)
    close(y, by_places(cell, x, bias=bias)[0])
    close(elman.Grid(cell)(x[1:2], bias=bias[1:2])[0], y[1:2])


@settings(max_examples=10, deadline=None)
@given(
    data=st.data(), R=st.integers(1, 4), C=st.integers(1, 5), corner=st.integers(0, 3), kind=st.sampled_from([*CELLS])
)
def test_images_of_any_sizes(data, R, C, corner, kind):
    """Values, gradients and edges; what lies beyond an image reaches nothing, not even as NaN."""
    sizes = [[data.draw(st.integers(0, R)), data.draw(st.integers(0, C))] for _ in range(3)]
    torch.manual_seed(0)
    cells = [CELLS[kind](2, 3).double() for _ in range(4)]
    x = torch.randn(3, R, C, 2, dtype=torch.float64)
    widths = list(cells[0].state_sizes.values())
    edges = [torch.randn(3, n, width, dtype=torch.float64, requires_grad=True) for n, width in zip((R, C), widths)]
    for b, (rows, columns) in enumerate(sizes):
        x[b, rows:] = x[b, :, columns:] = float("nan")
    x.requires_grad_()
    y, ends = elman.Grid(*cells)(x, [tuple(edges)] * 4, sizes=torch.tensor(sizes))
    want, want_ends = by_places(cells[corner], x, corner, edges, sizes)
    own = y.split(want.shape[-1], -1)[corner]
    close(own, want)
    all_close(ends[corner], want_ends)
    leaves = [x, *edges, *cells[corner].parameters()]
    all_close(gradients((own, *ends[corner]), leaves), gradients((want, *want_ends), leaves))


def test_second_derivatives():
    cell, x, edges = made("lstm", (1, 2, 3, 2, 2))
    assert torch.autograd.gradgradcheck(lambda x, *e: elman.Grid(cell)(x, e)[0], (x, *edges))


def test_it_is_fused(backend):
    if backend != "fused":
        pytest.skip("said of the fused backend only")
    grid = elman.Grid(*(elman.cell.LSTM2D(1, 4) for _ in range(4)), strict=True)
    assert "fused" in str(elman.explain(grid, torch.randn(2, 3, 4, 1)))


WRONG = {
    "two cells": (lambda: elman.Grid(Plus(2, 3), Plus(2, 3)), elman.OptionError, "one cell, or four"),
    "one twice": (lambda: elman.Grid(*[Plus(2, 3)] * 4), elman.OptionError, "the same cell twice"),
    "merge": (lambda: elman.Grid(Plus(2, 3), merge="max"), elman.OptionError, 'merge must be "cat" or "sum"'),
    "states": (lambda: elman.Grid(elman.cell.LSTM(2, 3)), elman.CellError, "states are left and up.*got h, c"),
    "no cell": (lambda: elman.Grid(nn.Linear(2, 3)), elman.CellError, "got a Linear"),
    "x": (lambda: elman.Grid(Plus(2, 3))(torch.zeros(2, 3, 2)), elman.InputError, r"\(B, R, C, I\)"),
    "width": (lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 4)), elman.InputError, r"x must be \(B, R, C, I=2\)"),
    "name": (lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 2), gain=1), elman.InputError, "unknown argument"),
    "sizes": (
        lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 2), sizes=[2, 3]),
        elman.InputError,
        r"sizes must be whole numbers \(B=1, 2\).*got a tensor \(2,\)",
    ),
    "real sizes": (
        lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 2), sizes=torch.ones(1, 2)),
        elman.InputError,
        "got a tensor \\(1, 2\\) of torch.float32",
    ),
    "columns": (
        lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 2), sizes=[[2, 4]]),
        elman.InputError,
        r"columns must lie in 0..3; got 4..4",
    ),
    "edges": (
        lambda: elman.Grid(Plus(2, 3))(torch.zeros(1, 2, 3, 2), (torch.zeros(1, 2, 3), torch.zeros(1, 3, 3))),
        elman.InputError,
        r"left \(1, 2, 3\) and up \(1, 3, 5\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what):
    make, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        make()
