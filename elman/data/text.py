"""Text as a line of symbol numbers: vocabularies by byte, character or word."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from elman.errors import DataError


class Vocabulary(ABC):
    """The symbols of a text, V of them: numbers for text, text for numbers."""

    level: ClassVar[str]
    unit: ClassVar[str]  # what a loss is counted by
    symbols: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.symbols)

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Symbol numbers (N,) of int64. Errors: DataError naming symbols that the vocabulary does not have."""

    @abstractmethod
    def decoder(self) -> Callable[[int], str]:
        """A function to be called with one symbol number after another; it gives the text that each completes."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a line of symbol numbers."""
        return "".join(map(self.decoder(), ids))

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level, "symbols": list(self.symbols)}


class Bytes(Vocabulary):
    """The 256 byte values: any file at all. A text that is not UTF-8 keeps its bytes (as surrogates)."""

    level, unit = "byte", "byte"
    symbols = tuple(f"{i:02x}" for i in range(256))

    def encode(self, text: str) -> Tensor:
        data = text.encode("utf-8", "surrogateescape")
        return torch.from_numpy(np.frombuffer(data, np.uint8).astype(np.int64))

    def decoder(self) -> Callable[[int], str]:
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda i: utf8.decode(bytes([i]))


class Characters(Vocabulary):
    """The distinct characters of a text, in the order of their code points. Line ends are read as newlines."""

    level, unit = "char", "char"

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._codes = np.array([ord(symbol) for symbol in self.symbols], dtype=np.uint32)

    def encode(self, text: str) -> Tensor:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = codes[self._codes[ids] != codes]
        if len(unknown):
            shown = ", ".join(repr(chr(code)) for code in np.unique(unknown)[:8])
            raise DataError(
                f"the vocabulary of {len(self)} characters does not have {shown}: leave them out, or "
                "train with --level byte"
            )
        return torch.from_numpy(ids.astype(np.int64))

    def decoder(self) -> Callable[[int], str]:
        return self.symbols.__getitem__


class Words(Vocabulary):
    """The most frequent words of a text, split at white space; <eos> ends each line, <unk> is any other word."""

    level, unit = "word", "word"

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    @staticmethod
    def split(text: str) -> list[str]:
        return [
            word for line in text.splitlines(keepends=True) for word in line.split() + ["<eos>"] * line.endswith("\n")
        ]

    def encode(self, text: str) -> Tensor:
        unknown = self._ids["<unk>"]
        return torch.tensor([self._ids.get(word, unknown) for word in self.split(text)], dtype=torch.int64)

    def decoder(self) -> Callable[[int], str]:
        return lambda i: "\n" if self.symbols[i] == "<eos>" else self.symbols[i] + " "


def vocabulary_from_json(saved: Any) -> Vocabulary:
    """The vocabulary that `Vocabulary.to_json` described. Errors: DataError when it is not one."""
    level = saved.get("level") if isinstance(saved, dict) else None
    symbols = saved.get("symbols") if isinstance(saved, dict) else None
    if not isinstance(symbols, list) or not all(isinstance(s, str) and s for s in symbols):
        symbols = []
    if level == "byte":
        return Bytes()
    if level == "char" and symbols and all(len(s) == 1 for s in symbols) and symbols == sorted(set(symbols)):
        return Characters(symbols)
    if level == "word" and "<unk>" in symbols and len(set(symbols)) == len(symbols):
        return Words(symbols)
    raise DataError(f"not a vocabulary of level byte, char or word (level: {level!r})")
