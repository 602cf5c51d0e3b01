"""Dropout of weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.cell.checked import probability
from elman.cell.drawn import dropout_mask, free_names
from elman.errors import CellError, InputError


class DropConnect(Around):
    """In training one weight of a cell is W * m, with one mask m a call, the same for all rows and steps; m is 0 with
    probability `rate`, else 1/(1 - rate). In evaluation it is W.

        layer = elman.Recurrent(elman.cell.DropConnect(elman.cell.LSTM(28, 128), "W.weight", 0.5))

    Shapes: as the cell's. Context: drop_W_weight, of the weight's shape, in place of what is drawn; a "_2" behind the
    name where parts nest. Errors: OptionError for a rate outside 0..1, or 1; CellError for a weight that is not there;
    InputError for a mask of another shape.
    Source: Wan, Zeiler, Zhang, LeCun, Fergus (2013); on recurrent weights: Merity, Keskar, Socher (2017),
    arXiv:1708.02182 (AWD-LSTM).
    """

    def __init__(self, cell: Cell, weight: str, rate: float) -> None:
        names = dict(cell.named_parameters()) if isinstance(cell, Cell) else {weight: None}
        if weight not in names:
            raise CellError(f"{type(cell).__name__} has no weight {weight!r}; it has {', '.join(names)}")
        checked = probability("rate", rate, below=True)
        (name,) = free_names(cell, [f"drop_{weight.replace('.', '_')}"])
        super().__init__(cell, optional=[name], whole=[name], private=[name])
        self.weight, self.rate, self.mask = weight, checked, name

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        drawn = super().draw(x)
        if self.training and self.rate:
            path, _, leaf = self.weight.rpartition(".")
            weight = getattr(self.cell.get_submodule(path), leaf)
            drawn[self.mask] = dropout_mask(weight.shape, self.rate, weight)
        return drawn

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        mask = context.pop(self.mask, None)
        if mask is None:
            return self.cell.step(x, *state, **context)
        path, _, leaf = self.weight.rpartition(".")
        home = self.cell.get_submodule(path)
        weights: dict[str, Any] = home._parameters if leaf in home._parameters else home.__dict__  # a replica's
        if leaf not in weights:
            raise CellError(f"{self.weight} is made of other weights (parametrize); DropConnect takes one that is not")
        whole: Tensor = weights[leaf]
        if mask.shape != whole.shape:
            raise InputError(f"{self.mask} must have the weight's shape {tuple(whole.shape)}; got {tuple(mask.shape)}")
        weights[leaf] = whole * mask  # for the length of this step
        try:
            return self.cell.step(x, *state, **context)
        finally:
            weights[leaf] = whole

    def extra_repr(self) -> str:
        return f'"{self.weight}", {self.rate}'
