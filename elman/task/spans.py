"""Spans in B-, I- and O tags, and their F1, as conlleval counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Words from first to before end, of a kind."""

    kind: str
    first: int
    end: int


def is_bio(labels: Iterable[str]) -> bool:
    """Whether labels are O, B-KIND and I-KIND only, at least one of these."""
    named = set(labels) - {"O"}
    return bool(named) and all(label[:2] in ("B-", "I-") and len(label) > 2 for label in named)


def spans(tags: Sequence[str]) -> set[Span]:
    """The spans of a sentence. One begins at B-, and at an I- that follows O, or a word of another kind.

    Source: conlleval, the scorer of the CoNLL-2000 shared task (Tjong Kim Sang, Buchholz, 2000).
    """
    found: set[Span] = set()
    kind, first = "", 0
    for i, tag in enumerate([*tags, "O"]):
        here = tag[2:]  # empty for O
        if kind and (here != kind or tag.startswith("B-")):
            found.add(Span(kind, first, i))
        if here and (here != kind or tag.startswith("B-")):
            first = i
        kind = here
    return found


def span_f1(right: Iterable[Sequence[str]], found: Iterable[Sequence[str]]) -> tuple[float, float, float]:
    """F1, precision and recall of exact spans over sentences; 0 where there are none to divide by."""
    both = there = said = 0
    for tags, guess in zip(right, found):
        a, b = spans(tags), spans(guess)
        both, there, said = both + len(a & b), there + len(a), said + len(b)
    return 2 * both / max(there + said, 1), both / max(said, 1), both / max(there, 1)
