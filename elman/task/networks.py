"""Stacks of recurrent layers as the tasks use them, and what is taken out of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elman.cell import GRU, LSTM, Cell, Elman, ElmanReLU, LayerNormLSTM
from elman.errors import OptionError
from elman.module import Bidirectional, Dropout, Stacked

CELLS: dict[str, type[Cell]] = {
    "elman": Elman, "elman-relu": ElmanReLU, "gru": GRU, "lstm": LSTM, "layer-norm-lstm": LayerNormLSTM
}  # fmt: skip
CellName = Literal["elman", "elman-relu", "gru", "lstm", "layer-norm-lstm"]
SIZES = ("hidden", "layers", "embedding", "width")
Pool = Literal["last", "mean", "max"]


@contextmanager
def in_memory(options: Any) -> Iterator[None]:
    """Errors: OptionError where the network that the block makes does not fit in memory."""
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in ("alloc", "memory", "overflow")):
            raise
        sizes = [f"--{name} {getattr(options, name)}" for name in SIZES if hasattr(options, name)]
        raise OptionError(f"a model of {' '.join(sizes)} does not fit in memory: choose smaller ones") from None


def stack(cell: str, input_size: int, hidden: int, layers: int, both: bool, dropout: float) -> Stacked:
    """Recurrent layers one above the other, each one or both directions, with dropout after each.

    Shapes: (T, B, I) -> (T, B, H), or (T, B, 2 H) with both directions.
    """
    make, sides = CELLS[cell], 2 if both else 1
    parts: list[nn.Module] = []
    for below, _ in pairwise([input_size, *[sides * hidden] * layers]):
        parts.append(Bidirectional(make(below, hidden), make(below, hidden)) if both else make(below, hidden))
        parts.append(Dropout(dropout))
    return Stacked(*parts)


def pooled(y: Tensor, lengths: Tensor, pool: str, both: bool) -> Tensor:
    """One vector for each row, (B, K), of outputs (T, B, K): the last of each direction, the mean or the greatest."""
    T, B, K = y.shape
    if pool == "last":
        ends = y[-1] if int(lengths.min()) == T else y[lengths - 1, torch.arange(B)]
        return torch.cat([ends[:, : K // 2], y[0, :, K // 2 :]], -1) if both else ends
    if pool == "mean":
        return y.sum(0) / lengths[:, None]  # what lies beyond a row's length is zero
    there = torch.arange(T)[:, None] < lengths
    return y.masked_fill(~there[..., None], -torch.inf).amax(0)


class WordDropout(nn.Module):
    """In training each symbol's number is exchanged for that of an unknown one, 0, with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, ids: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return ids
        return ids.masked_fill(torch.rand(ids.shape) < self.rate, 0)


class Words(nn.Module):
    """A vector for each word: an embedding of its own, and with grams the mean of those of its letters' n-grams.

    Shapes: (T, B) numbers of words -> (T, B, E); with grams (T, B, 1 + G), the word's first, 0 for no gram.
    """

    def __init__(self, words: int, embedding: int, unknown: float, grams: int = 0) -> None:
        super().__init__()
        own = nn.Embedding(words, embedding)
        self.own = nn.Sequential(WordDropout(unknown), own)
        self.grams = nn.EmbeddingBag(1 + grams, embedding, mode="mean", padding_idx=0) if grams else None
        for table in (own, self.grams):
            if table is not None:
                nn.init.normal_(table.weight, std=0.1)  # what is seen seldom stays near nothing

    def forward(self, x: Tensor) -> Tensor:
        if self.grams is None:
            return self.own(x)
        return self.own(x[..., 0]) + self.grams(x[..., 1:].flatten(0, 1)).unflatten(0, x.shape[:2])
