"""The network that captions pictures: an encoder, and a decoder that is conditioned on what it gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elman.cell import Attend, Cell, Conditioned, Variational
from elman.module import SequenceModel, beam_search
from elman.task.networks import CELLS

Seen = dict[str, Any]  # what the decoder's cell takes of B pictures, by name


class Told(NamedTuple):
    """Captions found for B pictures."""

    symbols: Tensor  # (T, B)
    lengths: Tensor  # (B,)
    log_prob: Tensor  # (B,) nats, of the whole caption with its end


class Captioner(nn.Module):
    """p(caption | picture), word by word: an encoder, and a `SequenceModel` with an end symbol.

    The encoder's vector conditions the decoder as --context says; with attention the decoder also looks at the
    encoder's memory before each word. An encoder takes what `Sight.batch` gives.
    Source: Vinyals et al. (2015), arXiv:1411.4555; Xu et al. (2015), arXiv:1502.03044.
    """

    def __init__(self, options: Any, encoder: nn.Module, symbols: int, longest: int) -> None:
        super().__init__()
        o = options
        self.encoder, self.attention = encoder, o.attention
        into = o.embedding + (0 if o.context == "state" else o.width)
        cell: Cell = CELLS[o.cell](into + (o.hidden if o.attention else 0), o.hidden)
        if o.dropout:
            cell = Variational(cell, input=o.dropout, output=o.dropout)
        if o.attention:
            cell = Attend(cell, memory_size=o.width, score="additive")
        cell = Conditioned(cell, o.width, into=o.context)
        self.decoder = SequenceModel(cell, symbols=symbols, embedding_size=o.embedding, stop="end", longest=longest)

    def see(self, given: Tensor, there: Tensor | None) -> Seen:
        """What the decoder takes of pictures or features."""
        memory, there, whole = self.encoder(given, there)
        seen = {"context": whole}
        if self.attention:
            seen |= {"memory": memory} | ({} if there is None else {"mask": there})
        return self.decoder.feedback.prepare(seen)

    def log_prob(self, seen: Seen, whose: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """log p, in nats (N,), of captions y (T, N), of the pictures `whose` (N,) among those seen."""
        return self.decoder.log_prob(y, lengths, **{name: value[whose] for name, value in seen.items()})

    def forward(self, given: Tensor, there: Tensor | None, whose: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """`log_prob` of captions of pictures or features."""
        return self.log_prob(self.see(given, there), whose, y, lengths)

    def tell(self, seen: Seen, beam: int) -> Told:
        """The likeliest captions, word by word or by beam search."""
        count = len(seen["context"])
        if beam == 1:
            return Told(*self.decoder.sample(count, greedy=True, **seen))
        found = beam_search(self.decoder, count, width=beam, **seen)
        return Told(found.symbols[..., 0], found.lengths[:, 0], found.log_prob[:, 0])

    @torch.no_grad()
    def looked(self, seen: Seen, told: Told) -> Tensor:
        """Where the decoder looked for each word, weights (T, B, S)."""
        read = self.decoder.read(told.symbols, told.lengths, None)
        _, _, watched = self.decoder.taught(read, lengths=told.lengths + 1, watch=("attention",), **seen)
        return watched["attention"][: len(told.symbols)]
