"""A cell that looks at a memory: attention over the states of an encoder, around any cell."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.cell.start import uniform_input
from elman.errors import CellError, InputError, OptionError

SCORES = ("dot", "general", "additive")


class Attend(Around):
    """Attention after a cell's step: weights over the rows of a memory, softmax of a score of each row m(s) and the
    cell's output q; their weighted sum v; and y = tanh(C [v, q]).

        cell = elman.cell.Attend(elman.cell.LSTM(16 + 32, 32), memory_size=64, score="additive")
        y, state = elman.Recurrent(cell)(x, memory=memory, mask=mask)      # x (T, B, 16), memory (B, S, 64)

    score: "dot", m q; "general", m A q; "additive", a tanh(A q + D m). With `feeding` the cell reads [x, y(t-1)], so
    that it knows where it has looked, and y is a state called attended; else it reads x alone. Weights can be watched
    as "attention", (B, S).
    Shapes: x (B, I), memory (B, S, M), mask (B, S) of bool, true at rows that are there, one at least; y (B, H).
    Errors: OptionError for another score; CellError where widths do not fit; InputError for a memory that does not.
    Source: additive: Bahdanau, Cho, Bengio (2015), arXiv:1409.0473; dot, general, input feeding: Luong, Pham, Manning
    (2015), arXiv:1508.04025.
    """

    def __init__(
        self,
        cell: Cell,
        memory_size: int,
        score: Literal["dot", "general", "additive"] = "general",
        feeding: bool = True,
    ) -> None:
        if score not in SCORES:
            raise OptionError(f"score must be one of {', '.join(SCORES)}; got {score!r}")
        width = getattr(cell, "output_size", 0)
        own = getattr(cell, "input_size", 0) - (width if feeding else 0)
        states = {"attended": width} if feeding else {}
        optional, private = ["mask", "keys"], ["keys"]
        super().__init__(cell, input_size=own, required=["memory"], optional=optional, private=private, states=states)
        if own < 0:
            raise CellError(
                f"Attend: with feeding the cell reads the {width} numbers of its output beside x; "
                f"{type(cell).__name__} takes {cell.input_size}"
            )
        if score == "dot" and width != memory_size:
            raise CellError(
                f"Attend: for the score dot the cell must give {memory_size} numbers, as M; it gives {width}"
            )
        self.score, self.feeding, self.memory_size = score, feeding, memory_size
        self.combine = nn.Linear(memory_size + width, width)
        uniform_input(self.combine)
        if score != "dot":
            self.query = nn.Linear(width, memory_size if score == "general" else width, bias=False)
            uniform_input(self.query)
        if score == "additive":
            self.keys = nn.Linear(memory_size, width)
            uniform_input(self.keys)
            self.reduce = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))

    def prepare(self, context: dict[str, Any]) -> dict[str, Any]:
        """With the keys of additive scores, D m, which are the same at every step."""
        context, memory = super().prepare(context), context["memory"]
        if self.score != "additive" or context.get("keys") is not None or memory.shape[-1] != self.memory_size:
            return context
        return {**context, "keys": self.keys(memory)}

    def example(self, x: Tensor) -> dict[str, Any]:
        return {**super().example(x), "memory": x.new_zeros(x.shape[1], 4, self.memory_size)}

    def step(
        self,
        x: Tensor,
        *state: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        keys: Tensor | None = None,
        **context: Any,
    ) -> tuple[Tensor, State]:
        self.check(x, memory, mask)
        if self.feeding:
            *state, attended = state  # type: ignore[assignment]
            x = torch.cat([x, attended], -1)
        q, new = self.cell.step(x, *state, **context)  # (B, H)
        scores = self.scores(q, memory, keys)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)  # (B, S)
        self.watch("attention", weights)
        v = torch.bmm(weights[:, None], memory)[:, 0]  # (B, M)
        y = torch.tanh(self.combine(torch.cat([v, q], -1)))
        return y, (*new, *[y] * self.feeding)

    def scores(self, q: Tensor, memory: Tensor, keys: Tensor | None) -> Tensor:
        """How well each row of the memory fits the query, (B, S)."""
        if self.score == "additive":
            keys = self.keys(memory) if keys is None else keys  # (B, S, H)
            return (torch.tanh(self.query(q)[:, None] + keys) * self.reduce).sum(-1)
        q = q if self.score == "dot" else self.query(q)
        return torch.bmm(memory, q[..., None])[..., 0]

    def check(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> None:
        """The memory has a row for each row of x, or an InputError."""
        if memory.dim() != 3 or memory.shape[0] != x.shape[0] or memory.shape[2] != self.memory_size:
            want = f"(B={x.shape[0]}, S, M={self.memory_size})"
            raise InputError(f"memory must be a tensor {want}; got {tuple(memory.shape)}")
        if mask is not None and (mask.shape != memory.shape[:2] or mask.dtype != torch.bool):
            raise InputError(
                f"mask must be a bool tensor {tuple(memory.shape[:2])}; got {tuple(mask.shape)} of {mask.dtype}"
            )

    def extra_repr(self) -> str:
        return f'{self.memory_size}, score="{self.score}", feeding={self.feeding}'
