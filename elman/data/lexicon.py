"""Words and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, tensor

from elman.errors import DataError


class Lexicon:
    """Words by number; with `unknown`, number 0 is any word that is not there."""

    def __init__(self, words: Sequence[str], unknown: str | None = None) -> None:
        self.words = tuple(words) if unknown is None else (unknown, *words)
        self.unknown = unknown
        self._ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def of(cls, words: Iterable[str], unknown: str | None = None, least: int = 1, limit: int | None = None) -> Lexicon:
        """The words that come `least` times or more, the most frequent first, at most `limit` of them."""
        counts = sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))
        return cls([word for word, count in counts if count >= least and word != unknown][:limit], unknown)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def id(self, word: str) -> int:
        """The number of a word. Errors: DataError for one that is not there, where no number stands for those."""
        if self.unknown is not None:
            return self._ids.get(word, 0)
        if word not in self._ids:
            shown = ", ".join(self.words[:8]) + (", ..." if len(self.words) > 8 else "")
            raise DataError(f"{word!r} was never seen in training, which had: {shown}")
        return self._ids[word]

    def ids(self, words: Iterable[str]) -> Tensor:
        """Numbers (N,) of int64."""
        return tensor([self.id(word) for word in words])

    def to_json(self) -> list[str]:
        return list(self.words if self.unknown is None else self.words[1:])

    @classmethod
    def from_json(cls, saved: Any, unknown: str | None = None) -> Lexicon:
        """Errors: DataError where it is not what `to_json` gave."""
        if not isinstance(saved, list) or not all(isinstance(word, str) for word in saved):
            raise DataError(f"not a list of words: {saved!r:.60}")
        if len(set(saved)) < len(saved):
            raise DataError("a word stands twice in a list of words")
        return cls(saved, unknown)
