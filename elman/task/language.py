"""A language model over symbols: the network, its two scores, and how it writes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.cell import Cell, DropConnect
from elman.data.streams import Streams, begun, marked
from elman.errors import DivergenceError
from elman.module import Dropout, Stacked

WINDOW = 256  # of the second score


class Predictor(nn.Module):
    """p(next symbol | all before): model(ids, state, reset) -> logits (T, B, V) and the state; ids and reset (T, B)."""

    def losses(self, x: Tensor, y: Tensor, state: Any, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """-log p of every target, in nats, (T*B,), and the state after the window; x, y and reset (T, B)."""
        logits, state = self(x, state, reset)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none"), state

    def initial(self, batch_size: int) -> Any:
        """The state before the first symbol."""
        raise NotImplementedError


class LanguageModel(Predictor):
    """p(next symbol | all before): embedding, a stack of recurrent layers, softmax over the vocabulary.

    Shapes: ids (T, B) of int64 -> logits (T, B, V) and the state, and what `watch` names; reset (T, B) of bool, where
    documents begin. `embedding` of 0 means one-hot input, which makes the first layer's U the table itself. Dropout
    acts on the embedding and on every layer's output, anew at each step or, with `locked`, by one mask a window;
    `weight_dropout` on the recurrent weights W. With `tied` the embedding is the output layer too (Press, Wolf 2016,
    arXiv:1608.05859), and the last layer has its width.
    """

    def __init__(
        self,
        symbols: int,
        cell: type[Cell],
        hidden: int,
        layers: int,
        embedding: int,
        dropout: float = 0.0,
        *,
        locked: bool = False,
        weight_dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.symbols, drop = symbols, partial(Dropout, dropout, locked=locked)
        self.embedding = nn.Embedding(symbols, embedding) if embedding else None
        widths = [embedding or symbols, *[hidden] * layers]
        widths[-1] = embedding if tied else hidden
        parts: list[nn.Module] = [drop()] if embedding else []
        for below, above in pairwise(widths):
            made = cell(below, above)
            parts += [DropConnect(made, "W.weight", weight_dropout) if weight_dropout else made, drop()]
        self.recurrent = Stacked(*parts)
        self.output = nn.Linear(widths[-1], symbols)
        self.tied = tied
        if tied and self.embedding is not None:
            del self.output.weight  # the embedding's stands in for it
            nn.init.normal_(self.embedding.weight, std=embedding**-0.5)

    def forward(
        self, ids: Tensor, state: Any = None, reset: Tensor | None = None, watch: Sequence[str] = ()
    ) -> tuple[Any, ...]:
        y, *rest = self.recurrent(self.embedded(ids), state, reset=reset, watch=watch)  # (T, B, H)
        return self.logits(y), *rest

    def embedded(self, ids: Tensor) -> Tensor:
        """What the first layer reads, (T, B, E), or (T, B, V) where input is one-hot."""
        if self.embedding is None:
            return F.one_hot(ids, self.symbols).to(self.output.bias.dtype)
        return self.embedding(ids)

    def logits(self, y: Tensor) -> Tensor:
        """(..., V), from the last layer's outputs (..., H)."""
        weight = self.embedding.weight if self.tied and self.embedding is not None else self.output.weight
        return F.linear(y, weight, self.output.bias)

    def initial(self, batch_size: int) -> Any:
        return self.recurrent.initial(batch_size)


def stateful_loss(
    model: Predictor,
    ids: Tensor,
    streams: int = 1,
    tick: Callable[[int], None] = lambda n: None,
    begins: Tensor | None = None,
) -> float:
    """Nats per symbol over a whole text, the state carried from its first symbol to its last, or its document's.

    With more than one stream the text is cut into as many equal pieces read side by side, each from an empty
    context: faster, and higher by the little that each piece's first symbols cost. `tick` is told symbols done.
    """
    window = min(WINDOW, (len(ids) - 1) // streams)
    text = Streams(ids, streams, window, begins)
    total, state = 0.0, None
    with inference(model):
        for at in range(0, text.length, window):
            x, y = text.between(at, at + window)
            loss, state = model.losses(x, y, state, text.resets(at, at + window))
            total += loss.double().sum().item()
            tick(x.numel())
    return total / (streams * text.length)


def window_loss(
    model: Predictor,
    ids: Tensor,
    tick: Callable[[int], None] = lambda n: None,
    begins: Tensor | None = None,
) -> float | None:
    """Nats per symbol by windows of 256 that follow one another, each read from an empty context.

    The protocol of nanoGPT, with every window of the text once in place of random ones. None where the text is
    shorter than one window.
    """
    count = (len(ids) - 1) // WINDOW
    if count < 1:
        return None
    x = ids[: count * WINDOW].view(count, WINDOW).T  # (256, count)
    y = ids[1 : count * WINDOW + 1].view(count, WINDOW).T
    total = 0.0
    with inference(model):
        for at in range(0, count, 64):
            first = torch.arange(at, min(at + 64, count)) * WINDOW
            reset = None if begins is None else begun(begins, first, WINDOW)
            loss, _ = model.losses(x[:, at : at + 64].long(), y[:, at : at + 64].long(), None, reset)
            total += loss.double().sum().item()
            tick(loss.numel())
    return total / y.numel()


def write(
    model: Predictor,
    prompt: Tensor,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    mark: Sequence[int] = (),
) -> Iterator[int]:
    """Symbols one after another, each drawn from p(next | prompt and all drawn so far), by ancestral sampling.

    prompt (N,) with N >= 1. Logits are divided by the temperature; 0 takes the most probable symbol. mark: the symbols
    behind which a new document begins.
    """
    draw = torch.Generator().manual_seed(seed)
    reset = begun(marked(prompt, mark), torch.zeros(1, dtype=torch.int64), len(prompt)) if mark else None
    logits, state = predict(model, prompt[:, None], None, reset)
    last = deque(prompt.tolist(), maxlen=len(mark))
    for _ in range(length):
        symbol = choose(logits[-1, 0], temperature, top_k, draw)
        yield int(symbol)
        last.append(int(symbol))
        state = None if mark and tuple(last) == tuple(mark) else state
        logits, state = predict(model, symbol.view(1, 1), state)


def choose(logits: Tensor, temperature: float, top_k: int | None, draw: torch.Generator) -> Tensor:
    """One symbol number from logits (V,)."""
    if not logits.isfinite().all():
        raise DivergenceError("the network's outputs are no longer finite numbers: train it again with a lower --rate")
    if temperature == 0:
        return logits.argmax()
    scaled = (logits.double() - logits.max()) / temperature
    if top_k is not None:
        scaled[scaled < scaled.topk(min(top_k, len(scaled))).values[-1]] = -math.inf
    return torch.multinomial(scaled.softmax(-1), 1, generator=draw)[0]


def predict(model: Predictor, x: Tensor, state: Any, reset: Tensor | None = None) -> tuple[Tensor, Any]:
    """logits and state, without dropout and without gradient."""
    with inference(model):
        return model(x, state, reset)


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradient while the block runs; the model's mode is as before after it."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
