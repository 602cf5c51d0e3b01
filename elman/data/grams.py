"""The letters of a word, in pieces that words of one family share."""

from __future__ import annotations

import zlib
from functools import lru_cache

SIZES = (3, 4, 5)


@lru_cache(maxsize=1 << 18)
def grams(word: str, buckets: int) -> tuple[int, ...]:
    """The numbers, from 1 to `buckets`, of a word's n-grams of 3 to 5 characters, its beginning and end marked.

    A gram's number is a checksum (CRC-32) of its letters, so that no list of grams need be kept; grams may share one.
    Source: Bojanowski, Grave, Joulin, Mikolov, "Enriching word vectors with subword information" (2017).
    """
    marked = f"<{word}>"
    pieces = (marked[i : i + n] for n in SIZES for i in range(len(marked) - n + 1))
    return tuple(zlib.crc32(piece.encode(errors="replace")) % buckets + 1 for piece in pieces)
