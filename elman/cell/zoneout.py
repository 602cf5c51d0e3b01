"""States that now and then stay as they are: zoneout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.cell.checked import rates_of_states
from elman.cell.drawn import drawn, free_names


class Zoneout(Around):
    """In training each unit of a state keeps its old value with a given probability z, drawn anew at each step:
    s = k * s(t-1) + (1 - k) * cell(x, s(t-1)), k 1 with probability z, else 0. In evaluation k is z, its mean.

        layer = elman.Recurrent(elman.cell.Zoneout(elman.cell.LSTM(28, 128), {"c": 0.5, "h": 0.05}))

    rates: by state, or one for all. Where y is one of the states, as in LSTM and GRU, y is what becomes of that state.
    Shapes: as the cell's. Context: keep_c, keep_h, ... (T, B, width) of bool, true where the old value stays, in place
    of what is drawn; a "_2" behind the names where parts nest. A step without it, as in evaluation, uses the mean.
    Errors: OptionError for a rate outside 0..1; CellError for a state that the cell has not.
    Source: Krueger et al. (2016), arXiv:1606.01305.
    """

    def __init__(self, cell: Cell, rates: float | Mapping[str, float]) -> None:
        states = cell.state_sizes if isinstance(cell, Cell) else {}
        given = rates if isinstance(rates, Mapping) else dict.fromkeys(states, rates)
        checked = rates_of_states(cell, given)
        names = free_names(cell, [f"keep_{state}" for state in checked])
        super().__init__(cell, optional=names, each=names, private=names)
        self.rates = tuple(zip(checked, names, checked.values()))  # state, name of its mask, rate

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        masks = super().draw(x)
        for state, name, rate in self.rates if self.training else ():
            masks[name] = drawn((*x.shape[:2], self.state_sizes[state]), rate, x, torch.bool)
        return masks

    def step(self, x: Tensor, *state: Tensor, **context: Any) -> tuple[Tensor, State]:
        keep = {name: context.pop(name, None) for _, name, _ in self.rates}
        y, new = self.cell.step(x, *state, **context)
        kept = list(new)
        for which, name, rate in self.rates:
            at = self.signature.state.index(which)
            mask, old, fresh = keep[name], state[at], new[at]
            kept[at] = rate * old + (1 - rate) * fresh if mask is None else torch.where(mask, old, fresh)
            y = kept[at] if y is fresh else y
        return y, tuple(kept)

    def extra_repr(self) -> str:
        return ", ".join(f"{state}={rate}" for state, _, rate in self.rates)
