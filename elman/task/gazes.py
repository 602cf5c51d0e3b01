"""What there is to see of a captioner: pictures, their captions, and where it looked for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from elman.data.captions import Captioned, words_of
from elman.task.examples import worst_first

SHOWN = 8  # pictures on a page
LOOKED = 60  # of which these are some


@dataclass(frozen=True)
class Gaze:
    """A picture and its caption; with attention, how much each place was looked at for each word.

    pixels: (R, C, 3) of uint8, None where features stand for pictures; looked: (T, G, G), None without attention.
    """

    name: str
    words: Sequence[str]
    log_p: float  # nats, of the caption with its end
    right: Sequence[str]  # captions that are known to be right
    pixels: Tensor | None
    looked: Tensor | None

    @property
    def wrong(self) -> bool:
        """The caption is none of those that are known to be right."""
        return bool(self.right) and " ".join(self.words) not in self.right


@dataclass(frozen=True)
class Gazes:
    """Some pictures, of how many that were captioned, of how many there are."""

    shown: Sequence[Gaze]
    captioned: int
    of: int
    wrong: int | None  # of those that were captioned; None where no right caption is known
    left_out: int  # that could not be read


def gaze(e: Captioned, text: str, log_p: float, pixels: Tensor | None, weights: Tensor | None) -> Gaze:
    """A caption, from weights (T, S) of the places of a square."""
    words = text.split()
    right = tuple(" ".join(words_of(caption)) for caption in e.captions)
    looked = None
    if weights is not None and pixels is not None:
        side = round(weights.shape[1] ** 0.5)
        looked = weights[: len(words)].unflatten(1, (side, side))
    return Gaze(e.name, words, log_p, right, pixels, looked)


def gazes(each: Sequence[Gaze], of: int, left_out: int) -> Gazes:
    """Those whose caption is wrong, the least probable first, then some of the others."""
    wrong = sorted((g for g in each if g.wrong), key=lambda g: g.log_p)
    shown = worst_first(wrong, [g for g in each if not g.wrong], SHOWN)
    return Gazes(shown, len(each), of, len(wrong) if any(g.right for g in each) else None, left_out)
