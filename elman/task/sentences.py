"""What there is to see of a tagger: sentences with their tags and how sure each is, and how well each tag is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from elman.data.tagged import Tagged
from elman.task.examples import worst_first
from elman.task.spans import spans

LOOKED = 1000  # sentences that are tagged for a page
SHOWN = 16  # of them
LONGEST = 80  # words of one that are shown


@dataclass(frozen=True)
class Sentence:
    """The first words of a sentence, the tag found for each and its p, and the right tags where they are known."""

    words: tuple[str, ...]
    found: tuple[str, ...]
    p: tuple[float, ...]
    right: tuple[str, ...] | None
    length: int  # of the whole sentence

    @property
    def surest_mistake(self) -> float:
        """The greatest p of a wrong tag; 0 where none is wrong, or none is known to be."""
        return max((p for p, tag, right in zip(self.p, self.found, self.right or ()) if tag != right), default=0.0)


@dataclass(frozen=True)
class Sentences:
    """Some sentences, those with the surest mistakes first, of how many that were tagged, of how many there are."""

    shown: Sequence[Sentence]
    tagged: int
    of: int


@dataclass(frozen=True)
class Rate:
    """How often a tag, or a kind of span, is right, how often it was found, and how often both."""

    name: str
    there: int
    found: int
    both: int


@dataclass(frozen=True)
class Rates:
    """Of each tag, or of each kind of span, those that are there most often first."""

    spans: bool
    each: Sequence[Rate]


def sentence(example: Tagged, log_p: Tensor, labels: Sequence[str]) -> Sentence:
    """What was found, from log_p (T, K)."""
    best = log_p[:LONGEST].exp().max(-1)
    found = tuple(labels[i] for i in best.indices.tolist())
    right = None if example.tags is None else example.tags[:LONGEST]
    return Sentence(example.words[:LONGEST], found, tuple(best.values.tolist()), right, len(example.words))


def tagged_sentences(examples: Sequence[Tagged], each: Sequence[Tensor], labels: Sequence[str], of: int) -> Sentences:
    """Those with the surest mistakes, then some of the others; `each` is log_p (T, K) of each example."""
    made = [sentence(example, log_p, labels) for example, log_p in zip(examples, each)]
    wrong = sorted((s for s in made if s.surest_mistake), key=lambda s: -s.surest_mistake)
    return Sentences(worst_first(wrong, [s for s in made if not s.surest_mistake], SHOWN), len(made), of)


def ordered(rates: Iterable[Rate]) -> list[Rate]:
    """Those that are there or were found, the most frequent first."""
    return sorted((rate for rate in rates if rate.there or rate.found), key=lambda r: (-r.there, -r.found, r.name))


def tag_rates(labels: Sequence[str], counts: Tensor) -> Rates:
    """From how often each tag (row) was taken for which (column), (K, K)."""
    figures = zip(labels, *(part.tolist() for part in (counts.sum(1), counts.sum(0), counts.diagonal())))
    return Rates(False, ordered(Rate(*row) for row in figures))


def span_rates(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> Rates:
    """Of whole spans, from the B-, I- and O tags of sentences."""
    there, said, both = Counter[str](), Counter[str](), Counter[str]()
    for tags, guess in zip(right, found):
        a, b = spans(tags), spans(guess)
        for counter, some in ((there, a), (said, b), (both, a & b)):
            counter.update(span.kind for span in some)
    return Rates(True, ordered(Rate(kind, there[kind], said[kind], both[kind]) for kind in {*there, *said}))
