"""A cell around another: what all such parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from elman.cell.base import Cell, Signature, State, first_parameter
from elman.errors import CellError


class Around(Cell):
    """A cell that changes what goes into another cell, what comes out of it, or its state.

    It has the states, context and random numbers of the cell within, and what a subclass adds to them: names of
    context of its own, of which `each` have a slice at each step, `whole` are the same for all rows and `private` are
    filled in by itself, and `states` of its own by width, which begin with zeros and come after the cell's. So such
    parts nest. A subclass writes
    ``step(self, x, *state, **context)`` and hands on what is not its own.
    Errors: CellError where it is given no cell, or one that uses the same name for its context.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        input_size: int | None = None,
        optional: Sequence[str] = (),
        required: Sequence[str] = (),
        each: Sequence[str] = (),
        whole: Sequence[str] = (),
        private: Sequence[str] = (),
        states: Mapping[str, int] = {},
    ) -> None:
        nn.Module.__init__(self)
        if not isinstance(cell, Cell):
            raise CellError(f"{type(self).__name__} goes around an elman.Cell; got a {type(cell).__name__}")
        inner, own = cell.signature, frozenset([*optional, *required])
        for name in sorted((own | frozenset(states)) & (inner.context | frozenset(inner.state))):
            raise CellError(f"{type(self).__name__}: the cell within uses the name {name!r} itself")
        self.cell = cell
        self.input_size = cell.input_size if input_size is None else input_size
        self.hidden_size, self.output_size = cell.hidden_size, cell.output_size
        self.state_sizes = {**cell.state_sizes, **states}
        self.each_step = (*cell.each_step, *each)
        self.whole = (*cell.whole, *whole)
        self.private = (*cell.private, *private)
        self._own = (tuple(states), own, frozenset(required))

    @property
    def signature(self) -> Signature:
        inner, (states, own, required) = self.cell.signature, self._own
        return Signature((*inner.state, *states), inner.context | own, inner.required | required)

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        return self.cell.draw(x)

    def prepare(self, context: dict[str, Any]) -> dict[str, Any]:
        return self.cell.prepare(context)

    def example(self, x: Tensor) -> dict[str, Any]:
        return self.cell.example(x)

    def initial(self, batch_size: int) -> State:
        return self.with_own(self.cell.initial(batch_size), batch_size)

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        return self.with_own(self.cell.begin(batch_size, context), batch_size)

    def with_own(self, state: State, batch_size: int) -> State:
        """The cell's states, and this part's own at zero."""
        own = self._own[0]
        if not own:
            return state
        like = first_parameter(self)
        return self.signature.State(*state, *(like.new_zeros(batch_size, self.state_sizes[name]) for name in own))

    def learn_initial(self) -> Self:
        self.cell.learn_initial()
        return self
