"""Layers one above the other, and two side by side in opposite directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elman.cell.base import Cell
from elman.errors import InputError
from elman.module.layer import Layer, Names
from elman.module.plain import Rows, column, describe
from elman.module.recurrent import Recurrent


class Compound(Layer):
    """A layer made of layers: its state and its watched values are tuples of theirs."""

    parts: nn.ModuleList

    def layers(self) -> list[Layer]:
        """The parts that carry a state, in order."""
        return [part for part in self.parts if isinstance(part, Layer)]

    def initial(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(layer.initial(batch_size) for layer in self.layers())

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(layer.begin(batch_size, context) for layer in self.layers())

    def check_state(self, state: Any, x: Tensor) -> tuple[Any, ...]:
        layers = self.layers()
        if not isinstance(state, Sequence) or len(state) != len(layers):
            given = f"{len(state)} of them" if isinstance(state, Sequence) else describe(state)
            raise InputError(
                f"{type(self).__name__}: state must be a tuple of {len(layers)} states, one a layer; got {given}"
            )
        return tuple(layer.check_state(part, x) for layer, part in zip(layers, state))

    def context_names(self) -> Names:
        parts = zip(*(layer.context_names() for layer in self.layers()))
        return Names(*(frozenset[str]().union(*names) for names in parts))

    def _wrap(self, part: nn.Module, **how: Any) -> nn.Module:
        if isinstance(part, Cell):
            return Recurrent(part, **how)
        if isinstance(part, Layer) and part.batch_first:
            raise InputError(
                f"batch_first belongs on the outermost layer: give it to {type(self).__name__}, not to its parts"
            )
        return part


class Stacked(Compound):
    """Layers one above the other: each reads the outputs of the one below.

        net = elman.Stacked(elman.cell.LSTM(64, 256), elman.Dropout(0.2), elman.cell.LSTM(256, 256))
        y, (low, high) = net(x)          # low.h, low.c, high.h, high.c: (B, 256)

    A part is a cell, a layer, or any module that treats every step alike (Dropout, Linear, LayerNorm). The state is a
    tuple with one entry a recurrent part. Shapes, lengths, reset, watch, context: as in `Recurrent`.
    Errors: InputError without a recurrent part, or where tensors do not fit.
    """

    def __init__(self, *parts: nn.Module, batch_first: bool = False) -> None:
        super().__init__()
        self.parts = nn.ModuleList(self._wrap(part) for part in parts)
        self.batch_first = batch_first
        if not self.layers():
            raise InputError("Stacked needs at least one cell or layer; it was given none")

    def run(
        self, x: Tensor, state: tuple[Any, ...], rows: Rows, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        last, seen, states = [], [], iter(state)
        for part in self.parts:
            if isinstance(part, Layer):
                x, new, values = part.run(x, next(states), rows, watch, context)
                last.append(new)
                seen.append(values)
            else:
                x = part(x)
        if rows.active is not None:
            x = x.masked_fill(~column(rows.active, x), 0)
        return x, tuple(last), tuple(seen)


class Bidirectional(Compound):
    """Two layers over the same input, one in each direction; their outputs side by side.

        layer = elman.Bidirectional(elman.cell.GRU(10, 32), elman.cell.GRU(10, 32))
        y, (forward, backward) = layer(x)      # y (T, B, 64), each half at its own direction's state

    The second cell runs from each row's last step to its first. Shapes, lengths, reset, watch, context: as in
    `Recurrent`. The state given to the second enters at the end of the sequence.
    Source: Schuster, Paliwal, "Bidirectional recurrent neural networks" (1997).
    """

    def __init__(self, forward: Cell, backward: Cell, *, batch_first: bool = False) -> None:
        super().__init__()
        for cell in (forward, backward):
            if not isinstance(cell, Cell):
                raise InputError(f"Bidirectional takes two cells, one a direction; got {describe(cell)}")
        if forward is backward:
            raise InputError("Bidirectional was given the same cell twice; the two directions need a cell each")
        self.parts = nn.ModuleList([Recurrent(forward), Recurrent(backward, reverse=True)])
        self.batch_first = batch_first

    def run(
        self, x: Tensor, state: tuple[Any, ...], rows: Rows, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        ran = [part.run(x, own, rows, watch, context) for part, own in zip(self.layers(), state)]
        ys, last, seen = zip(*ran)
        return torch.cat(ys, -1), last, seen
