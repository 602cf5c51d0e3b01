"""What there is to see of a recogniser: recordings, and how probable each symbol is in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from elman.task.ctc import aligned
from elman.task.examples import worst_first
from elman.task.hearing import Recording
from elman.task.recogniser import error_rates

SHOWN = 8  # recordings on a page
LOOKED = 60  # of which these are the worst, and some others
MINUTES = 2.0  # of them, at most


class Spike(NamedTuple):
    """A symbol, and when it was heard, in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Heard:
    """A recording, and what was heard in it.

    frames: (T, D) of 10 ms; said: None where it is not known; symbols: those that were heard, U; p: of these and of the
    blank in each row of frames of so many seconds, (T', U + 1); row: what a value of a frame is.
    """

    name: str
    frames: Tensor
    said: str | None
    heard: str
    symbols: Sequence[str]
    p: Tensor
    seconds: float
    row: str
    spikes: Sequence[Spike]

    @property
    def rates(self) -> tuple[float, float] | None:
        """WER and CER; None where it is not known what was said, or they cannot be counted."""
        found = error_rates([self.said], [self.heard]) if self.said else {}
        return (found["WER"].value or 0.0, found["CER"].value or 0.0) if found else None


@dataclass(frozen=True)
class Spikes:
    """Some recordings, the worst first, of how many that were listened to, of how many there are."""

    shown: Sequence[Heard]
    listened: int
    of: int
    wrong: int | None  # of those that were listened to; None where it is not known what is said
    left_out: str  # what could not be read, in words


def enough(examples: Sequence[Recording]) -> int:
    """How many of them are listened to for a page."""
    mean = sum(len(e.frames) for e in examples) / max(1, len(examples))
    return max(SHOWN, min(LOOKED, round(MINUTES * 6000 / max(1.0, mean))))


def spikes(log_p: Tensor, ids: Sequence[int], words: Sequence[str], seconds: float) -> list[Spike]:
    """When each symbol is said, from log_p (T, K) of frames of so many seconds; the blank comes after all words."""
    spans = aligned(log_p, ids, blank=len(words))
    return [Spike(words[i], round(a * seconds, 3), round(b * seconds, 3)) for i, (a, b) in zip(ids, spans)]


def chosen(heard: Sequence[Heard], of: int, left_out: str) -> Spikes:
    """Those that were heard worst, then some of the others."""
    right = [h.said is None or h.said == h.heard for h in heard]
    wrong = [h for h, good in zip(heard, right) if not good]
    wrong.sort(key=lambda h: h.rates or (0.0, 0.0), reverse=True)
    shown = worst_first(wrong, [h for h, good in zip(heard, right) if good], SHOWN)
    return Spikes(shown, len(heard), of, len(wrong) if any(h.said is not None for h in heard) else None, left_out)
