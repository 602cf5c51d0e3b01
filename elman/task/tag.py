"""Tagging: a label for each word of a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elman.data.files import input_lines
from elman.data.grammar import grammar_sentences
from elman.data.lexicon import Lexicon
from elman.data.tagged import Tagged, read_either, read_tagged, read_words
from elman.errors import DataError
from elman.module import ways
from elman.task.base import Loss, Score, Scores
from elman.task.examples import spread
from elman.task.networks import CellName
from elman.task.options import Recipe, check_below_one, check_ranges
from elman.task.sentences import LOOKED, span_rates, tag_rates, tagged_sentences
from elman.task.spans import is_bio, span_f1
from elman.task.supervised import Supervised, SupervisedOptions, find
from elman.task.tagger import Batch, Tagger, batch_of
from elman.task.views import confusion

NO_TAG = -100  # where a sentence has ended


@dataclass(frozen=True, kw_only=True)
class Options(SupervisedOptions):
    """What is read, and by what network."""

    column: str = "auto"
    """Where the tags stand. CoNLL-U: a column as upos or xpos, or a feature as Number; other files: a number from 1.
    auto: upos, or the last column."""
    least: int = 2
    """Words that training has less often than this, in lower case, are one unknown word beside their characters."""

    cell: CellName = "lstm"
    """The recurrent cell, over words and over characters."""
    hidden: int = 100
    """Width of each recurrent layer over words, in each direction."""
    layers: int = 1
    """Recurrent layers over words, one above the other."""
    embedding: int = 64
    """Width of a word's embedding."""
    letter_hidden: int = 32
    """Width of the recurrent layer over a word's characters, in each direction."""
    letter_embedding: int = 24
    """Width of a character's embedding."""
    dropout: float = 0.2
    """Probability of dropping an entry of the embeddings and of each layer's output."""
    word_dropout: float = 0.05
    """Probability of reading a word as unknown, beside its characters, in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = dict.fromkeys(("least", "hidden", "layers", "embedding", "letter_hidden", "letter_embedding"), 1)
        check_ranges(self, {**least, "dropout": 0, "word_dropout": 0})
        check_below_one(self, "dropout", "word_dropout")


RECIPES: dict[str, Recipe] = {
    "default": Recipe(Options(rate=4e-3, batch=16), "a small network, for small files", epochs=10),
    "words-and-characters": Recipe(
        Options(
            hidden=200, embedding=128, letter_hidden=64, letter_embedding=32, dropout=0.33, word_dropout=0.1,
            rate=4e-3, average=0.998, warmup=100,
        ),
        "a treebank: wider, regularised, a few minutes",
        epochs=6,
    ),
}  # fmt: skip


class Tag(Supervised[Tagged]):
    """A tag for each word of a sentence.

    CoNLL-U, or files of columns: a word on each line, its tag in another column, a blank line between sentences.
    Scores are the accuracy over words, and where all tags are O, B-KIND and I-KIND the F1 of whole spans. No files:
    sentences made here by a small grammar.
    """

    name: ClassVar[str] = "tag"
    file_names: ClassVar[tuple[str, ...]] = ("tag.json",)
    options_type: ClassVar[type[Options]] = Options
    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    higher: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "elman train tag                                            sentences made here, a few seconds",
        "elman train tag train.conllu --validation dev.conllu --recipe words-and-characters",
        "elman train tag train.conllu --column Number               a feature in place of the part of speech",
        "elman train tag entities.txt --column 4                    word, ..., tag in the fourth column",
        'then: echo "We saw her duck ." | elman predict runs/tag',
    )

    # the data

    def read(self, paths: Sequence[str], training: bool) -> list[Tagged]:
        return [s for path in paths for s in read_tagged(Path(path), self.options.column)]

    def made(self) -> list[Tagged]:
        return grammar_sentences(600, seed=1)

    def fit(self, examples: Sequence[Tagged]) -> dict[str, Any]:
        """Labels of what is held back of the same files are known too, however rare; those of another file must be."""
        own = examples if self.options.share is None else [*examples, *self.held_back]
        words = list(each_word(examples))
        self.labels = Lexicon.of(tag for s in own for tag in s.tags or ())
        self.targets(self.held_back)
        known = Lexicon.of((word.lower() for word in words), "<unknown>", self.options.least)
        letters = Lexicon.of(chain.from_iterable(words), "<unknown>")
        found = {"labels": self.labels, "words": known, "characters": letters, "seen": Lexicon.of(words)}
        return {"tag.json": {name: lexicon.to_json() for name, lexicon in found.items()}}

    def prepare(self, files: dict[str, Any]) -> None:
        saved = files["tag.json"]
        if not isinstance(saved, dict):
            raise DataError(f"tag.json holds no lists of words: {saved!r:.60}")
        self.labels = Lexicon.from_json(saved["labels"])
        self.words = Lexicon.from_json(saved["words"], "<unknown>")
        self.characters = Lexicon.from_json(saved["characters"], "<unknown>")
        self.seen = Lexicon.from_json(saved["seen"])

    def build(self) -> Tagger:
        return Tagger(len(self.words), len(self.characters), len(self.labels), self.options)

    def length(self, example: Tagged) -> int:
        return len(example.words)

    def batch(self, examples: Sequence[Tagged]) -> Batch:
        return batch_of([s.words for s in examples], self.words, self.characters)

    def targets(self, examples: Sequence[Tagged]) -> list[Tensor]:
        """Numbers of the tags of each sentence. Errors: DataError naming the word whose tag training did not have."""
        for s in examples:
            for i, tag in enumerate(s.tags or ()):
                if tag not in self.labels:
                    known = ", ".join(self.labels.words[:8]) + (", ..." if len(self.labels) > 8 else "")
                    raise DataError(
                        f"{s.at(i)}: {s.words[i]!r} has the tag {tag!r}, never seen in training, which had {known}"
                    )
        return [self.labels.ids(s.tags or ()) for s in examples]

    # training

    @property
    def guess(self) -> float:
        return math.log(len(self.labels))

    def in_units(self, value: float) -> str:
        return f"{value:.4f} nats/word"

    def about(self) -> dict[str, str]:
        o, named = self.options, ", ".join(self.options.files) or "sentences made here"
        words = sum(map(self.length, self.training))
        return {
            "data": f"{named}: {len(self.training):,} sentences, {words:,} words, {len(self.labels)} tags",
            "split": f"{len(self.training):,} sentences to train, {len(self.held_back):,} to validate",
            "reading": f"{len(self.words):,} words and {len(self.characters):,} characters known, {o.batch} sentences "
            f"at a time, {self.batches:,} batches an epoch",
            "model": f"{o.cell} {o.layers} x {o.hidden} in both directions over words, {o.letter_hidden} over "
            f"characters, dropout {o.dropout:g}",
            "backend": ways(self.model, self.batch(self.training[:2])),
        }

    def objective(self, examples: Sequence[Tagged]) -> Loss:
        logits = self.model(self.batch(examples))  # (T, B, K)
        targets = pad_sequence(self.targets(examples), padding_value=NO_TAG)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TAG)
        return Loss(loss, loss.item(), weight=sum(map(self.length, examples)))

    # use

    def log_p(self, examples: Sequence[Tagged], tick: Callable[[int], None] = lambda n: None) -> list[Tensor]:
        """log p of each tag for each word of each sentence, (T, K)."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        with torch.no_grad():
            for numbers in self.in_batches(examples, tick):
                batch = F.log_softmax(self.model(self.batch([examples[i] for i in numbers])), -1)  # (T, B, K)
                for i, row in zip(numbers, batch.unbind(1)):
                    found[i] = row[: self.length(examples[i])]
        return found

    def tags(self, log_p: Tensor) -> list[str]:
        """The most probable tag of each word."""
        return [self.labels.words[i] for i in log_p.argmax(-1).tolist()]

    def measure(self, examples: Sequence[Tagged], tick: Callable[[int], None]) -> Scores:
        targets = self.targets(examples)
        each = self.log_p(examples, tick)
        log_p, target = torch.cat(each), torch.cat(targets)
        right = log_p.argmax(-1) == target
        new = torch.tensor([word not in self.seen for word in each_word(examples)])
        scores = {"accuracy": among(right), "unseen words": among(right[new])}
        if is_bio(self.labels.words):
            f1, precision, recall = span_f1([s.tags or () for s in examples], map(self.tags, each))
            scores["F1"] = Score(f1, f"{f1:.2%} of spans (precision {precision:.2%}, recall {recall:.2%})")
        nats = F.nll_loss(log_p, target).item()
        return scores | {"loss": Score(nats, self.in_units(nats))}

    def sample(self, k: int) -> str:
        """A short sentence of those held back, as it is tagged now."""
        short = next((s for s in self.held_back if 5 < self.length(s) < 15), None)
        if short is None:
            return ""
        self.model.eval()
        return slashed(short.words, self.tags(self.log_p([short])[0]))

    def predict(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        self.model.eval()
        for sentences in self.asked(paths):
            for s, log_p in zip(sentences, self.log_p(sentences)):
                tags = self.tags(log_p)
                yield {"words": list(s.words), "tags": tags, "text": slashed(s.words, tags)}

    def asked(self, paths: Sequence[str]) -> Iterator[list[Tagged]]:
        """The sentences of each file, or of each line of standard input."""
        for path in paths:
            yield read_words(Path(path), self.options.column, self.labels.words)
        for number, line in () if paths else input_lines():
            words = tuple(line.split())
            if words:
                yield [Tagged(words, None, "standard input", (number,) * len(words))]

    def views(self, paths: Sequence[str] = ()) -> list[Any]:
        """Tagged sentences; where right tags are known, how well each is found, and which is taken for which."""
        o, labels = self.options, self.labels.words
        examples = [s for path in find(paths) for s in read_either(Path(path), o.column, labels)]
        examples = examples if paths else [*self.held_back]
        if not examples:
            return []
        self.model.eval()
        some = spread(examples, LOOKED)
        each = self.log_p(some)
        shown = tagged_sentences(some, each, labels, len(examples))
        known = [i for i, s in enumerate(some) if s.tags is not None]
        if not known:
            return [shown]
        right = [some[i] for i in known]
        log_p, targets = torch.cat([each[i] for i in known]), torch.cat(self.targets(right))
        matrix = confusion(labels, log_p.argmax(-1), targets)
        if is_bio(labels):
            found = span_rates([s.tags or () for s in right], [self.tags(each[i]) for i in known])
        else:
            found = tag_rates(labels, matrix.counts)
        return [shown, found, matrix]


def each_word(examples: Iterable[Tagged]) -> Iterator[str]:
    return chain.from_iterable(s.words for s in examples)


def slashed(words: Sequence[str], tags: Sequence[str]) -> str:
    return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags))


def among(right: Tensor) -> Score:
    """How many are right, of those there are."""
    return Score.share(int(right.sum()), len(right))
