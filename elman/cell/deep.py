"""Cells one above the other as one cell, for parts that take a cell: decoders, grids, attention."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from elman.cell.base import Cell, Signature, State, watched
from elman.errors import CellError


class Deep(Cell):
    """Cells one above the other, as one cell: each reads the y of the one below at the same step.

        decoder = elman.cell.Attend(elman.cell.Deep(LSTM(16 + 32, 32), LSTM(32, 32)), memory_size=64)

    Where whole sequences go through, `elman.Stacked` does the same with a kernel a layer. States are named after their
    cell, from below: h1, c1, h2, c2; so are watched values. Context goes to every cell that takes it by that name.
    Shapes: x (B, I) of the lowest, y (B, K) of the highest, states as the cells'.
    Errors: CellError without a cell, where one does not fit on the one below, or where two draw random numbers or read
    context of each step by the same name.
    """

    def __init__(self, *cells: Cell) -> None:
        nn.Module.__init__(self)
        for cell in cells:
            if not isinstance(cell, Cell):
                raise CellError(f"Deep takes cells; got a {type(cell).__name__}")
        if not cells:
            raise CellError("Deep needs at least one cell; it was given none")
        for below, above in pairwise(cells):
            if above.input_size != below.output_size:
                raise CellError(
                    f"Deep: {type(above).__name__} reads {above.input_size} numbers; "
                    f"{type(below).__name__} below it gives {below.output_size}"
                )
        own = [name for cell in cells for name in (*cell.each_step, *cell.whole)]
        for name in own:
            if own.count(name) > 1:
                raise CellError(f"Deep: two cells have a context {name!r} of their own; Stacked keeps them apart")
        self.cells = nn.ModuleList(cells)
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.output_size = cells[-1].output_size
        self.each_step = tuple(name for cell in cells for name in cell.each_step)
        self.whole = tuple(name for cell in cells for name in cell.whole)
        self.state_sizes = {f"{k}{i}": w for i, cell in enumerate(cells, 1) for k, w in cell.state_sizes.items()}

    def layers(self) -> list[Cell]:
        """The cells, from below."""
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    @property
    def signature(self) -> Signature:
        parts = [cell.signature for cell in self.layers()]
        context = frozenset[str]().union(*(p.context for p in parts))
        required = frozenset[str]().union(*(p.required for p in parts))
        return Signature(tuple(self.state_sizes), context, required)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        return {name: value for cell in self.layers() for name, value in cell.draw(x).items()}

    def prepare(self, context: dict[str, Any]) -> dict[str, Any]:
        for cell in self.layers():
            context = cell.prepare(context)
        return context

    def initial(self, batch_size: int) -> State:
        return self.signature.State(*(s for cell in self.layers() for s in cell.initial(batch_size)))

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        return self.signature.State(*(s for cell in self.layers() for s in cell.begin(batch_size, context)))

    def learn_initial(self) -> Self:
        for cell in self.layers():
            cell.learn_initial()
        return self

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        new: list[Tensor] = []
        for i, cell in enumerate(self.layers(), 1):
            names = cell.signature
            own = state[len(new) : len(new) + len(names.state)]
            with watched() as seen:
                x, after = cell.step(x, *own, **{k: v for k, v in context.items() if k in names.context})
            for name, value in seen.items():
                self.watch(f"{name}{i}", value)
            new += after
        return x, tuple(new)
