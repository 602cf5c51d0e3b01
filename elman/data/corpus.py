"""Text files read in pieces: vocabularies and symbol numbers of texts that need not fit in memory."""

from __future__ import annotations

import codecs
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.text import Bytes, Characters, Vocabulary, Words
from elman.errors import DataError

PIECE = 1 << 24  # bytes or characters read at once
LARGE = 1 << 27  # bytes: from here on the symbol numbers of a text lie in a temporary file


class Encoded(NamedTuple):
    """Symbol numbers (N,), and behind which of them each file ends."""

    ids: Tensor
    ends: list[int]


class Corpus:
    """Files one after another as one text. Errors: DataError for a file missing, unreadable, or all empty.

    apart: each file is a document, so that a last line without its end does not go on in the next file.
    """

    def __init__(self, paths: Sequence[Path], level: str, apart: bool = False) -> None:
        self.paths, self.level, self.apart = paths, level, apart

    def pieces(self) -> Iterator[str]:
        """The text, piece after piece; at word level a piece ends where a line or a word does.

        Bytes are given as they are, those that are not UTF-8 as surrogates; else line ends are read as newlines.
        """
        return (piece for _, piece in self._pieces())

    def _pieces(self) -> Iterator[tuple[int, str]]:
        """Pieces, each with the number of the file that it ends in."""
        rest, empty, last = "", True, len(self.paths) - 1
        for number, path in enumerate(self.paths):
            for piece in self._read(path):
                empty = False
                if self.level == "word":
                    text = rest + piece
                    end = max(text.rfind("\n"), text.rfind(" ")) + 1
                    piece, rest = text[:end], text[end:]
                yield number, piece
            if rest and (self.apart or number == last):
                yield number, rest
                rest = ""
        if empty:
            raise DataError(f"{', '.join(map(str, self.paths))}: empty; name a file with text in it")

    def _read(self, path: Path) -> Iterator[str]:
        how = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        how = how if self.level == "byte" else {"encoding": "utf-8-sig"}
        try:
            with open(path, **how) as file:  # type: ignore[call-overload]
                while piece := file.read(PIECE):
                    yield piece
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; name an existing text file") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; name a readable text file") from None
        except UnicodeDecodeError:
            offset, value = first_that_is_not_utf8(path)
            raise DataError(
                f"{path} is not UTF-8 (byte 0x{value:02x} at offset {offset:,}): use --level byte, or convert the file"
            ) from None

    def vocabulary(self, limit: int) -> Vocabulary:
        """The symbols of the whole text; at word level its `limit` most frequent words, <eos> and <unk> among them."""
        if self.level == "byte":
            return Bytes()
        if self.level == "char":
            return Characters(sorted(set[str]().union(*map(set, self.pieces()))))
        counts = Counter[str]()
        for piece in self.pieces():
            counts.update(Words.split(piece))
        counts["<unk>"] = max(counts["<unk>"], 1)
        common = [word for word, _ in counts.most_common() if word not in ("<unk>", "<eos>")]
        return Words(["<unk>", "<eos>", *common[: limit - 2]])

    def encode(self, vocabulary: Vocabulary) -> Encoded:
        """Symbol numbers, of the smallest integer type that holds them, and where files end.

        A large text's lie in a temporary file, which the system reads as it is needed and removes with the process.
        """
        dtype = next(t for t in (np.uint8, np.int16, np.int32) if len(vocabulary) <= np.iinfo(t).max + 1)
        counts = [0] * len(self.paths)

        def parts() -> Iterator[np.ndarray]:
            for number, piece in self._pieces():
                part = vocabulary.encode(piece).numpy().astype(dtype)
                counts[number] += len(part)
                yield part

        if sum(path.stat().st_size for path in self.paths if path.is_file()) < LARGE:
            ids = torch.from_numpy(np.concatenate(list(parts())))
            return Encoded(ids, list(accumulate(counts)))
        with tempfile.TemporaryFile() as file:
            for part in parts():
                file.write(part.tobytes())
            file.flush()
            return Encoded(torch.from_numpy(np.memmap(file, dtype, "r+")), list(accumulate(counts)))


def first_that_is_not_utf8(path: Path) -> tuple[int, int]:
    """Where a file stops being UTF-8, and the byte that stands there."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    with open(path, "rb") as file:
        while True:
            held, block = len(decoder.getstate()[0]), file.read(PIECE)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return read - held + error.start, error.object[error.start]
            read += len(block)
