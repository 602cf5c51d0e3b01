"""Dropout with one mask for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.cell.checked import probability, rates_of_states
from elman.cell.drawn import dropout_mask, free_names, real


class Variational(Around):
    """Dropout of x, y and the state whose masks are drawn once a call, the same at all its steps:
    y, s = cell(m_x * x, m_s * s(t-1)), y * m_y; m is 0 with the given rate, else 1/(1 - rate). In evaluation m is 1.

        layer = elman.Recurrent(elman.cell.Variational(elman.cell.LSTM(28, 128), input=0.2, output=0.2, state=0.2))

    input, output, state: rates. That of the state is for the first one, h of an LSTM, or given by name: {"h": 0.2}. A
    state that a step carries on by itself, such as a GRU's h or an LSTM's c, would meet its mask at every step anew and
    grow: for those take `Zoneout` or `DropConnect`. Each row of the batch has masks of its own.
    Shapes: as the cell's. Context: mask_input, mask_output, mask_state_h, ... (B, width), in place of what is drawn; a
    "_2" behind the names where parts nest.
    Errors: OptionError for a rate outside 0..1, or 1; CellError for a state that the cell has not.
    Source: Gal, Ghahramani (2016), arXiv:1512.05287.
    """

    def __init__(
        self, cell: Cell, input: float = 0.0, output: float = 0.0, state: float | Mapping[str, float] = 0.0
    ) -> None:
        first = list(cell.state_sizes)[:1] if isinstance(cell, Cell) else []
        given = state if isinstance(state, Mapping) else dict.fromkeys(first, state)
        rates = {"mask_input": probability("input", input, below=True)}
        rates["mask_output"] = probability("output", output, below=True)
        rates.update({f"mask_state_{name}": rate for name, rate in rates_of_states(cell, given, below=True).items()})
        used = [name for name, rate in rates.items() if rate]
        names = free_names(cell, used)
        super().__init__(cell, optional=names, private=names)
        widths = {"mask_input": self.input_size, "mask_output": self.output_size}
        widths.update({f"mask_state_{name}": width for name, width in self.state_sizes.items()})
        self.masks = tuple((part, name, rates[part], widths[part]) for part, name in zip(used, names))

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        drawn, like = super().draw(x), real(x, self)
        for _, name, rate, width in self.masks if self.training else ():
            drawn[name] = dropout_mask((x.shape[1], width), rate, like)
        return drawn

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        masks = {part: context.pop(name, None) for part, name, *_ in self.masks}
        before = [times(s, masks.get(f"mask_state_{name}")) for name, s in zip(self.signature.state, state)]
        y, new = self.cell.step(times(x, masks.get("mask_input")), *before, **context)
        return times(y, masks.get("mask_output")), new

    def extra_repr(self) -> str:
        return ", ".join(f"{part.removeprefix('mask_')}={rate}" for part, _, rate, _ in self.masks)


def times(value: Tensor, mask: Tensor | None) -> Tensor:
    """The value under its mask, where there is one."""
    return value if mask is None else value * mask
