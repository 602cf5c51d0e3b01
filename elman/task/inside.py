"""What goes on inside a language model while it reads: states and gates, step by step, and what it expects next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.cell.base import watched
from elman.module import Recurrent, gradient_by_lag
from elman.task.language import LanguageModel

EXPECTED = 5  # of the symbols that may come next
CHUNK = 512  # steps read at once
GATED = 5  # chunks in which gates are kept too


@dataclass(frozen=True)
class Reading:
    """A text of N symbols as a language model reads it, and what is inside after each.

    surprise: -log p of each symbol in nats, (N,), NaN for the first; expected, p: the numbers of the most probable next
    symbols and their probabilities, (N, 5); states: what is carried on, (N, H), by name, as "layer 1 c"; gates: what
    else the steps watch, for M symbols from `start` on alone, (M, H).
    """

    surprise: Tensor
    expected: Tensor
    p: Tensor
    states: dict[str, Tensor]
    gates: dict[str, Tensor]
    start: int = 0


@dataclass(frozen=True)
class Read:
    """The same with the text of each symbol, and of those expected after it."""

    pieces: list[str]
    expected: list[list[str]]
    reading: Reading


@dataclass(frozen=True)
class Reach:
    """|dL(t) / dh(t-k)| by lag k in several networks, by name; the steps through which gradients flow in training."""

    window: int
    norms: dict[str, dict[int, float]]


def lags(model: LanguageModel, x: Tensor, y: Tensor) -> dict[int, float]:
    """How far back the gradient of the last symbol's loss reaches, x and y (T, B), from an empty context."""
    training = model.training
    model.eval()  # no dropout, and nothing drawn
    try:
        return gradient_by_lag(
            model.recurrent,
            model.embedded(x),
            lambda last: F.cross_entropy(model.logits(last), y[-1], reduction="none"),
        )
    finally:
        model.train(training)


@torch.no_grad()
def read(model: LanguageModel, ids: Tensor, reset: Tensor | None = None) -> Reading:
    """Read symbols (N,), from an empty context; reset (N, 1): where documents begin."""
    model.eval()
    states, gates = watchable(model.recurrent)
    first = most_varied(ids)
    state, logits = model.initial(1), []
    found: dict[str, list[Tensor]] = {}
    begins = [None] * len(ids) if reset is None else reset.split(CHUNK)
    for k, (part, begin) in enumerate(zip(ids.split(CHUNK), begins)):
        y, state, seen = model(
            part[:, None], state, begin, watch=(*states, *gates) if first <= k < first + GATED else states
        )
        logits.append(y[:, 0])
        for i, layer in enumerate(seen):
            for name, value in layer.items():
                found.setdefault(f"layer {i + 1} {name}", []).append(value[:, 0])
    log_p = F.log_softmax(torch.cat(logits), -1)
    surprise = torch.full((len(ids),), torch.nan)
    surprise[1:] = -log_p[:-1].gather(1, ids[1:, None])[:, 0]
    p, expected = log_p.exp().topk(min(EXPECTED, log_p.shape[1]))
    values = {name: torch.cat(parts) for name, parts in found.items()}
    kept, rest = (
        {n: v for n, v in values.items() if (n.split()[-1] in states) is is_state} for is_state in (True, False)
    )
    return Reading(surprise, expected, p, kept, rest, first * CHUNK)


def most_varied(ids: Tensor) -> int:
    """The chunk from which on symbols are spread most evenly, by the sum of the logs of their counts, in as many chunks
    as gates are kept of: marks count much where there are some of many kinds."""
    firsts = range(max(1, len(ids) // CHUNK - GATED + 1))
    return max(firsts, key=lambda k: float(ids[k * CHUNK : (k + GATED) * CHUNK].bincount().log1p().sum()))


def watchable(layer: nn.Module) -> tuple[Sequence[str], Sequence[str]]:
    """The names of the states of a stack of one kind of cell, and of what else its steps watch."""
    cell = next(part.cell for part in layer.modules() if isinstance(part, Recurrent))
    state = cell.initial(1)
    x = torch.zeros(1, 1, cell.input_size, dtype=state[0].dtype)
    with watched() as seen:
        cell.step(x[0], *state, **cell.prepare(cell.draw(x)))
    states = cell.signature.state
    return states, [name for name in seen if name not in states]
