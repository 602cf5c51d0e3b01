"""The network that recognises speech, how it is read out, and how many errors it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from elman.task.base import Score, Scores
from elman.task.ctc import greedy, prefix_beam
from elman.task.fusion import END, TextFusion, numbers_of, text_model
from elman.task.networks import stack


class Recogniser(nn.Module):
    """log p of each symbol or none in each frame: recurrent layers, a linear layer, softmax.

    A text model lies beside it where `text` describes one (`fusion.read_text_model`); it is not trained.
    Shapes: x (T, B, I), lengths (B,) -> (T, B, K), the last of K is the blank.
    """

    def __init__(self, options: Any, width: int, symbols: Sequence[str], text: Mapping[str, Any] | None) -> None:
        super().__init__()
        o = self.options = options
        self.blank = len(symbols)
        self.recurrent = stack(o.cell, width, o.hidden, o.layers, o.both, o.dropout)
        self.output = nn.Linear((2 if o.both else 1) * o.hidden, self.blank + 1)
        self.text = None
        if text:
            self.text, vocabulary = text_model(text)
            self.numbers, self.end = numbers_of(symbols, vocabulary), vocabulary.symbols.index(END)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.recurrent(x, lengths=lengths)
        return F.log_softmax(self.output(y), -1)

    def decoded(self, log_p: Tensor) -> list[int]:
        """The symbols that are said in frames (T, K)."""
        o = self.options
        if o.beam == 1:
            return greedy(log_p, self.blank)
        if self.text is None:
            return prefix_beam(log_p, self.blank, o.beam)
        fusion = TextFusion(self.text, self.numbers, self.end, o.lm_weight, o.lm_bonus)
        return prefix_beam(log_p, self.blank, o.beam, fusion)


def error_rates(said: list[str], heard: list[str]) -> Scores:
    """Words and characters that are wrong, missing or too many, for each that was said; nothing without jiwer."""
    try:
        import jiwer
    except ImportError:
        return {}
    return {
        "WER": rate(jiwer.process_words(said, heard)),
        "CER": rate(jiwer.process_characters(said, heard)),
    }


def rate(counted: Any) -> Score:
    wrong = counted.substitutions + counted.deletions + counted.insertions
    whole = counted.hits + counted.substitutions + counted.deletions
    return Score.share(wrong, whole)
