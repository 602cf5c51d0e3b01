"""What a reader could know of a text at each character, and which units of a network keep track of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAIRS = {"(": ")", "[": "]", "{": "}"}
URL = re.compile(r"(?:https?|ftp)://[^\s\"'<>)\]]+|www\.[^\s\"'<>)\]]+")
LINK = re.compile(r"\[\[[^\]\n]+\]\]|\[[^\]\n]+\]\([^)\n]+\)")
QUOTES = ("'", '"')
WITHIN = {
    "'": "inside single quotes", '"': "inside double quotes", "doc": "inside a docstring", "#": "inside a comment"
}  # fmt: skip
SPOKEN = {"(": "round brackets", "[": "square brackets", "{": "braces"}


@dataclass(frozen=True)
class Probe:
    """One thing to know: its value after each character has been read, (N,); truth as 0 and 1, or a number."""

    name: str
    values: Tensor
    binary: bool


def probes(text: str) -> list[Probe]:
    """All that a text gives occasion to know; what never changes in it is left out.

    A character that opens a quotation, a bracket, a link lies inside; the one that closes it no longer does.
    """
    found = [*scanned(text), *patterns(text), *lines(text)]
    return [probe for probe in found if probe.values.min() < probe.values.max()]


def scanned(text: str) -> list[Probe]:
    """Quotes, comments and the depth of each kind of bracket, by one walk through the text.

    Quotes end at their like, or where the line does, but for the tripled ones of Python's docstrings; within a word '
    is an apostrophe. Brackets within quotes and comments do not count, and a blank line closes all that are open.
    Comments as in Python (# ...) and C (// ..., /* ... */).
    """
    within = {kind: torch.zeros(len(text)) for kind in WITHIN}
    depth = {kind: torch.zeros(len(text)) for kind in PAIRS}
    level, ends = dict.fromkeys(PAIRS, 0), {end: kind for kind, end in PAIRS.items()}
    inside, until, i = "", "", 0
    while i < len(text):
        step, here = 1, text[i]
        if inside:
            if here == "\\" and inside != "#":
                step = 2
            elif text.startswith(until, i):
                inside, step = "", len(until)
            elif here == "\n" and inside in QUOTES:
                inside = ""
        elif opened := opening(text, i):
            inside, until, step = opened
        elif text.startswith("\n\n", i):
            level = dict.fromkeys(PAIRS, 0)
        elif here in level:
            level[here] += 1
        elif here in ends:
            level[ends[here]] = max(0, level[ends[here]] - 1)
        reach = slice(i, i + step)
        for kind in WITHIN:
            within[kind][reach] = float(inside == kind)
        for kind, values in depth.items():
            values[reach] = level[kind]
        i += step
    brackets = [Probe(f"inside {SPOKEN[kind]}", (values > 0).float(), True) for kind, values in depth.items()]
    nested = Probe("depth of brackets", torch.stack([*depth.values()]).sum(0), False)
    return [*(Probe(name, within[kind], True) for kind, name in WITHIN.items()), *brackets, nested]


def opening(text: str, i: int) -> tuple[str, str, int] | None:
    """What begins at a character: quote, docstring or comment, what ends it, how long its mark is."""
    here, before = text[i], text[i - 1] if i else "\n"
    for mark in ('"""', "'''"):
        if text.startswith(mark, i):
            return "doc", mark, 3
    if here == '"' or (here == "'" and not before.isalnum()):
        return here, here, 1
    if text.startswith("/*", i):
        return "#", "*/", 2
    if text.startswith("//", i) and before != ":":
        return "#", "\n", 2
    if here == "#" and (before.isspace() or before == "\n"):
        return "#", "\n", 1
    return None


def patterns(text: str) -> list[Probe]:
    """Inside a URL, a Markdown or wiki link."""
    found = []
    for name, pattern in (("inside a URL", URL), ("inside a link", LINK)):
        values = torch.zeros(len(text))
        for match in pattern.finditer(text):
            values[match.start() : match.end() - 1] = 1
        found.append(Probe(name, values, True))
    return found


def lines(text: str) -> list[Probe]:
    """Where in its line a character stands, how far the line is indented, and what kind of character it is."""
    position, indent = torch.zeros(len(text)), torch.zeros(len(text))
    at, deep, leading = 0, 0, True
    for i, here in enumerate(text):
        at += 1
        if here == "\n":
            at, deep, leading = 0, 0, True
        elif leading and here in " \t":
            deep += 1
        else:
            leading = False
        position[i], indent[i] = at, deep
    start = [here.isalnum() and not (text[i - 1].isalnum() if i else False) for i, here in enumerate(text)]
    kinds = {"start of a word": start, "upper case": map(str.isupper, text), "digit": map(str.isdigit, text)}
    counted = [Probe("characters so far in the line", position, False), Probe("indentation", indent, False)]
    return counted + [Probe(name, torch.tensor([*map(float, values)]), True) for name, values in kinds.items()]


@dataclass(frozen=True)
class Tracking:
    """The unit that tracks a probe best: found on one half of a text, measured on the other.

    score: for truth the area under the ROC curve (0.5 a guess, 1 perfect), for numbers |Spearman's rho|.
    `sign` is -1 where the unit is low when the probe is high.
    """

    probe: str
    values: str  # as "layer 1 c"
    unit: int
    score: float
    sign: int
    binary: bool

    @property
    def strength(self) -> float:
        """The score on a scale on which a guess has 0 and what is perfect 1."""
        return 2 * self.score - 1 if self.binary else self.score


LEAST = 10  # of each kind, in each half, or there is no figure


def tracked(text_probes: Sequence[Probe], units: Mapping[str, Tensor]) -> list[Tracking]:
    """For each probe the best of all units, best probes first. Values: (N, H) by name, after each character.

    The unit is chosen by the first half of the text and scored on the second.
    """
    half = len(next(iter(units.values()))) // 2
    able = [p for p in text_probes if both(p, slice(None, half)) and both(p, slice(half, None))]
    best: dict[str, tuple[float, str, int]] = {}
    for name, values in units.items():
        ranked = ranks(values[:half])
        for probe in able:
            strength = association(probe, probe.values[:half], ranked)
            unit = int(strength.abs().argmax())
            best[probe.name] = max(best.get(probe.name, (-1.0, "", 0)), (float(strength[unit].abs()), name, unit))
    found = []
    for probe in able:
        _, name, unit = best[probe.name]
        there = [association(probe, probe.values[part], ranks(units[name][part][:, [unit]]))[0].item()
                 for part in (slice(None, half), slice(half, None))]  # fmt: skip
        sign = 1 if there[0] >= 0 else -1
        score = sign * there[1] / 2 + 0.5 if probe.binary else sign * there[1]
        found.append(Tracking(probe.name, name, unit, score, sign, probe.binary))
    return sorted(found, key=lambda t: t.strength, reverse=True)


def both(probe: Probe, part: slice) -> bool:
    """Whether a part of the text has enough of what the probe tells apart."""
    values = probe.values[part]
    most = torch.unique(values, return_counts=True)[1].max() if len(values) else 0
    return len(values) - int(most) >= LEAST


def ranks(values: Tensor) -> Tensor:
    """The rank of each value in its column, 1 to N, equal values alike at their mean; (N, H) -> (H, N)."""
    ordered, order = values.float().T.contiguous().sort(-1)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    N = ordered.shape[1]
    places = torch.arange(N, dtype=torch.int32).expand_as(ordered)
    first = places.masked_fill(~new, 0).cummax(-1).values
    ends = new.roll(-1, -1)
    ends[:, -1] = True
    last = places.masked_fill(~ends, N).flip(-1).cummin(-1).values.flip(-1)
    mean = (first + last).float() / 2 + 1
    return torch.empty_like(mean).scatter_(-1, order, mean)


def association(probe: Probe, values: Tensor, ranked: Tensor) -> Tensor:
    """How a probe goes with each row of ranks (H, N), -1 to 1, (H,): 2 AUC - 1 for truth, else Spearman's rho.

    Source: Mann, Whitney, "On a test of whether one of two random variables is larger" (1947); Spearman (1904).
    """
    centred = ranked - (ranked.shape[1] + 1) / 2
    if probe.binary:
        ones = values.sum()
        return 2 * (centred @ values) / (ones * (len(values) - ones))
    own = ranks(values[:, None])[0] - (len(values) + 1) / 2
    spread = own.norm() * centred.norm(dim=-1)
    return torch.where(spread > 0, centred @ own / spread.clamp(min=1e-12), 0.0)
