"""A translation, and what each of its pieces looks at, to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from torch import Tensor

from elman.data.pieces import SPACE, joined

SHADES = " ░▒▓█"
SHOWN = 12  # translations on a page


class Translation(NamedTuple):
    """What a model made of a text."""

    text: str
    source: list[str]  # pieces
    target: list[str]
    attention: Tensor  # (T, S): how much each piece of the target looks at each of the source
    log_p: float  # nats

    @property
    def attended(self) -> list[int]:
        """For each piece of the target the place of that in the source which it looks at most."""
        return self.attention.argmax(-1).tolist() if self.source else []


@dataclass(frozen=True)
class Alignments:
    """Some texts, their translations, what would be right where that is known; and of how many they are some."""

    sources: Sequence[str]
    made: Sequence[Translation]
    right: Sequence[str | None]
    of: int


def answer(text: str, found: Translation) -> dict[str, Any]:
    """A translation for JSON; nothing is the translation of nothing."""
    if not found.source:
        return {"input": text, "score": 0.0, "source": [], "target": [], "attended": [], "alignment": "", "text": ""}
    pairs = [f"{bare(piece)}<{bare(found.source[s])}" for piece, s in zip(found.target, found.attended)]
    return {
        "input": text,
        "score": round(found.log_p, 4),
        "source": found.source,
        "target": found.target,
        "attended": found.attended,
        "alignment": " ".join(pairs),
        "text": found.text,
    }


def drawn(found: Translation) -> list[str]:
    """The attention as lines: a row for each piece of the target, under the source's pieces, which run downwards."""
    rows = [bare(piece) for piece in found.target]
    margin = max(map(len, rows), default=0)
    head = zip_longest(*map(bare, found.source), fillvalue=" ")
    lines = [" " * margin + " " + "".join(letters) for letters in head]
    for piece, weights in zip(rows, found.attention.tolist()):
        lines.append(f"{piece:>{margin}} " + "".join(SHADES[min(4, int(5 * w))] for w in weights))
    return [line.rstrip() for line in lines]


def bare(piece: str) -> str:
    """A piece as people read it."""
    return piece.replace(SPACE, "").strip() or "_"


def shown(found: Translation) -> str:
    """Source and translation on one line."""
    return f"{joined(found.source)} -> {found.text}"
