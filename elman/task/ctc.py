"""Connectionist temporal classification: which symbols a row of frames says, and when.

Source: Graves, Fernandez, Gomez, Schmidhuber, "Connectionist temporal classification" (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Protocol

import torch
from torch import Tensor

SELDOM = math.log(1e-5)  # a symbol less probable than this in a frame does not extend a prefix there
Prefix = tuple[int, ...]


class Fusion(Protocol):
    """What a text model adds to the score of a prefix."""

    def weigh(self, prefixes: Sequence[Prefix]) -> None:
        """Get ready to say what may follow these."""
        ...

    def score(self, prefix: Prefix) -> float:
        """The weight of a prefix that is one symbol longer than one of those, or one of them."""
        ...

    def ended(self, prefix: Prefix) -> float:
        """The weight of one of those that is the whole text."""
        ...


def frames_needed(ids: Sequence[int]) -> int:
    """The fewest frames that can say these symbols: one each, and a blank between two that are the same."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def greedy(log_p: Tensor, blank: int) -> list[int]:
    """The symbols of the most probable path through log_p (T, K): repetitions are one, blanks none."""
    return [symbol for symbol, _ in groupby(log_p.argmax(-1).tolist()) if symbol != blank]


def prefix_beam(log_p: Tensor, blank: int, width: int, fusion: Fusion | None = None) -> list[int]:
    """The most probable symbols, each sequence with the sum of all its paths through log_p (T, K), in a beam.

    Source: Graves, Jaitly (2014); the language model as in Hannun, Maas, Jurafsky, Ng, "First-pass large vocabulary
    continuous speech recognition" (2014).
    """
    beam: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}  # log p of paths that end in blank, in a symbol
    if fusion:
        fusion.weigh([()])
    for frame in log_p.tolist():
        likely = [k for k, value in enumerate(frame) if value > SELDOM and k != blank]
        grown: dict[Prefix, tuple[float, float]] = {}
        for prefix, (in_blank, in_symbol) in beam.items():
            whole = add(in_blank, in_symbol)
            join(grown, prefix, whole + frame[blank], in_symbol + frame[prefix[-1]] if prefix else -math.inf)
            for k in likely:
                before = in_blank if prefix and k == prefix[-1] else whole
                join(grown, (*prefix, k), -math.inf, before + frame[k])
        total = {p: add(*ends) + (fusion.score(p) if fusion else 0.0) for p, ends in grown.items()}
        kept = sorted(total, key=lambda p: -total[p])[:width]
        beam = {prefix: grown[prefix] for prefix in kept}
        if fusion:
            fusion.weigh(kept)
    best: Prefix = max(beam, key=lambda p: add(*beam[p]) + (fusion.ended(p) if fusion else 0.0))
    return list(best)


def join(beam: dict[Prefix, tuple[float, float]], prefix: Prefix, in_blank: float, in_symbol: float) -> None:
    """Add paths to those of a prefix."""
    had = beam.get(prefix, (-math.inf, -math.inf))
    beam[prefix] = (add(had[0], in_blank), add(had[1], in_symbol))


def add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high)) if low > -math.inf else high


def aligned(log_p: Tensor, ids: Sequence[int], blank: int) -> list[tuple[int, int]]:
    """The frames, first and one beyond the last, of each symbol on the most probable path that says them all.

    log_p (T, K). Empty where the frames are too few to say them.
    """
    if not ids or len(log_p) < frames_needed(ids):
        return []
    states = torch.tensor([blank, *(k for symbol in ids for k in (symbol, blank))])  # (S,): blank, symbol, blank, ...
    S = len(states)
    leap = torch.zeros(S, dtype=torch.bool)
    leap[3::2] = states[3::2] != states[1:-2:2]  # from one symbol over the blank to another
    best = torch.full((S,), -math.inf)
    best[:2] = log_p[0, states[:2]]
    came = []
    for frame in log_p[1:]:
        two = torch.cat([torch.full((2,), -math.inf), best[:-2]]).masked_fill(~leap, -math.inf)
        best, step = torch.stack([best, torch.cat([torch.full((1,), -math.inf), best[:-1]]), two]).max(0)
        best = best + frame[states]
        came.append(step.tolist())
    at = S - 1 if best[-1] > best[-2] else S - 2
    path = [at]
    for step in reversed(came):
        at -= step[at]
        path.append(at)
    spans = {at: list(found) for at, found in groupby(range(len(path)), key=path[::-1].__getitem__)}
    return [(spans[at][0], spans[at][-1] + 1) for at in range(1, S, 2)]
