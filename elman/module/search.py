"""The likeliest sequences of a model, by beam search."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from elman.errors import OptionError
from elman.module.sequence import SequenceModel
from elman.module.stopping import EndSymbol


class Found(NamedTuple):
    """What `beam_search` found, the best first; where there are fewer sequences, the rest have a score of -inf."""

    symbols: Tensor  # (T, B, n) int64, 0 beyond the length
    lengths: Tensor  # (B, n)
    log_prob: Tensor  # (B, n) nats
    score: Tensor  # (B, n) log p over the penalty of its length


@torch.no_grad()
def beam_search(
    model: SequenceModel, count: int = 1, *, width: int = 5, best: int = 1, alpha: float = 0.0, **context: Any
) -> Found:
    """The `best` sequences for each of `count` rows, of a model that ends with a symbol of its own.

        found = elman.beam_search(model, 8, width=5, best=3, context=v)      # v (8, C)

    At each step the `width` likeliest beginnings of each row are continued by every symbol. A row is done when no
    beginning can still reach its worst kept result. alpha: log p is divided by ((5 + length) / 6) ** alpha, so that
    long sequences lose less; 0 for none, about 0.6 in translation.
    Context tensors with `count` rows go with their rows.
    Source: Graves, "Sequence transduction with recurrent neural networks" (2012); normalisation: Wu et al. (2016),
    arXiv:1609.08144. Errors: OptionError for another way to stop, or a width below `best`.
    """
    if not isinstance(model.rule, EndSymbol):
        raise OptionError('beam search needs a model with stop="end"')
    if not 1 <= best <= width or alpha < 0:
        raise OptionError(f"beam search needs 1 <= best <= width and alpha >= 0; got {best}, {width}, {alpha}")
    layer = model.taught
    state = repeated(layer.begin(count, context), width)
    around = {k: repeat(v, width) if layer.recurrence().by_row(k, v, count) else v for k, v in context.items()}
    beam = Beam(model, count, width, best, alpha)
    before = torch.full((count * width,), model.symbols, device=beam.log_p.device)
    for t in range(model.longest):
        y, state = layer(model.feedback.embedding(before[None]), state, **around)
        log_p = F.log_softmax(model.feedback.output(y[0]), -1).view(count, width, -1)
        rows = beam.advance(t, log_p)
        before = beam.symbols[t].flatten()
        state = type(state)(*(s[rows] for s in state))
        if beam.finished(t + 1):
            break
    return beam.result()


class Beam:
    """The beginnings that are followed, and the best sequences that have ended; (B, width) and (B, best) of each."""

    def __init__(self, model: SequenceModel, count: int, width: int, best: int, alpha: float) -> None:
        weight = model.feedback.embedding.weight
        self.alpha, self.longest, self.V = alpha, model.longest, model.symbols
        self.symbols = torch.zeros(self.longest, count, width, dtype=torch.int64, device=weight.device)
        self.log_p = weight.new_full((count, width), float("-inf"))
        self.log_p[:, 0] = 0  # all begin alike: one is followed
        nothing = weight.new_full((count, best), float("-inf"))
        lengths = torch.zeros(count, best, dtype=torch.int64, device=weight.device)
        self.found = Found(self.symbols[..., :1].expand(-1, -1, best), lengths, nothing, nothing)

    def advance(self, t: int, log_p: Tensor) -> Tensor:
        """Continue by log p of symbols and the end, (B, width, V + 1): the rows (B * width,) that were continued."""
        B, width, _ = log_p.shape
        self.keep(self.log_p + log_p[..., self.V], t)
        total = (self.log_p[..., None] + log_p[..., : self.V]).flatten(1)
        self.log_p, index = total.topk(width, 1)
        source = index // self.V
        self.symbols = self.symbols.gather(2, source.expand_as(self.symbols))
        self.symbols[t] = index % self.V
        return (torch.arange(B, device=index.device)[:, None] * width + source).flatten()

    def keep(self, log_p: Tensor, length: int) -> None:
        """Sequences that end here, log p (B, width), among the best."""
        new = Found(self.symbols, torch.full_like(log_p, length, dtype=torch.int64), log_p, self.scores(log_p, length))
        both = Found(*(torch.cat(pair, -1) for pair in zip(self.found, new)))
        score, index = both.score.topk(self.found.score.shape[1], 1)
        symbols = both.symbols.gather(2, index.expand(self.longest, *index.shape))
        self.found = Found(symbols, both.lengths.gather(1, index), both.log_prob.gather(1, index), score)

    def scores(self, log_p: Tensor, length: int) -> Tensor:
        return log_p / ((5.0 + length) / 6.0) ** self.alpha

    def finished(self, steps: int) -> bool:
        """No beginning can still come before the worst that is kept; the longest are kept as they are."""
        if steps == self.longest:
            self.keep(self.log_p, steps)
        reachable = self.scores(self.log_p.amax(1), self.longest)
        return bool((reachable <= self.found.score[:, -1]).all())

    def result(self) -> Found:
        """The best sequences, cut to the longest of them, 0 beyond each one's length."""
        symbols, lengths, log_p, score = self.found
        longest = int(lengths.max()) if lengths.numel() else 0
        beyond = torch.arange(longest, device=symbols.device)[:, None, None] >= lengths
        return Found(symbols[:longest].masked_fill(beyond, 0), lengths, log_p, score)


def repeat(value: Tensor, width: int) -> Tensor:
    """Each row so many times."""
    return value.repeat_interleave(width, 0)


def repeated(state: Any, width: int) -> Any:
    """Each row of a state so many times."""
    return type(state)(*(repeat(s, width) for s in state))
