"""The probability of a whole sequence of symbols, and sequences drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.cell.base import Cell
from elman.cell.feedback import Feedback
from elman.errors import CellError, InputError, OptionError
from elman.module.plain import describe
from elman.module.recurrent import Recurrent
from elman.module.stopping import Given, stopping

NEVER = -1e30  # added to what must not be drawn


class Drawn(NamedTuple):
    """Sequences from `SequenceModel.sample`."""

    symbols: Tensor  # (T, B) int64; beyond a row's length nothing of meaning, 0
    lengths: Tensor  # (B,)
    log_prob: Tensor  # (B,) nats, of the whole sequence with its end


class SequenceModel(nn.Module):
    """p(y(1), ..., y(tau)) by the chain rule, each symbol given all before it, through any cell.

        model = elman.SequenceModel(elman.cell.LSTM(16, 64), symbols=30, embedding_size=16, stop="end", longest=20)
        loss = -model.log_prob(y, lengths).mean()        # y (T, B) of int64 below 30, lengths (B,)
        symbols, lengths, log_prob = model.sample(8)

    At each step the cell reads [x(t), embedding of y(t-1)], and a linear layer on its output gives the softmax of y(t).
    `stop` says how a sequence ends: "end", a symbol of its own; "coin", a Bernoulli output after each symbol; "length",
    drawn before the first step from the first state, the cell then reading the part that is left as one more input;
    "given", with x or lengths. A sequence is certain to stop at `longest`. Context goes to the cell: with
    `elman.cell.Conditioned` this is p(y | context).
    Shapes: x (T, B, I), y (T, B), lengths (B,). The cell's inputs are I + embedding_size wide, I + embedding_size + 1
    with stop="length". Errors: CellError for a cell of another width; OptionError; InputError where tensors do not fit.
    Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), sections 10.2.1 to 10.2.3.
    """

    def __init__(self, cell: Cell, *, symbols: int, embedding_size: int, stop: str = "end", longest: int = 100) -> None:
        super().__init__()
        for name, number in (("symbols", symbols), ("embedding_size", embedding_size), ("longest", longest)):
            if not isinstance(number, int) or number < 1:
                raise OptionError(f"{name} must be a whole number of at least 1; got {number!r}")
        if not isinstance(cell, Cell):
            raise CellError(f"SequenceModel takes an elman.Cell; got {describe(cell)}")
        self.symbols, self.longest = symbols, longest
        self.rule = stopping(stop, longest, symbols, cell.output_size, max(sum(cell.state_sizes.values()), 1))
        self.inputs = cell.input_size - embedding_size - self.rule.extra_inputs
        if self.inputs < 0:
            raise CellError(
                f"SequenceModel: each step reads {embedding_size + self.rule.extra_inputs} numbers and x beside them; "
                f"{type(cell).__name__} takes inputs of width {cell.input_size}"
            )
        embedding = nn.Embedding(symbols + 1, embedding_size)  # the last is read at the first step
        output = nn.Linear(cell.output_size, symbols + self.rule.extra_symbols)
        self.fed = Recurrent(Feedback(cell, embedding, output))

    @property
    def feedback(self) -> Feedback:
        """The cell with its embedding and output layer."""
        assert isinstance(self.fed.cell, Feedback)
        return self.fed.cell

    @property
    def taught(self) -> Recurrent:
        """The cell alone, which reads the embedding of the symbol before as input."""
        return Recurrent(self.feedback.cell)

    def forward(self, y: Tensor, lengths: Tensor | None = None, *, x: Tensor | None = None, **context: Any) -> Tensor:
        """`log_prob`."""
        return self.log_prob(y, lengths, x=x, **context)

    def log_prob(self, y: Tensor, lengths: Tensor | None = None, *, x: Tensor | None = None, **context: Any) -> Tensor:
        """log p of each row's sequence and its end, in nats, (B,): each symbol given the true ones before it."""
        y, lengths = self.checked(y, lengths, x)
        read, steps = self.read(y, lengths, x), lengths + self.rule.extra_steps
        outputs, _ = self.taught(read, lengths=steps, **context)  # (S, B, K)
        return self.total(outputs, self.feedback.output(outputs), y, lengths, context)

    def loss(
        self,
        y: Tensor,
        lengths: Tensor | None = None,
        *,
        x: Tensor | None = None,
        truth: float = 1.0,
        free: float = 0.0,
        **context: Any,
    ) -> Tensor:
        """What training makes small: nats per row, a number; -mean log p where both options are left as they are.

        truth: the probability with which a step reads the true symbol before it, by a coin for each step and row, and
        else one that the model itself has drawn (scheduled sampling; `elman.feeding` has schedules). 1 is teacher
        forcing, 0 free running. free: the weight of a second loss, from free running, beside the first: a mixture.
        """
        for name, number in (("truth", truth), ("free", free)):
            if not 0 <= number <= 1:
                raise OptionError(f"{name} is a probability or a weight from 0 to 1; got {number!r}")
        parts = [(1 - free, truth)] * (free < 1) + [(free, 0.0)] * (free > 0)
        found = []
        for weight, share in parts:
            if share == 1:
                log_p = self.log_prob(y, lengths, x=x, **context)
            else:
                log_p = self.fed_log_prob(y, lengths, x, share, context)
            found.append(-weight * log_p.mean())
        return torch.stack(found).sum()

    def fed_log_prob(
        self, y: Tensor, lengths: Tensor | None, x: Tensor | None, truth: float, context: Mapping[str, Any]
    ) -> Tensor:
        """The same sum of log p, (B,), where a step reads the true symbol only with this probability."""
        y, lengths = self.checked(y, lengths, x)
        read, steps = self.read(y, lengths, x), lengths + self.rule.extra_steps
        coin = (torch.rand(*read.shape[:2], 1, device=read.device) < truth).to(read.dtype)
        coin[0] = 1  # nothing has been drawn yet
        noise = -torch.empty(*read.shape[:2], self.feedback.output_size).to(read).exponential_().log()  # Gumbel
        noise[..., self.symbols :] = NEVER  # the end is not fed back
        how = {**context, "coin": coin, "noise": noise}
        logits, _, seen = self.fed(read, lengths=steps, watch="output", **how)
        return self.total(seen["output"], logits, y, lengths, context)

    def total(self, outputs: Tensor, logits: Tensor, y: Tensor, lengths: Tensor, context: Mapping[str, Any]) -> Tensor:
        """log p of the symbols and of the end, (B,), from outputs (S, B, K) and logits (S, B, V)."""
        log_p = F.log_softmax(logits, -1)
        of_symbols = log_p[: len(y)].gather(2, y[..., None])[..., 0]
        active = torch.arange(len(y), device=y.device)[:, None] < lengths
        rule = self.rule.log_prob(outputs, log_p, self.first(len(lengths), context), lengths)
        return of_symbols.masked_fill(~active, 0).sum(0) + rule

    def read(self, y: Tensor, lengths: Tensor, x: Tensor | None) -> Tensor:
        """What the steps read, (S, B, ...): x, what the rule needs, and the embedding of the symbol before."""
        start = y.new_full((1, y.shape[1]), self.symbols)
        before = torch.cat([start, y])[: len(y) + self.rule.extra_steps]
        parts = [x, self.rule.inputs(lengths, len(before)), self.feedback.embedding(before)]
        return torch.cat([part for part in parts if part is not None], -1)

    def first(self, count: int, context: Mapping[str, Any]) -> Tensor:
        """The state before the first step, all of it side by side, (B, N)."""
        state = self.taught.begin(count, context)
        return torch.cat([*state] or [self.feedback.embedding.weight.new_zeros(count, 1)], -1)

    def checked(self, y: Tensor, lengths: Tensor | None, x: Tensor | None) -> tuple[Tensor, Tensor]:
        """y with 0 in its padding, and the lengths; or an InputError."""
        if not isinstance(y, Tensor) or y.dim() != 2 or y.dtype != torch.int64:
            raise InputError(f"y must be an int64 tensor (T, B) of symbols; got {describe(y)}")
        self.check_x(x, *y.shape)
        T, B = y.shape
        lengths = torch.as_tensor([T] * B if lengths is None else lengths, device=y.device)
        if lengths.shape != (B,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise InputError(f"lengths must be {B} whole numbers, one a row; got {describe(lengths)}")
        lengths = lengths.long()
        least, most = self.rule.least, T if isinstance(self.rule, Given) else min(T, self.longest)
        if B and not least <= int(lengths.min()) <= int(lengths.max()) <= most:
            raise InputError(
                f"lengths must lie in {least}..{most} (T={T}, longest={self.longest}); "
                f"got {int(lengths.min())}..{int(lengths.max())}"
            )
        y = y.masked_fill(torch.arange(T, device=y.device)[:, None] >= lengths, 0)
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.symbols:
            raise InputError(f"symbols must lie in 0..{self.symbols - 1}; got {int(y.min())}..{int(y.max())}")
        return y, lengths

    def check_x(self, x: Tensor | None, T: int, B: int) -> None:
        """x is there if the cell reads it, and fits."""
        if x is not None and not isinstance(self.rule, Given):
            raise InputError('x has a length of its own: build the model with stop="given"')
        if (x is None) != (self.inputs == 0) or (x is not None and tuple(x.shape) != (T, B, self.inputs)):
            want = "left out: the cell has no inputs for it"
            if self.inputs:
                width = self.feedback.cell.input_size
                beside = f"the cell reads {width} numbers, {width - self.inputs} of them are the embedding's"
                want = f"a tensor ({T}, {B}, {self.inputs}), since {beside}"
            raise InputError(f"x must be {want}; got {'nothing' if x is None else describe(x)}")

    @torch.no_grad()
    def sample(
        self,
        count: int = 1,
        *,
        x: Tensor | None = None,
        temperature: float = 1.0,
        greedy: bool = False,
        **context: Any,
    ) -> Drawn:
        """Draw sequences, symbol by symbol (ancestral sampling); with x (T, B, I), count and steps are x's own.

        temperature: symbols come from softmax(o / temperature); log_prob is the model's own all the same. greedy: at
        each step the likeliest symbol, and end, in place of a drawn one.
        """
        if not temperature > 0:
            raise OptionError(f"temperature must be above 0; got {temperature!r}")
        T, B = (self.longest, count) if x is None else x.shape[:2]
        self.check_x(x, T, B)
        layer, weight = self.taught, self.feedback.embedding.weight
        ahead = self.rule.draw_length(self.first(B, context), greedy)
        lengths, log_p = ahead or (torch.full((B,), T, device=weight.device), weight.new_zeros(B))
        symbols = torch.zeros(T, B, dtype=torch.int64, device=weight.device)
        before, state = torch.full_like(lengths, self.symbols), None
        for t in range(T):
            active = t < lengths
            if not active.any():
                break
            extra = self.rule.inputs(lengths - t, 1)
            parts = [None if x is None else x[t : t + 1], extra, self.feedback.embedding(before[None])]
            y, state = layer(torch.cat([part for part in parts if part is not None], -1), state, **context)
            chosen, own = draw_symbol(self.feedback.output(y[0]), temperature, greedy)
            log_p = log_p + own.masked_fill(~active, 0)
            symbols[t] = before = chosen.masked_fill(~active | (chosen >= self.symbols), 0)
            if (ends := self.rule.draw_end(y[0], chosen, t, greedy)) is not None:
                now, after, more = ends
                log_p = log_p + more.masked_fill(~active, 0)
                lengths = torch.where(active & now, t, torch.where(active & after, t + 1, lengths))
        return Drawn(symbols[: int(lengths.max()) if B else 0], lengths, log_p)

    def extra_repr(self) -> str:
        return f"symbols={self.symbols}, longest={self.longest}"


def draw_symbol(logits: Tensor, temperature: float, greedy: bool) -> tuple[Tensor, Tensor]:
    """Symbols (B,) and their log p, from logits (B, V)."""
    log_p = F.log_softmax(logits, -1)
    if greedy:
        chosen = log_p.argmax(-1, keepdim=True)
    else:
        chosen = torch.multinomial(F.softmax(logits / temperature, -1), 1)
    return chosen[:, 0], log_p.gather(1, chosen)[:, 0]
