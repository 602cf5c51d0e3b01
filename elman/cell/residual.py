"""A cell with a path around it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.errors import CellError


class Residual(Around):
    """The input is added to the output: y = cell(x) + x.

        deep = elman.Stacked(*(elman.cell.Residual(elman.cell.GRU(64, 64)) for _ in range(8)))

    Shapes: x (B, I), y (B, I), states as the cell's. Errors: CellError where the cell's y, whose width its
    `output_size` says, is not as wide as x.
    Source: He, Zhang, Ren, Sun (2016); between recurrent layers: Wu et al. (2016), arXiv:1609.08144, section 3.1.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self._agree(self.output_size, self.input_size)

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        y, new = self.cell.step(x, *state, **context)
        self._agree(y.shape[-1], x.shape[-1])
        return y + x, new

    def _agree(self, output: int, input: int) -> None:
        if output != input:
            raise CellError(
                f"Residual adds x to y, so their widths must agree; {type(self.cell).__name__} takes x of width "
                f"{input} and returns y of width {output}"
            )
