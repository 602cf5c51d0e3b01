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
    cell, from below: h1, c1, h2, c2; so are watched values, and what a cell draws for itself (keep_h1). Other context
    goes to every cell that takes it by that name. Dropout between the cells: ``Deep(Variational(a, output=0.3), b)``.
    Shapes: x (B, I) of the lowest, y (B, K) of the highest, states as the cells'.
    Errors: CellError without a cell, or where one does not fit on the one below.
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
        self.cells = nn.ModuleList(cells)
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.output_size = cells[-1].output_size
        self.each_step = self.outside("each_step")
        self.whole = self.outside("whole")
        self.private = self.outside("private")
        self.state_sizes = {f"{k}{i}": w for i, cell in enumerate(cells, 1) for k, w in cell.state_sizes.items()}

    def layers(self) -> list[Cell]:
        """The cells, from below."""
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def outside(self, kind: str) -> tuple[str, ...]:
        """The cells' names of context of a kind, as they are called here, each once."""
        names = (outer(cell, i, name) for i, cell in enumerate(self.layers(), 1) for name in getattr(cell, kind))
        return tuple(dict.fromkeys(names))

    @property
    def signature(self) -> Signature:
        context, required = set[str](), set[str]()
        for i, cell in enumerate(self.layers(), 1):
            names = cell.signature
            context |= {outer(cell, i, name) for name in names.context}
            required |= {outer(cell, i, name) for name in names.required}
        return Signature(tuple(self.state_sizes), frozenset(context), frozenset(required))

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        cells = enumerate(self.layers(), 1)
        return {outer(cell, i, name): value for i, cell in cells for name, value in cell.draw(x).items()}

    def prepare(self, context: dict[str, Any]) -> dict[str, Any]:
        context = dict(context)
        for i, cell in enumerate(self.layers(), 1):
            ready = cell.prepare(inner(cell, i, context))
            context.update({outer(cell, i, name): value for name, value in ready.items()})
        return context

    def example(self, x: Tensor) -> dict[str, Any]:
        cells = enumerate(self.layers(), 1)
        return {outer(cell, i, name): value for i, cell in cells for name, value in cell.example(x).items()}

    def initial(self, batch_size: int) -> State:
        return self.signature.State(*(s for cell in self.layers() for s in cell.initial(batch_size)))

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        cells = enumerate(self.layers(), 1)
        return self.signature.State(*(s for i, cell in cells for s in cell.begin(batch_size, inner(cell, i, context))))

    def learn_initial(self) -> Self:
        for cell in self.layers():
            cell.learn_initial()
        return self

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        new: list[Tensor] = []
        for i, cell in enumerate(self.layers(), 1):
            own = state[len(new) : len(new) + len(cell.state_sizes)]
            with watched() as seen:
                x, after = cell.step(x, *own, **inner(cell, i, context))
            for name, value in seen.items():
                self.watch(f"{name}{i}", value)
            new += after
        return x, tuple(new)


def outer(cell: Cell, i: int, name: str) -> str:
    """What the i-th cell's context of this name is called outside: what it fills in itself has its number."""
    return f"{name}{i}" if name in cell.private else name


def inner(cell: Cell, i: int, context: Mapping[str, Any]) -> dict[str, Any]:
    """The context that the i-th cell takes, by its own names."""
    names = {name: outer(cell, i, name) for name in cell.signature.context}
    return {name: context[known] for name, known in names.items() if known in context}
