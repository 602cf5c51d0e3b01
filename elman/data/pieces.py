"""Pieces of text and their numbers: characters, words, or subwords. 0 is any piece that training did not have."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from elman.data.lexicon import Lexicon
from elman.errors import DataError, ElmanError, RunError

UNKNOWN = "<unk>"
SPACE = "▁"  # stands in a piece for the space before it, so that pieces are put together again without a rule


class Pieces(ABC):
    """How texts become numbers, and numbers pieces."""

    @abstractmethod
    def __len__(self) -> int:
        """How many pieces there are, the unknown one included."""

    @abstractmethod
    def read(self, text: str) -> tuple[list[int], list[str]]:
        """The numbers of a text's pieces, and the pieces as they stand in the text."""

    @abstractmethod
    def piece(self, number: int) -> str:
        """The piece of a number."""

    @abstractmethod
    def to_json(self) -> Any: ...


class Spelled(Pieces):
    """Words or characters."""

    def __init__(self, lexicon: Lexicon, split: Callable[[str], list[str]]) -> None:
        self.lexicon, self.split = lexicon, split

    @classmethod
    def of(cls, texts: Iterable[str], split: Callable[[str], list[str]], least: int, limit: int) -> Spelled:
        """The pieces that come `least` times or more in texts, the `limit` most frequent at most."""
        return cls(Lexicon.of((w for text in texts for w in split(text)), UNKNOWN, least, limit), split)

    def __len__(self) -> int:
        return len(self.lexicon)

    def read(self, text: str) -> tuple[list[int], list[str]]:
        pieces = self.split(text)
        return [self.lexicon.id(piece) for piece in pieces], pieces

    def piece(self, number: int) -> str:
        return self.lexicon.words[number]

    def to_json(self) -> Any:
        return self.lexicon.to_json()


class Subwords(Pieces):
    """Parts of words, so that every word can be written: byte pair encoding, by the package tokenizers.

    Source: Sennrich, Haddow, Birch (2016), arXiv:1508.07909.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def of(cls, texts: Iterable[str], limit: int) -> Subwords:
        """Trained on texts until there are `limit` pieces. Errors: DataError without the package."""
        made = library(DataError)
        tokenizer = made.Tokenizer(made.models.BPE(unk_token=UNKNOWN))
        apart = [made.pre_tokenizers.Metaspace(SPACE), made.pre_tokenizers.Punctuation()]
        tokenizer.pre_tokenizer = made.pre_tokenizers.Sequence(apart)
        trainer = made.trainers.BpeTrainer(
            vocab_size=limit, min_frequency=2, special_tokens=[UNKNOWN], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, saved: Any) -> Subwords:
        """Errors: DataError where it is not what `to_json` gave; RunError without the package."""
        made = library(RunError)
        try:
            return cls(made.Tokenizer.from_str(json.dumps(saved)))
        except Exception as error:  # the package raises no narrower class
            raise DataError(f"not a tokenizer: {error}") from None

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def read(self, text: str) -> tuple[list[int], list[str]]:
        found = self.tokenizer.encode(text)
        pieces = zip(found.tokens, found.offsets)
        return found.ids, [text[a:b] if piece == UNKNOWN else piece for piece, (a, b) in pieces]

    def piece(self, number: int) -> str:
        return self.tokenizer.id_to_token(number)

    def to_json(self) -> Any:
        return json.loads(self.tokenizer.to_str())


def found(level: str, texts: Iterable[str], limit: int, least: int) -> Pieces:
    """The pieces of texts, by "subword", "word" or "char". Errors: DataError."""
    return Subwords.of(texts, limit) if level == "subword" else Spelled.of(texts, SPLITS[level], least, limit)


def restored(level: str, saved: Any) -> Pieces:
    """The pieces that gave this to_json. Errors: DataError, RunError."""
    if level == "subword":
        return Subwords.from_json(saved)
    return Spelled(Lexicon.from_json(saved, UNKNOWN), SPLITS[level])


def words(text: str) -> list[str]:
    """Words and marks, each with `SPACE` before it where white space stood: "A man." -> "▁A", "▁man", "."."""
    found = []
    for match in re.finditer(r"\w+|[^\w\s]", text):
        at = match.start()
        found.append((SPACE if at == 0 or text[at - 1].isspace() else "") + match.group())
    return found


SPLITS: dict[str, Callable[[str], list[str]]] = {"word": words, "char": list}


def joined(pieces: Iterable[str]) -> str:
    """The text that pieces spell."""
    return "".join(pieces).replace(SPACE, " ").strip()


def library(error: type[ElmanError]) -> Any:
    """The package tokenizers. Errors: the given one, where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise error("subwords need the package tokenizers: pip install elman[translate], or use --level word") from None
    return tokenizers
