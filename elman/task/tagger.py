"""The network of the tag task: words and their characters, read in both directions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from elman.data.lexicon import Lexicon
from elman.module import Bidirectional, Dropout
from elman.task.networks import CELLS, WordDropout, pooled, stack

PART = 128  # words whose characters are read at once


class Batch(NamedTuple):
    """Sentences as numbers: T words in the longest of B, U different words, L characters in the longest of these."""

    words: Tensor  # (T, B)
    lengths: Tensor  # (B,)
    spelled: Tensor  # (T, B): each word's place among the different ones
    characters: Tensor  # (L, U)
    letters: Tensor  # (U,): how many characters each has


def batch_of(sentences: list[tuple[str, ...]], words: Lexicon, characters: Lexicon) -> Batch:
    """Numbers of words, in lower case, and of their characters, in their own."""
    places: dict[str, int] = {}
    spelled = [torch.tensor([places.setdefault(word, len(places)) for word in s]) for s in sentences]
    ids = [words.ids(word.lower() for word in s) for s in sentences]
    letters = [characters.ids(word) for word in places]
    return Batch(
        pad_sequence(ids),
        torch.tensor([len(s) for s in sentences]),
        pad_sequence(spelled),
        pad_sequence(letters),
        torch.tensor([len(word) for word in places]),
    )


class Spelling(nn.Module):
    """A vector for each word from its characters: the last output of each direction.

    Words are read in parts, by their lengths, so that short ones do not wait for the longest.

    Shapes: characters (L, U), letters (U,) -> (U, 2 H).
    """

    def __init__(self, symbols: int, embedding: int, hidden: int, cell: str) -> None:
        super().__init__()
        make = CELLS[cell]
        self.embedding = nn.Embedding(symbols, embedding)
        self.recurrent = Bidirectional(make(embedding, hidden), make(embedding, hidden))

    def forward(self, characters: Tensor, letters: Tensor) -> Tensor:
        order = letters.argsort()
        parts = [self.last(characters[: letters[some[-1]], some], letters[some]) for some in order.split(PART)]
        return torch.cat(parts)[order.argsort()]

    def last(self, characters: Tensor, letters: Tensor) -> Tensor:
        y, _ = self.recurrent(self.embedding(characters), lengths=letters)
        return pooled(y, letters, "last", both=True)


class Tagger(nn.Module):
    """p(tag of each word | sentence): an embedding beside the word's spelling, recurrent layers, softmax.

    Shapes: a Batch -> logits (T, B, K).
    Source: Plank, Søgaard, Goldberg, "Multilingual part-of-speech tagging with bidirectional LSTMs" (2016).
    """

    def __init__(self, words: int, symbols: int, labels: int, options: Any) -> None:
        super().__init__()
        o = options
        self.words = nn.Sequential(WordDropout(o.word_dropout), nn.Embedding(words, o.embedding))
        self.spelling = Spelling(symbols, o.letter_embedding, o.letter_hidden, o.cell)
        self.dropout = Dropout(o.dropout)
        width = o.embedding + 2 * o.letter_hidden
        self.recurrent = stack(o.cell, width, o.hidden, o.layers, True, o.dropout)
        self.output = nn.Linear(2 * o.hidden, labels)

    def forward(self, batch: Batch) -> Tensor:
        spellings = self.spelling(batch.characters, batch.letters)  # (U, 2 H)
        x = torch.cat([self.words(batch.words), spellings[batch.spelled]], -1)  # (T, B, I)
        y, _ = self.recurrent(self.dropout(x), lengths=batch.lengths)
        return self.output(y)
