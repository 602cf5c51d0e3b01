"""A fixed vector that conditions a sequence, around any cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.cell.start import uniform_input
from elman.errors import CellError, InputError, OptionError

PLACES = ("input", "state", "both")


class Conditioned(Around):
    """A vector v, the same at every step, enters a cell: as an extra input, as its first state, or as both.

        cell = elman.cell.Conditioned(elman.cell.GRU(16 + 10, 32), 10, into="both")
        y, state = elman.Recurrent(cell)(x, context=v)        # x (T, B, 16), v (B, 10)

    "input": the cell reads [x, v], so that its U is [U, R] with the matrix R of v beside that of x; build it for
    inputs of both widths. "state": each state begins as tanh(Q v + q), where no state is given and after each reset.
    Shapes: x (B, I), v (B, C), states and y as the cell's. Q starts uniform in +-1/sqrt(C), q zero.
    Errors: OptionError for another place; CellError where the cell's input is not wider than v; InputError for a v of
    another shape. Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 10.2.4.
    """

    def __init__(self, cell: Cell, context_size: int, into: Literal["input", "state", "both"] = "input") -> None:
        if into not in PLACES:
            raise OptionError(f"into must be one of {', '.join(PLACES)}; got {into!r}")
        if not isinstance(context_size, int) or context_size < 1:
            raise OptionError(f"context_size must be a whole number of at least 1; got {context_size!r}")
        extra = 0 if into == "state" else context_size
        if isinstance(cell, Cell) and cell.input_size <= extra:
            raise CellError(
                f"Conditioned: the cell reads x and the vector side by side, I + {extra} numbers; "
                f"{type(cell).__name__} takes {cell.input_size}"
            )
        super().__init__(cell, input_size=getattr(cell, "input_size", 0) - extra, required=["context"])
        self.context_size, self.into = context_size, into
        self.starts = nn.ModuleDict()
        for name, width in cell.state_sizes.items() if into != "input" else ():
            self.starts[name] = start = nn.Linear(context_size, width)
            uniform_input(start)

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        if self.into == "input":
            return super().begin(batch_size, context)
        v = context.get("context")
        if not isinstance(v, Tensor) or tuple(v.shape) != (batch_size, self.context_size):
            given = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise InputError(f"context must be a tensor (B={batch_size}, C={self.context_size}); got {given}")
        return self.signature.State(*(torch.tanh(self.starts[name](v)) for name in self.signature.state))

    def example(self, x: Tensor) -> dict[str, Any]:
        return {**super().example(x), "context": x.new_zeros(x.shape[1], self.context_size)}

    def step(self, x: Tensor, *state: Tensor, context: Tensor, **rest: Any) -> tuple[Tensor, State]:
        if self.into != "state":
            if context.shape != (x.shape[0], self.context_size):
                raise InputError(
                    f"context must be a tensor (B={x.shape[0]}, C={self.context_size}); got {tuple(context.shape)}"
                )
            x = torch.cat([x, context], -1)  # (B, I + C)
        return self.cell.step(x, *state, **rest)

    def extra_repr(self) -> str:
        return f'{self.context_size}, into="{self.into}"'
