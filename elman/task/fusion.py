"""A language model of characters beside a recogniser: what is likely to be said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from elman.data.files import read_bytes
from elman.data.text import Vocabulary, vocabulary_from_json
from elman.errors import DataError, OptionError
from elman.task.ctc import Prefix
from elman.task.language import Predictor
from elman.task.options import from_json
from elman.task.text_model import build_model
from elman.task.text_options import Options
from elman.tensors import read_tensors

END = "\n"  # what stands before and after a transcript


class Known(NamedTuple):
    """A prefix: its weight, log p of each character after it (V,), and the text model's state."""

    score: float
    log_p: Tensor
    state: Any


class TextFusion:
    """weight * log p of the text + bonus for each symbol, for `prefix_beam`.

    numbers: of each of the recogniser's symbols, its number in the text model; end: that of the line's end.
    """

    def __init__(self, model: Predictor, numbers: Sequence[int], end: int, weight: float, bonus: float) -> None:
        self.model, self.numbers, self.end = model, numbers, end
        self.weight, self.bonus = weight, bonus
        self.known: dict[Prefix, Known] = {}

    def weigh(self, prefixes: Sequence[Prefix]) -> None:
        """Read the last symbols of these, all at once; what led to others is forgotten."""
        new = [prefix for prefix in prefixes if prefix not in self.known]
        scores = {prefix: self.score(prefix) if prefix else 0.0 for prefix in new}
        parents = [self.known[prefix[:-1]].state for prefix in new if prefix]
        kept = {prefix: self.known[prefix] for prefix in prefixes if prefix in self.known}
        if new:
            ids = torch.tensor([[self.numbers[prefix[-1]] if prefix else self.end for prefix in new]])  # (1, N)
            logits, state = self.model(ids, joined(parents) if parents else None)
            log_p = F.log_softmax(logits[0], -1)
            kept |= {prefix: Known(scores[prefix], log_p[i], row(state, i)) for i, prefix in enumerate(new)}
        self.known = kept

    def score(self, prefix: Prefix) -> float:
        if prefix in self.known:
            return self.known[prefix].score
        before = self.known[prefix[:-1]]
        return before.score + self.weight * float(before.log_p[self.numbers[prefix[-1]]]) + self.bonus

    def ended(self, prefix: Prefix) -> float:
        """The weight of a prefix that is the whole text."""
        known = self.known[prefix]
        return known.score + self.weight * float(known.log_p[self.end])


def joined(states: Sequence[Any]) -> Any:
    """Rows of states as one state."""
    return tuple(type(layer[0])(*map(torch.cat, zip(*layer))) for layer in zip(*states))


def row(state: Any, i: int) -> Any:
    """Row i of a state."""
    return tuple(type(layer)(*(value[i : i + 1] for value in layer)) for layer in state)


# text models in run folders


def read_text_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON that says what a run of `elman train text` is, and its weights. Errors: DataError, RunError."""
    config, vocabulary = (parsed(folder / name) for name in ("config.json", "vocabulary.json"))
    if not isinstance(config, dict) or config.get("task") != "text":
        raise DataError(f"{folder} is no run of elman train text; --lm takes one, trained on lines of text")
    about = {"options": config.get("options"), "vocabulary": vocabulary}
    return about, read_tensors(folder / "model.safetensors", text_model(about)[0].state_dict())


def parsed(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error}); restore it, or train the text model again") from None


def text_model(about: Mapping[str, Any]) -> tuple[Predictor, Vocabulary]:
    """A model without its weights, and its vocabulary, from what `read_text_model` said. Errors: DataError."""
    try:
        options = from_json(Options, about.get("options"))
    except OptionError as error:
        raise DataError(f"the text model does not fit this version of elman: {error}; train it again") from None
    vocabulary = vocabulary_from_json(about.get("vocabulary"))
    if vocabulary.level != "char" or END not in vocabulary.symbols:
        raise DataError(f"the text model is of {vocabulary.level}s; --lm takes one of characters, of several lines")
    with torch.random.fork_rng(devices=[]):  # it has a seed of its own
        return build_model(options, len(vocabulary)).requires_grad_(False), vocabulary


def numbers_of(symbols: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """The text model's numbers of a recogniser's symbols. Errors: DataError for one that it does not have."""
    missing = [symbol for symbol in symbols if symbol not in vocabulary.symbols]
    if missing:
        shown = ", ".join(map(repr, missing[:8]))
        raise DataError(
            f"the text model of --lm does not have {shown}; train it on text written as the transcripts are"
        )
    return [vocabulary.symbols.index(symbol) for symbol in symbols]
