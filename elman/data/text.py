"""Text as a line of symbol numbers: vocabularies by byte, character or word, and aligned streams."""

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


class Streams:
    """A line of symbols cut into B streams of equal length, read side by side in windows of T.

    Window k+1 goes on where window k ended, row by row, so the state is carried from one to the next (truncated
    BPTT). A new epoch begins at the beginning, with a fresh state. What is left over after the last whole window of
    each stream is not read. Any window is found from its number alone: nothing moves, so nothing can get out of step.
    Errors: DataError when the text is too short for one window a stream.
    """

    def __init__(self, ids: Tensor, batch: int, window: int) -> None:
        length = (len(ids) - 1) // batch
        self.windows = length // window  # in one epoch
        if self.windows < 1:
            raise DataError(
                f"the text is too short: training has {len(ids):,} symbols, one window of {window} in each of {batch} "
                f"streams needs {batch * window + 1:,}; use a longer text, or smaller --window and --batch"
            )
        self.window, self.length = window, length
        self._x, self._y = (ids[at : at + batch * length].view(batch, length) for at in (0, 1))

    def between(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets from one step of all streams to another, both (T, B) of int64."""
        return self._x[:, start:end].T.long(), self._y[:, start:end].T.long()

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        """Window k of all epochs: inputs and targets, both (T, B)."""
        at = (k % self.windows) * self.window
        return self.between(at, at + self.window)

    def fresh(self, k: int) -> bool:
        """Whether window k begins an epoch, and so takes a fresh state."""
        return k % self.windows == 0
