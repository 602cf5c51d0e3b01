"""A recurrence over two dimensions, from one corner or from all four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from elman.cell.around import Around
from elman.cell.base import Cell, Signature, State
from elman.errors import CellError, InputError, OptionError
from elman.module.plain import Rows, describe
from elman.module.recurrent import Recurrent

CORNERS = ("top left", "top right", "bottom left", "bottom right")
MERGES = ("cat", "sum")


class Edges(NamedTuple):
    """The states that leave a grid, or enter it: `left` beside each row, `up` above each column."""

    left: Tensor  # (B, R, width)
    up: Tensor  # (B, C, width)


class Grid(nn.Module):
    """A cell unfolded over rows and columns: each place reads its left neighbour's state and that of the one above.

        layer = elman.Grid(elman.cell.LSTM2D(1, 16))
        y, edges = layer(x)                   # x (B, R, C, 1) -> y (B, R, C, 16); edges.left, edges.up
        y, edges = layer(below, edges_of_the_rows_above)
        y, edges = layer(x, sizes=[[28, 20], [16, 32]])     # each image's own rows and columns

    The cell's states are called `left` and `up`: ``step(self, x, left, up) -> y, (to the right, downwards)``. With four
    cells the first starts in the top left corner, the others in the top right, the bottom left and the bottom right,
    where "left" and "up" mean the neighbours that come before; their outputs lie side by side, or are summed
    (merge="sum"), and the edges come as a tuple of four.
    Each row is one call of the compiled recurrence over its columns, for which all that comes from above is input.
    So nothing is computed twice; diagonals would need R + C - 1 steps in place of R * C, half of them idle in a square.
    Shapes: x (B, R, C, I), y (B, R, C, K), edges as in `Edges`. A given edge is where the recurrence begins. sizes
    (B, 2): each image's own rows and columns; it begins at its own corners, y beyond is zero, and an edge beyond is as
    it was given.
    Errors: CellError for a cell with other states; InputError where tensors do not fit.
    Source: Graves, Fernandez, Schmidhuber, "Multi-dimensional recurrent neural networks" (2007).
    """

    def __init__(self, *cells: Cell, merge: Literal["cat", "sum"] = "cat", strict: bool = False) -> None:
        super().__init__()
        if len(cells) not in (1, len(CORNERS)):
            raise OptionError(f"Grid takes one cell, or four, one for each corner to start from; got {len(cells)}")
        if len({id(cell) for cell in cells}) < len(cells):
            raise OptionError("Grid was given the same cell twice; each corner needs a cell of its own")
        if merge not in MERGES:
            raise OptionError(f'merge must be "cat" or "sum"; got {merge!r}')
        self.merge = merge
        reverse = (False, True, False, True)  # columns from the last to the first
        pairs = zip(cells, reverse)
        self.corners = nn.ModuleList(Recurrent(Row(cell), reverse=back, strict=strict) for cell, back in pairs)

    def forward(
        self, x: Tensor, edges: Any = None, *, sizes: Tensor | Sequence[Sequence[int]] | None = None, **context: Any
    ) -> tuple[Tensor, Any]:
        """y (B, R, C, K) and the edges after the last row and column; `context` goes to every step."""
        if not isinstance(x, Tensor) or x.dim() != 4 or 0 in x.shape[:3]:
            raise InputError(f"x must be a tensor (B, R, C, I) with at least one row and column; got {describe(x)}")
        given = [edges] if len(self.corners) == 1 else edges
        if edges is not None and len(given) != len(self.corners):
            raise InputError(f"edges must be a tuple of {len(self.corners)}, one for each corner; got {len(given)}")
        inside = None if sizes is None else within(sizes, x)
        corner = self.corners[0]
        assert isinstance(corner, Recurrent)
        want = corner.cell.input_size
        if x.shape[-1] != want:
            raise InputError(f"x must be (B, R, C, I={want}), as the cell reads it; got {describe(x)}")
        grid = x.permute(1, 2, 0, 3)  # (R, C, B, I)
        ys, ends = [], []
        for i, corner in enumerate(self.corners):
            assert isinstance(corner, Recurrent)
            y, end = sweep(corner, grid, given[i] if given else None, inside, i >= 2, context)
            ys.append(y)
            ends.append(end)
        y = torch.cat(ys, -1) if self.merge == "cat" else torch.stack(ys).sum(0)
        return y.permute(2, 0, 1, 3), ends[0] if len(ends) == 1 else tuple(ends)

    def extra_repr(self) -> str:
        return f'merge="{self.merge}"' if len(self.corners) > 1 else ""


class Row(Around):
    """One row of a grid as a recurrence over its columns: `up` is its context, and leaves beside the output."""

    def __init__(self, cell: Cell) -> None:
        if not isinstance(cell, Cell) or cell.signature.state != ("left", "up"):
            has = ", ".join(cell.signature.state) if isinstance(cell, Cell) else describe(cell)
            raise CellError(f"Grid takes cells whose states are left and up, as step(self, x, left, up); got {has}")
        super().__init__(cell)
        self.state_sizes = {"left": cell.state_sizes["left"]}
        self.output_size = cell.output_size + cell.state_sizes["up"]
        self.each_step = (*self.each_step, "up")

    @property
    def signature(self) -> Signature:
        inner = self.cell.signature
        return Signature(("left",), inner.context | {"up"}, inner.required | {"up"})

    def with_own(self, state: State, batch_size: int) -> State:
        return self.signature.State(state[0])

    def example(self, x: Tensor) -> dict[str, Any]:
        return {**super().example(x), "up": x.new_zeros(*x.shape[:2], self.cell.state_sizes["up"])}

    def step(self, x: Tensor, left: Tensor, *, up: Tensor, **context: Any) -> tuple[Tensor, State]:
        y, (left, down) = self.cell.step(x, left, up, **context)
        return torch.cat([y, down], -1), (left,)


def sweep(
    corner: Recurrent,
    grid: Tensor,
    edges: Edges | None,
    inside: Tensor | None,
    upwards: bool,
    context: dict[str, Any],
) -> tuple[Tensor, Edges]:
    """y (R, C, B, K) and the edges of one corner's recurrence over x (R, C, B, I), where `inside` (R, C, B)."""
    R, C, B, _ = grid.shape
    assert isinstance(corner.cell, Row)
    first = corner.cell.cell.begin(B, context)  # left and up
    if edges is None:
        lefts, up = [first[0]] * R, first[1].to(grid).expand(C, B, -1)
    else:
        given = checked(edges, first, R, C)
        lefts, up = list(given.left.unbind(1)), given.up.transpose(0, 1).to(grid)
    ys: list[Tensor] = [grid] * R
    for r in reversed(range(R)) if upwards else range(R):
        rows = Rows(None if inside is None else inside[r])
        state = corner.check_state((lefts[r],), grid[r])
        given_up = corner.check_context({**context, "up": up}, grid[r])
        both, (lefts[r],), _ = corner.run(grid[r], state, rows, (), given_up)
        ys[r], down = both.split([both.shape[-1] - up.shape[-1], up.shape[-1]], -1)
        up = down if inside is None else torch.where(inside[r][..., None], down, up)
    return torch.stack(ys), Edges(torch.stack(lefts, 1), up.transpose(0, 1))


def within(sizes: Any, x: Tensor) -> Tensor:
    """(R, C, B) of bool: which places of x (B, R, C, I) belong to its images; or an InputError."""
    B, R, C = x.shape[:3]
    given = torch.as_tensor(sizes, device=x.device)
    if tuple(given.shape) != (B, 2) or given.dtype.is_floating_point or given.dtype == torch.bool:
        raise InputError(
            f"sizes must be whole numbers (B={B}, 2), rows and columns; got {describe(given)} of {given.dtype}"
        )
    for name, most, own in (("rows", R, given[:, 0]), ("columns", C, given[:, 1])):
        if own.min() < 0 or own.max() > most:
            raise InputError(f"sizes: {name} must lie in 0..{most}; got {int(own.min())}..{int(own.max())}")
    rows, columns = (torch.arange(n, device=x.device)[:, None] < given[:, i] for i, n in enumerate((R, C)))
    return rows[:, None] & columns[None]


def checked(edges: Any, first: State, R: int, C: int) -> Edges:
    """The given edges, or an InputError that says their shapes."""
    B, sizes = first[0].shape[0], [s.shape[-1] for s in first]
    want = [(B, R, sizes[0]), (B, C, sizes[1])]
    if not isinstance(edges, tuple) or [tuple(getattr(e, "shape", ())) for e in edges] != want:
        given = ", ".join(map(describe, edges)) if isinstance(edges, tuple) else describe(edges)
        raise InputError(f"edges must be the tensors left {want[0]} and up {want[1]}; got {given}")
    return Edges(*edges)
