"""The symbol that a cell puts out enters its next step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elman.cell.around import Around
from elman.cell.base import Cell, State
from elman.errors import CellError


class Feedback(Around):
    """A cell, its output layer and its embedding in a loop: y(t) is drawn from softmax(o(t)) and read at step t + 1.

    The cell reads [x, e] with e the embedding of the symbol before. The input here has the same form, with the true
    symbol's e; at each step a coin for each row decides whether that is read, or the symbol that was drawn.

        cell = Feedback(elman.cell.GRU(16 + 8, 32), nn.Embedding(5, 8), nn.Linear(32, 5))
        o, state = elman.Recurrent(cell)(x, coin=coin, noise=noise)    # coin (T, B, 1) of 0 and 1, noise (T, B, V)

    Without noise the likeliest symbol is fed back; with noise -log(-log(u)), u uniform, one drawn from the softmax
    (Gumbel 1954), with no gradient through the choice. The state "fed" holds the embedding of what was drawn last.
    Shapes: x (B, I + E), states as the cell's and fed (B, E), o (B, V) logits. The cell's own y can be watched as
    "output". The embedding may have more rows than there are symbols.
    Errors: CellError where the widths of cell, embedding and output do not fit, or for a state called fed.
    Source: scheduled sampling, Bengio, Vinyals, Jaitly, Shazeer (2015), arXiv:1506.03099.
    """

    def __init__(self, cell: Cell, embedding: nn.Embedding, output: nn.Linear) -> None:
        width, each = embedding.embedding_dim, ["coin", "noise"]
        super().__init__(cell, required=["coin"], optional=["noise"], each=each, states={"fed": width})
        if cell.input_size < width or output.in_features != cell.output_size:
            raise CellError(
                f"Feedback: {type(cell).__name__} reads {cell.input_size} numbers and gives {cell.output_size}; the "
                f"embedding is {width} wide, and the output layer reads {output.in_features}"
            )
        self.embedding, self.output = embedding, output
        self.output_size = output.out_features

    def example(self, x: Tensor) -> dict[str, Any]:
        return {**super().example(x), "coin": x.new_ones(*x.shape[:2], 1)}

    def step(
        self, x: Tensor, *state: Tensor, coin: Tensor, noise: Tensor | None = None, **context: Any
    ) -> tuple[Tensor, State]:
        *inner, fed = state
        own, true = x.split([x.shape[-1] - fed.shape[-1], fed.shape[-1]], -1)
        read = coin * true + (1 - coin) * fed  # (B, E)
        y, new = self.cell.step(torch.cat([own, read], -1), *inner, **context)
        self.watch("output", y)
        logits = self.output(y)  # (B, V)
        noisy = logits.detach() if noise is None else logits.detach() + noise
        drawn = (noisy == noisy.amax(-1, keepdim=True)).to(x.dtype)  # one-hot
        return logits, (*new, drawn @ self.embedding.weight[: logits.shape[-1]])
