"""When a sequence ends, as part of its probability: an end symbol, a coin at each step, or a length drawn ahead.

Each rule says what a step must read and put out for it, what it adds to log p of a whole sequence, and how it ends one
that is being drawn. All are certain to stop at `longest`, so that the probabilities of all sequences sum to 1.
Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 10.2.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elman.errors import OptionError


class Stopping(nn.Module):
    """What every rule has."""

    extra_symbols = 0  # that the softmax needs beside the sequence's own
    extra_inputs = 0  # numbers that each step reads
    extra_steps = 0  # that a sequence takes beyond its own
    least = 0  # steps of the shortest sequence

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def inputs(self, lengths: Tensor, steps: int) -> Tensor | None:
        """What each step reads, (steps, B, extra_inputs)."""
        return None

    def log_prob(self, y: Tensor, chosen: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        """The rule's part of log p, (B,), from outputs y (S, B, K), log p of symbols (S, B, V), first state (B, N)."""
        return chosen.new_zeros(len(lengths))

    def draw_length(self, first: Tensor, greedy: bool) -> tuple[Tensor, Tensor] | None:
        """Lengths drawn ahead (B,), or the likeliest, and log p of each."""
        return None

    def draw_end(self, y: Tensor, symbols: Tensor, t: int, greedy: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        """After symbol t (B,) was drawn at output y (B, K): which rows end before it, which after it, log p added."""
        return None


class Given(Stopping):
    """No rule: the length is given, with x or by the caller."""


class EndSymbol(Stopping):
    """A symbol of its own, the last of the softmax, ends the sequence; it may be empty."""

    extra_symbols = extra_steps = 1

    def log_prob(self, y: Tensor, chosen: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        end = chosen[..., -1]  # (S, B)
        at_end = end.gather(0, lengths.clamp(max=len(end) - 1)[None])[0]
        return at_end.masked_fill(lengths == self.longest, 0)

    def draw_end(self, y: Tensor, symbols: Tensor, t: int, greedy: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        ends = symbols == self.symbol
        return ends, torch.zeros_like(ends), y.new_zeros(len(symbols))

    def __init__(self, longest: int, symbol: int) -> None:
        super().__init__(longest)
        self.symbol = symbol


class StopCoin(Stopping):
    """After each symbol a Bernoulli output says whether it was the last."""

    least = 1

    def __init__(self, longest: int, width: int) -> None:
        super().__init__(longest)
        self.stop = nn.Linear(width, 1)

    def log_prob(self, y: Tensor, chosen: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        a = self.stop(y)[..., 0]  # (S, B)
        t = torch.arange(len(a), device=a.device)[:, None]
        on = F.logsigmoid(-a).masked_fill(t >= lengths - 1, 0).sum(0)
        last = F.logsigmoid(a).gather(0, (lengths - 1).clamp(min=0)[None])[0]
        return on + last.masked_fill(lengths == self.longest, 0)

    def draw_end(self, y: Tensor, symbols: Tensor, t: int, greedy: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        if t + 1 == self.longest:
            return None
        a = self.stop(y)[:, 0]
        ends = a > 0 if greedy else torch.rand_like(a) < a.sigmoid()
        return torch.zeros_like(ends), ends, torch.where(ends, F.logsigmoid(a), F.logsigmoid(-a))


class DrawnLength(Stopping):
    """The length is drawn before the first step, from the state it begins with; each step reads what part is left."""

    extra_inputs = 1
    least = 1

    def __init__(self, longest: int, width: int) -> None:
        super().__init__(longest)
        self.length = nn.Linear(width, longest)

    def inputs(self, lengths: Tensor, steps: int) -> Tensor | None:
        t = torch.arange(steps, device=lengths.device)[:, None]
        return ((lengths - t).clamp(min=0) / self.longest).to(self.length.weight.dtype)[..., None]

    def log_prob(self, y: Tensor, chosen: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        return self.log_lengths(first).gather(1, (lengths - 1)[:, None])[:, 0]

    def log_lengths(self, first: Tensor) -> Tensor:
        """log p of the lengths 1 to longest, (B, longest)."""
        return F.log_softmax(self.length(first), -1)

    def draw_length(self, first: Tensor, greedy: bool) -> tuple[Tensor, Tensor] | None:
        log_p = self.log_lengths(first)
        drawn = log_p.argmax(-1, keepdim=True) if greedy else torch.multinomial(log_p.exp(), 1)
        return drawn[:, 0] + 1, log_p.gather(1, drawn)[:, 0]


RULES = ("end", "coin", "length", "given")


def stopping(rule: str, longest: int, symbols: int, output_size: int, state_size: int) -> Stopping:
    """The rule by its name."""
    if rule == "end":
        return EndSymbol(longest, symbols)
    if rule == "coin":
        return StopCoin(longest, output_size)
    if rule == "length":
        return DrawnLength(longest, state_size)
    if rule == "given":
        return Given(longest)
    raise OptionError(f"stop must be one of {', '.join(RULES)}; got {rule!r}")
