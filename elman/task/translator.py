"""The network of translate: a deep bidirectional encoder, and a decoder that looks back at it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.cell import Attend, Cell, Conditioned, Deep, Variational
from elman.module import Dropout, EncoderDecoder, SequenceModel
from elman.task.networks import CELLS, stack


class Taught(NamedTuple):
    """What the model gives where it reads the right target."""

    log_p: Tensor  # (N, V + 1) nats, of every piece and of the end, at each place of each row that is there
    target: Tensor  # (N,) what is right there
    attention: Tensor | None  # (T + 1, B, S), where it was asked for


class TiedOutput(nn.Linear):
    """An output layer whose weight is that of an embedding, which keeps it; the bias is its own."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(embedding.embedding_dim, embedding.num_embeddings)
        self.register_parameter("weight", None)
        self.owner = (embedding,)  # a tuple, so that the weight is in checkpoints once
        nn.init.zeros_(self.bias)

    def forward(self, y: Tensor) -> Tensor:
        return F.linear(y, self.owner[0].weight, self.bias)


class Embedded(nn.Module):
    """Symbols to embeddings, with dropout; the table may be that of another module, which keeps it."""

    def __init__(self, table: nn.Embedding, own: bool, dropout: float) -> None:
        super().__init__()
        self.table = table if own else None
        self.owner = (table,)
        self.dropout = Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        return self.dropout(self.owner[0](ids))


def decoder_cell(cell: str, width: int, hidden: int, layers: int, dropout: float) -> Cell:
    """Cells one above the other as one; it reads `width` numbers. Dropout lies between them, one mask a sentence."""
    make = CELLS[cell]
    parts = [make(width if i == 0 else hidden, hidden) for i in range(layers)]
    below = [Variational(part, output=dropout) if dropout else part for part in parts[:-1]]
    return Deep(*below, parts[-1])


class Translator(nn.Module):
    """p(target | source).

    Shapes: source (S, B) and target (T, B) of int64, lengths (B,) each.
    Source: Luong, Pham, Manning (2015), arXiv:1508.04025; tied weights: Press, Wolf (2017), arXiv:1608.05859.
    """

    def __init__(self, options: Any, source: int, target: int, longest: int) -> None:
        super().__init__()
        o, H, E = options, options.hidden, options.embedding
        memory = 2 * H
        state = memory * o.layers * (2 if o.cell == "lstm" else 1)  # all last states of the encoder
        cell = Attend(decoder_cell(o.cell, E + H, H, o.decoder_layers, o.dropout), memory_size=memory)
        decoder = SequenceModel(
            Conditioned(cell, state, into="state"), symbols=target, embedding_size=E, stop="end", longest=longest
        )
        table = decoder.feedback.embedding
        if o.tied:
            decoder.feedback.output = TiedOutput(table)
        own = not (o.tied and o.shared)
        read = Embedded(nn.Embedding(source, E) if own else table, own, o.dropout)
        for embedding in (table, read.owner[0]):
            nn.init.normal_(embedding.weight, std=0.1)
        self.both = EncoderDecoder(stack(o.cell, E, H, o.layers, both=True, dropout=o.dropout), decoder, read)
        self.dropout = Dropout(o.dropout)

    @property
    def decoder(self) -> SequenceModel:
        return self.both.decoder

    def forward(
        self, y: Tensor, lengths: Tensor, source: Tensor, source_lengths: Tensor, watch: bool = False
    ) -> Taught:
        """Read the right target, and say how likely each of its pieces and its end were."""
        decoder = self.decoder
        given: dict[str, Any] = self.both.encode(source, source_lengths)
        read = self.dropout(decoder.read(y, lengths, None))  # (T + 1, B, E)
        found = decoder.taught(read, lengths=lengths + 1, watch=("attention",) if watch else (), **given)
        t = torch.arange(len(y) + 1)[:, None]
        end = y.new_full((1, y.shape[1]), decoder.symbols)
        target = torch.cat([y, end]).masked_fill(t == lengths, decoder.symbols)
        there = t <= lengths
        logits = decoder.feedback.output(self.dropout(found[0][there]))  # padding is not worth a softmax
        return Taught(F.log_softmax(logits, -1), target[there], found[2]["attention"] if watch else None)


def smoothed(taught: Taught, smooth: float) -> tuple[Tensor, float]:
    """Cross entropy a piece with part of the target spread over all pieces, and without.

    Source: Szegedy et al. (2016), arXiv:1512.00567.
    """
    nats = F.nll_loss(taught.log_p, taught.target)
    objective = (1 - smooth) * nats - smooth * taught.log_p.mean() if smooth else nats
    return objective, nats.item()
